"""The notebook's record of a run: in its own folder, in an Azure ML job, on a compute instance.

Every test executes the notebook headless, with the real azureml-core against a local stand-in.
"""

import json
import time
from types import SimpleNamespace

import nbformat
import pytest
from azure_standin import FAULTY, KINDS, AzureStandin, token
from conftest import SHORT, nbconvert, user_folder

pytestmark = pytest.mark.run

ALWAYS = {"metrics.json", "durations.csv", "tracking.csv", "model.pt"}
WARNING = "Tracking: not sent"
PATIENCE = 20  # seconds that the notebook may lose to a service that does not answer
NOISE = 25  # seconds by which a busy machine may be slower; without a guard it is minutes


def execute(folder, place, faults=(), change=None, parameters=(), whole=False, **options):
    """Execute the notebook at a `place` (a method of the stand-in); return what came of it.

    Tracking ends with section 11; the rest is executed only on request.
    """
    path = user_folder(folder, **{**SHORT, **dict(parameters)})
    notebook = nbformat.read(path, as_version=4)
    if not whole:
        del notebook.cells[section(notebook, 12) :]
    if change:
        change(notebook)
    nbformat.write(notebook, path)
    home = folder / "home"
    home.mkdir()
    with AzureStandin(folder) as azure:
        azure.faults.update(faults)
        if place == "compute_instance":
            options["folder"] = path.parent
        environment = getattr(azure, place)(home, **options)
        started = time.monotonic()
        result = nbconvert(path, folder, **environment)
        seconds = time.monotonic() - started
    kept = {file.name: file.read_bytes() for file in result.outputs.glob("*")}
    return SimpleNamespace(azure=azure, result=result, seconds=seconds, files=kept)


def section(notebook, number):
    """Where a section begins."""
    cells = enumerate(notebook.cells)
    (place,) = (n for n, cell in cells if f"\n## {number} " in f"\n{cell.source}")
    return place


def succeed(folder, place, **options):
    """The same for an execution that must not fail, nor say anything on stderr."""
    done = execute(folder, place, **options)
    assert done.result.code == 0, done.result.text[-3000:]
    notebook = nbformat.read(done.result.executed, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    lines = "".join(output.get("text", "") for output in outputs).splitlines()
    done.warnings = [line for line in lines if line.startswith(WARNING)]
    done.metrics = json.loads(done.files["metrics.json"])
    done.durations = table(done.files["durations.csv"])
    done.rows = {}
    for step, name, value in table(done.files["tracking.csv"]):
        done.rows.setdefault(name, []).append((int(step), float(value)))
    return done


def table(content):
    """The rows of a CSV file without its header."""
    return [line.split(",") for line in content.decode().splitlines()[1:]]


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A run on a machine without Azure ML."""
    return succeed(tmp_path_factory.mktemp("offline"), "offline")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A run as a job."""
    parameters = {"REGISTER_MODEL_AS": "cartpole"}
    return succeed(tmp_path_factory.mktemp("job"), "job", parameters=parameters)


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A run in a session on a compute instance."""
    parameters = {"REGISTER_MODEL_AS": "cartpole"}
    return succeed(tmp_path_factory.mktemp("instance"), "compute_instance", parameters=parameters)


@pytest.fixture(params=["job", "instance"])
def tracked(request):
    """Both runs that Azure ML tracks, one after the other."""
    return request.getfixturevalue(request.param)


# --- in the folder -------------------------------------------------------------------------


def test_without_azure_nothing_is_sent_and_nothing_is_said(offline):
    assert offline.azure.requests == [] and offline.azure.unknown == []
    assert offline.warnings == []


def test_tracking_off_sends_nothing_even_in_a_job_that_fails(tmp_path):
    parameters = {"TRACKING": "off"}
    done = execute(tmp_path, "job", change=break_after_training, parameters=parameters)
    assert done.result.code != 0 and "OSError: disk full" in done.result.text
    assert done.azure.requests == [] and done.azure.unknown == []


def test_tracking_insisted_on_without_azure_fails_before_training(tmp_path):
    done = execute(tmp_path, "offline", parameters={"TRACKING": "azureml"})
    assert done.result.code != 0 and not done.files
    assert 'ValueError: TRACKING = "azureml", but' in done.result.text


def test_the_record_agrees_with_the_other_files(offline):
    assert offline.files["tracking.csv"].startswith(b"step,name,value\n")
    rows, lengths = offline.rows, [int(row[2]) for row in offline.durations]
    ends = [int(row[1]) for row in offline.durations]
    assert rows["duration"] == list(zip(ends, lengths, strict=True))
    means = [sum(lengths[:n][-100:]) / min(n, 100) for n in range(1, len(lengths) + 1)]
    assert rows["mean_duration_100"] == [
        (s, pytest.approx(m)) for s, m in zip(ends, means, strict=True)
    ]
    assert [step for step, _ in rows["epsilon"]] == ends
    assert [step for step, _ in rows["validation_mean"]] == [500, 1000, 1500]
    assert rows["greedy_mean"] == [(offline.metrics["env_steps"], offline.metrics["greedy_mean"])]


def test_the_record_is_plausible(offline):
    epsilon = [value for _, value in offline.rows["epsilon"]]
    assert epsilon == sorted(epsilon, reverse=True) and 0.05 < epsilon[-1] < epsilon[0] <= 0.9
    losses = offline.rows["loss"]
    assert len(losses) > 0.5 * len(epsilon) and all(value > 0 for _, value in losses)
    assert {step for step, _ in losses} <= {step for step, _ in offline.rows["epsilon"]}
    assert all(1 <= value <= 500 for _, value in offline.rows["validation_mean"])


def test_the_sweeps_metric_never_falls_and_ends_at_the_mean(offline):
    area = [value for _, value in offline.rows["validation_area"]]
    means = [value for _, value in offline.rows["validation_mean"]]
    assert area == sorted(area)
    assert area[-1] == pytest.approx(sum(means) / len(means))


# --- at Azure ML ---------------------------------------------------------------------------


def test_tracking_changes_nothing_in_the_folder(offline, tracked):
    assert tracked.files.keys() == offline.files.keys() >= ALWAYS
    for name in ("durations.csv", "tracking.csv", "evaluation.png"):
        assert tracked.files[name] == offline.files[name], name


def test_all_went_well_and_every_request_was_understood(tracked):
    assert tracked.warnings == [] and tracked.azure.unknown == [] and tracked.azure.errors == []


def test_the_service_got_the_same_metrics(tracked):
    sent = {name: sorted(points) for name, points in tracked.azure.metrics.items()}
    assert sent == {name: sorted(points) for name, points in tracked.rows.items()}


def test_the_settings_are_tags(tracked):
    tags = tracked.azure.tags
    assert tags["SEED"] == "0" and tags["MAX_STEPS"] == "1500" and tags["GAMMA"] == "0.99"
    assert all(isinstance(value, str) for value in tags.values())


def test_the_pictures_are_there_under_their_names(tracked):
    assert tracked.azure.images.keys() == {"learning_curve", "evaluation"}
    for name, (place,) in tracked.azure.images.items():
        path = place.split("/", 5)[5]  # after aml://artifactId/origin/container/
        assert tracked.azure.artifacts[path] == tracked.files[f"{name}.png"]


def test_the_model_is_registered_with_score_settings_and_seed(tracked):
    (model,) = tracked.azure.models
    assert model["name"] == "cartpole"
    assert float(model["tags"]["greedy_mean"]) == round(tracked.metrics["greedy_mean"], 1)
    assert model["tags"]["seed"] == "0"
    assert json.loads(model["tags"]["settings"])["MAX_STEPS"] == 1500
    (asset,) = tracked.azure.assets
    path = asset["artifacts"][0]["prefix"].split("/", 2)[2]
    assert tracked.azure.artifacts[path] == tracked.files["model.pt"]


def test_a_job_leaves_its_outputs_and_its_status_to_azure(job):
    assert not any(name.startswith("outputs/") for name in job.azure.artifacts)
    assert job.azure.status == []


@pytest.mark.slow
def test_the_rest_of_the_notebook_sends_nothing_more(tmp_path, job):
    done = succeed(tmp_path, "job", parameters={"REGISTER_MODEL_AS": "cartpole"}, whole=True)
    for name, points in job.azure.metrics.items():
        assert len(done.azure.metrics[name]) == len(points), name
    assert done.azure.metrics.keys() == job.azure.metrics.keys()
    assert len(done.azure.artifacts) == len(job.azure.artifacts)
    assert done.warnings == [] and done.azure.unknown == []


def test_a_session_uploads_its_outputs_and_completes_its_run(instance):
    files = {name: data for name, data in instance.azure.artifacts.items() if "outputs/" in name}
    assert files == {f"outputs/{name}": data for name, data in instance.files.items()}
    assert instance.azure.status == ["Start", "Completed"] and len(instance.azure.runs) == 1


# --- a notebook that fails -----------------------------------------------------------------


def break_after_training(notebook):
    """Insert a cell that raises before section 10."""
    cell = nbformat.v4.new_code_cell("raise OSError('disk full')")
    notebook.cells.insert(section(notebook, 10), cell)


@pytest.mark.parametrize("place,status", [("job", []), ("compute_instance", ["Start", "Failed"])])
def test_a_failing_notebook_marks_its_run_as_failed(tmp_path, place, status):
    done = execute(tmp_path, place, change=break_after_training)
    assert done.result.code != 0 and "OSError: disk full" in done.result.text
    assert done.azure.errors == ["OSError: disk full"]
    assert done.azure.status == status  # a job's status follows from its exit code
    assert len(done.azure.metrics["duration"]) > 10, "what was logged before is not lost"


def fill_the_disk(notebook):
    """Insert a cell before section 11: an earlier run's model lies there, and no room is left."""
    source = """import resource
(output_dir / "model.pt").write_bytes(b"of an earlier run")
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, -1))"""
    notebook.cells.insert(section(notebook, 11), nbformat.v4.new_code_cell(source))


def test_a_full_disk_sends_no_file_of_an_earlier_run(tmp_path):
    parameters = {"REGISTER_MODEL_AS": "cartpole"}
    done = execute(tmp_path, "compute_instance", change=fill_the_disk, parameters=parameters)
    assert done.result.code == 0, done.result.text[-3000:]
    assert done.files["model.pt"] == b"of an earlier run"
    uploaded = {name for name in done.azure.artifacts if "outputs/" in name}
    small = {"metrics.json", "durations.csv", "tracking.csv"}
    assert uploaded == {f"outputs/{name}" for name in small}
    executed = done.result.executed.read_text()
    assert "No model is registered as cartpole: model.pt could not be written." in executed
    assert done.azure.models == [] and "model/model.pt" not in done.azure.artifacts


# --- a service that fails ------------------------------------------------------------------


def assert_only_tracking_suffers(done, offline):
    assert done.files.keys() == offline.files.keys()
    assert done.files["durations.csv"] == offline.files["durations.csv"]
    assert done.files["tracking.csv"] == offline.files["tracking.csv"]
    assert len(done.warnings) == 1 and "outputs" in done.warnings[0], done.warnings
    assert done.seconds < offline.seconds + PATIENCE + NOISE


def assert_the_rest_arrives(done, service, place):
    """One failing service takes nothing with it that other services keep."""
    azure = done.azure
    if service != "history":  # without a run nothing can be sent
        if place == "compute_instance":
            assert azure.status == ["Start", "Completed"]
        if service != "metrics":
            sent = {name: len(points) for name, points in azure.metrics.items()}
            assert sent.keys() == done.rows.keys()
            assert sent["duration"] == len(done.rows["duration"])
        elif place == "compute_instance":
            uploaded = {name for name, data in azure.artifacts.items() if data}
            assert uploaded >= {f"outputs/{name}" for name in done.files}


NORMAL = {("job", "metrics", "hang"), ("compute_instance", "artifacts", "500")}
FAULTS = [
    pytest.param(*case, marks=[] if case in NORMAL else pytest.mark.slow, id="-".join(case))
    for case in (
        (place, service, kind)
        for place in ("job", "compute_instance")
        for service in FAULTY
        for kind in KINDS
    )
]


@pytest.mark.parametrize("place,service,kind", FAULTS)
def test_a_fault_costs_seconds_and_a_line(tmp_path, offline, place, service, kind):
    done = succeed(tmp_path, place, faults={service: kind})
    assert_only_tracking_suffers(done, offline)
    assert_the_rest_arrives(done, service, place)
    assert done.azure.models == [], "no name was given"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["expired", "malformed"])
def test_a_useless_token_costs_a_line(tmp_path, offline, kind):
    done = succeed(tmp_path, "job", run_token=token(-60) if kind == "expired" else kind)
    assert_only_tracking_suffers(done, offline)
    assert done.azure.metrics == {}


@pytest.mark.slow
def test_a_workspace_that_is_not_there_costs_a_line(tmp_path, offline):
    done = succeed(tmp_path, "compute_instance", workspace="elsewhere")
    assert_only_tracking_suffers(done, offline)
    assert done.azure.metrics == {} and done.azure.status == []
