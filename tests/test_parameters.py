"""Any parameter may be changed: the notebook runs to its end, or says at once why not.

Runs are short: 150 steps, and one seed in the comparison.
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from tests.helpers import PAPERMILL, check_outputs, code_cells, execute
from tools import load_definitions as loader

BUDGET = ["-p", "MAX_STEPS", "150", "-p", "EVAL_EVERY", "100"]


def run(folder, *options, seeds=0, **environment):
    """Execute the notebook in a folder of its own; `options` are papermill's."""
    folder.mkdir()
    command = [*PAPERMILL, loader.NOTEBOOK, "executed.ipynb", *BUDGET]
    command += ["-p", "COMPARE_SEEDS", seeds, *options]
    done = execute(command, folder, **environment)
    done.folder = folder
    return done


def check_run(done, output="outputs"):
    """The run is through, and its files have numbers."""
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(done.folder / "executed.ipynb", as_version=4))
    text = (done.folder / output / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=pytest.fail)
    assert math.isfinite(metrics["greedy_mean"])
    return metrics


USUAL = [
    ["-p", "GAMMA", "0.95"],
    ["-p", "LR", "0.0001"],
    ["-p", "BATCH_SIZE", "1", "-p", "SEED", "7"],
]


@pytest.mark.parametrize("options", USUAL, ids=" ".join)
def test_usual_changes_run_to_the_end(tmp_path, options):
    done = run(tmp_path / "run", *options)
    assert check_run(done)["env_steps"] == 150


# The smallest allowed value, the largest or a large one, and a usual one.
VALUES = {
    "SEED": [0, 999_999_999, 42],
    "MAX_STEPS": [1, 3_000, 500],
    "EVAL_EVERY": [1, 1_000_000_000, 50],
    "BATCH_SIZE": [1, 100_000, 64],
    "GAMMA": [0, 1, 0.9],
    "EPS_START": [0, 1, 0.5],
    "EPS_END": [0, 1, 0.01],
    "EPS_DECAY": [1, 1_000_000_000, 500],
    "TAU": [0, 1, 0.005],
    "LR": [0, 1, 0.001],
    "MEMORY_SIZE": [128, 10_000_000, 1_000],
    "TARGET_EPSILON": [0, 1, 0.3],
    "MIRROR": [False, True, True],
    "COMPARE_SEEDS": [0, 6, 2],
    "TRACKING": ["none", False, "none"],
    "OUTPUT_DIR": [20261125, "deep/in a/größerer Ordner " + 100 * "x", "a"],
    "DEVICE": ["auto", "cpu", "cpu"],
}
# Parameters that change in the same run; those of one group do not hide each other.
GROUPS = [
    ["GAMMA", "SEED", "COMPARE_SEEDS"],
    ["LR", "EVAL_EVERY", "TRACKING"],
    ["BATCH_SIZE", "EPS_START", "OUTPUT_DIR"],
    ["TAU", "EPS_DECAY"],
    ["TARGET_EPSILON", "MEMORY_SIZE"],
    ["MAX_STEPS", "EPS_END", "MIRROR", "DEVICE"],
]


def test_every_parameter_has_values_to_try(lesson):
    (cell,) = [c for c in loader.cells() if "parameters" in loader.tags(c)]
    names = {}
    exec(cell["source"], names)
    assert set(names) - {"__builtins__"} == set(VALUES)
    grouped = [name for group in GROUPS for name in group]
    assert sorted(grouped) == sorted(VALUES)
    in_settings = set(lesson.asdict(lesson.settings))
    others = {"COMPARE_SEEDS", "TRACKING", "OUTPUT_DIR", "DEVICE"}
    assert in_settings | others == set(VALUES)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", GROUPS, ids="-".join)
def test_every_allowed_value_runs_to_the_end(tmp_path, group):
    def one(which):
        values = {name: VALUES[name][which] for name in group}
        seeds = values.pop("COMPARE_SEEDS", 1)
        options = []
        for name, value in values.items():
            options += ["-y", f"{name}: {json.dumps(value)}"]
        done = run(tmp_path / str(which), *options, seeds=seeds)
        check_run(done, str(values.get("OUTPUT_DIR", "outputs")))
        return which

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(3))) == [0, 1, 2]


@pytest.mark.full
def test_a_memory_of_one_step_runs_to_the_end(tmp_path):
    options = ["-p", "MEMORY_SIZE", "1", "-p", "BATCH_SIZE", "1"]
    check_run(run(tmp_path / "run", *options, seeds=1))


FRACTIONS = ["GAMMA", "EPS_START", "EPS_END", "TAU", "LR", "TARGET_EPSILON"]
COUNTS = ["MAX_STEPS", "EVAL_EVERY", "BATCH_SIZE", "EPS_DECAY", "MEMORY_SIZE"]
BAD = {
    "SEED": [-1, 10**9, 1.5, True, None, "0", math.nan],
    **{name: [0, -250, 2.5, True, "1e3", None, math.inf, 10**12] for name in COUNTS},
    **{name: [1.2, -0.1, math.nan, "1e-3", True, None] for name in FRACTIONS},
    "MIRROR": ["yes", 1, None, 0.0],
    "COMPARE_SEEDS": [-1, 2.5, True, None, "4"],
    "TRACKING": ["on", "azure", True, 2],
    "OUTPUT_DIR": ["", "  ", None, 1.5, True],
    "DEVICE": ["gpu", None, True, 0],
}


@pytest.fixture
def choose(lesson):
    """A function that runs the parameters' section with some values replaced."""
    (cell,) = [c for c in loader.cells() if c["source"].startswith("OUTPUT = ")]

    def choose(**values):
        names = dict(lesson.train.__globals__)
        names.update(values)
        settings = {
            n: v for n, v in values.items() if n in lesson.asdict(names["settings"])
        }
        names["settings"] = lesson.Settings(**settings)
        names["device"] = lesson.choose_device(names["DEVICE"])
        exec(cell["source"], names)
        return SimpleNamespace(**names)

    return choose


def test_every_parameter_is_checked(choose):
    assert set(BAD) == set(VALUES)


CASES = [(name, value) for name, values in BAD.items() for value in values]


@pytest.mark.parametrize("name, value", CASES)
def test_a_bad_value_is_refused_with_name_and_value_and_what_is_allowed(
    choose, name, value
):
    with pytest.raises(ValueError) as refused:
        choose(**{name: value})
    said = str(refused.value)
    assert name in said and repr(value) in said
    assert len(said.replace(repr(value), "").split()) >= 5, "and what is allowed"


@pytest.mark.parametrize("name, value", [("LR", "1e-3"), ("SEED", "0"), ("MIRROR", 1)])
def test_where_the_type_is_wrong_the_type_is_named(choose, name, value):
    with pytest.raises(ValueError, match=rf"\b{type(value).__name__}\b"):
        choose(**{name: value})


PLAIN = [
    ("MAX_STEPS", 1e3, 1000, int),
    ("BATCH_SIZE", np.int64(64), 64, int),
    ("SEED", np.uint8(7), 7, int),
    ("GAMMA", np.float32(0.5), 0.5, float),
    ("TAU", 1, 1.0, float),
    ("LR", np.float64(0.25), 0.25, float),
    ("MIRROR", np.bool_(False), False, bool),
]


@pytest.mark.parametrize("name, given, value, kind", PLAIN)
def test_what_means_a_plain_number_becomes_one(choose, name, given, value, kind):
    found = getattr(choose(**{name: given}).settings, name)
    assert found == value and type(found) is kind


def test_plain_meanings_of_the_other_parameters(choose, tmp_path):
    given = {"TRACKING": False, "COMPARE_SEEDS": np.int64(2), "OUTPUT_DIR": tmp_path}
    found = choose(**given)
    assert (found.TRACKING, found.COMPARE_SEEDS) == ("none", 2)
    assert tmp_path == found.OUTPUT
    assert choose(**given, DEVICE="auto").device == lesson_device()


def lesson_device():
    """The device that "auto" means on this machine."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_a_variant_is_checked_as_the_parameters_are(lesson):
    with pytest.raises(ValueError, match="TAU"):
        lesson.replace(lesson.settings, TAU=1.5)
    with pytest.raises(TypeError, match="GAMA"):
        lesson.replace(lesson.settings, GAMA=0.9)
    with pytest.raises(TypeError, match="DEVICE"):
        lesson.replace(lesson.settings, DEVICE="cpu")  # has no effect in a variant
    with pytest.raises(ValueError, match=r"BATCH_SIZE.*129.*MEMORY_SIZE.*128"):
        lesson.replace(lesson.settings, BATCH_SIZE=129, MEMORY_SIZE=128)
    before = lesson.asdict(lesson.settings)
    found = lesson.replace(lesson.settings, BATCH_SIZE=128, MEMORY_SIZE=128)
    expected = {**before, "BATCH_SIZE": 128, "MEMORY_SIZE": 128}
    assert lesson.asdict(found) == expected
    assert lesson.asdict(lesson.settings) == before
    lesson.replace(lesson.settings, **lesson.ORIGINAL_SETTINGS)


def test_settings_cannot_be_changed_in_place(lesson):
    with pytest.raises(AttributeError):
        lesson.settings.SEED = 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(choose):
    with pytest.raises(ValueError, match="DEVICE.*cuda"):
        choose(DEVICE="cuda")


def test_a_gpu_that_fails_is_not_used_and_it_says_so(lesson, monkeypatch, capsys):
    ones = torch.ones

    def fails(*size, device=None, **options):
        if device == "cuda":
            raise RuntimeError("no kernel image is available\nfor this device")
        return ones(*size, device=device, **options)

    monkeypatch.setattr(torch, "ones", fails)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lesson.choose_device("auto") == torch.device("cpu")
    assert "no kernel image is available" in capsys.readouterr().out
    with pytest.raises(ValueError, match="DEVICE.*no kernel image"):
        lesson.choose_device("cuda")


def test_a_folder_that_cannot_be_written_is_refused(choose, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"")
    for folder in (file, file / "below", "~nobody-has-this-name/x", "a\0b"):
        with pytest.raises(ValueError, match="OUTPUT_DIR.*cannot be written"):
            choose(OUTPUT_DIR=str(folder))

    def full(dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ValueError, match="OUTPUT_DIR.*No space left"):
        choose(OUTPUT_DIR=str(tmp_path / "new"))


def test_a_tilde_is_the_home_of_the_user(choose, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert tmp_path / "x" == choose(OUTPUT_DIR="~/x").OUTPUT
    assert (tmp_path / "x").is_dir()


def executed_cells(done):
    """The sources of the cells that a run has executed."""
    notebook = nbformat.read(done.folder / "executed.ipynb", as_version=4)
    return [c.source for c in code_cells(notebook) if c.execution_count is not None]


@pytest.mark.parametrize(
    "options, said",
    [
        (["-p", "BATCHSIZE", "64"], "BATCHSIZE"),
        (["-y", "TRACKING: azureml"], "TRACKING"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, options, said):
    done = run(tmp_path / "run", *options)
    assert done.code != 0
    assert said in done.text.strip().splitlines()[-1]
    sources = executed_cells(done)
    assert len(sources) > 10 and not any("train(" in source for source in sources)


def injected(*names):
    """The cell that papermill puts behind the parameters."""
    return "# Parameters\n" + "".join(f"{name} = 64\n" for name in names)


def test_unknown_names_are_those_of_the_latest_cell_of_papermill(lesson):
    known = injected("SEED", "DEVICE", "COMPARE_SEEDS")
    wrong = injected("SEED", "BATCHSIZE", "seed")
    unknown = lesson.unknown_parameters
    assert unknown(["", "MY_NOTE = 1", known]) == []
    assert unknown([known, wrong, "x = 1"]) == ["BATCHSIZE", "seed"]
    assert unknown([wrong, known]) == [], "the reader has corrected it"


def test_names_of_a_readers_own_are_not_refused(lesson):
    """In any other cell, and whatever the order in which cells were run."""
    (check,) = [c for c in loader.cells() if "class Settings" in c["source"]]
    (parameters,) = [c for c in loader.cells() if "parameters" in loader.tags(c)]
    names = dict(lesson.train.__globals__)
    names["MY_NOTE"] = 1
    exec(check["source"], names)  # the cell once more, after all others
    fresh = {}
    exec(parameters["source"], fresh)  # at first, before section 1
    fresh.update({n: v for n, v in names.items() if n not in fresh})
    exec(check["source"], fresh)
    edited = dict(fresh)
    exec(parameters["source"] + "\nNOTE = 'of a reader'", edited)
    exec(check["source"], edited)
