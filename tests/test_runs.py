"""Whole runs that many tests look at: as a job, as a bare file, and in one kernel."""

import io
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tests.helpers import (
    check_outputs,
    code_cells,
    edited,
    execute,
    papermill,
    text_of,
)
from tools import load_definitions as loader

COUNTS = ("seed", "episodes", "env_steps", "gradient_steps", "greedy_episodes")
NUMBERS = (
    "train_seconds",
    "steadiness",
    "validation_area",
    "greedy_mean",
    "greedy_min",
)
TEXTS = ("device", "gym_version", "numpy_version", "torch_version")
KEYS = {"solved", "solved_at_step", "solved_at_seconds", *COUNTS, *NUMBERS, *TEXTS}
PICTURES = {"agent.png", "collapse_and_cure.png", "learning_curve.png"}
TABLES = {"durations": "episode,steps,duration", "evaluations": "steps,mean,worst"}
SHORT = {"SEED": 3, "MAX_STEPS": 600, "EVAL_EVERY": 100}


def results(folder):
    """The files of a run: metrics without NaN, the rows of both tables, names."""
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    found = SimpleNamespace(metrics=json.loads(text, parse_constant=pytest.fail))
    found.names = {path.name for path in folder.iterdir()}
    for name, header in TABLES.items():
        lines = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0] == header
        rows = [tuple(map(float, line.split(","))) for line in lines[1:]]
        setattr(found, name, rows)
    return found


def train_final(lesson, **changes):
    """Train the final agent of the lesson."""
    return lesson.train(
        replace(lesson.settings, **changes),
        targets=lesson.careful_targets,
        remember=lesson.remember_mirrored,
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A headless run, as in an Azure ML job, in a home with a telltale name."""
    home = tmp_path_factory.mktemp("home") / "telltale-name"
    home.mkdir()
    environment = {"HOME": str(home), "USER": "telltale-name", "AZUREML_RUN_ID": "a"}
    parameters = {**SHORT, "COMPARE_SEEDS": 1, "DEVICE": "cpu", "TRACKING": "azureml"}
    done = papermill(home, parameters, LOGNAME="telltale-name", **environment)
    assert done.code == 0, done.text[-3000:]
    notebook = nbformat.read(done.executed, as_version=4)
    found = results(done.outputs)
    return SimpleNamespace(notebook=notebook, folder=done.outputs, **vars(found))


def test_a_job_runs_through_without_noise_or_a_trace_of_its_machine(job):
    check_outputs(job.notebook)
    files = {"metrics.json", "durations.csv", "evaluations.csv", "model.pt"}
    assert job.names == files | PICTURES
    for file in [job.folder.parent / "executed.ipynb", *job.folder.iterdir()]:
        assert b"telltale" not in file.read_bytes(), file.name
    said = "\n".join(text_of(cell) for cell in code_cells(job.notebook))
    assert "np.float32(" not in said, "plain numbers, whatever NumPy's version"


def test_the_files_of_a_run_agree_with_each_other(job):
    m, durations, evaluations = job.metrics, job.durations, job.evaluations
    assert set(m) == KEYS and type(m["solved"]) is bool and m["device"] == "cpu"
    assert all(type(m[name]) is int for name in COUNTS)
    assert [int(row[0]) for row in durations] == list(range(1, m["episodes"] + 1))
    ends = [row[1] for row in durations]
    assert np.array_equal(np.cumsum([row[2] for row in durations]), ends)
    assert (m["seed"], m["env_steps"], m["greedy_episodes"]) == (3, 600, 100)
    assert [row[0] for row in evaluations] == [100, 200, 300, 400, 500, 600]
    passes = [row[0] for row in evaluations if row[1] >= 475]
    assert m["solved_at_step"] == (passes[0] if passes else None)
    assert (m["solved_at_seconds"] is None) is (not passes)
    assert m["steadiness"] == np.mean([row[1] >= 475 for row in evaluations[3:]])
    area = np.mean([row[1] for row in evaluations])
    assert m["validation_area"] == pytest.approx(area)
    assert m["solved"] is (bool(passes) and m["greedy_mean"] >= 475)


def test_the_final_agent_is_that_of_the_settings_and_is_saved_as_scored(job, lesson):
    again = train_final(lesson, **SHORT)
    assert [row[1:] for row in job.durations] == again.durations
    assert job.evaluations == [e[:3] for e in again.evaluations]
    assert job.metrics["gradient_steps"] == len(again.losses)
    net, settings = lesson.load_agent(job.folder / "model.pt")
    assert settings == again.settings
    returns = lesson.evaluate(lesson.greedy(net), lesson.HELD_OUT_STARTS)
    found = job.metrics["greedy_mean"], job.metrics["greedy_min"]
    assert (returns.mean(), returns.min()) == found
    episode = lesson.play(lesson.greedy(net), lesson.HELD_OUT_STARTS[0])
    film = lesson.film(episode, "final agent", 8)
    agent = Image.open(job.folder / "agent.png")
    assert agent.n_frames == Image.open(io.BytesIO(film.data)).n_frames
    assert agent.n_frames == 1 + (len(episode) - 1) // 8


def test_rules_and_agents_are_scored_on_the_held_out_starts(job, lesson):
    said = "\n".join(text_of(cell) for cell in code_cells(job.notebook))
    for name in ("push where it leans", "push where it falls"):
        rule = getattr(lesson, name.replace(" ", "_"))
        returns = lesson.evaluate(rule, lesson.HELD_OUT_STARTS)
        rows = re.findall(rf"^\| {name} \| ([\d.]+) \|.* (\d+) \|$", said, re.M)
        expected = (f"{returns.mean():.1f}", f"{returns.min():.0f}")
        assert len(rows) == 2 and set(rows) == {expected}
    assert f"| final agent | {job.metrics['greedy_mean']:.1f} |" in said
    plain = replace(lesson.settings, **SHORT, TARGET_EPSILON=0.0, MIRROR=False)
    policy = lesson.greedy(lesson.train(plain).policy_net)
    returns = lesson.evaluate(policy, lesson.HELD_OUT_STARTS)
    row = rf"\| plain DQN \| {returns.mean():.1f} \| .* \| {returns.min():.0f} \|"
    assert re.search(row, said)


def test_a_job_sends_nothing_itself(job):
    (cell,) = [c for c in code_cells(job.notebook) if c.source.startswith("if IN_JOB")]
    assert "job" in text_of(cell)


def test_the_file_alone_runs_where_its_readers_are(lesson, tmp_path):
    """Edited by hand, in an empty folder; gym 0.25, NumPy 1.26, no azureml-core."""
    folder, hidden = tmp_path / "a lone folder ü", tmp_path / "hidden"
    folder.mkdir()
    hidden.mkdir()
    notebook = edited(COMPARE_SEEDS=0, OUTPUT_DIR="my results", **SHORT)
    nbformat.write(notebook, folder / "my.ipynb")
    missing = "['azureml', 'azureml.core', 'pygame']"
    (hidden / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({missing}))", encoding="utf-8"
    )
    overlays = [
        loader.ROOT / ".overlays" / name for name in ("gym-0.25.0", "numpy-1.26")
    ]
    path = os.pathsep.join(map(str, [hidden, *overlays]))
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute"]
    command += ["my.ipynb", "--output", "done"]
    drop = ("AZUREML_RUN_ID", "MSI_ENDPOINT")
    done = execute(command, folder, drop, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(folder / "done.ipynb", as_version=4))
    found = results(folder / "my results")
    names = {"my.ipynb", "done.ipynb", "my results"}
    assert {p.name for p in folder.iterdir()} == names
    assert found.names >= PICTURES and found.metrics["gym_version"] == "gym 0.25.0"
    if sys.version_info < (3, 13):
        assert found.metrics["numpy_version"].startswith("1.26.")
    again = train_final(lesson, **SHORT)
    assert [row[1:] for row in found.durations] == again.durations


def test_files_named_like_modules_take_no_result_away(tmp_path):
    """`random.py` beside the notebook ends all worker processes of the comparison."""
    for name in ("random.py", "signal.py"):
        (tmp_path / name).write_text("print(1)", encoding="utf-8")
    notebook = edited(MAX_STEPS=150, EVAL_EVERY=100, COMPARE_SEEDS=2)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources=where
    )
    client.execute()
    assert results(tmp_path / "outputs").metrics["env_steps"] == 150
    said = "\n".join(text_of(cell) for cell in code_cells(notebook))
    assert "workers failed" in said
    assert "6 runs are done" in said and "4 runs are done" in said


def test_it_runs_as_a_plain_script(tmp_path):
    notebook = edited(MAX_STEPS=150, EVAL_EVERY=100, COMPARE_SEEDS=0)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    convert = [sys.executable, "-m", "nbconvert", "--to", "script", "lesson.ipynb"]
    done = execute(convert, tmp_path)
    assert done.code == 0 and (tmp_path / "lesson.py").exists(), done.text
    done = execute([sys.executable, "lesson.py"], tmp_path)
    assert done.code == 0, done.text[-3000:]
    assert results(tmp_path / "outputs").metrics["env_steps"] == 150


class Azure(ModuleType):
    """Stands for azureml.core: records what it is asked to do, and may fail at it."""

    def __init__(self, fails=None, hangs=False):
        super().__init__("azureml.core")
        self.calls, self.fails, self.hangs = [], fails, hangs
        self.Workspace = SimpleNamespace(from_config=lambda: "workspace")
        self.Experiment = lambda workspace, name: self

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name == self.fails:
                raise ConnectionError("the service refuses")
            if self.hangs:
                time.sleep(30)
            return self

        return call


def send(lesson, monkeypatch, azure, folder, **options):
    """Send a small run to the stand-in; return what the notebook says."""
    monkeypatch.setitem(sys.modules, "azureml.core", azure)
    monkeypatch.setitem(sys.modules, "azureml", ModuleType("azureml"))
    metrics = {"validation_area": 250.0, "greedy_mean": 490.5}
    metrics |= {"greedy_min": 310.0, "steadiness": 0.75}
    evaluations = [lesson.Evaluation(250, 20.0, 9.0, 1.0)]
    evaluations.append(lesson.Evaluation(500, 480.0, 400.0, 2.0))
    files = [lesson.write(folder / "metrics.json", b"{}")]
    what = (lesson.settings, metrics, evaluations, files)
    return lesson.try_to_send(*what, **options)


def test_an_interactive_run_sends_everything(lesson, monkeypatch, tmp_path):
    azure = Azure()
    said = send(lesson, monkeypatch, azure, tmp_path)
    assert "not" not in said.lower()
    names = [name for name, *_ in azure.calls]
    assert names[0] == "start_logging" and names[-1] == "complete"
    logged = [call for call in azure.calls if call[0] == "log"]
    curve = [(a[1], o["step"]) for _, a, o in logged if a[0] == "validation_mean"]
    assert curve == [(20.0, 250), (480.0, 500)]
    numbers = {a[0]: a[1] for _, a, o in logged if not o}
    assert numbers["validation_area"] == 250.0 and numbers["greedy_min"] == 310.0
    (tags,) = [a[0] for name, a, _ in azure.calls if name == "set_tags"]
    assert tags["SEED"] == "0" and tags["LR"] == "0.002"
    (sent,) = [a for name, a, _ in azure.calls if name == "upload_files"]
    assert sent == (["outputs/metrics.json"], [str(tmp_path / "metrics.json")])


@pytest.mark.parametrize("step", ["start_logging", "log", "upload_files", "complete"])
def test_a_service_that_fails_is_named_in_one_line(lesson, monkeypatch, tmp_path, step):
    said = send(lesson, monkeypatch, Azure(fails=step), tmp_path)
    assert "ConnectionError" in said and "\n" not in said


def test_a_service_that_hangs_is_given_up(lesson, monkeypatch, tmp_path):
    started = time.monotonic()
    said = send(lesson, monkeypatch, Azure(hangs=True), tmp_path, seconds=0.5)
    assert "long" in said and time.monotonic() - started < 20


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


def test_every_cell_may_be_run_twice_and_training_interrupted(tmp_path):
    notebook = edited(MAX_STEPS=300, EVAL_EVERY=100, COMPARE_SEEDS=0)
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
        for index, cell in enumerate(list(notebook.cells)):
            for _ in range(2 if cell.cell_type == "code" else 0):
                client.execute_cell(cell, index)
        origins = run("print({image.origin for ax in axes for image in ax.images})")
        assert origins == "{'lower'}\n"
        starts = [cell.source[:14] for cell in notebook.cells]
        index = starts.index("final = train(")
        cell = notebook.cells[index]
        run(INTERRUPTED)
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            client.execute_cell(cell, index)
        picture, error = cell.outputs
        assert "image/png" in picture.data and error.ename == "KeyboardInterrupt"
        run("live_plot = whole_plot")
        client.execute_cell(cell, index)
        shown = [output.output_type for output in cell.outputs]
        assert shown == ["display_data", "stream"], "one picture, not two"
        same = run(
            "again = train(settings, careful_targets, remember_mirrored)\n"
            "print(final.steps, final.durations == again.durations)"
        )
        assert same == "300 True\n"
        assert Path(tmp_path / "outputs" / "metrics.json").exists()
