"""Fixtures and helpers that several test files use."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

import load_definitions as loader

try:
    from azure_standin import AzureStandin
except ImportError:  # its packages come with azureml-core, which this Python does not have
    AzureStandin = None

MACHINE_PATH = re.compile(r"/(?:root|home|Users|tmp|var|opt|work|mnt)/[\w.-]+|[A-Z]:\\\\\w")


@pytest.fixture(scope="session")
def lesson(tmp_path_factory):
    """The notebook's own definitions, on the CPU, with results going to a temporary folder."""
    folder = str(tmp_path_factory.mktemp("lesson"))
    return loader.load(OUTPUT_DIR=folder, DEVICE="cpu", TRACKING="off")


@pytest.fixture
def patch(lesson, monkeypatch):
    """A function that replaces one of the lesson's global names during a test."""
    return lambda name, value: monkeypatch.setitem(lesson.train.__globals__, name, value)


@pytest.fixture(scope="session")
def committed():
    """The committed notebook."""
    return nbformat.read(loader.NOTEBOOK, as_version=4)


def prose(notebook):
    """All Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook):
    """The code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell):
    """All text that a cell has put out: printed, tables, alternative texts."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        parts += [output.get("data", {}).get(k, "") for k in ("text/markdown", "text/plain")]
        parts.append(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
    return "\n".join(part for part in parts if part)


def pictures_of(notebook):
    """All pictures in a notebook's outputs: (base64 text, alternative text)."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    return [(o.data["image/png"], o.metadata.get("image/png", {}).get("alt", "")) for o in shown]


def check_outputs(notebook):
    """Every code cell has run, in order, without an error, a word on stderr or a machine's path."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        kinds = [output.get("name", output.output_type) for output in cell.outputs]
        assert not {"error", "stderr"} & set(kinds), (cell.source, text_of(cell))
        assert not MACHINE_PATH.search(text_of(cell)), text_of(cell)
    for _, alt in pictures_of(notebook):
        assert len(alt.split()) >= 4


def execute(command, cwd, drop=(), limit=280, **environment):
    """Run a command; return its exit code and its output as text without colours."""
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    options = {"cwd": cwd, "env": {**kept, **environment}, "text": True, "timeout": limit}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    result = subprocess.run([str(part) for part in command], **options, **streams)
    return SimpleNamespace(code=result.returncode, text=result.stdout)


def papermill(folder, parameters, **options):
    """Execute the notebook with papermill; return code, text and the executed file."""
    given = [part for name, value in parameters.items() for part in ("-p", name, value)]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", loader.NOTEBOOK]
    done = execute([*command, "executed.ipynb", *given], folder, **options)
    done.outputs, done.executed = folder / "outputs", folder / "executed.ipynb"
    return done


def edited(**parameters):
    """The notebook, its parameters cell edited as a person would."""
    notebook = nbformat.read(loader.NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    for name, value in parameters.items():
        new = f"{name} = {value!r}  "
        cell.source, count = re.subn(rf"^{name} = [^#\n]*", new, cell.source, flags=re.M)
        assert count == 1, name
    return notebook
