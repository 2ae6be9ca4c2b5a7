"""Parameters: taken, converted or refused before training; runs with unusual ones."""

import itertools
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from tests.helpers import check_outputs, papermill
from tools import load_definitions as loader

COUNTS = ("MAX_STEPS", "EVAL_EVERY", "BATCH_SIZE", "EPS_DECAY", "MEMORY_SIZE")
SHARES = ("GAMMA", "EPS_START", "EPS_END", "TAU", "LR", "TARGET_EPSILON")
BAD = {name: [0, -250, 2.5, True, "many", None, float("inf")] for name in COUNTS}
BAD |= {name: [1.2, -0.1, float("nan"), "0.99", True, None] for name in SHARES}
BAD |= {
    "SEED": [-1, 0.5, True, None, "0", 1_000_000_000, 2**64 - 1, 10**400],
    "MIRROR": ["yes", 1, None],
}


def test_bad_settings_are_refused_with_name_value_and_what_is_allowed(lesson):
    assert set(BAD) == set(asdict(lesson.settings))
    for name, values in BAD.items():
        for value in values:
            with pytest.raises(ValueError) as refused:
                replace(lesson.settings, **{name: value})
            said = str(refused.value)
            assert name in said and repr(value) in said
            assert type(value).__name__ in said
            assert "must be" in said


def test_plain_meanings_are_taken_as_plain_numbers(lesson):
    for value in (np.int64(300), np.float32(300), 300.0, 3e2):
        found = replace(lesson.settings, MAX_STEPS=value).MAX_STEPS
        assert found == 300 and type(found) is int
    for value in (np.float32(0.5), np.float64(0.5), 0.5):
        found = replace(lesson.settings, GAMMA=value).GAMMA
        assert found == 0.5 and type(found) is float
    assert type(replace(lesson.settings, TAU=1).TAU) is float
    assert replace(lesson.settings, MIRROR=np.False_).MIRROR is False


def test_settings_fit_together_and_are_frozen(lesson):
    s = replace(lesson.settings, **lesson.ORIGINAL_SETTINGS)
    assert s.TARGET_EPSILON == 0 and s != lesson.settings
    with pytest.raises(ValueError, match=r"BATCH_SIZE.*129.*MEMORY_SIZE.*128"):
        replace(lesson.settings, BATCH_SIZE=129, MEMORY_SIZE=128)
    assert replace(lesson.settings, BATCH_SIZE=128, MEMORY_SIZE=128)
    with pytest.raises(TypeError, match="GAMA"):
        replace(lesson.settings, GAMA=0.9)
    with pytest.raises(FrozenInstanceError):
        lesson.settings.LR = 0.5


def test_no_training_meets_the_start_of_an_evaluation(lesson):
    largest = replace(lesson.settings, SEED=999_999_999).SEED
    assert largest < min(lesson.VALIDATION_STARTS) < min(lesson.HELD_OUT_STARTS)


def test_the_other_parameters_are_no_settings(lesson):
    others = {"COMPARE_SEEDS", "TRACKING", "OUTPUT_DIR", "DEVICE"}
    assert not others & set(asdict(lesson.settings))
    for name in others:
        with pytest.raises(TypeError):
            replace(lesson.settings, **{name: "cpu"})


def test_a_name_that_is_no_parameter_is_found_between_parameters_and_settings(lesson):
    before, after = ["os", "BLUE", "SEED", "DEVICE"], ["Settings", "ORANGE"]
    assert lesson.unknown_parameters([*before, "whole", *after]) == []
    found = lesson.unknown_parameters([*before, "BATCHSIZE", "whole", *after])
    assert found == ["BATCHSIZE"]


def test_a_folder_is_made_and_home_is_home(lesson, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lesson.usable_folder("~/x") == tmp_path / "x"
    assert (tmp_path / "x").is_dir()
    monkeypatch.chdir(tmp_path)
    assert lesson.usable_folder(20261125) == Path("20261125")
    for folder in (tmp_path / "x", tmp_path / "20261125"):
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_refused(lesson, tmp_path):
    (tmp_path / "file").write_text("here", encoding="utf-8")
    unwritable = ["/proc/results", str(tmp_path / "file"), str(tmp_path / "file" / "x")]
    for name in ("", "  ", None, 2.5, [], *unwritable):
        with pytest.raises(ValueError, match="OUTPUT_DIR"):
            lesson.usable_folder(name)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "here"


def test_tracking_is_none_or_works(lesson, tmp_path, monkeypatch, patch):
    monkeypatch.chdir(tmp_path)
    for name in ("none", None, False):
        assert lesson.choose_tracking(name) == "none"
    for name in ("on", True, 3, "auto"):
        with pytest.raises(ValueError, match="TRACKING"):
            lesson.choose_tracking(name)
    monkeypatch.setitem(sys.modules, "azureml.core", None)  # as if it were missing
    with pytest.raises(ValueError, match=r"TRACKING.*azureml-core"):
        lesson.choose_tracking("azureml")
    monkeypatch.setitem(sys.modules, "azureml.core", SimpleNamespace())
    with pytest.raises(ValueError, match=r"config\.json"):
        lesson.choose_tracking("azureml")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert lesson.choose_tracking("azureml") == "azureml"
    patch("IN_JOB", True)
    monkeypatch.setitem(sys.modules, "azureml.core", None)
    assert lesson.choose_tracking("azureml") == "azureml", "a job sends nothing"


def test_a_device_that_fails_is_not_taken(lesson, monkeypatch, capsys):
    assert lesson.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="DEVICE"):
        lesson.choose_device("gpu")
    ones = torch.ones

    def broken(*shape, device=None):
        if device == "cuda":
            raise RuntimeError("no kernel image is available\nand more")
        return ones(*shape, device=device)

    monkeypatch.setattr(torch, "ones", broken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lesson.choose_device("auto") == torch.device("cpu")
    assert "no kernel image" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no kernel image"):
        lesson.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lesson.choose_device("auto") == torch.device("cpu")
    assert capsys.readouterr().out == ""


def first_cells():
    """The sources of the cells that check Python and the packages, and of gym's."""
    sources = [c["source"] for c in loader.cells() if c["cell_type"] == "code"]
    return sources[0], "\n".join(sources[:2])


def run(source, folder, *path, python=sys.executable, before=""):
    """Run code in a folder with some folders on the path; return all it says."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [python, "-c", before + source]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, **streams)
    return done.returncode, done.stdout.strip()


OLD_PYTHONS = sorted(Path("~/.pyenv/versions").expanduser().glob("3.[89].*/bin/python"))


@pytest.mark.parametrize("python", [*OLD_PYTHONS, None], ids=str)
def test_an_old_python_is_told_which_kernel_to_choose(tmp_path, python):
    pretend = "import sys; sys.version_info = (3, 8, 18)\n"
    code, said = run(
        first_cells()[0],
        tmp_path,
        python=python or sys.executable,
        before="" if python else pretend,
    )
    assert code == 1
    assert "ImportError" in said and "3.10 - Pytorch and Tensorflow" in said


def test_without_torch_the_kernel_to_choose_is_named(tmp_path):
    before = "import sys; sys.modules['torch'] = None\n"
    code, said = run(first_cells()[0], tmp_path, before=before)
    assert code == 1 and "3.10 - Pytorch and Tensorflow" in said.splitlines()[-1]


def test_a_package_that_is_too_old_or_hidden_is_named(lesson, monkeypatch):
    old = SimpleNamespace(__version__="1.21.3")
    monkeypatch.setitem(sys.modules, "numpy_of_old", old)
    with pytest.raises(ImportError, match=r"numpy 1\.21\.3.*%pip install"):
        lesson.require("numpy_of_old", "numpy", "1.23")
    hidden = SimpleNamespace(__file__="somewhere/numpy.py")
    monkeypatch.setitem(sys.modules, "numpy_hidden", hidden)
    with pytest.raises(ImportError, match=r"somewhere/numpy\.py"):
        lesson.require("numpy_hidden", "numpy", "1.23")


def test_what_a_broken_upgrade_leaves_behind_does_no_harm(tmp_path):
    (tmp_path / "torch-2.4.1.dist-info").mkdir()
    (tmp_path / "gym-0.21.0.dist-info").mkdir()
    code, said = run(first_cells()[1], tmp_path, tmp_path)
    assert code == 0, said


EMPTY_GYM = """
import sys, types
sys.modules["gym"] = types.ModuleType("gym")
sys.modules["gym"].__path__ = ["here/gym"]
"""


def test_an_empty_folder_named_gym_hides_nothing_where_gymnasium_is_there(tmp_path):
    overlay = loader.ROOT / ".overlays" / "gymnasium"
    assert overlay.is_dir(), "make .venv/test.stamp"
    code, said = run(first_cells()[1], tmp_path, overlay, before=EMPTY_GYM)
    assert code == 0, said
    assert "gymnasium" in said.splitlines()[-1]
    without = EMPTY_GYM + "sys.modules['gymnasium'] = None\n"
    code, said = run(first_cells()[1], tmp_path, before=without)
    assert code == 1 and "here/gym" in said.splitlines()[-1], "the folder is named"


# Small runs of the whole notebook. The largest values are named here where there is no
# limit that a run could have.
SMALL = {"MAX_STEPS": 150, "EVAL_EVERY": 100, "COMPARE_SEEDS": 1, "BATCH_SIZE": 32}
USUAL = [{"GAMMA": 0.95, "BATCH_SIZE": 1}, {"LR": 0.0001, "SEED": 7}]
EXTREMES = [
    {"SEED": 999_999_999, "COMPARE_SEEDS": 2, "GAMMA": 0, "EPS_END": 1},
    {"MAX_STEPS": 1, "GAMMA": 1, "LR": 1},
    {"EVAL_EVERY": 1, "MAX_STEPS": 60, "TAU": 0, "EPS_DECAY": 1},
    {"EVAL_EVERY": 1_000_000_000, "TAU": 1, "EPS_START": 1, "EPS_DECAY": 1_000_000_000},
    {"MEMORY_SIZE": 1, "BATCH_SIZE": 1, "EPS_START": 0, "EPS_END": 0},
    {"MEMORY_SIZE": 10_000_000, "BATCH_SIZE": 100, "LR": 0, "TARGET_EPSILON": 0},
    {"BATCH_SIZE": 100_000, "TARGET_EPSILON": 1, "MIRROR": False, "COMPARE_SEEDS": 0},
    {"MAX_STEPS": 700, "MEMORY_SIZE": 100, "GAMMA": 0.9, "TAU": 0.005},
    {"TRACKING": "none", "DEVICE": "cpu", "OUTPUT_DIR": 20261125, "EPS_DECAY": 300},
]


@pytest.mark.parametrize(
    "changes",
    [*USUAL, *[pytest.param(changes, marks=pytest.mark.full) for changes in EXTREMES]],
    ids=str,
)
def test_the_whole_notebook_runs_with_other_parameters(tmp_path, changes):
    done = papermill(tmp_path, {**SMALL, **changes})
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(done.executed, as_version=4))
    folder = tmp_path / str(changes.get("OUTPUT_DIR", "outputs"))
    assert (folder / "metrics.json").stat().st_size > 100


REFUSED = [
    ({"LR": "1e-3x"}, "LR"),
    ({"BATCHSIZE": 64}, "BATCHSIZE"),
    ({"OUTPUT_DIR": "/proc/results"}, "OUTPUT_DIR"),
    ({"COMPARE_SEEDS": -1}, "COMPARE_SEEDS"),
    ({"TRACKING": "azureml"}, "TRACKING"),
]


@pytest.mark.parametrize("changes,name", REFUSED, ids=str)
def test_what_cannot_work_is_refused_before_training(tmp_path, changes, name):
    done = papermill(tmp_path, changes, drop=("AZUREML_RUN_ID",))
    assert done.code == 1 and "ValueError" in done.text
    assert name in done.text.strip().splitlines()[-1]
    notebook = nbformat.read(done.executed, as_version=4)
    for cell in notebook.cells:
        if "= train(" in cell.source:
            assert cell.execution_count is None


def test_yaml_that_papermill_passes_on_is_understood(tmp_path):
    """`-y "TRACKING: off"` arrives as False, `-p MAX_STEPS 1e2` as a float."""
    done = papermill(tmp_path, {**SMALL, "MAX_STEPS": "1e2", "TRACKING": "False"})
    assert done.code == 0, done.text[-3000:]
    assert len(list(itertools.islice(done.outputs.iterdir(), 9))) == 7
