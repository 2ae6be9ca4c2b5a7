"""The jobs for Azure ML, and what the lesson sends to MLflow."""

import contextlib
import json
import math
import os
import re
import runpy
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import mlflow
import nbformat
import pathspec
import pytest
import yaml

from tests.helpers import execute
from tools import load_definitions as loader

AZURE = loader.ROOT / "azure"
PLACEHOLDER = re.compile(r"\$\{\{(?:inputs|search_space)\.(\w+)\}\}")
MADE_WITH = {"SEED": 3, "LR": 0.002, "MIRROR": True}
METRICS = {"validation_area": 412.5, "solved": True, "solved_at_step": None}


# ------------------------------------------------------------------ the job files
def read(name):
    """A job file, and that part of it which has the command."""
    job = yaml.safe_load((AZURE / name).read_text(encoding="utf-8"))
    return job, job.get("trial", job)


def choices(job):
    """The values that a job may give to each of its placeholders."""
    values = {name: [value] for name, value in job.get("inputs", {}).items()}
    for name, space in job.get("search_space", {}).items():
        values[name] = space["values"]
    return values


@pytest.fixture
def local(monkeypatch, tmp_path):
    """MLflow on a file of the test; no waiting for servers that fail."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.mark.parametrize("name", ["job.yml", "seeds.yml", "sweep.yml"])
def test_a_job_gives_allowed_values_to_parameters_that_exist(name, local, tmp_path):
    job, trial = read(name)
    values = choices(job)
    assert set(PLACEHOLDER.findall(trial["command"])) == set(values)
    papermill = trial["command"].split(" papermill ")[1]
    given = dict(re.findall(r" -p (\w+) (\S+)", papermill))
    assert given["TRACKING"] == "mlflow"
    for parameter, text in given.items():
        placeholder = PLACEHOLDER.fullmatch(text)
        allowed = values[placeholder[1]] if placeholder else [yaml.safe_load(text)]
        for value in allowed:
            others = {"OUTPUT_DIR": str(tmp_path), "DEVICE": "cpu"}
            loader.load(**{parameter: value}, **others)  # its checks refuse bad ones
    assert (AZURE / trial["environment"]["conda_file"]).exists()


@pytest.mark.parametrize("name", ["seeds.yml", "sweep.yml"])
def test_a_sweep_tries_every_combination_and_ranks_by_validation(name):
    job, _ = read(name)
    combinations = math.prod(len(values) for values in choices(job).values())
    assert job["limits"]["max_total_trials"] == combinations
    assert job["objective"]["primary_metric"] == "validation_area"


# ------------------------------------------------------------------ the whole job
def uploaded(folder):
    """Copy into `folder` what .amlignore lets through."""
    lines = (loader.ROOT / ".amlignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitwildmatch", lines)
    for path in ignored.match_tree_files(loader.ROOT, negate=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(loader.ROOT / path, folder / path)


def run_job(folder, **environment):
    """Run the command of job.yml where the notebook alone is, as Azure ML would.

    The notebook has the kernel's name that Studio may have written into it.
    """
    folder.mkdir()
    uploaded(folder)
    (path,) = [path for path in folder.rglob("*") if path.is_file()]
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec.name = "python38-azureml-pt-tf"
    nbformat.write(notebook, path)
    job, trial = read("job.yml")
    values = {**job["inputs"], "seed": 3, "max_steps": 500}
    command = PLACEHOLDER.sub(lambda found: str(values[found[1]]), trial["command"])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-c", command]
    return execute(command, folder, limit=550, PATH=programs, **environment)


@pytest.mark.timeout(600)
def test_a_job_logs_parameters_numbers_and_curve_to_the_run_it_is_given(
    local, tmp_path
):
    client = mlflow.MlflowClient()
    run_id = client.create_run(experiment_id="0").info.run_id
    done = run_job(tmp_path / "job", MLFLOW_RUN_ID=run_id)
    assert done.code == 0, done.text[-3000:]

    outputs = tmp_path / "job" / "outputs"
    metrics = json.loads((outputs / "metrics.json").read_text(encoding="utf-8"))
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert len(client.search_runs(["0"])) == len(client.search_experiments()) == 1
    for name in ("validation_area", "greedy_mean", "env_steps", "solved"):
        assert run.data.metrics[name] == metrics[name]
    settings = {"SEED": "3", "MAX_STEPS": "500", "TAU": "0.02", "MIRROR": "True"}
    assert settings.items() <= run.data.params.items()
    curve = client.get_metric_history(run_id, "validation_mean")
    assert [point.step for point in curve] == [250, 500]
    area = sum(point.value for point in curve) / len(curve)
    assert run.data.metrics["validation_area"] == pytest.approx(area)
    assert (outputs / "executed.ipynb").exists()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_job_that_cannot_log_fails_with_one_line_and_has_all_files(tmp_path):
    with serving(lambda count: 500) as server:
        done = run_job(
            tmp_path / "job", MLFLOW_TRACKING_URI=server.address, MLFLOW_RUN_ID="r1"
        )
    assert done.code == 1
    last = done.text.strip().splitlines()[-1]
    assert "MLflow" in last and "500" in last, last
    files = {path.name for path in (tmp_path / "job" / "outputs").iterdir()}
    names = "metrics.json evaluations.csv durations.csv model.pt executed.ipynb"
    pictures = "agent.png collapse_and_cure.png learning_curve.png"
    assert files == {*names.split(), *pictures.split()}


# ---------------------------------------------------- the cell that sends, by itself
HERE = {"experiment_id": "1", "lifecycle_stage": "active"}
RUN = {"run_id": "r1", "run_uuid": "r1", "run_name": "calm_pole", "status": "RUNNING"}
ANSWER = {
    "experiment": {"name": "dqn-cartpole", **HERE},
    "run": {"info": {**RUN, **HERE}, "data": {}},
}


@contextlib.contextmanager
def serving(answer):
    """A server on this machine that has every MLflow run; what was sent to it.

    `answer` gives the HTTP status of a request, or None where no answer comes; it gets
    the request's number.
    """
    ended, sent = threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent.append(json.loads(body or "{}"))
            status = answer(len(sent))
            if status is None:
                ended.wait()
                return
            content = json.dumps(ANSWER if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *args):
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield SimpleNamespace(address=address, sent=sent)
        ended.set()
        server.shutdown()


def evaluations(number):
    """A made-up curve."""
    return [SimpleNamespace(step=250 * i, mean=float(i)) for i in range(1, number + 1)]


def send(folder, number=40):
    """Run the cell that sends, after the definitions and with made-up results."""
    names = vars(loader.load(TRACKING="mlflow", OUTPUT_DIR=str(folder), DEVICE="cpu"))
    names["made_with"], names["metrics"] = MADE_WITH, METRICS
    names["final"] = SimpleNamespace(evaluations=evaluations(number))
    sources = [c["source"] for c in loader.cells() if "tracking" in loader.tags(c)]
    (source,) = sources
    exec(source, names)


def test_a_run_of_ones_own_goes_to_the_experiment(local, tmp_path, capsys):
    send(tmp_path)
    (run,) = mlflow.search_runs(experiment_names=["dqn-cartpole"], output_format="list")
    assert run.info.run_name in capsys.readouterr().out
    assert run.data.params == {name: str(value) for name, value in MADE_WITH.items()}
    last = {"validation_area": 412.5, "solved": 1.0, "validation_mean": 40.0}
    assert run.data.metrics == last


def test_numbers_are_sent_as_floats(local, tmp_path, monkeypatch):
    """MLflow 2, which the kernels of instances may have, refuses True and False."""
    sent = {}
    monkeypatch.setattr(mlflow, "log_metrics", sent.update)
    send(tmp_path)
    assert sent == {"validation_area": 412.5, "solved": 1.0}
    assert {type(value) for value in sent.values()} == {float}


def test_a_long_curve_needs_few_requests(local, tmp_path, monkeypatch):
    """A busy service answers 429 to a client that asks too often."""
    with serving(lambda count: 200 if count <= 20 else 429) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        monkeypatch.setenv("MLFLOW_RUN_ID", "r1")
        send(tmp_path, number=500)
    points = [point for body in server.sent for point in body.get("metrics", [])]
    curve = [p["step"] for p in points if p["key"] == "validation_mean"]
    assert curve == [250 * i for i in range(1, 501)]
    assert max(len(body.get("metrics", [])) for body in server.sent) <= 200


FAULTS = {
    "error": lambda count: 500,
    "busy": lambda count: 200 if count <= 3 else 429,
    "hangs": lambda count: None,
    "hangs later": lambda count: 200 if count <= 3 else None,
    "refuses": None,
}


@contextlib.contextmanager
def faulty(fault, monkeypatch):
    """MLFLOW_TRACKING_URI leads to a server with this fault."""
    with serving(FAULTS[fault] or FAULTS["error"]) as server:
        address = server.address if FAULTS[fault] else "http://127.0.0.1:9"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_service_costs_a_job_its_success(fault, local, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "r1")
    with faulty(fault, monkeypatch), pytest.raises(RuntimeError) as raised:
        send(tmp_path)
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_service_is_one_line_for_a_reader(
    fault, local, tmp_path, monkeypatch, capsys
):
    with faulty(fault, monkeypatch):
        send(tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line]
    assert str(tmp_path) in line and "Max retries" in line


@pytest.mark.full
@pytest.mark.timeout(150)  # MLflow's own limits would make it a quarter of an hour
def test_the_lesson_does_not_wait_for_ever(local, tmp_path, monkeypatch, capsys):
    for name in ("TIMEOUT", "MAX_RETRIES"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}")
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the lesson adds to it
    with faulty("hangs later", monkeypatch):
        send(tmp_path)
    assert str(tmp_path) in capsys.readouterr().out


# --------------------------------------------------------- the address of a workspace
def test_the_address_comes_from_the_workspace_if_there_is_none(
    local, tmp_path, monkeypatch
):
    calls = []

    class Workspace:
        @staticmethod
        def from_config():
            calls.append("from_config")
            raise OSError("no config.json here")

    monkeypatch.setitem(sys.modules, "azureml.core", SimpleNamespace(**vars()))
    loader.load(TRACKING="mlflow", OUTPUT_DIR=str(tmp_path))
    assert calls == [], "the address is known"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    loader.load(TRACKING="none", OUTPUT_DIR=str(tmp_path))
    assert calls == [], "nobody asks for it"
    with pytest.raises(OSError, match="no config.json here"):
        loader.load(TRACKING="mlflow", OUTPUT_DIR=str(tmp_path))
    assert calls == ["from_config"]


def test_without_azureml_core_the_message_names_the_variable(
    local, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "azureml.core", None)  # as on Python 3.13
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ImportError, match="MLFLOW_TRACKING_URI"):
        loader.load(TRACKING="mlflow", OUTPUT_DIR=str(tmp_path))


def test_an_address_on_azure_needs_a_package_before_the_training(
    local, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "azureml.mlflow", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://a.workspace")
    with pytest.raises(ImportError, match="%pip install.*azureml-mlflow"):
        loader.load(TRACKING="mlflow", OUTPUT_DIR=str(tmp_path))


# ----------------------------------------------------------------- which settings won
def test_settings_are_compared_by_their_medians_over_seeds(local, monkeypatch, capsys):
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("made up")
    areas = {"0.002": [100.0, 490.0, 480.0], "0.005": [300.0, 310.0, 320.0]}
    areas["0.0005"] = [499.0, 20.0, 10.0]  # the best run, and the worst setting
    for lr, values in areas.items():
        for seed, area in enumerate(values):
            run_id = client.create_run(experiment).info.run_id
            parameters = {"LR": lr, "TAU": "0.02", "SEED": seed, "seed": seed}
            for name, value in parameters.items():
                client.log_param(run_id, name, value)
            client.log_metric(run_id, "validation_area", area)
    client.create_run(experiment)  # a run that failed has no numbers
    sweep = client.create_run(experiment).info.run_id  # may have those of its best
    client.log_metric(sweep, "validation_area", 500.0)

    monkeypatch.setattr(sys, "argv", ["compare_runs", "made up"])
    runpy.run_module("tools.compare_runs", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["LR", "median validation_area", "worst seed", "runs"]
    assert rows[2:] == [
        ["0.002", "480.0", "100.0", "3"],
        ["0.005", "310.0", "300.0", "3"],
        ["0.0005", "20.0", "10.0", "3"],
    ]

    monkeypatch.setattr(sys, "argv", ["compare_runs", "no such experiment"])
    with pytest.raises(SystemExit, match="no such experiment"):
        runpy.run_module("tools.compare_runs", run_name="__main__")
