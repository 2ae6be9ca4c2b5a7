"""Other machines and folders: what is in the way, what is missing, what fails."""

import os
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from tests.helpers import PAPERMILL, code_cells, execute, text_of
from tools import load_definitions as loader

KERNEL = "Python 3.10 - Pytorch and Tensorflow"
GYMNASIUM = loader.ROOT / ".overlays" / "gymnasium"
MISSING = "import sys\nsys.modules[{name!r}] = None\n"
OLD = "import sys\nfrom types import ModuleType\n"
OLD += (
    "sys.modules['gym'] = module = ModuleType('gym')\nmodule.__version__ = '0.21.0'\n"
)
ONLY_HERE = """
import sys
from importlib.machinery import PathFinder
class OnlyHere:
    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [{folder!r}]) if name == "gym" else None
sys.meta_path.insert(0, OnlyHere())
"""


@pytest.fixture
def setup(tmp_path):
    """A function that runs section 1 as a script in a folder with other things in it.

    `before` runs before the cells, `path` comes before the installed packages.
    """
    sources = [cell["source"] for cell in loader.cells() if cell["cell_type"] == "code"]

    def setup(before="", path=(), python=sys.executable):
        script = "\n\n".join([before, *sources[:2]])
        script += "\n\nenv = make_env('CartPole-v1')\nreset_env(env, 0)\n"
        (tmp_path / "section1.py").write_text(script, encoding="utf-8")
        path = os.pathsep.join(map(str, path))
        done = execute([python, "section1.py"], tmp_path, PYTHONPATH=path)
        done.last = done.text.strip().splitlines()[-1]
        return done

    return setup


def test_section_1_says_what_it_has_found(setup):
    done = setup()
    assert done.code == 0 and "Python 3." in done.text and "gym 0.26.2" in done.text


def test_an_empty_folder_with_the_name_of_gym_is_passed_over(setup, tmp_path):
    (tmp_path / "gym").mkdir()
    before = ONLY_HERE.format(folder=str(tmp_path))
    done = setup(before, path=[GYMNASIUM])
    assert done.code == 0 and done.last.startswith("gymnasium"), done.text


@pytest.mark.parametrize("name, file", [("gym", "gym"), ("gym", "gym.py")])
def test_what_hides_gym_is_named_where_there_is_no_other(setup, tmp_path, name, file):
    path = tmp_path / file
    path.write_text("print(1)") if path.suffix else path.mkdir()
    before = ONLY_HERE.format(folder=str(tmp_path)) + MISSING.format(name="gymnasium")
    done = setup(before)
    assert done.code != 0 and done.last.startswith("ImportError"), done.text
    assert str(path) in done.last and "ename" in done.last


@pytest.mark.parametrize("name", ["torch", "numpy", "matplotlib", "PIL", "joblib"])
def test_a_file_with_the_name_of_a_package_is_named(setup, tmp_path, name):
    (tmp_path / f"{name}.py").write_text("print(1)", encoding="utf-8")
    done = setup()
    assert done.code != 0 and done.last.startswith("ImportError"), done.text
    assert str(tmp_path / f"{name}.py") in done.last


def test_gymnasium_takes_the_place_of_a_gym_that_is_missing_or_too_old(setup):
    for before in (MISSING.format(name="gym"), OLD):
        done = setup(before, path=[GYMNASIUM])
        assert done.code == 0 and done.last.startswith("gymnasium"), done.text


def test_a_gym_that_is_too_old_is_refused_where_there_is_no_other(setup):
    done = setup(OLD + MISSING.format(name="gymnasium"))
    assert done.code != 0 and done.last.startswith("ImportError")
    assert "0.21.0 is too old" in done.last and "%pip install" in done.last


def test_without_torch_the_message_names_the_kernel(setup):
    done = setup(MISSING.format(name="torch"))
    assert done.code != 0 and done.last.startswith("ImportError")
    assert "torch" in done.last and KERNEL in done.last


FAILS = ["OSError('libcudart.so.12: cannot open')", "AttributeError('numpy.bool8')"]


@pytest.mark.parametrize("error", FAILS)
@pytest.mark.parametrize("name", ["torch", "gym"])
def test_a_package_that_is_broken_is_named(setup, tmp_path, name, error):
    (tmp_path / f"{name}.py").write_text(f"raise {error}", encoding="utf-8")
    done = setup()
    assert done.code != 0 and done.last.startswith("ImportError"), done.text
    assert name in done.last and error.split("'")[1] in done.last


def test_what_a_broken_upgrade_leaves_behind_does_no_harm(setup, tmp_path):
    for name in ("torch-2.4.1", "numpy-1.0", "gym-0.25.0"):
        (tmp_path / "site" / f"{name}.dist-info").mkdir(parents=True)
    done = setup(path=[tmp_path / "site"])
    assert done.code == 0, done.text


OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python"))
SIMULATED = "import sys\nsys.version_info = (3, 8, 18, 'final', 0)\n"


@pytest.mark.parametrize("python", [sys.executable, *OLD_PYTHONS], ids=str)
def test_an_old_python_is_refused_and_the_kernel_named(setup, python):
    before = SIMULATED if python == sys.executable else ""
    done = setup(before, python=python)
    assert done.code != 0 and done.last.startswith("ImportError"), done.text
    assert "too old" in done.last and KERNEL in done.last


def test_names_of_modules_beside_the_notebook_cost_the_workers_at_most(tmp_path):
    """The final agent is saved, and the comparison goes on in one process."""
    for name in ("random", "signal"):
        (tmp_path / f"{name}.py").write_text("print(1)", encoding="utf-8")
    executed = tmp_path / "executed.ipynb"
    command = [*PAPERMILL, "--cwd", tmp_path, loader.NOTEBOOK, executed]
    command += ["-p", "MAX_STEPS", "150", "-p", "COMPARE_SEEDS", "2"]
    done = execute(command, loader.ROOT)
    assert done.code == 0, done.text[-3000:]
    assert (tmp_path / "outputs" / "model.pt").exists()
    printed = [text_of(cell) for cell in code_cells(nbformat.read(executed, 4))]
    printed = "\n".join(printed)
    assert "without them" in printed and "6 runs" in printed


@pytest.fixture
def azure(monkeypatch):
    """A stand-in for azureml.core that records what a run gets."""
    calls = []

    class Run:
        def __getattr__(self, name):
            return lambda *given, **options: calls.append((name, *given))

    class Workspace:
        from_config = staticmethod(lambda: "workspace")

    class Experiment:
        def __init__(self, workspace, name):
            self.start_logging = lambda **_: Run()

    core = ModuleType("azureml.core")
    core.Workspace, core.Experiment = Workspace, Experiment
    monkeypatch.setitem(sys.modules, "azureml", ModuleType("azureml"))
    monkeypatch.setitem(sys.modules, "azureml.core", core)
    monkeypatch.setenv("AZUREML_FLUSH_INGEST_WAIT", "")
    return SimpleNamespace(calls=calls, core=core)


@pytest.fixture
def sent(lesson, tmp_path):
    """What there is to send after a run."""
    files = []
    for name in ("metrics.json", "model.pt"):
        files.append(lesson.write(tmp_path / name, b"content"))
    evaluations = [lesson.Evaluation(250, 20.0, 9.0, 1.0)]
    evaluations.append(lesson.Evaluation(500, 480.0, 400.0, 2.0))
    names = ("validation_area", "greedy_mean", "greedy_min", "steadiness")
    metrics = dict.fromkeys(names, 0.5)
    metrics["solved_at_step"] = None
    return lesson.settings, metrics, evaluations, files


def test_a_run_is_sent_to_azure(lesson, azure, sent):
    assert lesson.try_to_send(*sent).startswith("Everything")
    tags, *logs, upload, end = azure.calls
    settings, metrics, _, files = sent
    given = {name: str(value) for name, value in lesson.asdict(settings).items()}
    assert tags == ("set_tags", given) and end == ("complete",)
    curve = [("log", "validation_mean", 20.0), ("log", "validation_mean", 480.0)]
    assert logs[:2] == curve
    assert {(name, value) for _, name, value in logs[2:]} == set(
        (name, value) for name, value in metrics.items() if value is not None
    )
    names = ["outputs/metrics.json", "outputs/model.pt"]
    assert upload == ("upload_files", names, [str(file) for file in files])


@pytest.mark.parametrize("error", [OSError("no network"), SystemExit(1)])
def test_a_service_that_fails_does_not_fail_the_lesson(lesson, azure, sent, error):
    def fails():
        raise error

    azure.core.Workspace.from_config = staticmethod(fails)
    said = lesson.try_to_send(*sent)
    assert type(error).__name__ in said and "Not everything" in said


def test_a_service_that_hangs_is_not_waited_for(lesson, azure, sent):
    answer = threading.Event()
    azure.core.Workspace.from_config = staticmethod(answer.wait)
    try:
        said = lesson.try_to_send(*sent, seconds=0.3)
        assert "Not everything" in said and "too long" in said
    finally:
        answer.set()


def test_tracking_needs_a_workspace_and_the_package(
    lesson, azure, tmp_path, monkeypatch
):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"TRACKING.*config\.json"):
        lesson.choose_tracking("azureml")
    (tmp_path / "a" / ".azureml").mkdir()
    (tmp_path / "a" / ".azureml" / "config.json").write_text("{}", encoding="utf-8")
    assert lesson.choose_tracking("azureml") == "azureml"
    monkeypatch.setitem(sys.modules, "azureml.core", None)
    with pytest.raises(ValueError, match=r"TRACKING.*azureml-core cannot be used"):
        lesson.choose_tracking("azureml")


def test_in_a_job_nothing_is_sent(lesson, azure, sent, monkeypatch, capsys):
    monkeypatch.setenv("AZUREML_RUN_ID", "run")
    assert loader.load(DEVICE="cpu").IN_JOB
    (cell,) = [c for c in loader.cells() if "print(try_to_send(" in c["source"]]
    settings, metrics, evaluations, files = sent
    names = dict(lesson.train.__globals__)
    names.update(metrics=metrics, final=SimpleNamespace(evaluations=evaluations))
    names.update(settings=settings, files=files, OUTPUT="outputs")
    for in_job, tracking, word in (
        (True, "azureml", "job"),
        (False, "none", "nothing is sent"),
        (False, "azureml", "Everything was sent"),
    ):
        assert azure.calls == []
        names.update(IN_JOB=in_job, TRACKING=tracking)
        exec(cell["source"], names)
        assert word in capsys.readouterr().out
    assert azure.calls != []
