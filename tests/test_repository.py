"""The files around the notebook agree with each other."""

import re
import subprocess

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import MACHINE_PATH
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
    for_metrics = {"mlflow-skinny", "azureml-mlflow"}
    needed = names(requirements(read("requirements.txt").splitlines()))
    assert names(pins) == needed - for_the_page | for_metrics
    for pin in pins:
        assert str(pin.specifier) == "==" + locked[canonicalize_name(pin.name)]


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_and_files_that_a_page_names_exist(name):
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.M)) <= targets
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    made = ("outputs/", ".venv", "user_logs/")
    for path in [*links, *paths]:
        places = [ROOT / path, (ROOT / name).parent / path]
        assert path.startswith(made) or any(p.exists() for p in places), path


def test_make_alone_lists_its_targets_and_runs_nothing():
    done = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0
    for target in ("lab", "run", "test", "test-full", "notebook", "clean"):
        assert re.search(rf"^make {target} +\w+", done.stdout, re.M), target
    lines = done.stdout.splitlines()
    assert all(line.startswith("make ") for line in lines), "nothing else is printed"


def test_no_page_and_no_program_names_a_machine():
    folders = ["", "azure", "benchmarks", "docs", "tools"]
    files = [file for folder in folders for file in (ROOT / folder).glob("*.*")]
    files = [file for file in files if file.suffix in (".md", ".py", ".txt", ".yml")]
    assert len(files) > 15
    for file in files:
        found = MACHINE_PATH.search(file.read_text(encoding="utf-8"))
        assert found is None, (file.name, found)
