"""The benchmarks: their loop is the notebook's, their report belongs to its results.

What README.md and the lesson quote is what the results say; every kind of run works.
"""

import json
import subprocess
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import report, targets
from benchmarks.common import HERE, RESULTS, SETTINGS
from benchmarks.loop import Window, loop, train_variant
from tests.helpers import prose
from tools.load_definitions import ROOT

PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@pytest.fixture(scope="module")
def results():
    """The tracked results."""
    return json.loads((RESULTS / "latest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def quoted(results):
    """What README.md and the lesson quote."""
    return report.quotes(results)


def short(lesson, **changes):
    """Settings of a run that takes a second."""
    return replace(lesson.settings, MAX_STEPS=600, EVAL_EVERY=300, **changes)


@pytest.mark.parametrize("final", [False, True])
def test_the_loop_without_options_is_train(lesson, final):
    if final:
        functions = (lesson.careful_targets, lesson.remember_mirrored)
        settings = short(lesson, SEED=3)
    else:
        functions = (lesson.td_targets, lesson.remember)
        settings = short(lesson, TARGET_EPSILON=0.0, MIRROR=False)
    expected = lesson.train(settings, *functions)
    run = loop(lesson, settings, *functions, "CartPole-v1", lesson.SCALE)
    assert run.losses == expected.losses
    assert run.durations == expected.durations
    for one, other in zip(run.evaluations, expected.evaluations, strict=True):
        assert one[:3] == other[:3]
    for net in ("policy_net", "target_net"):
        mine, notebook = getattr(run, net), getattr(expected, net)
        for one, other in zip(mine.parameters(), notebook.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"update_every": 2},
        {"copy_every": 50},
        {"n_steps": 3},
        {"average": 0.01},
        {"layer_norm": True},
        {"lr_falls": True},
        {"squared": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_of_the_loop_changes_the_run(lesson, options):
    plain = {"settings": {"TARGET_EPSILON": 0.0, "MIRROR": False}}
    expected = train_variant(lesson, plain, seed=1, steps=400, every=400)
    run = train_variant(lesson, {**plain, "loop": options}, 1, 400, 400)
    updates = len(expected.losses)
    if "update_every" in options:
        assert len(run.losses) == pytest.approx(updates / 2, abs=1)
    elif "average" in options:
        assert run.losses == expected.losses, "only the player is another"
        weights = [net.layer3.weight for net in (run.policy_net, expected.policy_net)]
        assert not torch.equal(*weights)
    else:
        assert len(run.losses) == pytest.approx(updates, abs=2)
        assert run.losses != expected.losses


def test_normalised_layers_are_trained(lesson):
    variant = {"loop": {"layer_norm": True}}
    run = train_variant(lesson, variant, seed=0, steps=200, every=200)
    norm, slow = run.policy_net.layer1[1], run.target_net.layer1[1]
    assert not torch.equal(norm.bias, torch.zeros(128))
    assert not slow.bias.requires_grad
    assert not torch.equal(slow.bias, torch.zeros(128)), "the target network follows"


def step(i, terminated=False):
    return SimpleNamespace(
        state=i,
        next_state=i + 1,
        reward=1.0,
        terminated=terminated,
        _replace=lambda **new: SimpleNamespace(state=i, **new),
    )


def test_a_window_joins_n_steps():
    window = Window(3, gamma=0.5)
    assert window.add(step(0), truncated=False) == []
    assert window.add(step(1), truncated=False) == []
    (first,) = window.add(step(2), truncated=False)
    assert (first.state, first.next_state, first.reward) == (0, 3, 1.75)
    assert not first.terminated
    rest = window.add(step(3, terminated=True), truncated=False)
    found = [(s.state, s.next_state, s.reward, s.terminated) for s in rest]
    assert found == [(1, 4, 1.75, True), (2, 4, 1.5, True), (3, 4, 1.0, True)]
    assert not window.steps


def test_a_cut_off_drops_what_is_short_of_n_steps():
    window = Window(2, gamma=1.0)
    assert window.add(step(0), truncated=False) == []
    assert len(window.add(step(1), truncated=True)) == 1
    assert not window.steps, "nothing of one episode goes into the next"


@pytest.mark.parametrize(
    "name, constants, expected",
    [
        ("double", {}, 1 + 0.5 * 2.0),
        ("advantage", {"alpha": 0.9}, 1 + 0.5 * 4.0 - 0.9 * 1.0),
        ("munchausen", {"alpha": 0.9, "temperature": 0.01}, 1 + 0.5 * 4.0 - 0.9),
        ("softmax", {"temperature": 0.01}, 1 + 0.5 * 4.0),
        ("softmax", {"temperature": 1e6}, 1 + 0.5 * 3.0),
    ],
)
def test_targets_by_hand(lesson, name, constants, expected):
    """Target values are [3, 2] before the step and [4, 2] after it; action 1 was taken.

    The policy network prefers action 1 after the step.
    """
    batch = lesson.Transition(
        state=torch.zeros(2, 4),
        action=torch.ones(2, 1, dtype=torch.int64),
        next_state=torch.ones(2, 4),
        reward=torch.ones(2),
        terminated=torch.tensor([False, True]),
    )

    def target_net(states):
        before, after = torch.tensor([3.0, 2.0]), torch.tensor([4.0, 2.0])
        return torch.where(states[:, :1] == 0, before, after)

    def policy_net(states):
        return torch.tensor([[0.0, 1.0]]).repeat(len(states), 1)

    function = targets.targets_named(lesson, name, **constants)
    settings = replace(lesson.settings, GAMMA=0.5)
    going_on, ended = function(batch, policy_net, target_net, settings).tolist()
    extra = expected - 1 - {"double": 1.0}.get(name, 2.0)
    if constants == {"temperature": 1e6}:
        extra = 0.0
    assert going_on == pytest.approx(expected, abs=1e-3)
    assert ended == pytest.approx(1 + extra, abs=1e-3), "no value after the end"


def test_the_report_is_made_from_the_tracked_results(results):
    assert report.render(results) == (HERE / "README.md").read_text(encoding="utf-8")


def test_the_results_belong_to_the_notebook_and_to_one_machine(results, lesson):
    assert results["constants"].items() <= asdict(lesson.settings).items()
    assert results["search"] == SETTINGS["search"]
    assert len(results["machines"]) == 1
    for part, variants in SETTINGS["variants"].items():
        assert list(results[part]) == list(variants)


def test_a_row_without_all_of_its_seeds_says_so():
    assert report.marked("sb3", 10, 10) == "sb3"
    assert report.marked("sb3", 3, 10) == "sb3 (*3 of 10 seeds*)"


def test_a_name_that_the_results_do_not_have_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        report.fill("template.md", summary={})


def test_the_readme_quotes_the_results(quoted):
    assert quoted["paragraph"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_lesson_quotes_the_results(quoted, results, committed):
    """A row of a table in the lesson that has our label has our figures beside it."""
    found = {}
    for line in prose(committed).splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")]
        if len(cells) > 3 and cells[1] in quoted["rows"]:
            found[cells[1]] = cells[2]
    assert found == {label: quoted["rows"][label] for label in found}
    assert len(found.keys() & results["added"].keys()) >= 5
    named = [label for label, *_ in report.holding(results)]
    text = prose(committed)
    own = ("this notebook", "careful target", "this notebook, an update every second")
    missing = [n for n in named if n not in text and not n.startswith(own)]
    assert missing == [], "the lesson names what holds as well"


def test_the_lesson_says_what_the_results_say(quoted, committed):
    text = prose(committed)
    missing = [part for part in quoted["sentences"] if part not in text]
    missing += [row for row in quoted["lead_rows"] if row not in text]
    assert missing == []


def test_the_results_bear_out_what_report_and_lesson_say(results):
    summary, ratios = results["summary"], results["time_ratios"]
    steady = {name: s["steadiness_mean"] for name, s in summary.items()}
    assert steady["notebook"] > 0.9 > steady["plain"]
    assert summary["notebook"]["solved"] == summary["notebook"]["seeds"]
    assert ratios["plain"]["ratio"] < ratios["tutorial_today"]["ratio"]
    acrobot = {label: sum(v["held"]) for label, v in results["acrobot"].items()}
    assert acrobot["ε′ = 0.7"] < acrobot["ε′ = 0.0"] / 2, "caution harms there"


def run(*words):
    """Run a module in the benchmarks' environment and return what came of it."""
    assert PYTHON.exists(), "make .venv-bench/run.stamp makes this environment"
    command = [PYTHON, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.full
@pytest.mark.timeout(1_200)
def test_every_kind_of_run_works_and_the_report_is_written(tmp_path):
    words = ("-m", "benchmarks.bench", "--size", "smoke", "--results", tmp_path)
    done = run(*words)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "smoke.md").read_text(encoding="utf-8")
    for spec in SETTINGS["contestants"].values():
        assert spec["title"] in text
    for variants in SETTINGS["variants"].values():
        for label in variants:
            assert f"| {label} |" in text
    assert "nan" not in text
    assert len(list(tmp_path.glob("smoke-*.png"))) == 4
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert "comparison: 0 of" in again.stdout, "what is done is not done again"


@pytest.mark.full
def test_the_search_writes_what_it_finds(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(SETTINGS), encoding="utf-8")
    sizes = ("--trials", 2, "--finalists", 1, "--seeds", 3, "--steps", 500)
    places = ("--results", tmp_path, "--settings", file)
    done = run("-m", "benchmarks.search", *sizes, *places)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["search"]["trials"] == 2
    assert "update_every" in found["contestants"]["plain_tuned"]["loop"]
    assert found["variants"] == SETTINGS["variants"]


@pytest.mark.full
def test_a_run_that_fails_is_counted(tmp_path):
    code = (
        "from pathlib import Path; from benchmarks.bench import work_through; "
        f"file = Path({str(tmp_path / 'runs.jsonl')!r}); "
        "print(work_through('added', {'a': {'code': 'none'}}, {}, file, {}, 1))"
    )
    done = run("-c", code)
    assert done.stdout.splitlines()[-1] == "1", done.stderr
    assert "failed" in done.stderr
