"""Any parameter may be changed: the notebook runs to its end or says why it cannot."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from dqn_helpers import files, parameters
from tests.helpers import check_outputs, code_cells, papermill
from tools import load_definitions as loader

RANGES = {"SEED": (0, 999_999_999), "COMPARE_SEEDS": (0, 1_000)}
RANGES |= dict.fromkeys(["MAX_STEPS", "EVAL_EVERY", "EPS_DECAY"], (1, 1_000_000_000))
RANGES |= dict.fromkeys(["BATCH_SIZE", "MEMORY_SIZE"], (1, 10_000_000))
FRACTIONS = "GAMMA EPS_START EPS_END TAU LR TARGET_EPSILON"
RANGES |= dict.fromkeys(FRACTIONS.split(), (0.0, 1.0))
OPTIONS = {"mirror": True, "compare_seeds": 3, "tracking": "none", "device": "cpu"}


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """A function that loads the definitions with other parameters."""
    monkeypatch.chdir(tmp_path)
    return lambda **values: loader.load(**{"DEVICE": "cpu", **values})


def test_every_parameter_reaches_the_settings(choose):
    (cell,) = [c for c in loader.cells() if "parameters" in loader.tags(c)]
    names = {}
    exec(cell["source"], names)
    options = {"MIRROR", "TRACKING", "OUTPUT_DIR", "DEVICE"}
    assert set(names) - {"__builtins__"} == {*RANGES, *options}
    chosen = {}  # other values than those of the cell, and all different
    for i, (name, (low, _)) in enumerate(RANGES.items(), start=1):
        chosen[name] = low + i if isinstance(low, int) else i / 100
    chosen["BATCH_SIZE"] = 3  # less than the memory
    lesson = choose(**chosen)
    del chosen["COMPARE_SEEDS"]
    assert asdict(lesson.settings) == chosen


@pytest.mark.parametrize("name", RANGES)
def test_a_number_is_taken_within_its_range_and_refused_outside(name, choose):
    low, high = RANGES[name]
    kind = type(low)
    for value in (low, high, int(low)):
        parameters.check_number(name, value)
    beyond = 0.001 if kind is float else 1
    no_number = [math.nan, math.inf, "1", None, [1], True, np.int64(1), np.float32(1)]
    bad = [low - beyond, high + beyond, *no_number]
    for value in bad if kind is float else [*bad, 1.0]:
        with pytest.raises(ValueError) as refused:
            parameters.check_number(name, value)
        said = [name, repr(value), type(value).__name__, kind.__name__]
        for part in [*said, f"{low:,.0f}", f"{high:,.0f}"]:
            assert part in str(refused.value)
    with pytest.raises(ValueError, match=name):
        choose(**{name: low - beyond})


def test_a_batch_must_fit_into_the_memory(choose):
    assert choose(BATCH_SIZE=128, MEMORY_SIZE=128).settings.MEMORY_SIZE == 128
    with pytest.raises(ValueError, match=r"BATCH_SIZE.*129.*MEMORY_SIZE.*128"):
        choose(BATCH_SIZE=129, MEMORY_SIZE=128)


def test_options_are_checked(choose):
    parameters.check_options(**OPTIONS)
    bare_off = {**OPTIONS, "mirror": False, "tracking": False}  # in YAML
    parameters.check_options(**bare_off)
    wrong = {"mirror": ("yes", None, 1, np.bool_(True)), "compare_seeds": (-1, "3")}
    wrong |= {"tracking": ("azure", True), "device": ("gpu", None, 0)}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError) as refused:
                parameters.check_options(**{**OPTIONS, name: value})
            assert name.upper() in str(refused.value)
            assert repr(value) in str(refused.value)
    for name, values in wrong.items():
        with pytest.raises(ValueError, match=name.upper()):
            choose(**{name.upper(): values[0]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_found_before_training(choose):
    assert choose(DEVICE="auto").device.type == "cpu"
    lesson = choose(DEVICE="cuda")
    with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
        lesson.make_networks(4, 2, lesson.SCALE, lesson.settings)


def test_a_variant_is_checked_as_the_parameters_are(lesson):
    with pytest.raises(ValueError, match="TAU"):
        replace(lesson.settings, TAU=1.5)
    with pytest.raises(AttributeError):
        lesson.settings.SEED = 5


def test_a_task_that_cannot_be_learned_is_refused():
    def check(threshold, actions, observation):
        spec = SimpleNamespace(id="Cart", reward_threshold=threshold)
        env = SimpleNamespace(spec=spec, action_space=SimpleNamespace(**actions))
        parameters.check_task(env, observation)

    discrete, vector = {"n": 2}, np.zeros(4)
    check(475.0, discrete, vector)
    wrong = [(None, discrete, vector), (475.0, {"shape": (1,)}, vector)]
    wrong += [(475.0, discrete, np.zeros((2, 2))), (475.0, discrete, 3)]
    for task in wrong:
        with pytest.raises(ValueError, match="Cart"):
            check(*task)


# The folder of the results.


@pytest.mark.parametrize("path", ["a/b/größerer Ordner", 20261125, "~/x"])
def test_the_folder_is_made_and_nothing_in_it_is_touched(
    path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    found = files.results_folder(path)
    assert found == Path(str(path).replace("~", str(tmp_path / "home")))
    assert capsys.readouterr().out == ""
    (found / "metrics.json").write_bytes(b"of an earlier run")
    files.results_folder(path)
    assert "earlier run" in capsys.readouterr().out
    (left,) = found.iterdir()
    assert left.read_bytes() == b"of an earlier run"


def test_a_folder_that_cannot_be_used_fails_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    for path in ("file", "file/below"):
        with pytest.raises(OSError, match="file"):
            files.results_folder(tmp_path / path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.open", full)
    with pytest.raises(OSError, match="No space left"):
        files.results_folder(tmp_path / "new")


# Whole runs.

LOWEST = {name: low for name, (low, _) in RANGES.items()}
LOWEST |= {"MAX_STEPS": 30, "EVAL_EVERY": 1, "MIRROR": False, "COMPARE_SEEDS": 1}
HIGHEST = {name: high for name, (_, high) in RANGES.items()}
HIGHEST |= {"MAX_STEPS": 200, "COMPARE_SEEDS": 2, "BATCH_SIZE": 50}
GROUPS = {
    "lowest": LOWEST,
    "highest": HIGHEST,
    "one step": {"MAX_STEPS": 1, "COMPARE_SEEDS": 1, "EVAL_EVERY": 1_000_000_000},
}


@pytest.mark.full
@pytest.mark.parametrize("name", GROUPS)
def test_allowed_values_run_to_the_end(tmp_path, name):
    done = papermill(tmp_path, {**GROUPS[name], "DEVICE": "cpu"})
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(done.executed, as_version=4))
    text = (done.outputs / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=pytest.fail)
    assert metrics["env_steps"] == GROUPS[name]["MAX_STEPS"]


def test_a_value_that_is_refused_stops_the_notebook_before_training(tmp_path):
    done = papermill(tmp_path, {"LR": "1.5"})
    last = done.text.strip().splitlines()[-1]
    assert done.code != 0 and "LR" in last and "1.5" in last
    notebook = nbformat.read(done.executed, as_version=4)
    ran = [cell for cell in code_cells(notebook) if cell.execution_count is not None]
    assert ran and not any("= train(" in cell.source for cell in ran)
    assert ran[-1].outputs[-1].ename == "ValueError"
