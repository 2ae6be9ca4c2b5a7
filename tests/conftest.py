"""Fixtures: the committed notebook, the lesson's definitions, and one real headless run."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

import lesson as loader

SHORT = {"MAX_STEPS": 1500, "COMPARE_SEEDS": 0, "ABLATION_SEEDS": 0, "DEVICE": "cpu"}
TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="session")
def committed():
    """The committed notebook as a dictionary."""
    return json.loads(loader.NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def lesson(tmp_path_factory):
    """The notebook's own definitions, with results going to a temporary folder."""
    return loader.load(OUTPUT_DIR=str(tmp_path_factory.mktemp("lesson")), DEVICE="cpu")


def prose(notebook):
    """All Markdown of a notebook."""
    return "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )


def execute(command, cwd, **environment):
    """Run a command; return its exit code and its output as text without colours."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    return SimpleNamespace(code=result.returncode, text=TERMINAL_COLOURS.sub("", result.stdout))


def user_folder(folder, **parameters):
    """Make a folder as a user has it, notebooks/ with the notebook; return the notebook's path.

    `parameters` are put into the copy as papermill would.
    """
    path = folder / "notebooks" / loader.NOTEBOOK.name
    path.parent.mkdir(parents=True)
    if parameters:
        notebook = load_notebook_node(str(loader.NOTEBOOK))
        nbformat.write(parameterize_notebook(notebook, parameters), path)
    else:
        shutil.copyfile(loader.NOTEBOOK, path)
    return path


def nbconvert(path, cwd, python=sys.executable, **environment):
    """Execute a notebook headless, as the README says; return code, text and the executed file."""
    command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", path]
    result = execute([*command, "--output", "executed"], cwd, **environment)
    result.executed = path.parent / "executed.ipynb"
    result.outputs = path.parent / "outputs"
    return result


@pytest.fixture(scope="session")
def headless(tmp_path_factory):
    """One full default run from the folder above notebooks/."""
    folder = tmp_path_factory.mktemp("headless")
    result = nbconvert(user_folder(folder), folder)
    assert result.code == 0, result.text[-3000:]
    return result
