"""The jobs for Azure ML."""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import mlflow
import nbformat
import pathspec
import pytest
import yaml

from tests.helpers import execute
from tools import load_definitions as loader

AZURE = loader.ROOT / "azure"
PLACEHOLDER = re.compile(r"\$\{\{(?:inputs|search_space)\.(\w+)\}\}")


@pytest.fixture
def local(monkeypatch, tmp_path):
    """MLflow on a file of the test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


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
def test_a_job_gives_allowed_values_to_parameters_that_exist(name, local, tmp_path):
    job, trial = read(name)
    values = choices(job)
    assert set(PLACEHOLDER.findall(trial["command"])) == set(values)
    papermill = trial["command"].partition(" papermill ")[2]
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


def test_settings_are_compared_by_their_medians_over_seeds(local, capsys):
    """As azure/README.md shows it."""
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("dqn-cartpole-sweep")
    areas = {"0.002": [100.0, 490.0, 480.0], "0.005": [300.0, 310.0, 320.0]}
    areas["0.0005"] = [499.0, 20.0, 10.0]  # the best run, and the worst setting
    for lr, values in areas.items():
        for area in values:
            run_id = client.create_run(experiment).info.run_id
            client.log_param(run_id, "LR", lr)
            client.log_param(run_id, "TAU", "0.02")
            client.log_metric(run_id, "validation_area", area)
    sweep = client.create_run(experiment).info.run_id  # may have those of its best
    client.log_metric(sweep, "validation_area", 500.0)
    page = (AZURE / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(code, {})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["0.002", "0.02", "480.0", "100.0", "3"],
        ["0.005", "0.02", "310.0", "300.0", "3"],
        ["0.0005", "0.02", "20.0", "10.0", "3"],
    ]


def let_through(names):
    """Those of these paths that Azure ML uploads."""
    lines = (loader.ROOT / ".amlignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitwildmatch", lines)
    return [name for name in names if not ignored.match_file(name)]


def test_a_job_gets_the_notebook_and_its_helpers_and_nothing_else():
    needed = ["notebooks/dqn_cartpole.ipynb", "notebooks/dqn_helpers/drawings/a.svg"]
    others = ["README.md", "config.json", "notebooks/my_copy.ipynb", "outputs/model.pt"]
    others += ["notebooks/outputs/model.pt", "notebooks/dqn_helpers/__pycache__/a.pyc"]
    assert let_through(needed + others) == needed


def run_job(folder, **environment):
    """Run the command of job.yml with what is uploaded, as Azure ML would.

    The notebook has the kernel's name that Studio may have written into it.
    """
    paths = [path for path in loader.NOTEBOOK.parent.rglob("*") if path.is_file()]
    for path in let_through([str(path.relative_to(loader.ROOT)) for path in paths]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(loader.ROOT / path, folder / path)
    copy = folder / loader.NOTEBOOK.relative_to(loader.ROOT)
    notebook = nbformat.read(copy, as_version=4)
    notebook.metadata.kernelspec.name = "python38-azureml-pt-tf"
    nbformat.write(notebook, copy)
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
    (run,) = client.search_runs(["0"])
    for name in ("validation_area", "greedy_mean", "env_steps", "solved"):
        assert run.data.metrics[name] == metrics[name]
    settings = {"SEED": "3", "MAX_STEPS": "500", "remember": "remember_mirrored"}
    assert settings.items() <= run.data.params.items()
    curve = client.get_metric_history(run_id, "validation_mean")
    assert [point.step for point in curve] == [250, 500]
    area = sum(point.value for point in curve) / len(curve)
    assert run.data.metrics["validation_area"] == pytest.approx(area)
    assert len(client.search_experiments()) == 1
    assert (outputs / "executed.ipynb").exists()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_job_that_cannot_log_fails_with_one_line_and_has_all_files(tmp_path):
    refusing = "http://127.0.0.1:9"
    done = run_job(tmp_path, MLFLOW_TRACKING_URI=refusing, MLFLOW_RUN_ID="r1")
    assert done.code == 1
    last = done.text.strip().splitlines()[-1]
    assert "MLflow" in last and "Max retries" in last, last
    found = {path.name for path in (tmp_path / "outputs").iterdir()}
    names = "metrics.json evaluations.csv durations.csv model.pt executed.ipynb"
    pictures = {"collapse_and_cure.png", "learning_curve.png"}
    assert found == {*names.split(), *pictures}
