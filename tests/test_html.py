"""The HTML page that `make html` writes: it stands alone and everybody can read it."""

import itertools
import re
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium
from bs4 import BeautifulSoup
from conftest import prose

import lesson as loader

pytestmark = pytest.mark.run

SCRIPT = loader.ROOT / "tools" / "to_html.py"
WINDOWS = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 375, "height": 800}, "color_scheme": "light"},
}
# axe takes a header cell that holds a formula alone for empty, because it does not read MathML.
NOT_ON = {
    "light": ["empty-table-header"],
    "dark": ["empty-table-header"],
    "phone": ["empty-table-header", "color-contrast"],  # slow; the colours are those of "light"
}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The committed notebook, exported."""
    folder = tmp_path_factory.mktemp("html")
    subprocess.run([sys.executable, SCRIPT, loader.NOTEBOOK, folder], check=True)
    return folder / loader.NOTEBOOK.with_suffix(".html").name


@pytest.fixture(scope="module")
def soup(page_file):
    """The page, parsed."""
    return BeautifulSoup(page_file.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def browser():
    """A browser for this module."""
    with chromium() as started:
        yield started


def test_make_html_exports_with_this_script():
    makefile = (loader.ROOT / "Makefile").read_text()
    assert re.search(rf"^TO_HTML := .*{SCRIPT.relative_to(loader.ROOT)}$", makefile, re.M)
    assert len(re.findall(r"^\t\$\(TO_HTML\) ", makefile, re.M)) == 2, "of `run` and `html`"


def test_the_page_is_small_and_says_what_it_is(page_file, soup):
    assert page_file.stat().st_size < 5_000_000
    assert soup.html["lang"] == "en"
    assert soup.title.text == soup.h1.text != ""
    assert len(soup.find_all("h1")) == 1


def test_headings_do_not_skip_a_level(soup):
    levels = [int(heading.name[1]) for heading in soup.find_all(re.compile(r"^h\d$"))]
    assert levels[0] == 1 and len(levels) > 20
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_links_within_the_page_lead_somewhere(soup):
    names = [element["id"] for element in soup.find_all(id=True)]
    assert len(names) == len(set(names))
    links = [a["href"] for a in soup.find_all("a", href=True)]
    inner = [link[1:] for link in links if link.startswith("#")]
    assert len(inner) > 15 and set(inner) <= set(names)
    assert all(link.startswith(("#", "http://", "https://")) for link in links)


def test_all_formulas_are_mathml(soup, committed):
    formulas = soup.find_all("math")
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", prose(committed))
    written = re.findall(r"(?s)\$\$.+?\$\$|\$[^$]+\$", text)
    assert len(formulas) >= len(written) > 40
    assert "\\" not in "".join(formula.text for formula in formulas), "an unknown command"
    for variant in soup.find_all(attrs={"mathvariant": True}):
        assert variant["mathvariant"] == "normal", f"browsers ignore this: {variant}"
    texts = soup.main.find_all(string=re.compile(r"\$"))
    assert all(text.find_parent(["code", "pre"]) for text in texts), "a formula was overlooked"


def test_every_picture_has_a_text_and_is_in_the_page(soup, committed):
    pictures = soup.find_all("img")
    outputs = [o for cell in committed["cells"] for o in cell.get("outputs", [])]
    assert len(pictures) == 1 + sum("image/png" in o.get("data", {}) for o in outputs)
    assert all(len(picture["alt"]) > 20 for picture in pictures)
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)


def test_every_table_has_words_in_its_headers(soup):
    headers = soup.find_all("th")
    assert headers and all(header.text.strip() for header in headers)


@pytest.mark.parametrize("window", WINDOWS)
def test_anybody_can_read_it(browser, page_file, window):
    page = browser.new_page(**WINDOWS[window])
    outside = []
    page.route(
        lambda url: not url.startswith(("file:", "data:")),
        lambda route: (outside.append(route.request.url), route.abort()),
    )
    page.goto(page_file.as_uri())
    assert outside == []
    rules = {name: {"enabled": False} for name in NOT_ON[window]}
    found = Axe().run(page, options={"rules": rules, "resultTypes": ["violations"]}).response
    assert found["passes"]
    problems = [
        (rule["id"], node["html"][:200]) for rule in found["violations"] for node in rule["nodes"]
    ]
    assert problems == []
    loaded = "all => all.every(image => image.complete && image.naturalWidth > 0)"
    assert page.locator("img").evaluate_all(loaded)
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page scrolls sideways"
    page.close()


def test_in_print_no_code_or_picture_is_cut(browser, page_file):
    page = browser.new_page(viewport={"width": 680, "height": 1000})  # A4 without its margins
    page.emulate_media(media="print")
    page.goto(page_file.as_uri())
    cells = page.locator("pre, img, table")
    broken = cells.evaluate_all(
        """all => all.filter(element => {
          const box = element.getBoundingClientRect();
          return box.right > innerWidth || (element.tagName != 'TABLE' && box.height > 1000);
        }).map(element => element.outerHTML.slice(0, 200))"""
    )
    assert broken == []
    whole = page.locator(".code, img").evaluate_all(
        "all => all.map(element => getComputedStyle(element).breakInside)"
    )
    assert set(whole) == {"avoid"}
    page.close()
