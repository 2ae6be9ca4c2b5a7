"""The tools, each on a small notebook."""

import base64
import io
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tests.helpers import execute
from tools.export_html import export
from tools.load_definitions import load
from tools.refresh_notebook import PICTURES, refresh


def tagged(tag, source):
    return new_code_cell(source, metadata={"tags": [tag]})


def written(path, cells, **metadata):
    """A notebook of these cells, written to `path`."""
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


LESSON = [
    new_markdown_cell("# Small"),
    new_code_cell("raise RuntimeError('cells without a tag do not run')"),
    tagged("definition", "import math\nprint('noise')"),
    tagged("parameters", "SEED = 0\nSIZE = 3"),
    tagged("definition", "TWICE = 2 * SIZE\ndef area():\n    return SIZE**2"),
    tagged("exercise", "raise RuntimeError('exercises do not run')"),
    new_code_cell("def never():\n    pass"),
]


def test_tagged_cells_are_loaded_whole_and_no_others(tmp_path, capsys):
    names = load(written(tmp_path / "lesson.ipynb", LESSON))
    assert (names.SEED, names.SIZE, names.TWICE, names.area()) == (0, 3, 6, 9)
    assert names.math.pi > 3 and not hasattr(names, "never")
    assert capsys.readouterr().out == ""


def test_parameters_are_replaced_before_they_are_used(tmp_path):
    path = written(tmp_path / "lesson.ipynb", LESSON)
    names = load(path, SIZE=5)
    assert (names.SEED, names.SIZE, names.TWICE, names.area()) == (0, 5, 10, 25)
    with pytest.raises(ValueError, match="TWICE"):
        load(path, TWICE=1)


def png(colour):
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "png")
    return file.getvalue()


FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}
STILL = base64.b64encode(png("red")).decode()
SCRIPT = 'if (1 < 2 && true) document.title = "alive";'
CART = f"""<div class="live-cart" data-names="[&quot;a &lt; b&quot;]">
<img src="data:image/png;base64,{STILL}" alt="A cart."></div>
<script data-live-cart>{SCRIPT}</script>"""
FOREIGN = f"""<p>foreign</p>
<script>document.title = "foreign";</script>
<script src="https://example.org/a.js"></script>
<script data-live-cart>document.title = "disguised";</script>
<script data-live-cart src="https://example.org/a.js">{SCRIPT}</script>"""


def shown(markup=None, still=None):
    """An output with HTML, with a picture, or with both."""
    data = {"text/plain": "cart"}
    metadata = {"display_id": "1"}
    if markup:
        data["text/html"] = markup
    if still:
        data["image/png"] = still
        metadata["image/png"] = {"alt": "A cart."}
    return new_output("display_data", data=data, metadata=metadata)


def printed(*texts):
    return [new_output("stream", name="stdout", text=text) for text in texts]


@pytest.fixture
def run(tmp_path):
    """A notebook without outputs, and a run of it as papermill and Studio leave it."""
    metadata = {**FOLDED, "tags": ["definition"], "gather": {"logged": 1}}
    code = new_code_cell("print(1)\nprint(2)", metadata=metadata)
    cells = [new_markdown_cell("# Small"), code]
    notebook = written(tmp_path / "small.ipynb", cells, widgets={"a": 1})
    node = nbformat.read(notebook, as_version=4)
    node.cells[1].outputs = [*printed("1\n", "2\n"), shown(CART, STILL), shown("x")]
    node.cells[1].execution_count = 1
    node.cells[1].metadata.papermill = {"duration": 0.5}
    node.metadata.kernelspec = {"name": "python38-azureml-pt-tf", "display_name": "x"}
    nbformat.write(node, tmp_path / "executed.ipynb")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "images").mkdir()
    for name in PICTURES:
        (tmp_path / "outputs" / name).write_bytes(png("red"))
        (tmp_path / "images" / name).write_bytes(png("blue"))
    return tmp_path


def refreshed(run):
    refresh(
        run / "executed.ipynb", run / "outputs", run / "small.ipynb", run / "images"
    )
    return nbformat.read(run / "small.ipynb", as_version=4)


def test_a_refreshed_notebook_has_the_outputs_of_the_run_and_nothing_else(run):
    node = refreshed(run)
    text, cart, markup = node.cells[1].outputs
    assert [text] == printed("1\n2\n")
    assert set(cart.data) == {"image/png", "text/plain"}, "the still is enough"
    assert cart.metadata == {"image/png": {"alt": "A cart."}}
    assert markup.data["text/html"] == "x", "HTML without a still stays"
    assert node.cells[1].execution_count == 1
    assert node.cells[1].metadata == {**FOLDED, "tags": ["definition"]}
    assert node.cells[0].metadata == {}
    assert node.metadata.kernelspec.name == "python3"
    expected = {"kernelspec", "language_info", "outputs_of_code"}
    assert set(node.metadata) == expected
    for name in PICTURES:
        assert (run / "images" / name).read_bytes() == png("red")


def test_a_refreshed_notebook_is_known_to_be_python(run):
    refreshed(run)
    command = [sys.executable, "-m", "nbconvert", "--to", "script", "small.ipynb"]
    done = execute(command, run)
    assert done.code == 0, done.text
    assert "print(1)" in (run / "small.py").read_text(encoding="utf-8")


def test_outputs_of_other_code_are_refused_and_nothing_changes(run):
    node = nbformat.read(run / "executed.ipynb", as_version=4)
    node.cells[1].source = "print(1)\nprint(3)"
    nbformat.write(node, run / "executed.ipynb")
    before = (run / "small.ipynb").read_bytes()
    with pytest.raises(SystemExit, match="not executed from"):
        refreshed(run)
    assert (run / "small.ipynb").read_bytes() == before
    assert (run / "images" / PICTURES[0]).read_bytes() == png("blue")


PROSE = r"""# Small *title*

A formula $a' < b$, and one on its own line:

$$\max_{a} Q(s, a)$$

| | two |
|---|---|
| 1 | 2 |

## 1 What $Q$ means
"""


@pytest.fixture(scope="module")
def soup(tmp_path_factory):
    """The page of a small notebook with all kinds of cells, and foreign scripts."""
    helper = f"# @title A helper\nCART_SCRIPT = {SCRIPT!r}\nprint('<b>text</b>')"
    cells = [
        new_markdown_cell(PROSE),
        new_code_cell(helper, metadata=FOLDED, outputs=printed("<b>text</b>")),
        new_code_cell("show()", outputs=[shown(still=STILL)]),
        new_markdown_cell("## 2 The cart"),
        new_code_cell("live_cart()", outputs=[shown(CART, STILL), shown(FOREIGN)]),
    ]
    folder = tmp_path_factory.mktemp("page")
    export(written(folder / "small.ipynb", cells), folder / "page.html")
    text = (folder / "page.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


def test_a_page_is_made_of_prose_code_and_outputs(soup):
    assert soup.title.text.startswith("Small") and soup.html["lang"]
    assert [image["alt"] for image in soup.find_all("img")] == ["A cart."] * 2
    assert "<b>text</b>" in soup.get_text(), "printed text is not markup"


def test_formulas_and_tables_of_a_page_can_be_read_without_a_mouse(soup):
    inline, block, heading = soup.select("math:not(nav math)")
    assert (inline["alttext"], inline["display"]) == ("a' < b", "inline")
    assert (block["display"], block["tabindex"]) == ("block", "0")
    assert block.find("munder").mo.text == "max"
    assert heading.parent.name == "h2" and heading.mi.text == "Q"
    assert soup.table.parent["tabindex"] == "0" and soup.table.parent["aria-label"]
    assert [header.text for header in soup.find_all("th")] == ["two"]


def test_the_contents_of_a_page_lead_to_its_sections(soup):
    links = soup.nav.find_all("a")
    sections = [soup.find(id=link["href"][1:]) for link in links]
    assert sections == soup.find_all("h2") and len(links) == 2
    assert links[0].mi.text == "Q", "with the formula"


def test_the_code_of_a_helper_is_folded_and_its_output_is_not(soup):
    (folded,) = soup.find_all("details")
    assert folded.summary.text == "A helper" and not folded.has_attr("open")
    assert "CART_SCRIPT" in folded.text and "show()" not in folded.text
    assert not folded.select(".jp-OutputArea")


def test_a_page_keeps_the_script_of_the_live_cart_and_no_other(soup):
    (script,) = soup.find_all("script")
    assert script.string == SCRIPT and script.attrs == {"data-live-cart": ""}
    assert soup.select_one(".live-cart")["data-names"] == '["a < b"]'
    assert "foreign" in soup.get_text()
