"""The tools, each on a small notebook."""

import json
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbconvert.exporters import ScriptExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from notebooks.dqn_helpers import cart
from tests.helpers import made_up
from tools.load_definitions import ROOT, load
from tools.recording import is_over, lose_and_keep
from tools.refresh_notebook import code_hash, refresh


def tagged(tag, source):
    return new_code_cell(source, metadata={"tags": [tag]})


LESSON = [
    new_markdown_cell("# Small"),
    new_code_cell("raise RuntimeError('cells without a tag do not run')"),
    tagged("definition", "import math\nprint('noise')"),
    tagged("parameters", "SEED = 0\nSIZE = 3"),
    tagged("definition", "TWICE = 2 * SIZE\ndef area():\n    return SIZE**2"),
    tagged("exercise", "raise RuntimeError('exercises do not run')"),
    new_code_cell("def never():\n    pass"),
]


@pytest.fixture
def lesson_path(tmp_path):
    nbformat.write(new_notebook(cells=LESSON), tmp_path / "lesson.ipynb")
    return tmp_path / "lesson.ipynb"


def test_tagged_cells_are_loaded_whole_and_no_others(lesson_path, capsys):
    names = load(lesson_path)
    assert (names.SEED, names.SIZE, names.TWICE, names.area()) == (0, 3, 6, 9)
    assert names.math.pi > 3 and not hasattr(names, "never")
    assert capsys.readouterr().out == ""


def test_parameters_are_replaced_before_they_are_used(lesson_path):
    names = load(lesson_path, SIZE=5)
    assert (names.SEED, names.SIZE, names.TWICE, names.area()) == (0, 5, 10, 25)
    with pytest.raises(ValueError, match="TWICE"):
        load(lesson_path, TWICE=1)


# ---------- a refreshed notebook ----------


def curve(*means):
    """A run with tiny networks."""
    shapes = {"scale": 4, "layer1.weight": (3, 4), "layer1.bias": 3}
    shapes |= {"layer2.weight": (3, 3), "layer2.bias": 3}
    shapes |= {"layer3.weight": (2, 3), "layer3.bias": 2}
    weights = {name: torch.ones(shape) for name, shape in shapes.items()}
    run = made_up(*means)
    for evaluation in run.evaluations:
        evaluation.network = SimpleNamespace(state_dict=lambda: weights)
    return run


CARTS = [
    cart.LiveCart({"mode": "preview"}, "old still", "An old preview."),
    cart.live_cart(
        curves={"plain DQN": curve(9, 500, 20, 9), "careful": curve(9, 500)}
    ),
]


def shown(output):
    data, metadata = output._repr_mimebundle_()
    return new_output("display_data", data=data, metadata=metadata)


def printed(*texts):
    return [new_output("stream", name="stdout", text=text) for text in texts]


@pytest.fixture
def run(tmp_path):
    """A notebook with its helpers, and a run of it as papermill and Studio leave it."""
    sources = ["preview()", "SEED = 3", "live_cart()", "print(1)\nprint(2)"]
    cells = [new_markdown_cell("# Small"), *map(new_code_cell, sources)]
    cells[2].metadata = {"tags": ["parameters"], "gather": {"logged": 1}}
    node = new_notebook(cells=cells, metadata={"widgets": {"a": 1}})
    paths = SimpleNamespace(
        notebook=tmp_path / "small.ipynb",
        executed=tmp_path / "executed.ipynb",
        helpers=tmp_path / "dqn_helpers",
        images=tmp_path / "images",
    )
    paths.helpers.mkdir()
    paths.images.mkdir()
    (paths.helpers / "code.js").write_text("old")
    nbformat.write(node, paths.notebook)
    node.cells[1].outputs = [shown(CARTS[0])]
    node.cells[3].outputs = [shown(CARTS[1])]
    markup = new_output("display_data", data={"text/html": "x"})
    node.cells[4].outputs = [*printed("1\n", "2\n"), markup]
    for count, cell in enumerate(node.cells[1:], 1):
        cell.execution_count = count
        cell.metadata.papermill = {"duration": 0.5}
    node.metadata.kernelspec = {"name": "python38-azureml-pt-tf", "display_name": "x"}
    nbformat.write(node, paths.executed)
    return paths


def refreshed(run):
    refresh(run.executed, run.notebook, run.images)
    return nbformat.read(run.notebook, as_version=4)


def test_a_refreshed_notebook_has_the_outputs_of_the_run_and_nothing_else(run):
    node = refreshed(run)
    recording = json.loads((run.helpers / "recorded.json").read_text("utf-8"))
    (preview,) = node.cells[1].outputs
    stills = {"image/png": recording["still"], "text/plain": recording["alt"]}
    assert preview.data == stills, "the first picture is of the new recording"
    assert preview.metadata == {"image/png": {"alt": recording["alt"]}}
    (live,) = node.cells[3].outputs
    assert live.data == {"image/png": CARTS[1].still, "text/plain": CARTS[1].alt}
    text, markup = node.cells[4].outputs
    assert [text] == printed("1\n2\n")
    assert markup.data["text/html"] == "x", "HTML without a still stays"
    assert [cell.metadata for cell in node.cells].count({}) == 4
    assert node.cells[2].metadata == {"tags": ["parameters"]}
    assert node.cells[4].execution_count == 4
    assert node.metadata.kernelspec.name == "python3" and "widgets" not in node.metadata
    code, _ = ScriptExporter().from_filename(str(run.notebook))
    assert "print(1)" in code


def test_a_recording_is_made_of_the_run(run):
    refreshed(run)
    recorded = json.loads((run.helpers / "recorded.json").read_text("utf-8"))["cart"]
    assert "seed 3" in recorded["note"]
    points = [curve["points"] for curve in recorded["curves"]]
    means = [[point["mean"] for point in run] for run in points]
    assert means == [[9, 500, 20, 9], [9, 500]]
    for name in ("agent.png", "collapse_and_cure.png"):
        assert Image.open(run.images / name).width == 840


def test_outputs_of_other_code_are_refused_and_nothing_changes(run):
    node = nbformat.read(run.executed, as_version=4)
    node.cells[4].source = "print(1)\nprint(3)"
    nbformat.write(node, run.executed)
    before = run.notebook.read_bytes()
    with pytest.raises(SystemExit, match="not executed from"):
        refreshed(run)
    assert run.notebook.read_bytes() == before
    assert not list(run.images.iterdir())


def test_outputs_are_tied_to_the_code_of_the_helpers_and_not_to_the_recording(run):
    node = refreshed(run)  # which writes a recording
    code = node.metadata.outputs_of_code
    assert code_hash(node.cells, run.helpers) == code
    (run.helpers / "code.js").write_text("new")
    assert code_hash(node.cells, run.helpers) != code


def test_the_readme_shows_one_cart_lost_and_one_that_comes_back():
    recorded = json.loads(cart.RECORDING.read_text(encoding="utf-8"))["cart"]
    (driving, lost), (_, kept) = lose_and_keep(recorded)
    later = next(n for n, dot in enumerate(driving) if dot is not driving[0])
    assert not is_over(lost[later - 1]) and is_over(lost[-1])
    places = [abs(state[0]) for state in kept]
    assert not is_over(kept[-1]) and places[-1] < max(places) / 2
    film = Image.open(ROOT / "images" / "agent.png")
    assert film.info["loop"] == 1 and film.n_frames * film.info["duration"] <= 5000
