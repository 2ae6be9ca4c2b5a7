"""The notebook as a whole: its form, one executed run, exercises, what takes long."""

import ast
import base64
import json
import os
import re
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from dqn_helpers import curves, files
from dqn_helpers.cart import play
from tests.helpers import (
    MACHINE_PATH,
    add_helpers,
    check_outputs,
    code_cells,
    edited,
    execute,
    numbers,
    papermill,
    prose,
    results,
    table_of,
    text_of,
)
from tools import load_definitions as loader
from tools.recording import decoded
from tools.refresh_notebook import METADATA, cart_data, code_hash

FILES = {"metrics.json", "durations.csv", "evaluations.csv", "model.pt"}
FILES |= {"collapse_and_cure.png", "learning_curve.png"}
SHORT = {"SEED": 6, "MAX_STEPS": 500, "EVAL_EVERY": 100}  # its agents differ
pytestmark = pytest.mark.timeout(1_800)  # seconds


# The committed notebook.


def test_outputs_are_clean_and_belong_to_the_code(committed):
    expected = {**METADATA, "outputs_of_code": code_hash(committed.cells)}
    assert committed.metadata == expected, "make notebook"
    check_outputs(committed)
    assert not MACHINE_PATH.search(prose(committed))


def test_it_can_be_read_everywhere(committed):
    """Attachments, relative links and folding fail in Studio, Colab or on GitHub."""
    text = prose(committed)
    for form in ("attachment:", "](../", "](#", "<details", "@@", "TODO"):
        assert form not in text
    for cell in committed.cells:
        assert set(cell.metadata) <= {"tags"}, "nothing is folded"
        if cell.cell_type == "markdown":
            without_code = re.sub(r"(?s)```.*?```", "", cell.source)
            headings = re.findall(r"(?m)^#{1,4} ", without_code)
            starts = cell.source.startswith("#")
            assert len(headings) == starts, "contents lists see a first line only"
    sections = re.findall(r"(?m)^## (\d+) ", text)
    assert sections == [str(number) for number in range(1, 20)]


TAUGHT = """
make_env reset_env play_all evaluate Transition ReplayMemory DQN SCALE HIDDEN
make_networks epsilon_at q_values_of select_action td_targets optimize_model
update_target Evaluation greedy record_evaluation remember train plot_durations
share_of_passes judge careful_targets gap remember_mirrored load_agent
train_all compare with_pole_of stumbling
"""


def test_what_the_lesson_teaches_stands_in_it_in_short_cells(committed, lesson):
    names = Counter()
    for cell in code_cells(committed):
        lines = cell.source.splitlines()
        assert all(len(line) <= 88 for line in lines), cell.source
        assert len(lines) <= 45 or "\ndef train(" in cell.source, cell.source
        for node in ast.parse(cell.source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names[node.name] += 1
    assert [name for name, count in names.items() if count > 1] == []
    for name in TAUGHT.split():
        thing = getattr(lesson, name)
        assert getattr(thing, "__module__", "lesson") == "lesson", name


# The helpers beside it.

BARE = """
import importlib, sys
from pathlib import Path
import IPython.display
known = set(sys.modules)
import dqn_helpers
for path in Path("dqn_helpers").glob("*.py"):
    importlib.import_module(f"dqn_helpers.{path.stem}")
dqn_helpers.cart.preview()._repr_mimebundle_()
new = {name.partition(".")[0] for name in set(sys.modules) - known}
print(*sorted(new - {"dqn_helpers"} - set(sys.stdlib_module_names)))
"""


def test_helpers_need_the_standard_library_and_ipython_alone(tmp_path):
    add_helpers(tmp_path)
    done = execute([sys.executable, "-c", BARE], tmp_path)
    assert (done.code, done.text.strip()) == (0, "")
    for path in (tmp_path / "dqn_helpers").glob("*.py"):
        imported = re.findall(r"(?m)^\s*(?:import|from) (\w+)", path.read_text("utf-8"))
        assert not {"torch", "gym", "lesson"} & set(imported), path.name


FIRST = next(cell["source"] for cell in loader.cells() if cell["cell_type"] == "code")


@pytest.mark.parametrize("helpers", ["none", "older"])
def test_without_its_helpers_the_first_cell_says_where_it_looked(helpers, tmp_path):
    if helpers == "older":
        add_helpers(tmp_path)
        with (tmp_path / "dqn_helpers" / "curves.py").open("a") as file:
            file.write("\ndel verdict\n")
    done = execute([sys.executable, "-c", FIRST], tmp_path)
    last = done.text.strip().splitlines()[-1]
    assert done.code == 1 and last.startswith("ImportError")
    assert f"{tmp_path}." in last and "restart the kernel" in last
    assert ("verdict" if helpers == "older" else "dqn_helpers") in last


def test_a_python_that_is_too_old_is_named(tmp_path):
    add_helpers(tmp_path)
    older = f"import sys\nsys.version_info = (3, 9, 18)\n{FIRST}"
    done = execute([sys.executable, "-c", older], tmp_path)
    assert done.code == 1
    assert re.search(r"3\.10.*kernel", done.text.strip().splitlines()[-1])


@pytest.mark.parametrize("version", ["0.21.0", "1.2.0"])
def test_a_gym_that_does_not_fit_is_named_with_what_to_install(monkeypatch, version):
    other = ModuleType("gym")
    other.__version__ = version
    monkeypatch.setitem(sys.modules, "gym", other)
    with pytest.raises(ImportError, match=rf"{re.escape(version)}.*%pip install"):
        loader.load(DEVICE="cpu")


# One executed run. Many tests look at it.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A headless run, in a home with a telltale name."""
    home = tmp_path_factory.mktemp("home") / "telltale-name"
    home.mkdir()
    user = {"HOME": str(home), "USER": "telltale-name", "LOGNAME": "telltale-name"}
    done = papermill(home, {**SHORT, "COMPARE_SEEDS": 1, "DEVICE": "cpu"}, **user)
    assert done.code == 0, done.text[-3000:]
    notebook = nbformat.read(done.executed, as_version=4)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    carts = [data for data in map(cart_data, outputs) if data]
    files = vars(results(done.outputs))
    return SimpleNamespace(notebook=notebook, folder=done.outputs, carts=carts, **files)


@pytest.fixture(scope="module")
def again(lesson):
    """The agents of the run, trained once more, and the networks of its comparison."""
    s = lesson.replace(lesson.settings, **SHORT)
    plain, careful = lesson.td_targets, lesson.careful_targets
    often = lesson.replace(s, EVAL_EVERY=50)
    first = lesson.train(often, plain, lesson.remember, stop_at_first_pass=True)
    runs = {
        "first": first,
        "plain_run": lesson.train(s, plain, lesson.remember),
        "careful_run": lesson.train(s, careful, lesson.remember),
        "final": lesson.train(s, careful, lesson.remember_mirrored),
    }
    last = {name: result.policy_net for name, result in runs.items()}
    best = max(runs["plain_run"].evaluations, key=lambda e: e.mean).network
    networks = {"plain DQN, last": last["plain_run"], "best copy": best}
    networks |= {"careful": last["careful_run"], "final": last["final"]}
    return SimpleNamespace(runs=runs, networks=networks, **runs)


def output_of(run, text):
    """What the one code cell that has a text has put out, as text."""
    cells = [cell for cell in code_cells(run.notebook) if text in cell.source]
    (cell,) = cells
    return "\n".join(line for line in text_of(cell).splitlines() if line)


def test_a_run_goes_through_without_noise_or_a_trace_of_its_machine(run):
    check_outputs(run.notebook)
    assert run.names == FILES
    for file in [run.folder.parent / "executed.ipynb", *run.folder.iterdir()]:
        assert b"telltale" not in file.read_bytes(), file.name
    printed = "\n".join(text_of(cell) for cell in code_cells(run.notebook))
    assert not re.search(r"np\.\w+\(|array\(", printed), "plain numbers"


def test_the_files_are_of_the_final_agent(run, lesson, again):
    numbered = [(i, *pair) for i, pair in enumerate(again.final.durations, start=1)]
    assert run.durations == numbered
    assert run.evaluations == [e[:3] for e in again.final.evaluations]
    net, made_with = lesson.load_agent(run.folder / "model.pt")
    assert made_with == files.made_with(again.final)
    weights = [list(one.parameters()) for one in (net, again.final.policy_net)]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_each_row_of_a_table_is_of_its_own_policy(run, lesson, again):
    def score(policy):
        scores = lesson.evaluate(policy, lesson.HELD_OUT_STARTS)
        return [round(scores.mean(), 2), scores.min()]

    rules = [lambda s: s[:, 2] > 0, lambda s: s[:, 2] + s[:, 3] > 0]
    lines = output_of(run, "for rule in (random_pushes").splitlines()
    assert [numbers(line)[-1] for line in lines[1:]] == [score(r)[0] for r in rules]
    policies = {word: lesson.greedy(net) for word, net in again.networks.items()}
    policies |= {"falls": rules[1], "by hand": lambda s: s @ [0.05, 0.1, 1, 1] > 0}
    rows = table_of(output_of(run, "policies |= {"))
    assert len(rows) == len(policies)
    for word, policy in policies.items():
        (cells,) = [cells for name, cells in rows.items() if word in name]
        found = [float(cell) for cell in cells[:2]]
        assert found == pytest.approx(score(policy), abs=0.06), word
    first = table_of(output_of(run, "best_copy),\n"))
    assert first == {name: rows[name] for name in list(rows)[:2]}


def is_network(tensors, net):
    """Whether a network of a live cart is this one, as near as 16 bits can be."""
    for name, value in net.state_dict().items():
        found = decoded(tensors)[name].reshape(value.shape)
        if not np.allclose(found, value.numpy(), atol=float(value.abs().max()) / 6e4):
            return False
    return True


def test_each_cart_has_its_own_agents(run, again):
    modes = ["preview", "play", *4 * ["film"], "curves", "curves", "drivers"]
    assert [cart["mode"] for cart in run.carts] == modes
    one, two = [cart["curves"] for cart in run.carts if cart["mode"] == "curves"]
    results = [again.plain_run, again.plain_run, again.careful_run]
    for curve, result in zip([*one, *two], results, strict=True):
        for dot, evaluation in zip(curve["points"], result.evaluations, strict=True):
            assert (dot["step"], dot["mean"]) == (evaluation.step, evaluation.mean)
            assert is_network(dot["network"], evaluation.network), curve["title"]
    *drivers, hand = run.carts[-1]["drivers"]
    for driver, (word, net) in zip(drivers, again.networks.items(), strict=True):
        assert word in driver["title"] and is_network(driver["network"], net)
    assert len(hand["rule"]) == 4


def test_each_film_is_of_the_start_that_is_said(run, lesson, again):
    """The last one is of the network at its first success, on a validation start."""
    films = [cart for cart in run.carts if cart["mode"] == "film"]
    starts = [0, 0, 0, lesson.VALIDATION_STARTS[0]]
    env = lesson.make_env("CartPole-v1")
    for film, start in zip(films, starts, strict=True):
        states = np.frombuffer(base64.b64decode(film["states"]), "<f4").reshape(-1, 4)
        assert np.allclose(states[0], lesson.reset_env(env, start)), film["caption"]
    agent = lesson.greedy(again.first.policy_net)
    played = play(env, lesson.reset_env(env, start), agent)
    assert np.array_equal(states, played)


def test_each_verdict_and_share_is_of_its_own_run(run, lesson, again):
    for name, result in again.runs.items():
        assert curves.verdict(result) in output_of(run, f"{name} = train("), name
    for name in ("plain_run", "careful_run", "final"):
        printed = output_of(run, f"share_of_passes({name}):").rpartition("share of")[2]
        share = lesson.share_of_passes(again.runs[name])
        assert numbers(printed)[0] == pytest.approx(share, abs=0.006), name


# The exercises.

EXERCISES = [c["source"] for c in loader.cells() if "exercise" in loader.tags(c)]
TEXT = loader.cells()[-1]["source"]
SOLUTIONS = re.findall(r"(?s)```python\n(.*?)```", TEXT)


def solved(exercise, solution):
    """The source of an exercise with its solution in place of what is to change."""
    begun, check = exercise.split("# change this line")
    start = begun.rfind(solution.splitlines()[0])  # the function to be written
    if start < 0:
        start = begun.rfind("\n") + 1  # a line
    return begun[:start] + solution + check.partition("\n")[2]


@pytest.fixture
def solve(lesson, capsys):
    """A function that runs an exercise with its solution and returns what it prints."""
    names = dict(lesson.train.__globals__)
    names["clear_output"] = names["display"] = lambda *_, **__: None
    for cell in loader.cells():
        if "\nthree_steps = " in cell["source"]:
            exec(cell["source"], names)

    def solve(number):
        capsys.readouterr()
        exec(solved(EXERCISES[number], SOLUTIONS[number]), names)
        return capsys.readouterr().out

    return solve


def test_exercises_are_not_yet_right(run):
    assert len(EXERCISES) == len(SOLUTIONS) == 5
    cells = [c for c in run.notebook.cells if "exercise" in c.metadata.get("tags", [])]
    for cell in cells:
        assert text_of(cell).startswith("not yet"), cell.source


@pytest.mark.parametrize(
    "number", [0, 1, 2, 3, pytest.param(4, marks=pytest.mark.full)]
)
def test_the_solution_of_an_exercise_is_right(solve, number):
    said = solve(number)
    assert "right" in said and "not yet" not in said, said


# Other versions.

TRAIN = f"""
import json
from tools.load_definitions import load
lesson = load(DEVICE="cpu", **{SHORT})
how = [lesson.careful_targets, lesson.remember_mirrored]
result = lesson.train(lesson.settings, *how)
versions = [lesson.gym.__version__, lesson.np.__version__]
print(json.dumps([versions, result.durations, [e[:3] for e in result.evaluations]]))
"""


def other_versions():
    """The names of folders with packages of older versions, and a PYTHONPATH of them.

    NumPy 1.26 has no wheel for Python 3.13.
    """
    names = ["gym-0.25.0", "numpy-1.26"][: 2 - (sys.version_info >= (3, 13))]
    folders = [loader.ROOT / ".overlays" / name for name in names]
    assert all(folder.is_dir() for folder in folders), "make .venv/test.stamp"
    return names, os.pathsep.join(map(str, folders))


def test_other_versions_give_the_same_curve(again, tmp_path):
    names, overlays = other_versions()
    path = [overlays, str(loader.ROOT), str(loader.NOTEBOOK.parent)]
    environment = {"PYTHONPATH": os.pathsep.join(path)}
    done = execute([sys.executable, "-c", TRAIN], tmp_path, **environment)
    assert done.code == 0, done.text[-3000:]
    versions, durations, evaluations = json.loads(done.text.splitlines()[-1])
    for name, version in zip(names, versions, strict=False):
        assert version.startswith(name.partition("-")[2])
    assert [tuple(pair) for pair in durations] == again.final.durations
    assert [tuple(e) for e in evaluations] == [e[:3] for e in again.final.evaluations]


# What takes long.

HIDE = """
import sys
sys.modules.update(dict.fromkeys(["azureml", "azureml.core", "mlflow", "pygame"]))
"""


@pytest.mark.full
def test_its_folder_alone_runs_where_its_readers_are(again, tmp_path):
    """Edited by hand; gym 0.25, NumPy 1.26, no MLflow, no Azure, no pygame."""
    folder, hidden = tmp_path / "alone", tmp_path / "hidden"
    folder.mkdir()
    hidden.mkdir()
    add_helpers(folder)
    notebook = edited(COMPARE_SEEDS=0, OUTPUT_DIR="my results", DEVICE="cpu", **SHORT)
    nbformat.write(notebook, folder / "my.ipynb")
    (hidden / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    path = f"{hidden}{os.pathsep}{other_versions()[1]}"
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    command += ["my.ipynb", "--output", "done"]
    done = execute(command, folder, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(folder / "done.ipynb", as_version=4))
    found = results(folder / "my results")
    made = {path.name for path in folder.iterdir()} - {"dqn_helpers"}
    assert made == {"my.ipynb", "done.ipynb", "my results"} and found.names == FILES
    assert found.metrics["gym_version"] == "0.25.0"
    assert found.evaluations == [e[:3] for e in again.final.evaluations]


INTERRUPTED = """
def interrupted(show):
    def interrupt(result):
        show(result)
        if len(result.evaluations) == 2:
            import signal
            os.kill(os.getpid(), signal.SIGINT)  # as Jupyter does
    return interrupt
"""


@pytest.mark.full
def test_every_cell_may_be_run_twice_and_training_interrupted(tmp_path):
    add_helpers(tmp_path)
    notebook = edited(MAX_STEPS=300, EVAL_EVERY=100, COMPARE_SEEDS=1)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=600, resources=where)
    cells = [pair for pair in enumerate(notebook.cells) if pair[1].cell_type == "code"]
    ((index, cell),) = [pair for pair in cells if "final = train(" in pair[1].source]
    source = cell.source
    with client.setup_kernel():
        for place, one in [pair for pair in cells for _ in range(2)] + cells[:30]:
            client.execute_cell(one, place)
        before = text_of(cell)
        cell.source = INTERRUPTED + source.replace(
            "show=live_plot", "show=interrupted(live_plot)"
        )
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            client.execute_cell(cell, index)
        picture, error = cell.outputs
        assert "image/png" in picture.data and error.ename == "KeyboardInterrupt"
        cell.source = source
        client.execute_cell(cell, index)
        assert text_of(cell) == before
