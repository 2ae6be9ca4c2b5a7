"""Any parameter may be changed: the notebook runs to its end or says why it cannot."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from tests.helpers import check_outputs, code_cells, papermill
from tools import load_definitions as loader

COUNT = (1, 1_000_000_000)
FRACTION = (0, 1)
RANGES = {
    "SEED": (0, 999_999_999),
    "MAX_STEPS": COUNT,
    "EVAL_EVERY": COUNT,
    "BATCH_SIZE": (1, 10_000_000),
    "GAMMA": FRACTION,
    "EPS_START": FRACTION,
    "EPS_END": FRACTION,
    "EPS_DECAY": COUNT,
    "TAU": FRACTION,
    "LR": FRACTION,
    "MEMORY_SIZE": (1, 10_000_000),
    "TARGET_EPSILON": FRACTION,
    "COMPARE_SEEDS": (0, 1_000),
}
# What is no number, or none of the right kind.
NO_NUMBER = [math.nan, math.inf, "1", None]
OTHERS = {
    "MIRROR": (True, False),
    "TRACKING": ("none",),
    "OUTPUT_DIR": ("some folder", "a/b/größerer Ordner", 20261125, "~/x"),
    "DEVICE": ("auto", "cpu"),
}
NO_CHOICE = {
    "MIRROR": ("yes", None, 2, math.nan),
    "TRACKING": ("on", "azure", True),
    "DEVICE": ("gpu", None, 0),
}


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """A function that loads the definitions with other parameters."""
    monkeypatch.chdir(tmp_path)
    return lambda **values: loader.load(**{"DEVICE": "cpu", **values})


def value_of(lesson, name):
    """A parameter as the lesson uses it."""
    return getattr(lesson.settings, name, getattr(lesson, name))


def test_every_parameter_is_in_a_table(lesson):
    (cell,) = [c for c in loader.cells() if "parameters" in loader.tags(c)]
    names = {}
    exec(cell["source"], names)
    assert set(names) - {"__builtins__"} == {*RANGES, *OTHERS}
    assert {*asdict(lesson.settings), "TARGET_EPSILON", "COMPARE_SEEDS"} == {*RANGES}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_is_kept_within_its_range_and_refused_outside(lesson, choose, name):
    low, high = RANGES[name]
    kind = type(value_of(lesson, name))
    beyond = 0.001 if kind is float else 1
    for value in (low, high):
        sizes = {"BATCH_SIZE": 1} if name == "MEMORY_SIZE" else {}
        if name == "BATCH_SIZE":
            sizes = {"MEMORY_SIZE": high}
        found = value_of(choose(**{name: value, **sizes}), name)
        assert found == value and type(found) is kind
    bad = [low - beyond, high + beyond, *NO_NUMBER]
    for value in bad if kind is float else [*bad, 1.5]:
        with pytest.raises(ValueError) as refused:
            choose(**{name: value})
        said = str(refused.value)
        assert name in said and repr(value) in said
        assert type(value).__name__ in said and kind.__name__ in said
        assert f"{low:,}" in said and f"{high:,}" in said
    with pytest.raises(ValueError, match=name):
        choose(**{name: [1]})


def test_what_means_a_plain_number_becomes_one(choose):
    found = choose(MAX_STEPS=1e3, SEED=np.uint8(7), GAMMA=np.float32(0.5)).settings
    values = [found.MAX_STEPS, found.SEED, found.GAMMA]
    assert values == [1_000, 7, 0.5]
    assert [type(value) for value in values] == [int, int, float]


def test_a_batch_must_fit_into_the_memory(choose):
    assert choose(BATCH_SIZE=128, MEMORY_SIZE=128).settings.MEMORY_SIZE == 128
    with pytest.raises(ValueError, match=r"BATCH_SIZE.*129.*MEMORY_SIZE.*128"):
        choose(BATCH_SIZE=129, MEMORY_SIZE=128)


@pytest.mark.parametrize("name", NO_CHOICE)
def test_a_choice_is_one_of_those_that_are_listed(choose, name):
    for value in OTHERS[name]:
        choose(**{name: value})
    for value in NO_CHOICE[name]:
        with pytest.raises(ValueError) as refused:
            choose(**{name: value})
        said = str(refused.value)
        assert name in said and repr(value) in said
        assert all(repr(allowed) in said for allowed in OTHERS[name])
    assert choose(TRACKING=False).TRACKING == "none", "a bare off, in YAML"


def test_devices(choose):
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose(DEVICE="auto").device.type == usual
    assert choose(DEVICE="cpu").device.type == "cpu"


def test_a_variant_is_checked_as_the_parameters_are(lesson):
    with pytest.raises(ValueError, match="TAU"):
        replace(lesson.settings, TAU=1.5)
    with pytest.raises(AttributeError):
        lesson.settings.SEED = 5
    replace(lesson.settings, **lesson.ORIGINAL_SETTINGS)


# The folder of the results.


def test_the_folder_is_made_and_nothing_in_it_is_touched(choose, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for folder in OTHERS["OUTPUT_DIR"]:
        found = choose(OUTPUT_DIR=folder).OUTPUT
        assert found == Path(str(folder).replace("~", str(tmp_path / "home")))
        (found / "metrics.json").write_bytes(b"of an earlier run")
        choose(OUTPUT_DIR=folder)
        assert (found / "metrics.json").read_bytes() == b"of an earlier run"
        assert len(list(found.iterdir())) == 1


def test_a_folder_that_cannot_be_used_fails_at_once(choose, tmp_path, monkeypatch):
    Path("file").write_bytes(b"")
    for folder in ("file", "file/below"):
        with pytest.raises(OSError, match="file"):
            choose(OUTPUT_DIR=folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile._TemporaryFileWrapper", full)
    monkeypatch.setattr("os.open", full)
    with pytest.raises(OSError, match="No space left"):
        choose(OUTPUT_DIR="new")


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


@pytest.mark.parametrize(
    "name",
    [
        "lowest",
        pytest.param("highest", marks=pytest.mark.full),
        pytest.param("one step", marks=pytest.mark.full),
    ],
)
def test_allowed_values_run_to_the_end(tmp_path, name):
    done = papermill(tmp_path, {**GROUPS[name], "DEVICE": "cpu"})
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(done.executed, as_version=4))
    text = (done.outputs / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=pytest.fail)
    assert metrics["env_steps"] == GROUPS[name]["MAX_STEPS"]
    assert math.isfinite(metrics["greedy_mean"])
    assert metrics["mirror"] is GROUPS[name].get("MIRROR", True)


def test_a_value_that_is_refused_stops_the_notebook_before_training(tmp_path):
    """Where the folder has an older run's numbers, the executed notebook says so."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "metrics.json").write_bytes(b"of an earlier run")
    done = papermill(tmp_path, {"LR": "1.5"})
    last = done.text.strip().splitlines()[-1]
    assert done.code != 0 and "LR" in last and "1.5" in last
    notebook = nbformat.read(done.executed, as_version=4)
    ran = [cell for cell in code_cells(notebook) if cell.execution_count is not None]
    assert len(ran) > 5 and not any("= train(" in cell.source for cell in ran)
    said, error = ran[-1].outputs
    assert error.ename == "ValueError" and "earlier" in said.text
