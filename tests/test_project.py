"""The files around the notebook agree with each other."""

import re
import subprocess

import pytest
import yaml

import lesson as loader

ROOT = loader.ROOT


def pins(lines):
    return sorted(line for line in map(str.strip, lines) if line and line[0] not in "#-")


def test_environment_yml_stands_alone_and_equals_requirements_txt():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == pins((ROOT / "requirements.txt").read_text().splitlines())
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pip)
    assert "python=3.11" in environment["dependencies"]


def test_all_requirements_are_pinned():
    for path in ROOT.glob("**/requirements*.txt"):
        if ".venv" in path.parts or ".matrix" in path.parts:
            continue
        assert all("==" in pin for pin in pins(path.read_text().splitlines())), path


def test_commands_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"run", "test", "test-quick", "test-slow", "notebook", "html"} <= named
    assert named <= targets


def test_paths_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target
    layout = readme.split("## Layout")[1].split("\n## ")[0]
    for name in re.findall(r"`([^`]+)`", layout):
        assert (ROOT / name).exists(), name


def test_ci_runs_the_test_command():
    assert (ROOT / ".ci" / "run").read_text().strip().endswith("make test")


@pytest.mark.parametrize("path", ["outputs/metrics.json", "config.json", ".azureml/config.json"])
def test_git_ignores_results_and_workspace_files(path):
    for place in ("", "notebooks/"):
        result = subprocess.run(["git", "check-ignore", "-q", place + path], cwd=ROOT)
        assert result.returncode == 0, place + path


def test_tracked_files_hold_no_machine_paths_or_identifiers():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    guid = r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    paths = r"/(?:root|home|Users)/\w+"
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".png",) or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'"image/png": "[^"]*"|base64,[^"\\]*', "", text)
        assert not re.search(guid, text), name
        assert not re.search(paths, text), name
