"""The page of the lesson: everybody can read it, on any screen, without a network."""

import copy
import re
from importlib.resources import files

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_output

from tests.helpers import code_cells, pictures_of, prose
from tools import load_definitions as loader
from tools.export_html import export


@pytest.fixture(scope="module")
def notebook(committed, lesson):
    """The committed notebook, and at its end a live cart and a foreign script."""
    notebook = copy.deepcopy(committed)
    data, metadata = lesson.live_cart()._repr_mimebundle_()
    foreign = {"text/html": "<script>document.title = 'foreign'</script>"}
    outputs = [
        new_output("display_data", data=data, metadata=metadata),
        new_output("display_data", data=foreign),
    ]
    notebook.cells.append(new_code_cell("live_cart()", outputs=outputs))
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


def test_the_committed_notebook_is_light():
    assert loader.NOTEBOOK.stat().st_size < 1_000_000


def test_every_picture_has_its_alternative_text(soup, notebook):
    texts = [alt for _, alt in pictures_of(notebook)]
    assert [image["alt"] for image in soup.find_all("img")] == texts
    assert all(len(alt.split()) >= 4 for alt in texts)


def test_every_formula_is_drawn(soup, notebook):
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", prose(notebook))
    written = re.findall(r"(?s)\$\$.+?\$\$|\$[^$]+\$", text)
    assert len(soup.select("math:not(nav math)")) == len(written) > 0


def test_the_contents_name_all_sections_and_all_links_lead_somewhere(soup, notebook):
    sections = re.findall(r"(?m)^## (.+)$", prose(notebook))
    assert [link.text for link in soup.nav.find_all("a")] == sections
    links = {link["href"][1:] for link in soup.find_all("a", href=re.compile("^#"))}
    assert links <= {element["id"] for element in soup.find_all(id=True)}


def test_helper_cells_are_folded_under_their_titles(soup, notebook):
    hidden = [
        cell.source
        for cell in code_cells(notebook)
        if cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    titles = [f"# @title {summary.text}" for summary in soup.find_all("summary")]
    assert titles == [source.splitlines()[0] for source in hidden] != []


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
def test_the_page_asks_for_nothing_and_runs_the_live_cart_only(opened):
    assert opened.locator("img").evaluate_all(LOADED)
    opened.locator(".live-cart").last.scroll_into_view_if_needed()
    assert opened.locator(".live-cart").last.locator("button").count() > 0
    assert opened.title() != "foreign"
    known = ("data:", opened.url)
    assert [event for event in opened.events if not event.startswith(known)] == []


@pytest.mark.full
def test_a_helper_is_unfolded_by_keyboard(opened):
    helper = opened.locator("details").first
    code = helper.locator(".highlight")
    assert not code.is_visible()
    helper.locator("summary").focus()
    opened.keyboard.press("Enter")
    assert code.is_visible()


@pytest.mark.full
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_page_fits_a_window_with_its_contents(opened, width):
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate(WIDE) <= 0, "the page scrolls sideways"
    assert opened.locator("img").evaluate_all(INSIDE), "a picture does not fit"
    contents = opened.locator("nav").bounding_box()
    cells = opened.locator("main").bounding_box()
    text = opened.locator("h1 ~ p").first.bounding_box()
    beside = contents["x"] + contents["width"] <= cells["x"]
    above = contents["y"] + contents["height"] <= text["y"]
    assert beside if width > 1200 else above


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
  document.querySelectorAll("details").forEach(helper => { helper.open = true });
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
