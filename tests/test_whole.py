"""The whole notebook with its own budget and another seed: what takes longest."""

import re
from types import SimpleNamespace

import nbformat
import pytest

from tests.helpers import (
    check_outputs,
    code_cells,
    numbers,
    papermill,
    results,
    text_of,
)

pytestmark = [pytest.mark.full, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """The notebook at its defaults, but for its seed."""
    done = papermill(tmp_path_factory.mktemp("whole"), {"SEED": 3})
    assert done.code == 0, done.text[-3000:]
    done.notebook = nbformat.read(done.executed, as_version=4)
    return done


def test_the_whole_notebook_at_its_defaults(other_run):
    check_outputs(other_run.notebook)
    metrics = results(other_run.outputs).metrics
    assert metrics["solved"] and metrics["greedy_mean"] >= 475
    assert metrics["env_steps"] == 10_000 and metrics["share_of_passes"] >= 0.9


def sections(notebook):
    """Section by section: its sentences, and all numbers of its outputs."""
    found = []
    for cell in notebook.cells:
        if cell.source.startswith("## ") or not found:
            found.append(SimpleNamespace(sentences=[], numbers=set()))
        if cell.cell_type == "markdown":
            prose = re.sub(r"(?s)```.*?```|`[^`]*`|\$+[^$]*\$+", "", cell.source)
            found[-1].sentences += re.split(r"(?<=[.!?:]) |\n", prose)
        else:
            found[-1].numbers |= set(map(abs, numbers(text_of(cell))))
    return found


def test_no_sentence_has_a_number_that_is_only_this_runs(committed, other_run):
    """What differs between seeds is printed. Results over many seeds are quoted."""
    sources = " ".join(cell.source for cell in code_cells(committed))
    constants = {*range(10), *map(abs, numbers(sources.replace("_", "")))}
    pairs = zip(sections(committed), sections(other_run.notebook), strict=True)
    for one, other in pairs:
        varying = (one.numbers ^ other.numbers) - constants
        for sentence in one.sentences:
            if not re.search(r"benchmark|seeds", sentence):
                assert not varying & set(map(abs, numbers(sentence))), sentence
