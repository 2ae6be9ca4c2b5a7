"""The files around the notebook agree with each other."""

import os
import re
import shutil

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import MACHINE_PATH, execute
from tools.load_definitions import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "azure/README.md", "docs/where-it-runs.md"]
JOBS = {"python_version": "3.11", "python_full_version": "3.11.0"}  # environment.yml


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def requirements(lines):
    """The requirements among lines of a file; comments and options are left out."""
    texts = [line.partition(" #")[0].strip() for line in lines]
    return [Requirement(text) for text in texts if re.match(r"\w", text)]


def for_jobs(found):
    """Of these requirements, those that apply to the Python of the jobs."""
    return [r for r in found if r.marker is None or r.marker.evaluate(JOBS)]


def names(found):
    return {canonicalize_name(requirement.name) for requirement in found}


@pytest.fixture(scope="module")
def locked():
    """The versions that the lock has for the jobs' Python."""
    found = for_jobs(requirements(read("constraints.txt").splitlines()))
    return {canonicalize_name(r.name): str(r.specifier)[2:] for r in found}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_fits_the_requirements(locked, name):
    for wanted in for_jobs(requirements(read(name).splitlines())):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)])


def test_jobs_have_the_packages_of_the_requirements_in_the_versions_of_the_lock(locked):
    entries = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert f"python={JOBS['python_version']}" in entries
    (pins,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    pins = requirements(pins)
    for_the_page = {"nbconvert", "latex2mathml"}
    needed = names(for_jobs(requirements(read("requirements.txt").splitlines())))
    assert names(pins) == needed - for_the_page
    for pin in pins:
        assert str(pin.specifier) == "==" + locked[canonicalize_name(pin.name)]


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_and_files_that_a_page_names_exist(name):
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.M)) <= targets
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    made = ("outputs/", "notebooks/outputs/", ".venv", "user_logs/")
    for path in [*links, *paths]:
        places = [ROOT / path, (ROOT / name).parent / path]
        assert path.startswith(made) or any(p.exists() for p in places), path


def make(folder, *arguments, **environment):
    """Run make in a folder; return its exit code and all that it wrote."""
    command = ["make", "--no-print-directory", *arguments]
    return execute(command, folder, limit=60, **environment)


def test_make_alone_lists_its_targets_and_runs_nothing():
    done = make(ROOT)
    assert done.code == 0
    for target in ("lab", "run", "test", "test-full", "notebook", "clean"):
        assert re.search(rf"^make {target} +\w+", done.text, re.M), target
    first, values, *others = done.text.splitlines()
    assert "GNU make" in first and "PYTHON=" in values
    assert all(line.startswith("make ") for line in others), "nothing else is printed"


# Stands for Python: makes an environment, starts as 3.11, and writes down what it gets.
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*2*) echo 3.11 ;;
  *_base_executable*) echo "$STANDS_FOR_PYTHON" ;;
  "-m venv .venv") [ ! -e full-disk ] || exit 1
     mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *) echo "$*:$PIP_USER:$PYTHONPATH:$PYTHONSAFEPATH" >> log ;;
esac
"""


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with the Makefile, in which nothing is installed; Python is not real."""
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    program = tmp_path / "python3"
    program.write_text(PYTHON)
    program.chmod(0o755)
    monkeypatch.setenv("STANDS_FOR_PYTHON", str(program))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def exported(folder):
    """Whether the page was the last thing that `make html` made."""
    last = (folder / "log").read_text().splitlines()[-1]
    (folder / "log").unlink()
    return last.startswith("-m tools.export_html")


def test_make_goes_on_after_an_environment_that_failed(copy):
    (copy / "full-disk").touch()
    assert make(copy, "html").code != 0
    (copy / "full-disk").unlink()
    assert make(copy, "html").code == 0 and exported(copy)


@pytest.mark.parametrize("arguments", [["html"], ["html", "PYTHON=python3"]])
def test_make_goes_on_after_the_python_of_its_environment_has_gone(copy, arguments):
    assert make(copy, "html").code == 0 and exported(copy)
    (copy / ".venv" / "bin" / "python").unlink()
    assert make(copy, *arguments).code == 0 and exported(copy)


def test_make_leaves_an_environment_of_somebody_else_alone(copy):
    (copy / ".venv").mkdir()
    done = make(copy, "html")
    assert done.code != 0 and ".venv" in done.text
    assert list((copy / ".venv").iterdir()) == []


def test_make_keeps_its_environment_from_the_settings_of_a_user(copy):
    leaks = {"PIP_USER": "1", "PYTHONPATH": "elsewhere", "PYTHONSAFEPATH": "1"}
    assert make(copy, "html", **leaks).code == 0
    for line in (copy / "log").read_text().splitlines():
        assert line.endswith(":0::"), line


def test_pictures_of_an_older_run_do_not_get_into_the_repository(copy):
    old = copy / "outputs" / "agent.png"
    old.parent.mkdir()
    old.touch()
    assert make(copy, "notebook", "PARAMETERS=-p OUTPUT_DIR results/a").code == 0
    assert "OUTPUT_DIR" not in (copy / "log").read_text()
    assert not old.exists()


def test_no_page_and_no_program_names_a_machine():
    folders = ["", "azure", "benchmarks", "docs", "tools"]
    files = [file for folder in folders for file in (ROOT / folder).glob("*.*")]
    files = [file for file in files if file.suffix in (".md", ".py", ".txt", ".yml")]
    assert len(files) > 15
    for file in files:
        found = MACHINE_PATH.search(file.read_text(encoding="utf-8"))
        assert found is None, (file.name, found)
