"""Whole runs that many tests look at: as a job, as a bare file, and in one kernel."""

import contextlib
import io
import json
import re
import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from conftest import AzureStandin, check_outputs, code_cells, edited, execute, papermill, text_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

import load_definitions as loader

COUNTS = "seed episodes env_steps gradient_steps greedy_episodes"
NUMBERS = f"{COUNTS} train_seconds steadiness greedy_mean greedy_min solved_at_step"
TEXTS = "device gym_version numpy_version torch_version"
KEYS = {"solved", "solved_at_seconds", *NUMBERS.split(), *TEXTS.split()}
PICTURES = {"agent.png", "collapse_and_cure.png", "learning_curve.png"}
SHORT = {"SEED": 3, "MAX_STEPS": 600, "EVAL_EVERY": 100}


def results(folder):
    """The files of a run: metrics without NaN, the rows of both tables, names."""
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    found = SimpleNamespace(metrics=metrics, names={path.name for path in folder.iterdir()})
    headers = {"durations": "episode,steps,duration", "evaluations": "steps,mean,worst"}
    for name, header in headers.items():
        first, *lines = (folder / f"{name}.csv").read_text().splitlines()
        assert first == header
        setattr(found, name, [tuple(map(float, line.split(","))) for line in lines])
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A headless run, as an Azure ML job where possible, in a home with a telltale name."""
    home = tmp_path_factory.mktemp("home") / "telltale-name"
    home.mkdir()
    with AzureStandin(home) if AzureStandin else contextlib.nullcontext() as azure:
        environment = azure.job(home) if azure else {"HOME": str(home)}
        environment |= {"USER": "telltale-name", "LOGNAME": "telltale-name"}
        done = papermill(home, {**SHORT, "COMPARE_SEEDS": 1, "DEVICE": "cpu"}, **environment)
    assert done.code == 0, done.text[-3000:]
    notebook = nbformat.read(done.executed, as_version=4)
    found = results(done.outputs)
    return SimpleNamespace(azure=azure, notebook=notebook, folder=done.outputs, **vars(found))


def test_a_job_runs_through_without_noise_or_a_trace_of_its_machine(job):
    check_outputs(job.notebook)
    assert job.names == {"metrics.json", "durations.csv", "evaluations.csv", "model.pt", *PICTURES}
    for file in [job.folder.parent / "executed.ipynb", *job.folder.iterdir()]:
        assert b"telltale" not in file.read_bytes(), file.name


def test_the_files_of_a_run_agree_with_each_other(job):
    m, durations, evaluations = job.metrics, job.durations, job.evaluations
    assert set(m) == KEYS and type(m["solved"]) is bool and m["device"] == "cpu"
    assert all(type(m[name]) is int for name in COUNTS.split())
    assert [int(row[0]) for row in durations] == list(range(1, m["episodes"] + 1))
    assert np.array_equal(np.cumsum([row[2] for row in durations]), [row[1] for row in durations])
    assert (m["seed"], m["env_steps"], m["greedy_episodes"]) == (3, 600, 100)
    assert [row[0] for row in evaluations] == [100, 200, 300, 400, 500, 600]
    passes = [row[0] for row in evaluations if row[1] >= 475]
    assert m["solved_at_step"] == (passes[0] if passes else None)
    assert (m["solved_at_seconds"] is None) is (not passes)
    assert m["steadiness"] == np.mean([row[1] >= 475 for row in evaluations[3:]])
    assert m["solved"] is (bool(passes) and m["greedy_mean"] >= 475)


def test_the_final_agent_is_that_of_the_settings_and_is_saved_as_scored(job, lesson):
    again = lesson.train(lesson.changed(lesson.settings, **SHORT))
    assert [row[1:] for row in job.durations] == again.durations
    assert job.evaluations == [e[:3] for e in again.evaluations]
    assert job.metrics["gradient_steps"] == len(again.losses)
    net, settings = lesson.load_agent(job.folder / "model.pt")
    assert (settings.SEED, settings.MAX_STEPS, settings.MIRROR) == (3, 600, True)
    returns = lesson.evaluate(lesson.greedy(net), lesson.HELD_OUT_STARTS)
    found = job.metrics["greedy_mean"], job.metrics["greedy_min"]
    assert (returns.mean(), returns.min()) == found
    steps, film = lesson.film(lesson.greedy(net), lesson.HELD_OUT_STARTS[0], "final agent", 8)
    agent = Image.open(job.folder / "agent.png")
    assert agent.n_frames == Image.open(io.BytesIO(film.data)).n_frames == 1 + steps // 8


def test_rules_and_agents_are_scored_on_the_held_out_starts(job, lesson):
    def leans(states):
        return states[:, 2] > 0

    def falls(states):
        return states[:, 2] + states[:, 3] > 0

    said = "\n".join(text_of(cell) for cell in code_cells(job.notebook))
    for name, rule in (("rule: lean", leans), ("rule: about to fall", falls)):
        returns = lesson.evaluate(rule, lesson.HELD_OUT_STARTS)
        rows = re.findall(rf"^\| {name} \| ([\d.]+) \|.* (\d+) \|$", said, re.M)
        assert len(rows) == 2 and set(rows) == {(f"{returns.mean():.1f}", f"{returns.min():.0f}")}
    assert f"| final agent | {job.metrics['greedy_mean']:.1f} |" in said
    plain = lesson.changed(lesson.settings, **SHORT, TARGET_EPSILON=0.0, MIRROR=False)
    returns = lesson.evaluate(lesson.greedy(lesson.train(plain).policy_net), lesson.HELD_OUT_STARTS)
    assert re.search(rf"\| plain DQN \| {returns.mean():.1f} \| .* \| {returns.min():.0f} \|", said)


def test_the_job_got_what_the_files_say(job):
    azure = job.azure or pytest.skip("azureml-core does not exist for this Python")
    assert azure.status == [] and azure.unknown == [] and azure.artifacts == {}
    curve = [(int(step), mean) for step, mean, _ in job.evaluations]
    assert sorted(azure.metrics["validation_mean"]) == curve
    area = np.mean([mean for _, mean in curve])
    assert azure.metrics["validation_area"] == [(None, pytest.approx(area))]
    assert azure.metrics["greedy_mean"] == [(None, job.metrics["greedy_mean"])]
    assert azure.tags["SEED"] == "3" and azure.tags["MAX_STEPS"] == "600"


def test_the_file_alone_runs_where_its_readers_are(lesson, tmp_path):
    """Edited by hand, in an empty folder; gym 0.25, NumPy 1.26, no azureml-core, no pygame."""
    folder, hidden = tmp_path / "alone", tmp_path / "hidden"
    folder.mkdir(), hidden.mkdir()
    nbformat.write(edited(COMPARE_SEEDS=0, OUTPUT_DIR="my results", **SHORT), folder / "my.ipynb")
    without = "import sys\nsys.modules.update(dict.fromkeys(['azureml', 'azureml.core', 'pygame']))"
    (hidden / "sitecustomize.py").write_text(without)
    overlays = [loader.ROOT / ".overlays" / name for name in ("gym-0.25.0", "numpy-1.26")]
    path = ":".join(map(str, [hidden, *overlays]))
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "my.ipynb"]
    drop = ("AZUREML_RUN_ID", "MSI_ENDPOINT")
    done = execute([*command, "--output", "done"], folder, drop, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(folder / "done.ipynb", as_version=4))
    found = results(folder / "my results")
    assert {p.name for p in folder.iterdir()} == {"my.ipynb", "done.ipynb", "my results"}
    assert found.names >= PICTURES and found.metrics["gym_version"] == "gym 0.25.0"
    assert sys.version_info >= (3, 13) or found.metrics["numpy_version"].startswith("1.26.")
    again = lesson.train(lesson.changed(lesson.settings, **SHORT))
    assert [row[1:] for row in found.durations] == again.durations


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
    notebook = edited(MAX_STEPS=300, EVAL_EVERY=100, COMPARE_SEEDS=0, TRACKING="off")
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=250, kernel_name="python3", resources=where)

    def run(source):
        cell = nbformat.v4.new_code_cell(source)
        client.nb.cells.append(cell)
        client.execute_cell(cell, len(client.nb.cells) - 1)
        return text_of(cell)

    with client.setup_kernel():
        for index, cell in enumerate(list(notebook.cells)):
            for _ in range(2 if cell.cell_type == "code" else 0):
                client.execute_cell(cell, index)
        assert run("print({image.origin for ax in axes for image in ax.images})") == "{'lower'}\n"
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
        assert [output.output_type for output in cell.outputs[:1]] == ["display_data"]
        same = run("print(final.steps, final.durations == train(settings).durations)")
        assert same == "300 True\n"
