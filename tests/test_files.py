"""The files of a run, and what goes to MLflow."""

import contextlib
import json
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from types import SimpleNamespace

import mlflow
import pytest

from dqn_helpers import files, tracking


@dataclass
class Settings:
    """Stands for the lesson's."""

    SEED: int = 3
    TAU: float = 0.02


Evaluation = namedtuple("Evaluation", "step mean worst seconds time")


def run(means=(20.0, 480.0, 100.0, 500.0)):
    """A made-up run with these evaluations; it began at second 1,000."""
    rows = enumerate(means, start=1)
    return SimpleNamespace(
        settings=Settings(),
        targets="td_targets",
        remember="remember",
        loss_function="mse_loss",
        env_id="CartPole-v1",
        scale=[2.4, 2.5],
        policy_net=SimpleNamespace(scale=SimpleNamespace(device="cpu")),
        threshold=475,
        evaluations=[Evaluation(250 * i, m, m - 5, i / 4, 1_000 + i) for i, m in rows],
        durations=[(12, 12), (40, 28)],
        losses=[0.5] * 7,
        seconds=0.75,
        began=1_000.0,
    )


def metrics_of(result, held_out=(500, 490)):
    """The numbers of a run."""
    return files.metrics_of(result, held_out, share=0.5)


def test_the_numbers_of_a_run():
    metrics = metrics_of(run())
    for name in ("gym", "numpy", "torch"):
        assert metrics.pop(f"{name}_version") == version(name)
    assert metrics == {
        "seed": 3,
        "solved": True,
        "first_pass_step": 500,
        "first_pass_seconds": 0.5,
        "share_of_passes": 0.5,
        "validation_area": 275.0,
        "greedy_mean": 495.0,
        "greedy_min": 490.0,
        "greedy_episodes": 2,
        "episodes": 2,
        "env_steps": 1_000,
        "gradient_steps": 7,
        "train_seconds": 0.75,
        "device": "cpu",
    }
    without_pass = metrics_of(run(means=[474.9]))
    assert without_pass["solved"] is False and without_pass["first_pass_step"] is None
    assert metrics_of(run(), held_out=[474, 475])["solved"] is False


def test_the_files_of_a_run(tmp_path, capsys):
    metrics, picture = metrics_of(run()), SimpleNamespace(data=b"picture")
    files.save_run(tmp_path, run(), metrics, {"curve.png": picture})
    assert "first_pass_step: 500" in capsys.readouterr().out
    found = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert json.loads(found.pop("metrics.json")) == metrics
    curve = "250,20.0,15.0\n500,480.0,475.0\n750,100.0,95.0\n1000,500.0,495.0\n"
    assert found == {
        "curve.png": "picture",
        "durations.csv": "episode,steps,duration\n1,12,12\n2,40,28\n",
        "evaluations.csv": "steps,mean,worst\n" + curve,
    }


def test_a_file_that_cannot_be_written_whole_leaves_the_older_one(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"of an earlier run")
    with pytest.raises(TypeError):
        files.write(tmp_path / "model.pt", None)
    assert (tmp_path / "model.pt").read_bytes() == b"of an earlier run"


# MLflow.


@pytest.fixture
def local(monkeypatch, tmp_path):
    """MLflow on a file of the test; no waiting for servers that fail."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def send(means=(20.0, 480.0), in_job=False):
    """Send three runs, as section 14 does; each is better than the one before."""
    runs = {}
    for i, agent in enumerate(["plain DQN", "careful target", "final agent"]):
        result = run([mean + i for mean in means])
        runs[agent] = result, metrics_of(result)
    tracking.log_to_mlflow(runs, in_job)


def test_three_runs_with_their_own_names_times_and_numbers(local, capsys):
    send()
    found = mlflow.search_runs(experiment_names=["dqn-cartpole"], output_format="list")
    runs = {run.info.run_name: run for run in found}
    names = ["plain DQN, seed 3", "careful target, seed 3", "final agent, seed 3"]
    assert len(found) == 3 and set(runs) == set(names)
    printed = capsys.readouterr().out.splitlines()
    for i, (name, line) in enumerate(zip(names, printed, strict=True)):
        info, data = runs[name].info, runs[name].data
        assert name in line
        assert (info.start_time, info.end_time) == (1_000_000, 1_002_000)
        assert info.status == "FINISHED"
        history = mlflow.MlflowClient().get_metric_history
        points = history(info.run_id, "validation_mean")
        assert [(point.step, point.value, point.timestamp) for point in points] == [
            (250, 20.0 + i, 1_001_000),
            (500, 480.0 + i, 1_002_000),
        ]
        assert data.params == {
            "SEED": "3",
            "TAU": "0.02",
            "targets": "td_targets",
            "remember": "remember",
            "loss_function": "mse_loss",
            "env_id": "CartPole-v1",
            "scale": "[2.4, 2.5]",
        }
        assert (data.metrics["validation_area"], data.metrics["solved"]) == (250 + i, 1)
        assert data.tags["device"] == "cpu"


def test_a_job_sends_its_last_agent_to_its_run_in_few_requests(local, monkeypatch):
    """MLflow 2 refuses True and None, Azure ML more than 200 points a request."""
    sent = []

    def take(client, run_id, metrics=(), **others):
        sent.append((run_id, metrics))

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", take)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # for the rest
    monkeypatch.setenv("MLFLOW_RUN_ID", "r1")
    send([float(i) for i in range(450)], in_job=True)
    assert {run_id for run_id, _ in sent} == {"r1"} and len(sent) < 10
    assert max(len(metrics) for _, metrics in sent) <= 200
    points = [point for _, metrics in sent for point in metrics]
    assert {type(point.value) for point in points} == {float}
    curve = [point.value for point in points if point.key == "validation_mean"]
    assert curve == [i + 2 for i in range(450)]


def test_a_run_on_azure_has_a_page_in_studio():
    workspace = "/subscriptions/s/resourceGroups/g/providers/p/workspaces/w"
    address = f"azureml://region.api.azureml.ms/mlflow/v1.0{workspace}?"
    page = f"https://ml.azure.com/runs/r1?wsid={workspace}"
    assert tracking.studio_link(address, "r1") == page


@contextlib.contextmanager
def failing(status):
    """The address of a server with this HTTP status, or that never answers: None."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if status is None:
                ended.wait()
                return
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815, the name that http.server looks for

        def log_message(self, *args):
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        ended.set()
        server.shutdown()


@pytest.mark.parametrize("status", [500, None], ids=["error", "hangs"])
def test_a_failing_service_costs_a_job_its_success(status, local, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "r1")
    with failing(status) as address, pytest.raises(RuntimeError) as raised:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        send(in_job=True)
    assert "MLflow" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", ["busy", "refuses"])
def test_a_failing_service_is_one_line_for_a_reader(fault, local, monkeypatch, capsys):
    with failing(429) as address:
        refusing = "http://127.0.0.1:9"
        address = refusing if fault == "refuses" else address
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        send()
    (line,) = capsys.readouterr().out.splitlines()
    assert "Max retries" in line


def test_no_server_is_waited_for_longer_than_a_minute(local, monkeypatch):
    timeout = mlflow.environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT
    retries = mlflow.environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES
    assert tracking.connect_to_mlflow() is False
    assert (timeout.get(), retries.get()) == (1, 0), "a reader's own are kept"
    monkeypatch.delenv(timeout.name)
    monkeypatch.delenv(retries.name)
    monkeypatch.setenv("MLFLOW_RUN_ID", "r1")
    assert tracking.connect_to_mlflow() is True
    assert timeout.get() * (retries.get() + 1) < 60


def test_the_address_comes_from_the_workspace_if_there_is_none(local, monkeypatch):
    addresses, used = iter(["sqlite:///of_workspace.db"]), []

    class Workspace:
        @staticmethod
        def from_config():
            address = next(addresses)
            return SimpleNamespace(get_mlflow_tracking_uri=lambda: address)

    core = SimpleNamespace(Workspace=Workspace)
    monkeypatch.setitem(sys.modules, "azureml.core", core)
    monkeypatch.setattr(mlflow, "set_tracking_uri", used.append)
    tracking.connect_to_mlflow()
    assert used == [], "the address is known"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracking.connect_to_mlflow()
    assert used == ["sqlite:///of_workspace.db"]
    with pytest.raises(RuntimeError, match="MLFLOW_TRACKING_URI"):
        tracking.connect_to_mlflow()  # there is no second address


@pytest.mark.parametrize("module", ["mlflow", "azureml.core", "azureml.mlflow"])
def test_a_missing_package_is_named_before_the_training(module, local, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "azureml.core":  # as on Python 3.13
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if module == "azureml.mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://a.workspace")
    with pytest.raises(ImportError, match=rf"{module}.*%pip install.*_TRACKING_URI"):
        tracking.connect_to_mlflow()
