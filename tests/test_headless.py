"""The notebook executed for real: headless, with bad input, in other environments."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import SHORT, execute, nbconvert, user_folder

import lesson as loader

pytestmark = pytest.mark.run

REQUIRED = {
    "seed": int,
    "solved": bool,
    "episodes": int,
    "env_steps": int,
    "gradient_steps": int,
    "train_seconds": float,
    "solved_at_step": int,
    "solved_at_seconds": float,
    "steadiness": float,
    "greedy_mean": float,
    "greedy_min": float,
    "greedy_episodes": int,
    "device": str,
    "gym_version": str,
    "numpy_version": str,
    "torch_version": str,
}


def papermill(folder, **parameters):
    options = [part for name, value in parameters.items() for part in ("-p", name, value)]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", loader.NOTEBOOK]
    return execute([*command, folder / "executed.ipynb", *options], folder)


def texts(executed):
    """All text in the outputs of a notebook file."""
    notebook = nbformat.read(executed, as_version=4)
    return [
        (output.get("name", output.output_type), output.get("text", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]


def text_of(cell):
    """All that a cell printed; how it was cut into pieces depends on timing."""
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


# --- the full run --------------------------------------------------------------------------


def test_the_default_run_solves_the_task(headless):
    metrics = json.loads((headless.outputs / "metrics.json").read_text())
    for name, kind in REQUIRED.items():
        assert type(metrics[name]) is kind, name
    assert metrics["solved"] is True
    assert metrics["greedy_mean"] >= 475 and metrics["greedy_episodes"] == 100
    assert metrics["env_steps"] == 20_000
    assert 0 < metrics["solved_at_seconds"] < metrics["train_seconds"]


def test_the_default_run_leaves_its_files_and_no_noise(headless):
    names = {path.name for path in headless.outputs.iterdir()}
    assert names == {
        "metrics.json",
        "durations.csv",
        "model.pt",
        "learning_curve.png",
        "evaluation.png",
        "agent.png",
        "tracking.csv",
    }
    assert all(kind not in ("stderr", "error") for kind, _ in texts(headless.executed))


def test_offline_nothing_is_said_about_azure_beyond_one_line(headless):
    lines = [line for _, text in texts(headless.executed) for line in text.splitlines()]
    assert [line for line in lines if "azure" in line.lower() or "Tracking" in line] == [
        "Tracking: in the output folder only"
    ]


def test_the_tracked_metrics_agree_with_the_other_files(headless):
    header, *rows = (headless.outputs / "tracking.csv").read_text().splitlines()
    assert header == "step,name,value"
    found = {}
    for step, name, value in (row.split(",") for row in rows):
        found.setdefault(name, []).append((int(step), float(value)))
    curve = (headless.outputs / "durations.csv").read_text().splitlines()[1:]
    durations = [tuple(map(float, row.split(",")[1:])) for row in curve]
    assert found["duration"] == durations
    metrics = json.loads((headless.outputs / "metrics.json").read_text())
    assert found["greedy_mean"] == [(metrics["env_steps"], metrics["greedy_mean"])]
    assert len(found["validation_mean"]) == len(found["validation_area"]) == 40
    assert {len(found[n]) for n in ("epsilon", "mean_duration_100")} == {metrics["episodes"]}
    assert 0 < len(found["loss"]) <= metrics["episodes"]


def test_nothing_personal_gets_into_the_executed_notebook(tmp_path):
    home = tmp_path / "home" / "telltale-name"
    path = user_folder(home, **SHORT)
    result = nbconvert(path, home, HOME=str(home), USER="telltale-name", LOGNAME="telltale-name")
    assert result.code == 0, result.text[-3000:]
    for file in [result.executed, *result.outputs.iterdir()]:
        assert b"telltale" not in file.read_bytes(), file.name


def test_the_learning_curve_agrees_with_the_metrics(headless):
    header, *rows = (headless.outputs / "durations.csv").read_text().splitlines()
    assert header == "episode,steps,duration"
    rows = [[int(value) for value in row.split(",")] for row in rows]
    metrics = json.loads((headless.outputs / "metrics.json").read_text())
    assert [row[0] for row in rows] == list(range(1, metrics["episodes"] + 1))
    total = 0
    for _, steps, duration in rows:
        total += duration
        assert steps == total and 1 <= duration <= 500
    assert metrics["env_steps"] - 500 < total <= metrics["env_steps"]


def test_committed_outputs_before_training_are_what_the_code_prints(headless, committed):
    """Up to the training section nothing depends on time or processor."""
    fresh = nbformat.read(headless.executed, as_version=4).cells
    for new, old in zip(fresh, committed["cells"], strict=True):
        source = "".join(old["source"])
        assert new.source == source
        if source.startswith("## 9 Training"):
            return
        if new.cell_type == "code" and "version" not in source:
            assert text_of(new) == text_of(old), source[:80]
    raise AssertionError("no training section")


# --- short runs ----------------------------------------------------------------------------


def test_from_the_notebooks_folder_and_twice(tmp_path):
    path = user_folder(tmp_path, **SHORT)
    curves = []
    for _ in range(2):
        result = nbconvert(path, path.parent)
        assert result.code == 0, result.text[-3000:]
        curves.append((result.outputs / "durations.csv").read_text())
    assert curves[0] == curves[1], "two processes, one curve"


def test_papermill_changes_the_seed(tmp_path):
    curves = []
    for seed in (0, 7):
        folder = tmp_path / str(seed)
        folder.mkdir()
        result = papermill(folder, SEED=seed, **SHORT)
        assert result.code == 0, result.text[-3000:]
        assert json.loads((folder / "outputs" / "metrics.json").read_text())["seed"] == seed
        curves.append((folder / "outputs" / "durations.csv").read_text())
    assert curves[0] != curves[1]


def test_papermill_with_a_bad_value_fails_before_training(tmp_path):
    result = papermill(tmp_path, GAMMA="1.2")
    assert result.code != 0
    assert (
        "ValueError: GAMMA = 1.2 (float) is not valid: it must be a number with 0 <= GAMMA < 1"
        in result.text
    )
    assert not (tmp_path / "outputs" / "metrics.json").exists()


# --- other versions ------------------------------------------------------------------------

CORNERS = [(gym, numpy) for gym in ("0.25.0", "0.26.2") for numpy in ("1.26.4", "2.2.6")]
ALL = [
    (gym, numpy)
    for gym in ("0.25.0", "0.25.1", "0.25.2", "0.26.0", "0.26.1", "0.26.2")
    for numpy in ("1.26.4", "2.2.6")
]


def environment(name, *packages, hide_gym=False):
    """Make (once) an environment with its own gym or NumPy over the present packages."""
    folder = loader.ROOT / ".matrix" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        present = next(path for path in sys.path if path.endswith("site-packages"))
        hide = "import sys; sys.modules['gym'] = None\n" if hide_gym else ""
        (site / "present.pth").write_text(f"{present}\n{hide}")
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run(install, check=True)
        (folder / "ready").touch()
    return python


def curve_with(folder, python, versions):
    """Execute a short run with another Python; return its learning curve."""
    path = user_folder(folder, **SHORT)
    result = nbconvert(path, folder, python)
    assert result.code == 0, result.text[-3000:]
    assert all(kind not in ("stderr", "error") for kind, _ in texts(result.executed))
    metrics = json.loads((result.outputs / "metrics.json").read_text())
    assert (metrics["gym_version"], metrics["numpy_version"]) == versions
    return (result.outputs / "durations.csv").read_text()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The learning curve of the present environment."""
    folder = tmp_path_factory.mktemp("reference")
    result = nbconvert(user_folder(folder, **SHORT), folder)
    assert result.code == 0, result.text[-3000:]
    return (result.outputs / "durations.csv").read_text()


@pytest.mark.parametrize(
    "gym,numpy",
    [
        pytest.param(*pair, marks=[] if pair in CORNERS else pytest.mark.slow, id="-".join(pair))
        for pair in ALL
    ],
)
def test_gym_and_numpy_versions_give_the_same_curve(tmp_path, reference, gym, numpy):
    python = environment(f"gym-{gym}-numpy-{numpy}", f"gym=={gym}", f"numpy=={numpy}")
    assert curve_with(tmp_path, python, (f"gym {gym}", numpy)) == reference


def test_gymnasium_serves_where_gym_is_missing(tmp_path):
    packages = "gymnasium==1.3.0", "farama-notifications==0.0.4"
    python = environment("gymnasium", *packages, hide_gym=True)
    import numpy

    curve = curve_with(tmp_path, python, ("gymnasium 1.3.0", numpy.__version__))
    assert len(curve.splitlines()) > 10


def run_without(module, folder):
    """Execute a short run in which `module` cannot be imported."""
    path = user_folder(folder, **SHORT)
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules['{module}'] = None\n")
    result = nbconvert(path, folder, PYTHONPATH=str(hidden))
    assert result.code == 0, result.text[-3000:]
    return result


def test_without_azureml_core_the_notebook_runs(tmp_path):
    run_without("azureml", tmp_path)


def test_without_pygame_the_notebook_runs_and_says_what_is_missing(tmp_path):
    result = run_without("pygame", tmp_path)
    assert "No pictures without pygame" in result.executed.read_text(encoding="utf-8")
    assert not (result.outputs / "agent.png").exists()
