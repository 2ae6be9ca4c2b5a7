"""Export a notebook as a page that needs no network.

python -m tools.export_html NOTEBOOK PAGE
"""

import html
import re
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbconvert.exporters import html as exporter
from nbconvert.filters.markdown_mistune import IPythonRenderer

STYLE = """
main {
  max-width: 1000px;
  margin: auto;
  --jp-cell-prompt-not-active-opacity: 1;
  --jp-mirror-editor-operator-color: #70c;
  --jp-mirror-editor-comment-color: #266;
}
.highlight .mi, .highlight .mf { color: #060 }
.highlight .ow { color: #70c }
.table, math[display=block] { overflow-x: auto }
main a:link { text-decoration: underline !important }
main table { table-layout: auto !important }
main pre { white-space: pre-wrap !important; overflow-wrap: anywhere }
main img { max-width: 100%; height: auto; break-inside: avoid }
@media (max-width: 900px) {
  main { --jp-code-font-size: 12px }
  [class*=Prompt] { display: none }
}
"""

# A table that is wider than the window scrolls, also by the keyboard.
SCROLLS = {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"}

# HTML needs no namespace, and with it nbconvert spoils the formulas in headings.
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'

# What latex2mathml writes less well than it could: the size of a prime, and the
# place of what stands below a maximum.
PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>")
BELOW = re.compile(r"<msub>(<mo)>(\w+</mo><m.*?)</msub>")


def mathml(formula, display):
    """Return a LaTeX formula as MathML, which browsers draw and screen readers read."""
    code = convert(formula, display=display).replace(NAMESPACE, "")
    code = PRIME.sub(r"<mrow>\1<mo>&#x02032;</mo></mrow>", code)
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


def alternative_texts(notebook):
    """Return the alternative texts of the output pictures; nbconvert drops them."""
    texts = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png", "").strip()
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if picture and alt:
                texts[picture] = alt
    return texts


def export(notebook, page):
    """Write the notebook as an HTML page."""
    exporter.IPythonRenderer = Renderer
    node = nbformat.read(notebook, as_version=4)
    text, _ = exporter.HTMLExporter(embed_images=True).from_notebook_node(node)
    soup = BeautifulSoup(text, "html.parser")
    soup.title.string = soup.h1.find(string=True)
    soup.head.append(soup.new_tag("style", string=STYLE))
    for script in soup.find_all("script"):  # they would come from the network
        script.decompose()
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs=SCROLLS))
    texts = alternative_texts(node)
    for image in soup.select(".jp-OutputArea img"):
        picture = image["src"].partition(",")[2].strip()
        image["alt"] = texts.get(picture, image.get("alt", ""))
    Path(page).write_text(str(soup), encoding="utf-8")


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2])
