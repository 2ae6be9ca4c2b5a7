"""Helpers that several test files use."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from tools import load_definitions as loader

PAPERMILL = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"]
MACHINE_PATH = re.compile(
    r"/(?:root|home|Users|tmp|var|opt|work|mnt)/[\w.-]+|[A-Z]:\\\\\w"
)


def prose(notebook):
    """All Markdown of a notebook."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return "\n\n".join(cell.source for cell in cells)


def code_cells(notebook):
    """The code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell):
    """All text that a cell has put out: printed, tables, alternative texts."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        parts.append(output.get("text", ""))
        parts.append(data.get("text/markdown", ""))
        parts.append(data.get("text/plain", ""))
        parts.append(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
    return "\n".join(part for part in parts if part)


def pictures_of(notebook):
    """All pictures in a notebook's outputs: (base64 text, alternative text)."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    pictures = []
    for output in outputs:
        if "image/png" in output.get("data", {}):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            pictures.append((output.data["image/png"], alt))
    return pictures


def check_outputs(notebook):
    """Every code cell has run, in order, without an error or a machine's path."""
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = [output.get("name", output.output_type) for output in cell.outputs]
        assert not {"error", "stderr"} & set(kinds), (cell.source, text_of(cell))
        assert not MACHINE_PATH.search(text_of(cell)), text_of(cell)
    for _, alt in pictures_of(notebook):
        assert len(alt.split()) >= 4


def numbers(text):
    """All numbers in a text."""
    found = re.findall(r"-?\d[\d,]*\.?\d*", text)
    return [float(number.rstrip(",.").replace(",", "")) for number in found]


def table_of(text):
    """The rows of the table in a text, by their first cell."""
    _, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {name: cells for name, *cells in rows}


def made_up(*means, threshold=475, durations=(), **others):
    """A run with evaluations at steps 100, 200, … of a budget of as many steps.

    Training took a hundredth of a second a step until an evaluation, and an hour.
    """
    evaluations = []
    for i, mean in enumerate(means, start=1):
        seen = {"step": 100 * i, "mean": mean, "worst": mean - 10, "seconds": i}
        evaluations.append(SimpleNamespace(**seen, time=1_000 + i, network=f"net {i}"))
    ends = itertools.accumulate(durations)
    run = {
        "settings": SimpleNamespace(SEED=0, MAX_STEPS=100 * len(means)),
        "threshold": threshold,
        "durations": list(zip(ends, durations, strict=True)),
        "evaluations": evaluations,
        "losses": [0.0] * 7,
        "seconds": 3_600.0,
        "finished": True,
    }
    return SimpleNamespace(**{**run, **others})


def points(run):
    """The points of a run's learning curve."""
    return [[e.step, e.mean] for e in run.evaluations]


def execute(command, cwd, limit=900, **environment):
    """Run a command with more environment; return its exit code and all it wrote."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        encoding="utf-8",
        timeout=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return SimpleNamespace(code=done.returncode, text=done.stdout)


def add_helpers(folder):
    """Put a copy of the lesson's helpers into a folder."""
    helpers = loader.NOTEBOOK.parent / "dqn_helpers"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(helpers, folder / helpers.name, ignore=ignored)


def papermill(folder, parameters, **options):
    """Execute the notebook in `folder`; return code, text and the executed file.

    As in the repository, the helpers are in its folder `notebooks`.
    """
    (folder / "notebooks").mkdir()
    add_helpers(folder / "notebooks")
    command = [*PAPERMILL, loader.NOTEBOOK, "executed.ipynb"]
    for name, value in parameters.items():
        command += ["-p", name, value]
    done = execute(command, folder, **options)
    done.outputs = folder / "outputs"
    done.executed = folder / "executed.ipynb"
    return done


def edited(**parameters):
    """The notebook, with its parameters cell edited as a person would."""
    notebook = nbformat.read(loader.NOTEBOOK, as_version=4)
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    (cell,) = cells
    for name, value in parameters.items():
        new = f"{name} = {value!r}  "
        old = re.compile(rf"^{name} = [^#\n]*", re.M)
        cell.source, count = old.subn(lambda _, new=new: new, cell.source)
        assert count == 1, name
    return notebook


def results(folder):
    """The files of a run: metrics without NaN, the rows of both tables, names."""
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    found = {"metrics": json.loads(text, parse_constant=pytest.fail)}
    found["names"] = {path.name for path in folder.iterdir()}
    for name in ("durations", "evaluations"):
        _, *lines = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        found[name] = [tuple(map(float, line.split(","))) for line in lines]
    return SimpleNamespace(**found)


def chromium():
    """The path of Chromium: the system's, or the one that Playwright has installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
    if not os.path.exists(path):
        sys.exit("The browser tests need Chromium. To install it: make browser")
    return path


if __name__ == "__main__":
    print("Chromium for the browser tests:", chromium())
