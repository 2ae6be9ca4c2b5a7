"""The HTML page of the committed notebook: everybody can read it, without a network."""

import re
from importlib.resources import files

import pytest
from bs4 import BeautifulSoup

from tests.helpers import pictures_of, prose
from tools import load_definitions as loader
from tools.export_html import export


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The path of the page."""
    path = tmp_path_factory.mktemp("html") / "page.html"
    export(loader.NOTEBOOK, path)
    return path


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
    assert soup.find_all("script") == []


def test_every_picture_has_its_alternative_text(soup, committed):
    texts = [alt for _, alt in pictures_of(committed)]
    assert [image["alt"] for image in soup.find_all("img")] == texts
    assert all(len(alt.split()) >= 4 for alt in texts)


def test_every_formula_is_drawn(soup, committed):
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", prose(committed))
    written = re.findall(r"(?s)\$\$.+?\$\$|\$[^$]+\$", text)
    assert len(soup.find_all("math")) == len(written) > 0


def test_links_within_the_page_lead_somewhere(soup):
    links = soup.find_all("a", href=re.compile("^#"))
    names = {element["id"] for element in soup.find_all(id=True)}
    assert {link["href"][1:] for link in links} <= names
    assert soup.title.text.strip() == soup.h1.find(string=True).strip()


LOADED = "all => all.every(image => image.complete && image.naturalWidth > 0)"
RULES = [
    "color-contrast",
    "document-title",
    "empty-heading",
    "heading-order",
    "html-has-lang",
    "image-alt",
    "link-name",
    "page-has-heading-one",
    "scrollable-region-focusable",
]


@pytest.fixture(params=["light", "dark"])
def opened(request, browser, page):
    """The page in a browser, in a narrow window."""
    size = {"width": 800, "height": 900}
    opened = browser.new_page(viewport=size, color_scheme=request.param)
    opened.goto(page.as_uri())
    yield opened
    opened.close()


@pytest.mark.full
def test_the_page_fits_a_narrow_window(opened):
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert opened.evaluate(wide) <= 0, "the page scrolls sideways"
    assert opened.locator("img").evaluate_all(LOADED)


@pytest.mark.full
def test_contrast_texts_and_headings_pass_axe(opened):
    axe = files("axe_playwright_python") / "axe.min.js"
    opened.evaluate(axe.read_text(encoding="utf-8"))
    found = opened.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    for violation in found["violations"]:
        nodes = [node["html"] for node in violation["nodes"]]
        pytest.fail(f"{violation['help']}: {nodes[:5]}")
    passed = {rule["id"] for rule in found["passes"]}
    assert {"color-contrast", "heading-order"} <= passed
