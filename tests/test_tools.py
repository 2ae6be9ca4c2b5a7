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


def printed(*texts):
    return [new_output("stream", name="stdout", text=text) for text in texts]


@pytest.fixture
def run(tmp_path):
    """A notebook without outputs, and a run of it as papermill and Studio leave it."""
    cells = [new_markdown_cell("# Small"), tagged("definition", "print(1)\nprint(2)")]
    notebook = written(tmp_path / "small.ipynb", cells, widgets={"a": 1})
    node = nbformat.read(notebook, as_version=4)
    node.cells[1].outputs = printed("1\n", "2\n")
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
    assert node.cells[1].outputs == printed("1\n2\n")
    assert node.cells[1].execution_count == 1
    assert [cell.metadata for cell in node.cells] == [{}, {"tags": ["definition"]}]
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

| one | two |
|---|---|
| 1 | 2 |

## What $Q$ means
"""


@pytest.fixture
def soup(tmp_path):
    """The page of a small notebook with formulas, a table, printed text, a picture."""
    picture = new_output(
        "display_data",
        data={"image/png": base64.b64encode(png("red")).decode()},
        metadata={"image/png": {"alt": "A red square."}},
    )
    code = new_code_cell("show()", outputs=[*printed("<b>text</b>"), picture])
    notebook = written(tmp_path / "small.ipynb", [new_markdown_cell(PROSE), code])
    export(notebook, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


def test_a_page_is_made_of_prose_code_and_outputs(soup):
    assert soup.title.text.startswith("Small") and soup.html["lang"]
    assert [image["alt"] for image in soup.find_all("img")] == ["A red square."]
    assert "<b>text</b>" in soup.get_text(), "printed text is not markup"
    assert soup.find_all("script") == []


def test_formulas_and_tables_of_a_page_can_be_read_without_a_mouse(soup):
    inline, block, heading = soup.find_all("math")
    assert (inline["alttext"], inline["display"]) == ("a' < b", "inline")
    assert (block["display"], block["tabindex"]) == ("block", "0")
    assert block.find("munder").mo.text == "max"
    assert heading.parent.name == "h2" and heading.mi.text == "Q"
    assert soup.table.parent["tabindex"] == "0" and soup.table.parent["aria-label"]
