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
    """Name → versions, of those in a file that apply to the Python of the jobs."""
    found = {}
    for line in lines:
        if line.startswith("-r "):
            found |= requirements(read(line.split()[1]).splitlines())
        elif re.match(r"\w", line):
            wanted = Requirement(line.partition(" #")[0].strip())
            if wanted.marker is None or wanted.marker.evaluate(JOBS):
                found[canonicalize_name(wanted.name)] = wanted.specifier
    return found


def test_lock_requirements_and_the_environment_of_jobs_agree():
    locked = requirements(read("constraints.txt").splitlines())
    for name, wanted in requirements(read("requirements-dev.txt").splitlines()).items():
        (version,) = locked[name]
        assert wanted.contains(version.version), name
    entries = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert f"python={JOBS['python_version']}" in entries
    (pins,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    needed = requirements(read("requirements.txt").splitlines())
    assert requirements(pins) == {name: locked[name] for name in needed}


@pytest.mark.parametrize("name", PAGES)
def test_make_targets_and_files_that_a_page_names_exist(name):
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.M)) <= targets
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    made = ("outputs/", "notebooks/outputs/", "notebooks/my_copy.ipynb")
    made += (".venv", "user_logs/")
    for path in [*links, *paths]:
        places = [ROOT / path, (ROOT / name).parent / path, ROOT / "notebooks" / path]
        assert path.startswith(made) or any(p.exists() for p in places), path


def test_no_page_and_no_program_names_a_machine():
    folders = ["", "azure", "benchmarks", "docs", "tools", "notebooks/dqn_helpers"]
    files = [file for folder in folders for file in (ROOT / folder).glob("*.*")]
    files = [file for file in files if file.suffix in (".md", ".py", ".txt", ".yml")]
    assert len(files) > 15
    for file in files:
        found = MACHINE_PATH.search(file.read_text(encoding="utf-8"))
        assert found is None, (file.name, found)


# Stands for Python: it makes an environment, says that it is 3.11, and writes down what
# it is asked for.
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*2*) echo 3.11 ;;
  *_base_executable*) echo "$STANDS_FOR_PYTHON" ;;
  "-m venv .venv") [ ! -e full-disk ] || exit 1
     mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *) echo "$*:$PIP_USER:$PYTHONPATH:$PYTHONSAFEPATH" >> log ;;
esac
"""


def make(folder, *arguments, **environment):
    """Run make; return its exit code, what it wrote, and what Python was asked for."""
    command = ["make", "--no-print-directory", *arguments]
    done = execute(command, folder, limit=60, **environment)
    log = folder / "log"
    done.log = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return done


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with the Makefile, in which nothing is installed."""
    (tmp_path / "notebooks").mkdir()
    for name in ("requirements-lesson.txt", "notebooks/dqn_cartpole.ipynb", "Makefile"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "constraints.txt").touch()
    program = tmp_path / "python3"
    program.write_text(PYTHON)
    program.chmod(0o755)
    monkeypatch.setenv("STANDS_FOR_PYTHON", str(program))
    for name in ("MAKEFLAGS", "PYTHON"):  # of a `make test PYTHON=…` around this
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_make_run_installs_what_the_lesson_needs_whatever_the_user_has_set(copy):
    leaks = {"PIP_USER": "1", "PYTHONPATH": "elsewhere", "PYTHONSAFEPATH": "1"}
    done = make(copy, "run", **leaks)
    assert done.code == 0 and "tools.export_html" in done.log[-1]
    installed = [re.findall(r"-r (\S+)", line) for line in done.log if " -r " in line]
    assert installed == [["requirements-lesson.txt"]]
    assert all(line.endswith(":0::") for line in done.log), done.log


def test_make_lab_opens_a_copy_which_keeps_its_changes(copy):
    for _ in range(2):
        done = make(copy, "lab")
        assert done.code == 0 and "my_copy.ipynb" in done.log[-1]
        with (copy / "notebooks" / "my_copy.ipynb").open("ab") as own:
            own.write(b" ")
    original = (ROOT / "notebooks" / "dqn_cartpole.ipynb").read_bytes()
    assert (copy / "notebooks" / "my_copy.ipynb").read_bytes() == original + b"  "
    assert (copy / "notebooks" / "dqn_cartpole.ipynb").read_bytes() == original


def test_make_goes_on_after_an_environment_that_failed(copy):
    (copy / "full-disk").touch()
    assert make(copy, "run").code != 0
    (copy / "full-disk").unlink()
    assert make(copy, "run").code == 0


@pytest.mark.parametrize("arguments", [[], ["PYTHON=python3"]])
def test_make_goes_on_after_the_python_of_its_environment_has_gone(copy, arguments):
    assert make(copy, "run").code == 0
    (copy / ".venv" / "bin" / "python").unlink()
    assert make(copy, "run", *arguments).code == 0


def test_make_leaves_an_environment_of_somebody_else_alone(copy):
    (copy / ".venv").mkdir()
    done = make(copy, "run")
    assert done.code != 0 and ".venv" in done.text
    assert list((copy / ".venv").iterdir()) == []


def test_pictures_of_an_older_run_do_not_get_into_the_repository(copy):
    old = copy / "outputs" / "agent.png"
    old.parent.mkdir()
    old.touch()
    done = make(copy, "notebook", "PARAMETERS=-p OUTPUT_DIR results/a")
    assert done.code == 0 and "OUTPUT_DIR" not in "".join(done.log)
    assert not old.exists()
