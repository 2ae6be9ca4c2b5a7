"""The files around the notebook agree with each other and with it; the HTML page stands alone."""

import importlib
import json
import math
import re
import subprocess
import sys

import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import MACHINE_PATH, pictures_of, prose

import load_definitions as loader

ROOT = loader.ROOT


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def names(lines):
    """Names of packages in lines of requirements."""
    return {re.match(r"[\w-]+", line)[0] for line in map(str, lines) if re.match(r"\w", line)}


def test_environments_for_pip_and_conda_have_the_same_packages():
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    locked = set((ROOT / "constraints.txt").read_text().split())
    assert names(pip) == names(requirements) - {"nbconvert", "latex2mathml"}, "a job needs no page"
    assert {pin for pin in pip if pin not in locked} == set()


@pytest.mark.parametrize("name", ["job.yml", "seeds.yml", "sweep.yml"])
def test_jobs_pass_what_they_declare_to_parameters_that_exist(lesson, name):
    job = yaml.safe_load((ROOT / "azure" / name).read_text())
    command = job.get("trial", job)["command"]
    declared = set(job.get("search_space", {})) | set(job.get("inputs", {}))
    used = re.findall(r" -p (\w+) (\S+)", command.split("papermill", 1)[1])
    assert set(re.findall(r"\$\{\{(?:search_space|inputs)\.(\w+)\}\}", command)) == declared
    assert used
    values = {n: space["values"][0] for n, space in job.get("search_space", {}).items()}
    values |= job.get("inputs", {})
    given = {}
    for parameter, text in used:
        inner = re.fullmatch(r"\$\{\{\w+\.(\w+)\}\}", text)
        given[parameter] = values[inner[1]] if inner else yaml.safe_load(text)
    lesson.changed(lesson.settings, **{**given, "TRACKING": "auto"})
    assert (ROOT / "azure" / job.get("trial", job)["environment"]["conda_file"]).exists()
    if "search_space" in job:
        combinations = math.prod(len(s["values"]) for s in job["search_space"].values())
        assert job["limits"]["max_total_trials"] == combinations
        assert job["objective"]["primary_metric"] == "validation_area"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "azure/README.md"])
def test_commands_and_files_that_the_prose_names_exist(name):
    text = (ROOT / name).read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.M)):
        made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)|`((?:[\w.]+/)+[\w.]*)`", text):
        path = target[0] or target[1]
        assert path.startswith(("outputs", ".venv", "notebooks/outputs")) or any(
            (place / path).exists() for place in (ROOT, (ROOT / name).parent)
        ), path


def test_the_repository_is_small_and_names_no_machine():
    files = tracked()
    assert len({n.split("/")[0] for n in files if not n.startswith(".")}) <= 16
    texts = {name: (ROOT / name).read_text() for name in files if name.endswith((".py", ".md"))}
    lines = {name: text.count("\n") for name, text in texts.items()}
    assert sum(n for name, n in lines.items() if name.startswith("tests/")) <= 1_900
    assert lines["README.md"] <= 130
    outside = [name for name in texts if not name.startswith("tests/")]
    assert [name for name in outside if MACHINE_PATH.search(texts[name])] == []


def test_the_report_has_the_results_and_they_bear_out_what_the_lesson_says(lesson, monkeypatch):
    folder = ROOT / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    results = json.loads((folder / "results" / "latest.json").read_text())
    report, times = importlib.import_module("report").render(results), results["time_ratios"]
    assert report == (folder / "README.md").read_text(encoding="utf-8")
    solved = "{solved} of {seeds} seeds".format(**results["summary"]["notebook"])
    others = [f"{times[name]['ratio']:.0f} times" for name in ("tutorial", "sb3", "sbx")]
    assert [n for n in (solved, *others) if n not in (ROOT / "README.md").read_text()] == []
    assert results["constants"].items() <= vars(lesson.settings).items()
    held = {n: sum(v["held"]) / len(v["held"]) for n, v in results["added"].items()}
    assert [name for name, share in held.items() if share > 0.9] == ["careful target, ε′ = 0.7"]
    assert min(results["dose"]["1.0"]["held"]) > 0.9
    plain, careful = (sum(v["held"]) for v in results["acrobot"].values())
    assert careful < plain / 2


@pytest.fixture(scope="module")
def soup(tmp_path_factory):
    """The committed notebook, exported and parsed."""
    page = tmp_path_factory.mktemp("html") / "page.html"
    script = ROOT / "tools" / "export_html.py"
    subprocess.run([sys.executable, script, loader.NOTEBOOK, page], check=True)
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_the_page_needs_no_network(soup):
    for name in ("src", "srcset", "data", "poster"):
        for element in soup.find_all(attrs={name: True}):
            assert element[name].startswith("data:"), element.name
    assert not soup.find_all("link", href=re.compile(r"^(?!data:)"))
    styles = "".join(style.text for style in soup.find_all("style"))
    assert not re.search(r"url\(\s*[\"']?(?!data:|#)|@import", styles)
    assert "http" not in "".join(script.text for script in soup.find_all("script"))


def test_pictures_and_formulas_of_the_page_can_be_read_by_everybody(soup, committed):
    images = soup.find_all("img")
    attached = sum(len(cell.get("attachments", {})) for cell in committed.cells)
    assert len(images) == attached + len(pictures_of(committed)) >= 10
    assert {alt for _, alt in pictures_of(committed)} <= {image["alt"] for image in images}
    assert all(len(image["alt"].split()) >= 4 for image in images)
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", prose(committed))
    written = re.findall(r"(?s)\$\$.+?\$\$|\$[^$]+\$", text)
    assert len(soup.find_all("math")) == len(written) >= 20
    assert soup.html["lang"] and soup.title.text.strip() == soup.h1.find(string=True).strip()
    inner = {a["href"][1:] for a in soup.find_all("a", href=re.compile("^#"))}
    assert len(inner) > 15 and inner <= {element["id"] for element in soup.find_all(id=True)}
