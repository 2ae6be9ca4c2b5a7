"""The page of the lesson: everybody can read it, on any screen, without a network."""

import copy
import re
from importlib.resources import files

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from notebooks.dqn_helpers import cart
from tests.helpers import pictures_of, prose
from tools import load_definitions as loader
from tools.export_html import export

PROSE = r"""## 99 What $Q$ means

Primes: $a' < b$, $s'_i$. A formula on its own line:

$$\max_{a} Q(s, a)$$

| | two |
|---|---|
| 1 | 2 |
"""
FOREIGN = f"""<p>foreign</p>
<script>document.title = "foreign";</script>
<script src="https://example.org/a.js"></script>
<script data-live-cart>document.title = "disguised";</script>
<script data-live-cart src="https://example.org/a.js">{cart.SCRIPT}</script>"""


@pytest.fixture(scope="module")
def notebook(committed):
    """The committed notebook, its preview alive, and at its end what may go wrong."""
    notebook = copy.deepcopy(committed)
    data, metadata = cart.preview()._repr_mimebundle_()
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.outputs = [new_output("display_data", data=data, metadata=metadata)]
    foreign = new_output("display_data", data={"text/html": FOREIGN})
    text = new_output("stream", name="stdout", text="<b>text</b>")
    notebook.cells.append(new_markdown_cell(PROSE))
    notebook.cells.append(new_code_cell("foreign()", outputs=[foreign, text]))
    return notebook


@pytest.fixture(scope="module")
def page(notebook, tmp_path_factory):
    """The path of the page."""
    folder = tmp_path_factory.mktemp("html")
    nbformat.write(notebook, folder / "notebook.ipynb")
    export(folder / "notebook.ipynb", folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def soup(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_the_page_needs_no_network(soup):
    for name in ("src", "srcset", "data", "poster"):
        for element in soup.find_all(attrs={name: True}):
            assert element[name].startswith("data:"), element.name
    assert not soup.find_all("link", href=re.compile(r"^(?!data:)"))
    styles = "".join(style.text for style in soup.find_all("style"))
    assert not re.search(r"url\(\s*[\"']?(?!data:|#)|@import", styles)


def test_the_page_keeps_the_script_of_the_live_cart_and_no_other(soup):
    (script,) = soup.find_all("script")
    assert script.string == cart.SCRIPT and script.attrs == {"data-live-cart": ""}
    assert soup.select_one(".live-cart")["data-cart"].startswith("{")
    assert "foreign" in soup.get_text()
    assert "<b>text</b>" in soup.get_text(), "printed text is not markup"


def test_the_committed_notebook_is_light():
    assert loader.NOTEBOOK.stat().st_size < 1_000_000


def test_every_picture_has_its_alternative_text(soup, notebook):
    texts = [alt for _, alt in pictures_of(notebook)]
    assert [image["alt"] for image in soup.find_all("img")] == texts
    assert all(len(alt.split()) >= 4 for alt in texts)


def test_every_formula_is_drawn(soup, notebook):
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", prose(notebook))
    written = re.findall(r"(?s)\$\$.+?\$\$|\$[^$]+\$", text)
    drawn = soup.select("math:not(nav math)")
    assert len(drawn) == len(written) > 0
    heading, prime, both, block = drawn[-4:]
    assert heading.parent.name == "h2" and heading.mi.text == "Q"
    assert (prime["alttext"], prime["display"]) == ("a' < b", "inline")
    assert both.msub.text == "s′i" and not both.find("msubsup"), "the prime is too high"
    assert (block["display"], block["tabindex"]) == ("block", "0")
    assert block.find("munder").mo.text == "max"


def test_the_contents_name_all_sections_and_all_links_lead_somewhere(soup, notebook):
    sections = re.findall(r"(?m)^## (.+)$", prose(notebook))
    links = soup.nav.find_all("a")
    assert len(links) == len(sections) and links[-1].mi.text == "Q"
    for link, section in zip(links[:-1], sections, strict=False):
        assert link.text == section
    links = {link["href"][1:] for link in soup.find_all("a", href=re.compile("^#"))}
    assert links <= {element["id"] for element in soup.find_all(id=True)}


def test_the_tab_key_stops_only_where_there_is_something_to_do(soup):
    stops = soup.select("[tabindex], main a[href], body > a")
    assert stops[0].text == "Skip to section 1"
    assert stops[0]["href"] == soup.nav.a["href"]
    kinds = {stop.name for stop in stops if "table" not in stop.get("class", [])}
    assert kinds <= {"a", "math"}
    for header in soup.find_all("th"):
        assert header.text.strip(), "the corner of a table heads nothing"


@pytest.fixture(scope="module")
def opened(browser, page):
    """The page in a browser, with a list of what it asked for and what went wrong."""
    opened = browser.new_page(viewport={"width": 800, "height": 900})
    opened.events = []
    opened.on("request", lambda request: opened.events.append(request.url))
    opened.on("pageerror", lambda error: opened.events.append(str(error)))
    opened.goto(page.as_uri())
    yield opened
    opened.close()


WIDE = "document.documentElement.scrollWidth - window.innerWidth"
INSIDE = "all => all.every(image => image.getBoundingClientRect().right < innerWidth)"
LOADED = "all => all.every(image => image.complete && image.naturalWidth > 0)"


@pytest.mark.full
def test_the_opening_moves_at_once_and_nothing_is_asked_for(opened):
    opened.wait_for_function(
        "document.querySelector('.live-cart').cart.game.steps > 20"
    )
    assert opened.title() != "foreign"
    assert opened.locator("img").evaluate_all(LOADED)
    known = ("data:", opened.url)
    assert [event for event in opened.events if not event.startswith(known)] == []


@pytest.mark.full
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_page_fits_a_window_with_its_contents(opened, width):
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate(WIDE) <= 0, "the page scrolls sideways"
    assert opened.locator("img").evaluate_all(INSIDE), "a picture does not fit"
    contents = opened.locator("nav").bounding_box()
    opening = opened.locator(".live-cart").first.bounding_box()
    curve = opened.locator(".curve").first.bounding_box()
    assert curve["y"] + curve["height"] < 900, "the opening is not on the first screen"
    beside = contents["x"] + contents["width"] <= opening["x"]
    below = contents["y"] >= opening["y"] + opening["height"]
    assert beside if width > 1200 else below


@pytest.mark.full
def test_the_page_is_dark_on_a_dark_screen_and_never_on_paper(opened):
    background = "getComputedStyle(document.body).backgroundColor"
    opened.emulate_media(color_scheme="dark")
    assert opened.evaluate(background) != "rgb(255, 255, 255)"
    opened.emulate_media(media="print")
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    position = "getComputedStyle(document.querySelector('nav')).position"
    assert opened.evaluate(position) == "static", "the contents stand on each sheet"
    opened.emulate_media(media="screen", color_scheme="light")


# One word of code in each colour is enough; thousands would take axe a minute.
THIN_OUT = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight span")) {
    if (seen.has(word.className)) word.replaceWith(word.textContent);
    seen.add(word.className);
  }
}"""


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_the_page(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 390, "height": 900})
    opened.evaluate(THIN_OUT)
    axe = files("axe_playwright_python") / "axe.min.js"
    opened.evaluate(axe.read_text(encoding="utf-8"))
    found = opened.evaluate("axe.run({resultTypes: ['violations']})")
    for violation in found["violations"]:
        nodes = [node["html"] for node in violation["nodes"]]
        pytest.fail(f"{violation['help']}: {nodes[:5]}")
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
