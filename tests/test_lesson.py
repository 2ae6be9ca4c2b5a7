"""The notebook as a whole: its form, two executed runs, exercises, what takes long."""

import ast
import base64
import io
import json
import os
import re
import sys
from collections import Counter
from functools import partial
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.helpers import (
    MACHINE_PATH,
    check_outputs,
    code_cells,
    edited,
    execute,
    jupyterlab,
    papermill,
    pictures_of,
    prose,
    text_of,
)
from tools import load_definitions as loader
from tools.refresh_notebook import METADATA, code_hash

FILES = {"metrics.json", "durations.csv", "evaluations.csv", "model.pt"}
FILES |= {"agent.png", "collapse_and_cure.png", "learning_curve.png"}
SHORT = {"SEED": 3, "MAX_STEPS": 600, "EVAL_EVERY": 100}
LONG = [pytest.mark.full, pytest.mark.timeout(900)]


# The committed notebook.


def test_outputs_are_clean_and_belong_to_the_code(committed):
    expected = {**METADATA, "outputs_of_code": code_hash(committed.cells)}
    assert committed.metadata == expected, "make notebook"
    check_outputs(committed)
    assert not MACHINE_PATH.search(prose(committed))
    assert loader.NOTEBOOK.stat().st_size < 1_000_000


FOLDED = {
    "Imports",
    "Pictures and tables",
    "Picture: agent and environment",
    "Films",
    "The live cart",
    "Evaluate",
    "Picture: the whole algorithm",
    "Settings",
    "The results folder and all checks",
    "Connect to MLflow, if TRACKING asks for it",
    "Check: three states go in, three rows of two Q-values come out",
    "Check: the other action comes up in a tenth of all cases",
    "Check: with fixed targets the loss must vanish",
    "Check: a quarter of the way, then a copy",
    "Result, evaluations and verdict",
    "Verdict and shares",
    "Live plot, and copies of the network",
    "Labels for the slider",
    "Check: 37.135, and the plain target with ε′ = 0",
    "Evaluations of several runs",
    "Figure: collapse and cure",
    "Interval of a mean",
    "Table: all agents on the held-out starts",
    "Write files, save and load an agent",
    "Write the numbers, the curves and the pictures of the run",
    "Compare the seeds",
    "Picture: why a push outward brings the cart back",
    "Figure: the action gap along the track",
    "Figure: the map",
}


def test_only_short_helper_cells_are_folded_and_each_has_a_title(committed):
    folds = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    titles = set()
    for cell in committed.cells:
        metadata = dict(cell.metadata)
        metadata.pop("tags", None)
        titled = cell.source.startswith("# @title ")
        assert metadata == (folds if titled else {}), cell.source
        if titled:
            title, *lines = cell.source.splitlines()
            titles.add(title.removeprefix("# @title "))
            lines = [line for line in lines if line.strip()]
            assert len(lines) <= 40 or title.endswith("live cart"), title
    assert titles == FOLDED


def test_pictures_fit_and_are_from_this_very_run(committed):
    shown = {data.replace("\n", "") for data, _ in pictures_of(committed)}
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in shown]
    assert len(images) >= 10 and all(image.width <= 820 for image in images)
    for name in ("agent.png", "collapse_and_cure.png"):
        content = (loader.ROOT / "images" / name).read_bytes()
        assert base64.b64encode(content).decode() in shown


def test_it_can_be_read_everywhere(committed):
    """Attachments, relative links and folding fail in Studio, Colab or on GitHub."""
    text = prose(committed)
    for form in ("attachment:", "](../", "](#", "<details", "@@", "TODO"):
        assert form not in text
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            without_code = re.sub(r"(?s)```.*?```", "", cell.source)
            headings = re.findall(r"(?m)^#{1,4} ", without_code)
            starts = cell.source.startswith("#")
            assert len(headings) == starts, "contents lists see a first line only"
    sections = re.findall(r"(?m)^## (\d+) ", text)
    assert sections == [str(number) for number in range(1, 19)]


def test_the_code_is_plain(committed):
    names = Counter()
    for cell in code_cells(committed):
        assert all(len(line) <= 88 for line in cell.source.splitlines()), cell.source
        tree = ast.parse(cell.source)
        kinds = {type(node) for node in ast.walk(tree)}
        assert not kinds & {ast.NamedExpr, ast.Lambda}
        defined = (ast.FunctionDef, ast.ClassDef)
        names.update(node.name for node in tree.body if isinstance(node, defined))
    assert [name for name, count in names.items() if count > 1] == []


# Two executed runs.


def results(folder):
    """The files of a run: metrics without NaN, the rows of both tables, names."""
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=pytest.fail)
    names = {path.name for path in folder.iterdir()}
    found = SimpleNamespace(metrics=metrics, names=names)
    for name in ("durations", "evaluations"):
        table = (folder / f"{name}.csv").read_text(encoding="utf-8")
        rows = [line.split(",") for line in table.splitlines()[1:]]
        setattr(found, name, [tuple(map(float, row)) for row in rows])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A headless run, in a home with a telltale name."""
    home = tmp_path_factory.mktemp("home") / "telltale-name"
    home.mkdir()
    user = {"HOME": str(home), "USER": "telltale-name", "LOGNAME": "telltale-name"}
    done = papermill(home, {**SHORT, "COMPARE_SEEDS": 2, "DEVICE": "cpu"}, **user)
    assert done.code == 0, done.text[-3000:]
    notebook = nbformat.read(done.executed, as_version=4)
    found = results(done.outputs)
    return SimpleNamespace(notebook=notebook, folder=done.outputs, **vars(found))


def test_a_run_goes_through_without_noise_or_a_trace_of_its_machine(run):
    check_outputs(run.notebook)
    assert run.names == FILES
    for file in [run.folder.parent / "executed.ipynb", *run.folder.iterdir()]:
        assert b"telltale" not in file.read_bytes(), file.name
    printed = "\n".join(text_of(cell) for cell in code_cells(run.notebook))
    assert not re.search(r"np\.\w+\(|array\(", printed), "plain numbers"
    texts = [alt for _, alt in pictures_of(run.notebook)]
    films = [alt for alt in texts if alt.startswith("Animation")]
    assert len(texts) > 10 and len(set(films)) == len(films) >= 4


def test_the_files_are_of_the_final_agent_as_it_was_trained_scored_and_filmed(
    run, lesson
):
    again = lesson.train(
        lesson.replace(lesson.settings, **SHORT),
        targets=partial(lesson.careful_targets, epsilon=lesson.TARGET_EPSILON),
        remember=lesson.remember_mirrored,
    )
    numbered = [(i, *pair) for i, pair in enumerate(again.durations, start=1)]
    assert run.durations == numbered
    assert run.evaluations == [e[:3] for e in again.evaluations]
    found = run.metrics["seed"], run.metrics["env_steps"]
    assert found == (3, 600)
    assert run.metrics["gradient_steps"] == len(again.losses)
    net, made_with = lesson.load_agent(run.folder / "model.pt")
    settings = lesson.asdict(again.settings)
    assert made_with == {**settings, "TARGET_EPSILON": 0.7, "MIRROR": True}
    scores = lesson.evaluate(lesson.greedy(net), lesson.HELD_OUT_STARTS)
    found = run.metrics["greedy_mean"], run.metrics["greedy_min"]
    assert (scores.mean(), scores.min()) == found
    agent = Image.open(run.folder / "agent.png")
    assert agent.n_frames == 1 + int(scores[0]) // 8
    for name in ("learning_curve.png", "collapse_and_cure.png"):
        assert Image.open(run.folder / name).width > 500


HIDE = """
import sys
sys.modules.update(dict.fromkeys(["azureml", "azureml.core", "mlflow", "pygame"]))
"""


def test_the_file_alone_runs_where_its_readers_are(run, tmp_path):
    """Edited by hand, in an empty folder; gym 0.25, NumPy 1.26, no Azure, no pygame."""
    folder, hidden = tmp_path / "alone", tmp_path / "hidden"
    folder.mkdir()
    hidden.mkdir()
    notebook = edited(COMPARE_SEEDS=0, OUTPUT_DIR="my results", DEVICE="cpu", **SHORT)
    nbformat.write(notebook, folder / "my.ipynb")
    (hidden / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    names = ["gym-0.25.0", "numpy-1.26"]
    if sys.version_info >= (3, 13):
        names = names[:1]  # NumPy 1.26 has no wheel for this Python
    overlays = [loader.ROOT / ".overlays" / name for name in names]
    assert all(overlay.is_dir() for overlay in overlays), "make .venv/test.stamp"
    path = os.pathsep.join(map(str, [hidden, *overlays]))
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    command += ["my.ipynb", "--output", "done"]
    done = execute(command, folder, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(folder / "done.ipynb", as_version=4))
    found = results(folder / "my results")
    made = {path.name for path in folder.iterdir()}
    assert made == {"my.ipynb", "done.ipynb", "my results"} and found.names == FILES
    assert found.metrics["gym_version"] == "0.25.0"
    if len(names) == 2:
        assert found.metrics["numpy_version"].startswith("1.26.")
    assert found.durations == run.durations and found.evaluations == run.evaluations


# What is missing or too old.


@pytest.mark.parametrize("name", ["gym", "torch", "PIL"])
def test_a_package_that_is_missing_is_named_with_what_to_do(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"(?s){name}.*kernel.*%pip install.*gym"):
        loader.load(DEVICE="cpu")


@pytest.mark.parametrize("version", ["0.21.0", "1.2.0"])
def test_a_gym_that_does_not_fit_is_named_with_what_to_install(monkeypatch, version):
    other = ModuleType("gym")
    other.__version__ = version
    monkeypatch.setitem(sys.modules, "gym", other)
    with pytest.raises(ImportError, match=rf"{re.escape(version)}.*%pip install"):
        loader.load(DEVICE="cpu")


def test_a_python_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(ImportError, match=r"3\.10.*kernel"):
        loader.load(DEVICE="cpu")


# The exercises.

EXERCISES = [c["source"] for c in loader.cells() if "exercise" in loader.tags(c)]
(TEXT,) = [c["source"] for c in loader.cells() if c["source"].startswith("### Sol")]
SOLUTIONS = re.findall(r"(?s)```python\n(.*?)```", TEXT)


def solved(exercise, solution):
    """The source of an exercise with its solution in place of what is to change."""
    begun, check = exercise.split("# change this line")
    start = begun.rfind(solution.splitlines()[0])  # the function to be written
    if start < 0:
        start = begun.rfind("\n") + 1  # a line
    return begun[:start] + solution + check.partition("\n")[2]


@pytest.fixture(scope="module")
def solve(lesson):
    """A function that runs exercises with their solutions, in one set of names."""
    names = dict(lesson.train.__globals__)
    names["clear_output"] = lambda wait: None
    names["display"] = lambda picture: None
    for cell in loader.cells():
        if "\nthree_steps = " in cell["source"]:
            exec(cell["source"], names)
    done = []

    def solve(number):
        for i in range(len(done), number + 1):
            exec(solved(EXERCISES[i], SOLUTIONS[i]), names)
            done.append(i)
        return names

    return solve


def test_exercises_are_not_yet_right(run):
    assert len(EXERCISES) == len(SOLUTIONS) == 6
    cells = [c for c in run.notebook.cells if "exercise" in c.metadata.get("tags", [])]
    for cell in cells:
        assert text_of(cell).startswith("not yet"), cell.source


@pytest.mark.parametrize(
    "number", [0, 1, 2, 3, *[pytest.param(i, marks=LONG) for i in (4, 5)]]
)
def test_the_solution_of_an_exercise_is_right(solve, capsys, number):
    solve(number - 1)
    capsys.readouterr()
    solve(number)
    said = capsys.readouterr().out
    assert "right" in said and "not yet" not in said, said


def test_windows_of_five_steps_end_with_their_episode(solve):
    """Seven steps that end in a fall, three that the clock cuts off, and five more."""
    names = solve(3)
    pushed = []

    def remember(memory, step):
        pushed.append((step.state[0], step.next_state[0], step.reward, step.terminated))

    windows = names["FiveSteps"](0.5, remember)
    for first, length in ((0, 7), (10, 3), (20, 5)):
        for i in range(first, first + length):
            states = np.array([float(i)]), np.array([i + 1.0])
            step = names["Transition"](states[0], 0, states[1], 1.0, i == 6)
            windows(None, step)
    fall = [(i, 7, 2 - 0.5 ** (6 - i), True) for i in range(2, 7)]
    whole = 2 - 0.5**4
    begun = [(0, 5, whole, False), (1, 6, whole, False)]
    assert pushed == [*begun, *fall, (20, 25, whole, False)]


# What takes long.


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """The notebook at its defaults, with two seeds."""
    runs = []
    for seed in (0, 3):
        done = papermill(tmp_path_factory.mktemp("whole"), {"SEED": seed}, limit=800)
        assert done.code == 0, done.text[-3000:]
        done.notebook = nbformat.read(done.executed, as_version=4)
        runs.append(done)
    return runs


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_the_whole_notebook_at_its_defaults(whole_runs):
    for done in whole_runs:
        check_outputs(done.notebook)
        metrics = results(done.outputs).metrics
        assert metrics["solved"] and metrics["greedy_mean"] >= 475
        assert metrics["env_steps"] == 10_000 and metrics["steadiness"] >= 0.9


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def numbers(text):
    """All numbers in a text."""
    return {float(found.rstrip(",").replace(",", "")) for found in NUMBER.findall(text)}


def sections(notebook):
    """Section by section: its prose in blocks, and all numbers of its outputs."""
    found = []
    for cell in notebook.cells:
        if cell.source.startswith("## ") or not found:
            found.append(SimpleNamespace(blocks=[], numbers=set()))
        if cell.cell_type == "markdown":
            without_code = re.sub(r"(?s)```.*?```|`[^`]*`", "", cell.source)
            found[-1].blocks += without_code.split("\n\n")
        else:
            found[-1].numbers |= numbers(text_of(cell))
    return found


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_no_sentence_has_a_number_that_is_only_this_runs(committed, whole_runs):
    """What differs between seeds is printed. Results over many seeds are quoted."""
    constants = set()
    for cell in code_cells(committed):
        constants |= numbers(cell.source.replace("_", ""))
    notebooks = [committed, *[done.notebook for done in whole_runs]]
    wrong = []
    for runs in zip(*map(sections, notebooks), strict=True):
        everywhere = set.intersection(*[one.numbers for one in runs])
        somewhere = set.union(*[one.numbers for one in runs])
        small = set(range(10))
        varying = somewhere - everywhere - constants - small
        for block in runs[0].blocks:
            for sentence in re.split(r"(?<=[.!?:]) |\n", block):
                is_quote = re.search(r"benchmark|seeds", sentence)
                if not is_quote and varying & numbers(sentence):
                    wrong.append((sorted(varying & numbers(sentence)), sentence))
    assert wrong == []


ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


TRAIN = """
import json
from functools import partial
from tools.load_definitions import load
lesson = load(DEVICE="cpu", MAX_STEPS=600, EVAL_EVERY=100, SEED=3)
result = lesson.train(
    lesson.settings,
    targets=partial(lesson.careful_targets, epsilon=0.7),
    remember=lesson.remember_mirrored,
)
versions = [lesson.gym.__version__, lesson.np.__version__]
print(json.dumps([versions, result.durations, [e[:3] for e in result.evaluations]]))
"""


@pytest.mark.full
@pytest.mark.parametrize("numpy", ["1.26", "2"])
@pytest.mark.parametrize("gym", ["0.25.0", "0.26.2"])
def test_every_pair_of_versions_gives_the_same_curve(run, tmp_path, gym, numpy):
    if numpy == "1.26" and sys.version_info >= (3, 13):
        pytest.skip("NumPy 1.26 has no wheel for this Python")
    overlays = {"0.25.0": ["gym-0.25.0"], "1.26": ["numpy-1.26"]}
    names = overlays.get(gym, []) + overlays.get(numpy, [])
    folders = [loader.ROOT / ".overlays" / name for name in names]
    path = os.pathsep.join(map(str, [*folders, loader.ROOT]))
    done = execute([sys.executable, "-c", TRAIN], tmp_path, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    versions, durations, evaluations = json.loads(done.text.splitlines()[-1])
    assert versions[0] == gym and versions[1].startswith(f"{numpy}.")
    assert list(map(tuple, durations)) == [row[1:] for row in run.durations]
    assert list(map(tuple, evaluations)) == run.evaluations


@pytest.mark.full
def test_a_plain_script_runs_with_plain_python(run, tmp_path):
    """As `jupyter nbconvert --to script` writes it; nothing displays its pictures.

    It runs in the C locale too, which can print ASCII only.
    """
    notebook = edited(COMPARE_SEEDS=1, DEVICE="cpu", **SHORT)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "script", "lesson.ipynb"]
    done = execute(command, tmp_path)
    assert done.code == 0, done.text[-3000:]
    done = execute([sys.executable, "lesson.py"], tmp_path, **ASCII_ONLY)
    assert done.code == 0, done.text[-3000:]
    assert "Traceback" not in done.text and "Warning" not in done.text
    assert results(tmp_path / "outputs").evaluations == run.evaluations


INTERRUPTED = """
whole_plot = live_plot
def live_plot(copies=None):
    show, calls = whole_plot(copies), []
    def interrupt(result):
        show(result)
        calls.append(result.steps)
        if len(calls) == 2:
            import signal
            os.kill(os.getpid(), signal.SIGINT)  # as Jupyter does
    return interrupt
"""


@pytest.fixture
def kernel(tmp_path):
    """A kernel with the notebook of a small budget, and a function that runs a line."""
    notebook = edited(MAX_STEPS=300, EVAL_EVERY=100, COMPARE_SEEDS=1)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=where
    )

    def run(source):
        cell = nbformat.v4.new_code_cell(source)
        client.nb.cells.append(cell)
        client.execute_cell(cell, len(client.nb.cells) - 1)
        return text_of(cell)

    with client.setup_kernel():
        yield SimpleNamespace(client=client, notebook=notebook, run=run)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_cell_may_be_run_twice_and_training_interrupted(kernel):
    client, run = kernel.client, kernel.run
    cells = list(enumerate(kernel.notebook.cells))
    cells = [(index, cell) for index, cell in cells if cell.cell_type == "code"]
    for index, cell in cells:
        client.execute_cell(cell, index)
        client.execute_cell(cell, index)
    for index, cell in cells[:30]:
        client.execute_cell(cell, index)  # definitions once more, after all others
    found = [pair for pair in cells if "final = train(" in pair[1].source]
    ((index, cell),) = found
    run(INTERRUPTED)
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        client.execute_cell(cell, index)
    picture, error = cell.outputs
    assert "image/png" in picture.data and error.ename == "KeyboardInterrupt"
    run("live_plot = whole_plot")
    client.execute_cell(cell, index)
    assert "image/png" in cell.outputs[0].data
    again = "train(settings, targets=careful, remember=remember_mirrored).durations"
    assert run(f"print(final.steps, final.durations == {again})") == "300 True\n"


LOADED = """all => all.length > 0 &&
  all.every(image => image.complete && image.naturalWidth > 0)"""
COUNT_PICTURES = """() => {
  window.most = 0; window.sources = new Set();
  const look = () => {
    for (const cell of document.querySelectorAll('.jp-CodeCell')) {
      const shown = cell.querySelectorAll('.jp-OutputArea img');
      const trains = cell.textContent.includes('show=live_plot(');
      if (trains) window.most = Math.max(window.most, shown.length);
      for (const image of shown) window.sources.add(image.src);
    }
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.mark.full
@pytest.mark.timeout(900)
def test_jupyterlab_runs_every_cell_and_redraws_in_place(browser, tmp_path):
    notebook = edited(MAX_STEPS=1_000, EVAL_EVERY=100, COMPARE_SEEDS=0)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    status = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
    with jupyterlab(tmp_path) as address:
        page, errors = browser.new_page(viewport={"width": 1200, "height": 900}), []
        page.set_default_timeout(600_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/lab/tree/lesson.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(f"{status} === 'idle'")
        page.evaluate("jupyterapp.commands.execute('editmenu:clear-all')")
        page.evaluate(COUNT_PICTURES)
        run_all = "jupyterapp.commands.execute('notebook:run-all-cells')"
        page.evaluate(f"() => {{ {run_all}.then(() => {{ window.ended = 1; }}); }}")
        page.wait_for_function(f"window.ended && {status} === 'idle'")
        assert page.evaluate("window.most") == 1, "curves are redrawn in place"
        assert page.evaluate("window.sources.size") >= 3
        model = page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON()")
        check_outputs(nbformat.from_dict(model))
        assert page.locator(".jp-OutputArea img").evaluate_all(LOADED) and errors == []
        page.evaluate("jupyterapp.commands.execute('toc:show-panel')")
        page.wait_for_selector(".jp-TableOfContents .jp-tocItem")
        items = page.locator(".jp-TableOfContents .jp-tocItem-content")
        listed = items.all_inner_texts()
        titles = re.findall(r"(?m)^## (\d+ .*)$", prose(notebook))
        assert len(titles) == 18
        assert [title for title in titles if title not in listed] == []
        page.close()
