"""Export a notebook as a page that needs no network.

python -m tools.export_html NOTEBOOK PAGE
"""

import copy
import html
import re
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbconvert.exporters import html as exporter
from nbconvert.filters.markdown_mistune import IPythonRenderer

from notebooks.dqn_helpers import cart

STYLE = Path(__file__).with_name("page.css")

# nbconvert's dark theme sets variables only, so it may follow the light one.
DARK_THEME = "static/theme-dark.css"
DARK = "@media screen and (prefers-color-scheme: dark) {{\n{}\n}}"

# A table that is wider than the window scrolls, also by the keyboard.
SCROLLS = {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"}

# The live cart writes <script data-live-cart>.
CART_MARK = {"data-live-cart": ""}

# HTML needs no namespace, and with it nbconvert spoils the formulas in headings.
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'

# What latex2mathml writes less well than it could: the size of a prime, and the
# place of what stands below a maximum.
PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>")
PRIME_BELOW = re.compile(
    r"<msubsup>(<mi>[^<]*</mi>)(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msubsup>"
)
BELOW = re.compile(r"<msub>(<mo)>(\w+</mo><m.*?)</msub>")


def mathml(formula, display):
    """Return a LaTeX formula as MathML, which browsers draw and screen readers read."""
    code = convert(formula, display=display).replace(NAMESPACE, "")
    code = PRIME.sub(r"<mrow>\1<mo>&#x02032;</mo></mrow>", code)
    code = PRIME_BELOW.sub(r"<msub><mrow>\1<mo>&#x02032;</mo></mrow>\2</msub>", code)
    code = BELOW.sub(r'<munder>\1 movablelimits="true">\2</munder>', code)
    attributes = f'alttext="{html.escape(formula)}"'
    if display == "block":
        attributes += ' tabindex="0"'
    return code.replace("<math", f"<math {attributes}", 1)


class Renderer(IPythonRenderer):
    """Renders Markdown with its formulas as MathML."""

    def inline_math(self, body):
        """Return a formula within a line."""
        return mathml(body, "inline")

    def block_math(self, body):
        """Return a formula on a line of its own."""
        return mathml(body, "block")


def html_of(node):
    """Return nbconvert's page of a notebook, with a light and a dark theme."""
    exporter.IPythonRenderer = Renderer
    converter = exporter.HTMLExporter(embed_images=True)
    text, _ = converter.from_notebook_node(node)
    soup = BeautifulSoup(text, "html.parser")
    environment = converter.environment
    theme, _, _ = environment.loader.get_source(environment, DARK_THEME)
    for style in (DARK.format(theme), STYLE.read_text(encoding="utf-8")):
        soup.head.append(soup.new_tag("style", string=style))
    return soup


def contents(soup):
    """Return a list of links to the sections."""
    navigation = soup.new_tag("nav", attrs={"aria-label": "Contents"})
    links = soup.new_tag("ul")
    navigation.append(links)
    for heading in soup.find_all("h2", id=True):
        link = copy.copy(heading)
        link.find("a", class_="anchor-link").decompose()
        link.name = "a"
        link.attrs = {"href": f"#{heading['id']}"}
        item = soup.new_tag("li")
        item.append(link)
        links.append(item)
    return navigation


def drop_scripts(soup):
    """Drop all scripts but the live cart's."""
    for script in soup.find_all("script"):
        if script.attrs != CART_MARK or script.string != cart.SCRIPT:
            script.decompose()


def ease_the_keyboard(soup):
    """Drop nbconvert's stops on the way of the Tab key, and begin with a link."""
    for wrapper in soup.select(".jp-Cell[tabindex], .jp-Cell [class^=jp-][tabindex]"):
        del wrapper["tabindex"]
    first = soup.find("h2", id=True)
    skip = soup.new_tag("a", attrs={"class": "skip", "href": f"#{first['id']}"})
    skip.string = "Skip to section 1"
    soup.body.insert(0, skip)


def alternative_texts(cells):
    """Return the alternative texts of the output pictures; nbconvert drops them."""
    texts = {}
    for cell in cells:
        for output in cell.outputs:
            picture = output.get("data", {}).get("image/png", "").strip()
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if picture and alt:
                texts[picture] = alt
    return texts


def export(notebook, page):
    """Write the notebook as an HTML page."""
    node = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in node.cells if cell.cell_type == "code"]
    soup = html_of(node)
    soup.title.string = soup.h1.find(string=True)
    first = soup.find("h2", id=True).find_parent(class_="jp-Cell")
    first.insert_before(contents(soup))
    drop_scripts(soup)
    ease_the_keyboard(soup)
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs=SCROLLS))
    for header in soup.select("th:empty"):  # the corner of a table heads nothing
        header.name = "td"
    texts = alternative_texts(cells)
    for image in soup.select(".jp-RenderedImage img"):
        picture = image["src"].partition(",")[2].strip()
        image["alt"] = texts.get(picture, image.get("alt", ""))
    Path(page).write_text(str(soup), encoding="utf-8")


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2])
