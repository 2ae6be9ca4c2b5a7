"""The benchmarks: what is measured, what makes a run valid, the report and its data."""

import ast
import json
import math
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import agents, exchange, measure, report, rows, run
from tests.helpers import numbers, prose
from tools.load_definitions import NOTEBOOK, ROOT

PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@pytest.fixture(scope="module")
def quick():
    """The lesson with the physics of the benchmarks."""
    return measure.lesson()


# Physics.


def leans(states):
    """A rule that balances for a while."""
    return (states[:, 2] > 0).tolist()


@pytest.mark.parametrize("steps", [30, None, 700])
def test_the_physics_are_gyms_to_the_last_bit(lesson, quick, steps):
    hand = rows.all_rows()["rule by hand"]
    net = agents.rule_by_hand(quick, hand, 0).policy_net
    for policy in (leans, quick.greedy(net)):
        for starts in (range(7), lesson.HELD_OUT_STARTS):
            scores, last = lesson.play_all(policy, starts, max_steps=steps)
            found, states = quick.play_all(policy, starts, max_steps=steps)
            assert np.array_equal(found, scores)
            assert np.array_equal(states, last) and states.dtype == last.dtype


def test_training_is_the_lessons(lesson, quick):
    settings = replace(lesson.settings, SEED=3, MAX_STEPS=600, EVAL_EVERY=300)
    expected = lesson.train(settings, lesson.careful_targets, lesson.remember_mirrored)
    row = replace(rows.FINAL, steps=600, every=300)
    found = agents.lesson_agent(quick, row, 3)
    assert found.losses == expected.losses
    assert found.durations == expected.durations
    for one, other in zip(found.evaluations, expected.evaluations, strict=True):
        assert one[:3] == other[:3]
        assert np.array_equal(one.last_states, other.last_states)


# Agents.


def test_each_row_of_the_lessons_agent_is_what_its_label_says(lesson):
    labels = rows.all_rows()
    for row in labels.values():
        settings = agents.settings_of(lesson, replace(row, settings=row.settings), 5)
        assert (5, row.steps) == (settings.SEED, settings.MAX_STEPS)
        for epsilon in re.findall(r"ε′ = ([\d.]+)", row.label):
            there = row.options.get("epsilon", settings.TARGET_EPSILON)
            assert float(epsilon) == there, row.label
        for n in re.findall(r"(\d+)-step returns", row.label):
            there = row.options.get("n", row.options.get("n_steps"))
            assert int(n) == there, row.label
        assert ("mirror" in row.label) <= (row.remember == "remember_mirrored")
        assert ("τ = 1" in row.label) <= (settings.TAU == 1)
        assert ("squared" in row.label) == (row.loss == "mse_loss"), row.label
    assert rows.CAREFUL.settings == {} and lesson.settings.TARGET_EPSILON == 0.7


def test_windows_join_n_steps_and_are_shorter_where_an_episode_has_failed(
    lesson, monkeypatch
):
    seen, memory, episode = {}, [], []
    monkeypatch.setattr(agents, "train_with", lambda *args: seen.update(given=args))
    agents.n_step_agent(lesson, rows.n_steps("", 3), 0)
    *_, targets, remember = seen["given"]
    settings = replace(lesson.settings, GAMMA=0.5)
    for i in range(5):
        state = np.full(4, i, np.float32)
        episode.append(lesson.Transition(state, 0, 1.0, state + 1, i == 4))
        remember(SimpleNamespace(push=memory.append), episode, settings)
    found = [(w.state[0], w.next_state[0], w.reward, w.terminated) for w in memory]
    assert found == [
        (0, 3, 1.75, False),
        (1, 4, 1.75, False),
        (2, 5, 1.75, True),
        (3, 5, 1.5, True),
        (4, 5, 1.0, True),
    ]
    values = targets(batch_of(lesson), None, valuing, settings).tolist()
    assert values == pytest.approx([1 + 0.125 * 4, 1])


def batch_of(lesson):
    """Two steps, of which the second one ends its episode."""
    return lesson.Transition(
        state=torch.zeros(2, 4),
        action=torch.zeros(2, 1, dtype=torch.int64),
        reward=torch.ones(2),
        next_state=torch.ones(2, 4),
        terminated=torch.tensor([False, True]),
    )


def valuing(states):
    """A target network: 4 for the left push, 2 for the right one."""
    return torch.tensor([[4.0, 2.0]]).repeat(len(states), 1)


def choosing(states):
    """A policy network, which prefers the right push."""
    return torch.tensor([[0.0, 1.0]]).repeat(len(states), 1)


def test_double_dqn_by_hand(lesson):
    settings = replace(lesson.settings, GAMMA=0.5)
    found = agents.double_targets(batch_of(lesson), choosing, valuing, settings)
    assert found.tolist() == pytest.approx([1 + 0.5 * 2, 1])


# Measures.


class Linear(torch.nn.Module):
    """Q(right) − Q(left) is the sum of the state, weighted; Q(left) is `value`."""

    def __init__(self, *weights, value=0.0):
        super().__init__()
        self.weights, self.value = torch.tensor(weights, dtype=torch.float32), value

    def forward(self, states):
        left = torch.full((len(states),), self.value)
        return torch.stack([left, left + states @ self.weights], dim=1)


RULE = (0.05, 0.1, 1.0, 1.0)


def made_up(quick, means, nets, ends=()):
    """A run with these evaluations, every 10 steps."""
    last = np.array([*ends, [0, 0, 0, 0]], np.float32)
    evaluations = []
    for i, (mean, net) in enumerate(zip(means, nets, strict=True)):
        states = (last, net)
        evaluations.append(quick.Evaluation(10 * (i + 1), mean, 0, 0, 0, *states))
    result = SimpleNamespace(evaluations=evaluations, threshold=475)
    row = replace(rows.PLAIN, steps=10 * len(means), every=10, far=600)
    return measure.measured(quick, row, result)


def test_a_run_is_measured_by_hand(quick):
    good, other = Linear(*RULE, value=7.0), Linear(*(-w for w in RULE))
    means = [100, 480, 500, 100, 500, 475, 100, 474]
    nets = [other, other, good, other, good, good, other, good]
    ends = [[-2.5, 0, 0.3, 0], [2.5, 0, 0, 0], [3, 0, 0, 0], [0, 0, -0.22, 0]]
    found = made_up(quick, means, nets, ends)
    assert found["means"] == means
    assert (found["share"], found["share_after"]) == (0.5, 0.5)
    assert (found["first_pass"], found["solved"]) == (20, 30), "20 is not confirmed"
    assert (found["best_step"], found["best"], found["held_out"]) == (30, 500, 500)
    assert (found["far"], found["best_far"]) == (1, 1)
    assert 0.9 < found["wide"] == found["best_wide"] < 1
    assert found["slopes"] == pytest.approx(np.radians([1, 1, -1, 1]))
    assert found["churns"] == [0, 1, 1]
    assert found["value"] == 7
    assert found["ends"] == [2, 4, 2, 2], "of the two that fail in the second half"
    assert found["played"] == 20 * sum(means)


def test_a_run_that_never_passes_or_diverges(quick):
    bad = Linear(*(-w for w in RULE))
    found = made_up(quick, [100, 100, 100, 100], [bad] * 4)
    assert (found["share"], found["share_after"]) == (0, None)
    assert found["first_pass"] == found["solved"] == math.inf
    assert (found["far"], found["best_far"]) == (0, 0)
    row = replace(rows.PLAIN, steps=40, every=10, far=10)
    result = SimpleNamespace(evaluations=[], threshold=475)
    for i in range(3):  # the fourth is missing
        states = (np.zeros((1, 4), np.float32), bad)
        result.evaluations.append(quick.Evaluation(10 * i + 10, 500, 0, 0, 0, *states))
    assert measure.measured(quick, row, result)["share"] == 0.5


def test_churn_counts_the_states_that_it_says(quick):
    states = measure.random_states(1_000)
    bounds = np.abs(states).max(axis=0)
    assert np.allclose(bounds, measure.BOUNDS, rtol=0.02) and len(states) == 1_000
    found = measure.churn(quick, [Linear(1, 0, 0, 0), Linear(1, 0, 0, 0.5)])
    changed = (states[:, 0] > 0) != (states[:, 0] + 0.5 * states[:, 3] > 0)
    assert found == [changed.mean()] and 0.02 < found[0] < 0.2


# The hash of the code.


@pytest.fixture
def planted(tmp_path):
    """A function: the hash of a row with something in the notebook's code replaced."""
    source = NOTEBOOK.read_text(encoding="utf-8")
    path = tmp_path / "planted.ipynb"

    def hash_with(row, old, new):
        assert source.count(old) >= 1, old
        path.write_text(source.replace(old, new), encoding="utf-8")
        return run.made_by(row, path)

    return hash_with


TUTORIAL = rows.CONTEST[3]
MIRRORED = "-step.next_state"


@pytest.mark.parametrize(
    "old, new, changed, kept",
    [
        ("HIDDEN = ", "HIDDEN = 2 * ", [rows.PLAIN, rows.FINAL], [TUTORIAL]),
        ("lerp_(fast, tau)", "lerp_(fast, 2 * tau)", [rows.PLAIN], [TUTORIAL]),
        ("next_q.amax(dim=1)  #", "next_q.mean(dim=1)  #", [rows.PLAIN], [rows.FINAL]),
        ("best.lerp(average", "average.lerp(best", [rows.FINAL], [rows.PLAIN]),
        ("F.smooth_l1_loss", "F.mse_loss", [rows.PLAIN], [TUTORIAL]),
        (MIRRORED, MIRRORED[1:], [rows.FINAL], [rows.CAREFUL]),
        ("2_000_000_100", "2_000_000_200", [rows.PLAIN, TUTORIAL], []),
        ("Q-network: states", "The network: states", [], [rows.PLAIN, TUTORIAL]),
        ("  # width of the two", "  # how wide the two", [], [rows.PLAIN]),
        ("training diverges", "it diverges", [], [rows.PLAIN]),
    ],
)
def test_what_makes_a_run_invalidates_it_and_words_do_not(
    planted, old, new, changed, kept
):
    for row in changed:
        assert planted(row, old, new) != run.made_by(row), row.label
    for row in kept:
        assert planted(row, old, new) == run.made_by(row), row.label


def test_a_changed_constant_or_contestant_invalidates_its_own_runs(
    monkeypatch, tmp_path, lesson
):
    zoo, before = rows.CONTEST[4], {}
    ours = [*rows.OURS, TUTORIAL, zoo]
    before = {row.label: run.made_by(row) for row in ours}

    def changed():
        return [row for row in ours if run.made_by(row) != before[row.label]]

    slower = SimpleNamespace(settings=replace(lesson.settings, LR=0.001))
    with monkeypatch.context() as patch:
        patch.setattr(run, "lesson", lambda: slower)
        assert changed() == rows.OURS
    for file in run.CODE:
        text = (rows.HERE / file).read_text(encoding="utf-8")
        text = text.replace("rng.randrange(2)", "rng.randrange(1)")
        (tmp_path / file).write_text(text, encoding="utf-8")
    monkeypatch.setattr(run, "HERE", tmp_path)
    assert changed() == [TUTORIAL]


def test_training_calls_no_helper_but_its_check():
    """The hash does not follow helpers, so they must not take part in training."""
    tree = ast.parse("\n".join(cell["source"] for cell in run.cells() if is_code(cell)))
    helpers = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and "dqn_helpers" in node.module:
            helpers |= {alias.asname or alias.name for alias in node.names}
    assert len(helpers) > 10
    used = set()
    places = run.lesson_places()
    for row in rows.all_rows().values():
        _, from_lesson = run.names_needed(run.roots_of(row))
        for name in from_lesson:
            for statement in places[name]:
                used |= run.names_used(statement)
    assert used & helpers == {"check_task"}


def is_code(cell):
    return cell["cell_type"] == "code"


# What is saved.


def test_runs_of_other_code_do_not_count_and_it_is_said(tmp_path):
    path = tmp_path / "runs.jsonl"
    row = replace(rows.PLAIN, seeds=range(3))
    made = {"row": row.label, "code": run.made_by(row)}
    for seed, code in (
        (0, made["code"]),
        (1, "other"),
        (2, "other"),
        (1, made["code"]),
    ):
        run.add({**made, "seed": seed, "code": code}, path)
    runs = run.load(path)
    assert [one["seed"] for one in run.valid(runs, row)] == [0, 1], "the later counts"
    (note,) = run.not_counted(runs, row)
    assert note.startswith("plain DQN: 1 saved runs are of other code")
    assert run.not_counted(runs, replace(row, seeds=range(2))) == []


def test_networks_are_kept_at_the_moments_of_the_exchange(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "NETWORKS", tmp_path / "networks")
    monkeypatch.setattr(run, "MOMENTS", (500, 750))
    row = replace(rows.PLAIN, steps=750)
    result = agents.lesson_agent(measure.lesson(), row, 1)
    run.keep_networks(row, 1, result)
    found = run.networks(row, 1)
    assert list(found) == [250, 500, 750]
    for step, one in zip(found, result.evaluations, strict=True):
        for mine, kept in zip(
            one.network.parameters(), found[step].parameters(), strict=True
        ):
            assert torch.equal(mine, kept)


# The exchange.


def test_answers_are_exchanged_by_hand():
    def own(s):
        return s @ np.array([1.0, 2, 3, 4]) + 5

    def other(s):
        return s @ np.array([10.0, 20, 30, 40]) + 50

    state = np.array([[1.0, 1, 1, 1]])
    for part, expected in (("pole", 1 + 2 + 120), ("cart", 3 + 4 + 80), ("place", 69)):
        new = exchange.answer(part, other)
        assert exchange.exchanged(own, part, new)(state) == [expected]
    assert exchange.answer("pole", other, 0.1)(state) == [12]
    assert exchange.added(own, 50, 15)(state) == [80]
    assert exchange.disturbed(own, 0.2, other, own)(state) == [3 + 120 - 15 + 30]
    assert exchange.symmetric(own)(state) == [15 - (-10 + 5)]


def test_an_answer_comes_from_the_next_case_of_another_seed():
    cases = {(0, 6): "a", (0, 8): "b", (1, 6): "c", (2, 6): "d"}
    found = [exchange.of_another_seed(cases, *case) for case in cases]
    assert found == ["c", "c", "d", "a"]


def test_the_exact_slope_agrees_with_the_saved_one():
    saved = json.loads(exchange.EXACT.read_text(encoding="utf-8"))
    slope, error = exchange.exact_slope(episodes=300)
    assert slope == pytest.approx(saved["slope"], abs=4 * error) and error < 0.2


# The report.


@pytest.fixture(scope="module")
def runs():
    """The tracked runs."""
    return run.load()


@pytest.fixture(scope="module")
def counted(runs):
    """The tracked runs, all of which today's code has made."""
    notes = [n for row in rows.all_rows().values() for n in run.not_counted(runs, row)]
    assert notes == []
    for experiment in (exchange.exchange, exchange.adjacent, exchange.lines):
        assert exchange.load(experiment), "it is of other code: make bench-full"
    return runs


def test_figures_become_text_by_hand():
    frame = pd.DataFrame({"share": [1.0, 0.5, 0.75], "best_far": [1.0, 0.4, 1.0]})
    assert report.cell(frame, "share of passes") == "0.75 (0.50)"
    assert report.cell(frame, "best copies") == "2 of 3"
    assert report.cell(frame, "churn") == "–"
    steps = pd.DataFrame({"first_pass": [500.0, 1_000.0, math.inf]})
    assert report.cell(steps, "first pass") == "1,000 (never)"
    values = pd.DataFrame({"slope": [-0.02, 3.14, 55.0], "value": [1e6, 27.4, 2.5e6]})
    assert report.cell(values, "slope") == "3.1 (−0.02 to 55)"


def test_lines_are_counted_by_hand():
    """Lost on the other side: to the right where the upright pole is pushed left."""
    case = {"row": "plain DQN", "passes": False, "one_sided": True}
    cases = [
        {**case, "level": -0.2, "lost_right": 0.5},
        {**case, "level": 0.4, "lost_right": 0.5},
        {**case, "level": 0.3, "lost_right": 0.0, "one_sided": False},
        {**case, "level": 0.1, "lost_right": -1.0},
    ]
    line = report.lines_of_gaps(cases).splitlines()[-1]
    assert line == "| plain DQN, fails | 4 | 0.25 | 75% | 50% |"


def test_a_difference_is_by_seed_and_its_interval_holds_it(monkeypatch):
    careful, plain = rows.CAREFUL.label, rows.PLAIN.label
    shares = {careful: [0.5, 0.9, 1.0], plain: [0.25, 0.65, 0.75, 0.0]}

    def frame_of(_, row):
        found = shares[row.label]
        return pd.DataFrame({"seed": range(len(found)), "share": found})

    monkeypatch.setattr(report, "PAIRS", [(rows.CAREFUL, rows.PLAIN)])
    monkeypatch.setattr(report, "frame_of", frame_of)
    line = report.differences({}).splitlines()[-1]
    assert line == "| careful target | plain DQN | 3 | 0.25 [0.25, 0.25] |"
    shares[careful] = [0.25, 0.9, 1.0]
    line = report.differences({}).splitlines()[-1]
    assert line == "| careful target | plain DQN | 3 | 0.17 [0.00, 0.25] |"


def test_seconds_are_multiples_of_those_of_plain_dqn():
    timed = {}
    for row, seconds in ((rows.PLAIN, 10.0), (rows.CLEANRL, 100.0)):
        made = {"row": row.label, "seed": 0, "code": run.made_by(row)}
        timed[row.label, 0] = {**made, "seconds": seconds}
    assert report.seconds(timed).splitlines()[2:] == [
        "| plain DQN | 10,000 | 1.00 |",
        "| CleanRL's settings, 500,000 steps | 500,000 | 0.20 |",
    ]


def test_the_exchange_is_counted_by_hand():
    found = [{"scores": {"plain": 100.0}}, {"scores": {"plain": 480.0}}]
    line = report.exchanged(found).splitlines()[-1]
    assert line == "| plain | 1 of 2 | 290 |"


def test_no_seed_is_missing_in_our_own_rows(counted):
    assert {row for row, _ in counted} <= set(rows.all_rows())
    for row in (*rows.OURS, *rows.VARIANTS, *rows.PARTS, *rows.ACROBOT):
        assert len(run.valid(counted, row)) == len(row.seeds), row.label


def test_the_report_has_the_tables_of_the_tracked_runs(counted):
    text = report.README.read_text(encoding="utf-8")
    texts = report.all_tables(counted, exchange.load())
    assert report.filled(text, texts) == text
    assert {name for _, name, _ in report.MARKED.findall(text)} == set(texts)


def test_the_results_on_the_first_page_are_those_of_the_benchmarks(counted):
    last = ("share of passes", "score", "survive")
    lines = {
        "plain DQN, last weights": (rows.PLAIN, last),
        "plain DQN, best copy": (
            rows.PLAIN,
            (None, "best copy's score", "best copies"),
        ),
        "careful target, last weights": (rows.CAREFUL, last),
        "final agent, last weights": (rows.FINAL, last),
        "rule by hand, for comparison": (rows.RULE, (None, *last[1:])),
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for label, (row, titles) in lines.items():
        frame = report.frame_of(counted, row)
        cells = [report.cell(frame, title) if title else "–" for title in titles]
        assert "| " + " | ".join([label, *cells]) + " |" in text


def sentences(text):
    """The sentences and the lines of tables of a text."""
    return re.split(r"(?<=[.?!])\s+|\n", text)


def passing(experiment):
    """How many of an experiment's cases pass, by treatment."""
    found = pd.DataFrame([one["scores"] for one in exchange.load(experiment)])
    return (found >= exchange.PASS).sum()


def quoted(runs):
    """What is quoted: where, words of its sentence, figures as they stand there."""
    frames = {name: report.frame_of(runs, row) for name, row in rows.all_rows().items()}
    plain, careful = frames["plain DQN"], frames["careful target"]
    final = frames["final agent"]
    between = passing(exchange.exchange)
    nearby = passing(exchange.adjacent)
    pairs = len(exchange.load(exchange.adjacent))
    lines = pd.DataFrame(exchange.load(exchange.lines))
    lines = lines[(lines.row == "plain DQN") & ~lines.passes]
    one_sided = lines[lines.one_sided]
    other_side = (one_sided.level * one_sided.lost_right < 0).sum()
    exact = json.loads(exchange.EXACT.read_text(encoding="utf-8"))["slope"]
    tutorial, same = "PyTorch tutorial, today's settings", rows.SAME
    zoo, cleanrl = "Stable-Baselines3, the zoo's settings", rows.CLEANRL.label

    def share(label):
        return f"{frames[label].share.mean():.2f}"

    def whole(values):
        return (values == 1).sum()

    def middle(values):
        return f"{abs(values.median()):.2f}"

    unscaled = [
        share(f"{agent}, inputs not scaled")
        for agent in ("careful target", "plain DQN")
    ]
    both, lesson, page = ("page", "lesson"), ("lesson",), ("page",)
    pole = between["plain, final's pole"]
    fiftieth = between["plain, final's pole × 0.02"]
    shrunk = [between[f"final × {size}, disturbed"] for size in (0.2, 0.02)]
    return [
        (both, "plain DQN", [share("plain DQN"), share("careful target")]),
        (page, "best copy", [whole(plain.best_far)]),
        (lesson, "best copies", [whole(final.best_far), whole(plain.best_far)]),
        (both, "best copy", [(plain.best >= exchange.PASS).sum()]),
        (lesson, "5,000", [whole(final.far)]),
        (lesson, "Acrobot", [share("Acrobot, ε′ = 0.7"), share("Acrobot, ε′ = 0.0")]),
        (both, "tutorial", [share(f"{tutorial}, ε′ = 0.7"), share(tutorial)]),
        (both, "Baselines3", [share(f"{same}, ε′ = 0.7"), share(same)]),
        (lesson, "scaled inputs", unscaled),
        (lesson, "10-step", [share("5-step returns"), share("10-step returns")]),
        (lesson, "Double DQN", [share("Double DQN")]),
        (page, "Zoo", [share(f"{zoo}, ε′ = 0.7"), share(zoo)]),
        (page, "own 5-step", [share(rows.N_STEPS.label)]),
        (both, "CleanRL", [share(cleanrl)]),
        (page, "CleanRL", [share(f"{cleanrl}, ε′ = 0.7")]),
        (lesson, "50,000", [share("plain DQN, 50,000 steps")]),
        (lesson, "slope", [middle(plain.slope), middle(careful.slope)]),
        (lesson, "mirror", [f"{one.share.min():.2f}" for one in (final, careful)]),
        (lesson, "at every lean", [len(lines), len(one_sided)]),
        (lesson, "side away", [other_side]),
        (lesson, "a tenth", [pole, between["plain, final's pole × 0.1"], fiftieth]),
        (page, "own answer", [pole, between["plain, final's pole at plain's size"]]),
        (both, "fifty times as large", [between["plain, own pole × 50"]]),
        (both, "plain DQN's answer", [between["final, plain's pole"]]),
        (both, "15 θ̇", [between["plain + 50 θ + 15 θ̇"]]),
        (both, "fiftieth", shrunk),
        (both, "neighbouring evaluations", [pairs]),
        (page, "a single number", [nearby["failing, passing's level"]]),
        (lesson, "by a constant", [nearby["failing, passing's level"]]),
        (page, "Monte Carlo", [f"{exact:.2f}"]),
    ]


def test_page_and_lesson_quote_the_results(counted, committed):
    texts = {"lesson": prose(committed)}
    texts["page"] = report.README.read_text(encoding="utf-8")
    for places, words, figures in quoted(counted):
        for place in places:
            there = [one for one in sentences(texts[place]) if words in one]
            wanted = set(map(float, figures))
            fitting = [one for one in there if wanted <= set(numbers(one))]
            assert fitting, (place, words, figures)


# Whole runs.


@pytest.mark.full
@pytest.mark.parametrize(
    "label",
    ["plain DQN", "careful target", "final agent", "5-step returns", "Double DQN"],
)
def test_a_saved_run_comes_out_again(runs, label):
    """To the last digit on the machine that made it, elsewhere within its row."""
    row = rows.all_rows()[label]
    saved, again = runs[label, 3], run.do(row, 3)
    if saved["machine"] == again["machine"]:
        same = set(saved) - {"commit", "seconds"}
        assert {name: again[name] for name in same} == {n: saved[n] for n in same}
    else:
        shares = [one["share"] for one in run.valid(runs, row)]
        assert min(shares) <= again["share"] <= max(shares)


@pytest.mark.full
@pytest.mark.timeout(1_200)
def test_a_quick_look_runs_every_row_and_goes_on_where_it_was(tmp_path):
    assert PYTHON.exists(), "make .venv-bench/run.stamp makes this environment"
    words = ["--quick", "--saved", tmp_path / "quick.jsonl"]
    command = [PYTHON, "-m", "benchmarks.bench", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "quick.md").read_text(encoding="utf-8")
    for label in rows.all_rows():
        assert f"| {label} | 1 |" in text
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "0 runs to do" in again.stdout
