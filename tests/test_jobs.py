"""The jobs for Azure ML: their files, and the command that they run."""

import json
import math
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pathspec
import pytest
import yaml

from tests.helpers import execute
from tools import load_definitions as loader

AZURE = loader.ROOT / "azure"
SCRIPT = AZURE / "log_metrics.py"
PLACEHOLDER = re.compile(r"\$\{\{(?:inputs|search_space)\.(\w+)\}\}")


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


@pytest.mark.parametrize("name", ["job.yml", "seeds.yml", "sweep.yml"])
def test_a_job_gives_allowed_values_to_parameters_that_exist(name, tmp_path):
    job, trial = read(name)
    values = choices(job)
    assert set(PLACEHOLDER.findall(trial["command"])) == set(values)
    papermill = trial["command"].split(" papermill ")[1]
    given = re.findall(r" -p (\w+) (\S+)", papermill)
    assert given and "TRACKING" not in dict(given)
    for parameter, text in given:
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


@pytest.fixture
def store(tmp_path, monkeypatch):
    """MLflow on local files with a run, as Azure ML sets it up for a job."""
    mlflow = pytest.importorskip("mlflow", reason="jobs use Python 3.11")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    client = mlflow.MlflowClient(tracking_uri=address)
    run_id = client.create_run(experiment_id="0").info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    return SimpleNamespace(client=client, run_id=run_id)


def uploaded(folder):
    """Copy into `folder` what .amlignore lets through."""
    lines = (loader.ROOT / ".amlignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitwildmatch", lines)
    for path in ignored.match_tree_files(loader.ROOT, negate=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(loader.ROOT / path, folder / path)


def filled(job, trial, **inputs):
    """The command of a job with these inputs."""
    values = {**job["inputs"], **inputs}
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), trial["command"])


def test_the_command_of_the_job_runs_the_notebook_and_logs_its_metrics(store, tmp_path):
    """With the kernel's name that Studio may have written into the file."""
    folder = tmp_path / "job"
    folder.mkdir()
    uploaded(folder)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {"dqn_cartpole.ipynb", "log_metrics.py"}
    path = folder / "notebooks" / "dqn_cartpole.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec.name = "python38-azureml-pt-tf"
    nbformat.write(notebook, path)

    job, trial = read("job.yml")
    command = filled(job, trial, seed=3, max_steps=500)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": programs, "AZUREML_RUN_ID": store.run_id}
    done = execute(["bash", "-c", command], folder, **environment)
    assert done.code == 0, done.text[-3000:]

    metrics = json.loads((folder / "outputs/metrics.json").read_text(encoding="utf-8"))
    logged = store.client.get_run(store.run_id).data.metrics
    for name in ("validation_area", "greedy_mean", "env_steps", "solved"):
        assert logged[name] == metrics[name]
    curve = store.client.get_metric_history(store.run_id, "validation_mean")
    assert [point.step for point in curve] == [250, 500]
    area = sum(point.value for point in curve) / len(curve)
    assert logged["validation_area"] == pytest.approx(area)
    assert (folder / "outputs" / "executed.ipynb").exists()


@pytest.fixture
def results(tmp_path):
    """A folder with the results of a run."""
    metrics = {"validation_area": 412.5, "solved": True, "solved_at_step": None}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    rows = "steps,mean,worst\n250,20.5,9.0\n500,480.0,400.0\n"
    (tmp_path / "evaluations.csv").write_text(rows, encoding="utf-8")
    return tmp_path


def test_numbers_are_logged_and_nothing_else(store, results):
    done = execute([sys.executable, SCRIPT, results], results)
    assert done.code == 0, done.text
    run = store.client.get_run(store.run_id)
    last = {"validation_area": 412.5, "solved": 1.0, "validation_mean": 480.0}
    assert run.data.metrics == last


QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
AS_IT_IS = pytest.param(True, {}, marks=pytest.mark.full)


@pytest.mark.parametrize("hangs, limits", [(False, {}), (True, QUICK), AS_IT_IS])
def test_a_service_that_cannot_be_reached_ends_with_one_line(results, hangs, limits):
    pytest.importorskip("mlflow", reason="jobs use Python 3.11")
    with socket.socket() as server:  # connections are accepted and never answered
        server.bind(("127.0.0.1", 0))
        if hangs:
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {"MLFLOW_TRACKING_URI": address, **limits}
        command = [sys.executable, SCRIPT, results]
        done = execute(command, results, limit=150, **environment)
    assert done.code == 1
    last = done.text.splitlines()[-1]
    assert "not logged" in last and str(results) in last
    assert "Traceback" not in done.text
