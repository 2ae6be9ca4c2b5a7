"""What takes long: the whole notebook, other versions, a browser."""

import json
import os
import re
import sys

import nbformat
import pytest

from tests.helpers import check_outputs, edited, execute, jupyterlab, papermill, prose
from tools import load_definitions as loader

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


def test_the_whole_notebook_at_its_defaults(tmp_path):
    done = papermill(tmp_path, {}, limit=800)
    assert done.code == 0, done.text[-3000:]
    check_outputs(nbformat.read(done.executed, as_version=4))
    metrics = json.loads((done.outputs / "metrics.json").read_text(encoding="utf-8"))
    assert (
        metrics["solved"]
        and metrics["greedy_mean"] >= 475
        and metrics["env_steps"] == 10_000
    )
    assert metrics["steadiness"] >= 0.9


TRAIN = """
import json, sys
if sys.argv[1] == "gymnasium":
    sys.modules["gym"] = None  # as if it were not there
from tools.load_definitions import load
lesson = load(DEVICE="cpu", MAX_STEPS=600, EVAL_EVERY=100, SEED=3)
result = lesson.train(
    lesson.settings,
    targets=lesson.careful_targets,
    remember=lesson.remember_mirrored,
)
versions = [lesson.SIMULATOR, lesson.GYM_VERSION, lesson.np.__version__]
curve = [result.durations, [e[:3] for e in result.evaluations]]
print(json.dumps([versions, curve]))
"""
GYMS = {"0.25.0": "gym-0.25.0", "0.26.2": None, "gymnasium": "gymnasium"}
NUMPYS = {"1.26": "numpy-1.26", "2": None}


@pytest.mark.parametrize("numpy", NUMPYS)
@pytest.mark.parametrize("gym", GYMS)
def test_every_pair_of_versions_gives_the_same_curve(lesson, tmp_path, gym, numpy):
    if numpy == "1.26" and sys.version_info >= (3, 13):
        pytest.skip("NumPy 1.26 has no wheel for this Python")
    names = [name for name in (GYMS[gym], NUMPYS[numpy]) if name]
    folders = [loader.ROOT / ".overlays" / name for name in names]
    assert all(folder.is_dir() for folder in folders), "make .venv/test.stamp"
    path = os.pathsep.join(map(str, [*folders, loader.ROOT]))
    command = [sys.executable, "-c", TRAIN, gym]
    done = execute(command, tmp_path, PYTHONPATH=path)
    assert done.code == 0, done.text[-3000:]
    (name, version, numpy_version), curve = json.loads(done.text.splitlines()[-1])
    assert gym in (name, version) and numpy_version.startswith(f"{numpy}.")
    s = lesson.replace(lesson.settings, MAX_STEPS=600, EVAL_EVERY=100, SEED=3)
    here = lesson.train(
        s, targets=lesson.careful_targets, remember=lesson.remember_mirrored
    )
    expected = [here.durations, [e[:3] for e in here.evaluations]]
    assert curve == json.loads(json.dumps(expected))


LOADED = """all => all.length > 0 &&
  all.every(image => image.complete && image.naturalWidth > 0)"""
COUNT_PICTURES = """() => {
  window.most = 0; window.sources = new Set();
  const look = () => {
    for (const cell of document.querySelectorAll('.jp-CodeCell')) {
      const shown = cell.querySelectorAll('.jp-OutputArea img');
      window.most = Math.max(window.most, shown.length);
      for (const image of shown) window.sources.add(image.src);
    }
    requestAnimationFrame(look);
  };
  look();
}"""


def test_jupyterlab_runs_every_cell_and_redraws_in_place(browser, tmp_path):
    notebook = edited(MAX_STEPS=1_000, EVAL_EVERY=100, COMPARE_SEEDS=0)
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    status = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
    with jupyterlab(tmp_path) as address:
        page, errors = browser.new_page(viewport={"width": 1200, "height": 900}), []
        page.set_default_timeout(600_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/lab/tree/lesson.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(f"{status} === 'idle'")
        page.evaluate("jupyterapp.commands.execute('editmenu:clear-all')")
        page.evaluate(COUNT_PICTURES)
        run_all = "jupyterapp.commands.execute('notebook:run-all-cells')"
        page.evaluate(f"() => {{ {run_all}.then(() => {{ window.ended = 1; }}); }}")
        page.wait_for_function(f"window.ended && {status} === 'idle'")
        assert page.evaluate("window.most") == 1, (
            "one picture below a cell, redrawn in place"
        )
        assert page.evaluate("window.sources.size") >= 3
        model = page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON()")
        check_outputs(nbformat.from_dict(model))
        assert page.locator(".jp-OutputArea img").evaluate_all(LOADED) and errors == []
        page.evaluate("jupyterapp.commands.execute('toc:show-panel')")
        page.wait_for_selector(".jp-TableOfContents .jp-tocItem")
        listed = page.locator(
            ".jp-TableOfContents .jp-tocItem-content"
        ).all_inner_texts()
        text = prose(notebook)
        sections = re.findall(r"(?m)^## (\d+ .*)$", text)
        assert len(sections) == 18
        assert [title for title in sections if title not in listed] == []
        page.close()
