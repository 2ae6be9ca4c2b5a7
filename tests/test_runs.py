"""Whole runs that many tests look at: headless, as a bare file, and in one kernel."""

import io
import json
import re
import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.helpers import (
    check_outputs,
    code_cells,
    edited,
    execute,
    papermill,
    pictures_of,
    text_of,
)
from tools import load_definitions as loader

COUNTS = "seed episodes env_steps gradient_steps greedy_episodes"
NUMBERS = f"{COUNTS} train_seconds steadiness validation_area greedy_mean greedy_min"
TEXTS = "device gym_version numpy_version torch_version"
KEYS = {"solved", "solved_at_step", "solved_at_seconds"}
KEYS |= {*NUMBERS.split(), *TEXTS.split()}
PICTURES = {"agent.png", "collapse_and_cure.png", "learning_curve.png"}
FILES = {"metrics.json", "durations.csv", "evaluations.csv", "model.pt", *PICTURES}
SHORT = {"SEED": 3, "MAX_STEPS": 600, "EVAL_EVERY": 100}


def results(folder):
    """The files of a run: metrics without NaN, the rows of both tables, names."""
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=pytest.fail)
    names = {path.name for path in folder.iterdir()}
    found = SimpleNamespace(metrics=metrics, names=names)
    headers = {"durations": "episode,steps,duration", "evaluations": "steps,mean,worst"}
    for name, header in headers.items():
        table = (folder / f"{name}.csv").read_text(encoding="utf-8")
        first, *lines = table.splitlines()
        assert first == header
        rows = [tuple(map(float, line.split(","))) for line in lines]
        setattr(found, name, rows)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A headless run, in a home with a telltale name."""
    home = tmp_path_factory.mktemp("home") / "telltale-name"
    home.mkdir()
    user = {"HOME": str(home), "USER": "telltale-name", "LOGNAME": "telltale-name"}
    done = papermill(home, {**SHORT, "COMPARE_SEEDS": 1, "DEVICE": "cpu"}, **user)
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
    assert not re.search(r"np\.\w+\(|tensor\(|array\(", printed), "plain numbers"
    assert not re.search(r"\d\.\d{12,}", printed.partition("{")[0]), "rounded"


def test_the_files_of_a_run_agree_with_each_other(run):
    m, durations, evaluations = run.metrics, run.durations, run.evaluations
    assert set(m) == KEYS and type(m["solved"]) is bool and m["device"] == "cpu"
    assert all(type(m[name]) is int for name in COUNTS.split())
    assert [row[0] for row in durations] == list(range(1, m["episodes"] + 1))
    ends = np.cumsum([row[2] for row in durations])
    assert ends.tolist() == [row[1] for row in durations]
    assert (m["seed"], m["env_steps"], m["greedy_episodes"]) == (3, 600, 100)
    assert [row[0] for row in evaluations] == [100, 200, 300, 400, 500, 600]
    means = [row[1] for row in evaluations]
    passes = [step for step, mean, _ in evaluations if mean >= 475]
    assert m["solved_at_step"] == (passes[0] if passes else None)
    assert (m["solved_at_seconds"] is None) is (not passes)
    assert m["steadiness"] == np.mean([mean >= 475 for mean in means[3:]])
    assert m["validation_area"] == pytest.approx(np.mean(means))
    assert m["solved"] is (bool(passes) and m["greedy_mean"] >= 475)


def final_agent(lesson):
    """The final agent of a short run, trained once more."""
    settings = lesson.replace(lesson.settings, **SHORT)
    careful, mirrored = lesson.careful_targets, lesson.remember_mirrored
    return lesson.train(settings, targets=careful, remember=mirrored)


def careful_agent(lesson):
    """The agent of section 12 of a short run, trained once more."""
    settings = lesson.replace(lesson.settings, **SHORT, MIRROR=False)
    return lesson.train(settings, targets=lesson.careful_targets)


def test_the_final_agent_is_that_of_the_settings(run, lesson):
    again = final_agent(lesson)
    assert [row[1:] for row in run.durations] == again.durations
    assert run.evaluations == [e[:3] for e in again.evaluations]
    assert run.metrics["gradient_steps"] == len(again.losses)


def test_the_agent_is_saved_as_it_was_scored_and_filmed(run, lesson):
    net, settings = lesson.load_agent(run.folder / "model.pt")
    assert settings == lesson.replace(lesson.settings, **SHORT)
    returns = lesson.evaluate(lesson.greedy(net), lesson.HELD_OUT_STARTS)
    found = run.metrics["greedy_mean"], run.metrics["greedy_min"]
    assert (returns.mean(), returns.min()) == found
    agent = Image.open(run.folder / "agent.png")
    assert agent.n_frames == 1 + int(returns[0]) // 8
    for name in PICTURES - {"agent.png"}:
        assert Image.open(run.folder / name).width > 500


def rows_of(notebook, name):
    """The rows of printed tables that begin with a name, as lists of texts."""
    printed = "\n".join(text_of(cell) for cell in code_cells(notebook))
    lines = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", printed, re.M)
    return [line.split(" | ") for line in lines]


def test_rules_and_agents_are_scored_on_the_held_out_starts(run, lesson):
    plain = lesson.replace(lesson.settings, **SHORT, TARGET_EPSILON=0.0, MIRROR=False)
    policies = {
        "push where it leans": lesson.push_where_it_leans,
        "push where it falls": lesson.push_where_it_falls,
        "plain DQN": lesson.greedy(lesson.train(plain).policy_net),
        "careful target": lesson.greedy(careful_agent(lesson).policy_net),
        "final agent": lesson.greedy(final_agent(lesson).policy_net),
    }
    for name, policy in policies.items():
        returns = lesson.evaluate(policy, lesson.HELD_OUT_STARTS)
        mean, worst = f"{returns.mean():.1f}", f"{returns.min():.0f}"
        found = [(row[0], row[-1]) for row in rows_of(run.notebook, name)]
        assert (mean, worst) in found, (name, found)


def test_the_comparison_has_the_agents_of_the_lesson(run, lesson):
    plain = lesson.replace(lesson.settings, **SHORT, TARGET_EPSILON=0.0, MIRROR=False)
    without = lesson.replace(plain, TAU=1.0)
    agents = {
        "plain DQN": lesson.train(plain),
        "careful": careful_agent(lesson),
        "careful, mirror": final_agent(lesson),
        "no target network": lesson.train(without),
    }
    start = lesson.reset_env(
        lesson.make_env("CartPole-v1"), lesson.VALIDATION_STARTS[0]
    )
    for name, result in agents.items():
        best = max(evaluation.mean for evaluation in result.evaluations)
        last = result.evaluations[-1].mean
        value = result.policy_net(torch.as_tensor(start)).max().item()
        row = [f"{best:.0f}", f"{last:.0f}", f"{value:,.0f}"]
        assert row in rows_of(run.notebook, name), name


HIDE = """
import sys
sys.modules.update(dict.fromkeys(["azureml", "azureml.core", "pygame"]))
"""


def test_the_file_alone_runs_where_its_readers_are(lesson, tmp_path):
    """Edited by hand, in an empty folder; gym 0.25, NumPy 1.26, no Azure, no pygame."""
    folder, hidden = tmp_path / "alone", tmp_path / "hidden"
    folder.mkdir()
    hidden.mkdir()
    notebook = edited(COMPARE_SEEDS=0, OUTPUT_DIR="my results", **SHORT)
    nbformat.write(notebook, folder / "my.ipynb")
    (hidden / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    overlays = [loader.ROOT / ".overlays" / n for n in ("gym-0.25.0", "numpy-1.26")]
    path = ":".join(map(str, [hidden, *overlays]))
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    command += ["my.ipynb", "--output", "done"]
    drop = ("AZUREML_RUN_ID", "MSI_ENDPOINT")
    done = execute(command, folder, drop, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(folder / "done.ipynb", as_version=4))
    found = results(folder / "my results")
    names = {path.name for path in folder.iterdir()}
    assert names == {"my.ipynb", "done.ipynb", "my results"} and found.names == FILES
    assert found.metrics["gym_version"] == "gym 0.25.0"
    if sys.version_info < (3, 13):
        assert found.metrics["numpy_version"].startswith("1.26.")
    assert [row[1:] for row in found.durations] == final_agent(lesson).durations


ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_plain_script_runs_with_plain_python(lesson, tmp_path):
    """As `jupyter nbconvert --to script` writes it; nothing displays its pictures.

    It runs in the C locale too, which can print ASCII only.
    """
    notebook = edited(COMPARE_SEEDS=1, **SHORT)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "script", "lesson.ipynb"]
    done = execute(command, tmp_path)
    assert done.code == 0, done.text[-3000:]
    assert (tmp_path / "lesson.py").exists()
    done = execute([sys.executable, "lesson.py"], tmp_path, **ASCII_ONLY)
    assert done.code == 0, done.text[-3000:]
    assert "Traceback" not in done.text and "Warning" not in done.text
    found = results(tmp_path / "outputs")
    assert found.names == FILES
    assert [row[1:] for row in found.durations] == final_agent(lesson).durations


INTERRUPTED = """
import signal
whole_plot = live_plot
def live_plot():
    show, calls = whole_plot(), []
    def interrupt(result):
        show(result)
        calls.append(result.steps)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)  # as Jupyter does
    return interrupt
"""


@pytest.fixture
def kernel(tmp_path):
    """A kernel with the notebook of a small budget, and a function that runs a line."""
    notebook = edited(MAX_STEPS=300, EVAL_EVERY=100, COMPARE_SEEDS=1)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources=where
    )

    def run(source):
        cell = nbformat.v4.new_code_cell(source)
        client.nb.cells.append(cell)
        client.execute_cell(cell, len(client.nb.cells) - 1)
        return text_of(cell)

    with client.setup_kernel():
        yield SimpleNamespace(client=client, notebook=notebook, run=run)


def test_every_cell_may_be_run_twice_and_training_interrupted(kernel):
    client, run = kernel.client, kernel.run
    cells = list(enumerate(kernel.notebook.cells))
    cells = [(index, cell) for index, cell in cells if cell.cell_type == "code"]
    for index, cell in cells:
        client.execute_cell(cell, index)
        client.execute_cell(cell, index)
    for index, cell in cells[:30]:
        client.execute_cell(cell, index)  # definitions once more, after all others
    ((index, cell),) = [
        pair for pair in cells if pair[1].source.startswith("final = train(")
    ]
    run(INTERRUPTED)
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        client.execute_cell(cell, index)
    picture, error = cell.outputs
    assert "image/png" in picture.data and error.ename == "KeyboardInterrupt"
    run("live_plot = whole_plot")
    client.execute_cell(cell, index)
    assert "image/png" in cell.outputs[0].data
    options = "targets=careful_targets, remember=remember_mirrored"
    again = f"train(settings, {options}).durations"
    assert run(f"print(final.steps, final.durations == {again})") == "300 True\n"


def test_pictures_of_a_run_have_alternative_texts_of_their_own(run):
    texts = [alt for _, alt in pictures_of(run.notebook)]
    assert len(texts) > 10
    films = [alt for alt in texts if alt.startswith("Animation")]
    assert len(films) >= 4 and len(set(films)) == len(films)
    frames = [
        Image.open(io.BytesIO((run.folder / name).read_bytes())) for name in PICTURES
    ]
    assert all(image.format == "PNG" for image in frames)
