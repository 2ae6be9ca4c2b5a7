"""What the lesson measures, compares and saves, on made-up cases with known answers."""

import ast
import json
import math
import pickle
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dqn_helpers import curves
from tests.helpers import made_up, numbers, points, table_of
from tools import load_definitions as loader


class Says(torch.nn.Module):
    """Stands for a network: Q-values [7, 7 + a number for each input + one more]."""

    def __init__(self, *factors, more=0.0):
        super().__init__()
        self.factors, self.more = torch.tensor(factors or [0.0] * 4), more

    def forward(self, states):
        gap = states @ self.factors + self.more
        return torch.stack([torch.full_like(gap, 7.0), 7 + gap], dim=-1)


@pytest.fixture
def cell(lesson, patch, capsys):
    """A function that runs the code cell that has a text, with some names replaced.

    It returns all names, what was printed (`printed`), and what was shown, the value of
    the last line included (`shown`).
    """

    def run(text, **changes):
        for name, value in changes.items():
            patch(name, value)
        cells = [c for c in loader.cells() if c["cell_type"] == "code"]
        (source,) = [c["source"] for c in cells if text in c["source"]]
        *lines, last = ast.parse(source).body
        shown = []
        names = {**lesson.train.__globals__, "display": shown.append}
        capsys.readouterr()
        exec(compile(ast.Module(lines, []), text, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), text, "eval"), names))
        else:
            exec(compile(ast.Module([last], []), text, "exec"), names)
        names.update(printed=capsys.readouterr().out, shown=shown)
        return SimpleNamespace(**names)

    return run


@pytest.fixture
def games(patch):
    """Policies are what they score; a list of all games that they were asked to play.

    Instead of the game, `evaluate` returns these scores, and the time limit where they
    are as high as that of the game.
    """
    asked = []

    def evaluate(policy, starts, max_steps=None):
        asked.append((policy, starts, max_steps))
        scores = np.resize(np.array(policy, float), len(starts))
        return np.where(scores == 500, max_steps or 500, scores)

    patch("evaluate", evaluate)
    patch("greedy", lambda net: net)
    return asked


# Measures of a run.


def test_the_share_of_passes_is_that_of_the_second_half(lesson):
    assert lesson.share_of_passes(made_up(100, 100, 74.9, 75, threshold=75)) == 0.5
    assert lesson.second_half(made_up(1, 2, 3))[0].step == 200
    stopped = made_up(1, 500)
    stopped.settings.MAX_STEPS = 450
    assert lesson.second_half(stopped) == [], "of the budget"


@pytest.mark.parametrize("durations", [(), (40, 50, 60)])
def test_the_learning_curve_shows_what_happened(lesson, durations):
    run = made_up(20.0, 480.0, 300.0, durations=durations, threshold=123)
    figure = lesson.plot_durations(run, show_result=True)
    assert figure.get_suptitle() == curves.verdict(run)
    assert lesson.plot_durations(run).get_suptitle() != curves.verdict(run)
    left, right = figure.axes
    curve, threshold = left.lines
    assert curve.get_xydata().tolist() == points(run)
    assert set(threshold.get_ydata()) == {123}
    each, mean = right.lines
    assert tuple(each.get_ydata()) == durations
    assert list(mean.get_ydata()) == [40, 45, 50][: len(durations)]


def test_a_plot_that_fails_does_not_stop_the_training(lesson, monkeypatch, capsys):
    def fails(*_):
        raise OSError("no room for a font")

    monkeypatch.setattr(lesson.live_plot, "draw", fails)
    s = replace(lesson.settings, MAX_STEPS=30, EVAL_EVERY=10)
    how = [lesson.td_targets, lesson.remember]
    assert lesson.train(s, *how, show=lesson.live_plot).finished
    assert "no room for a font" in capsys.readouterr().out


# Agents that are judged.


def test_a_table_of_policies_has_the_scores_of_each(lesson, games):
    """On all held-out starts, and 20 of them far beyond the clock."""
    policies = {"low": (10, 20), "best": (500,), "some": (500, 400)}
    found = table_of(lesson.judge(policies).data)
    assert found == {
        "low": ["15.0", "10.0", "0.00"],
        "best": ["500.0", "500.0", "1.00"],
        "some": ["450.0", "400.0", "0.50"],
    }
    assert {(starts, limit) for _, starts, limit in games} == {
        (lesson.HELD_OUT_STARTS, None),
        (lesson.HELD_OUT_STARTS[:20], 5_000),
    }


def test_the_best_copy_is_that_of_the_first_of_the_highest_evaluations(cell, games):
    """What choosing it cost is what all 20 games of all evaluations took."""
    run = made_up(30, 500, 20, 500, 40, policy_net=(77.0,))
    found = cell("best_copy, ", plain_run=run)
    assert numbers(found.printed) == [200]
    assert (found.best_copy, found.last_weights) == ("net 2", (77.0,))
    names = {"best_copy": (99.0,), "last_weights": (77.0,), "plain_run": run}
    printed = cell('policies = {\n    "plain DQN, last', **names).printed
    assert numbers(printed)[-1] == 20 * (30 + 500 + 20 + 500 + 40)


@pytest.mark.parametrize("mirror", [True, False])
def test_the_mirror_is_used_if_it_is_on(cell, lesson, mirror):
    asked = []

    def train(settings, targets, remember, show):
        asked.append((settings, targets, remember))
        return made_up(500)

    cell("final = train(", train=train, MIRROR=mirror)
    wanted = lesson.remember_mirrored if mirror else lesson.remember
    assert asked == [(lesson.settings, lesson.careful_targets, wanted)]


# The answer to a lean.


def test_gaps_of_the_second_half_against_the_lean(lesson, cell):
    """In degrees, and positive where a push to the right is better."""
    assert (lesson.LEANS[0], lesson.LEANS[-1]) == (-5, 5)
    per_degree = 180 / math.pi
    nets = {"plain DQN": [9, 9, 1.0, -3.0, 1.0], "careful": [9, 9, 2.0, 3.0, 4.0]}
    both = {}
    for name, slopes in nets.items():
        both[name] = made_up(0, 0, 0, 500, 0)
        for evaluation, slope in zip(both[name].evaluations, slopes, strict=True):
            evaluation.network = Says(0.0, 0.0, slope * per_degree, 0.0)
    plotted = []
    found = cell(
        "plot_answers(LEANS", both=both, plot_answers=lambda *x: plotted.append(x)
    )
    printed = [numbers(line) for line in found.printed.splitlines()]
    assert printed == [[1, 1], [3, 0]], "median slope and churn"
    ((leans, panels),) = plotted
    for (answers, evaluations), (name, slopes) in zip(
        panels.values(), nets.items(), strict=True
    ):
        assert np.allclose(answers, np.outer(slopes[2:], leans), atol=1e-4)
        assert evaluations == both[name].evaluations[2:]


# Several seeds, and parts taken away.


@pytest.fixture
def trained(patch):
    """Runs that were made up instead of trained; each has numbers of its own."""
    runs = []

    def train(*arguments):
        run = made_up(1, *[100 * len(runs) + i for i in range(3)])
        run.policy_net = Says(more=1000.0 * len(runs))
        run.made_from = arguments
        runs.append(run)
        return run

    patch("train", train)
    return runs


def rows_of_runs(n_agents, place=0):
    """The cells of a table whose agents have two runs each, as `trained` makes them."""
    rows = []
    for i in range(place, 2 * n_agents, 2):
        hundreds = [100 * run for run in (i, i + 1)]
        rows.append("; ".join(f"{h}, {h + 1}, {h + 2}" for h in hundreds))
    return rows


def test_comparisons_show_what_each_agent_and_seed_did(lesson, cell, trained, patch):
    patch("settings", replace(lesson.settings, SEED=999_999_999))
    careful, plot = lesson.careful_targets, []
    agents = cell(
        "by_agent = train_all(",
        COMPARE_SEEDS=2,
        remember_final="its own",
        plot_curves=plot.append,
    )
    found = table_of(agents.shown[0].data)
    assert [row[0] for row in found.values()] == rows_of_runs(3)
    assert plot == [agents.by_agent] and list(found) == list(agents.by_agent)
    short = replace(agents.settings, MAX_STEPS=2_000)
    seeds = [replace(short, SEED=seed) for seed in (0, 1)]
    how = [(lesson.td_targets, lesson.remember)]
    how += [(careful, lesson.remember), (careful, "its own")]
    expected = [(s, *others) for others in how for s in seeds]
    assert [run.made_from for run in trained] == expected

    names = {"seeds": [3, 4], "short": short, "by_agent": agents.by_agent}
    parts = cell("by_part = train_all(", **names)
    changes = [
        {"MEMORY_SIZE": 1, "BATCH_SIZE": 1},
        {"BATCH_SIZE": 1},
        {"MEMORY_SIZE": 128, "BATCH_SIZE": 128},
        {"TAU": 1.0},
        {"TAU": 1.0},
    ]
    expected = []
    for i, change in enumerate(changes):
        loss = [functional.mse_loss] if i == 4 else []
        for seed in (3, 4):
            s = replace(short, SEED=seed, **change)
            expected.append((s, careful, lesson.remember, *loss))
    assert [run.made_from for run in trained[6:]] == expected
    found = cell("value_in_the_middle}", by_part=parts.by_part, **names)
    found = table_of(found.shown[0].data)
    assert [row[0] for row in found.values()] == [
        rows_of_runs(3)[1],
        *rows_of_runs(8, 6),
    ]
    values = [f"{1000 * i + 7:,}; {1000 * i + 1007:,}" for i in (2, *range(6, 16, 2))]
    assert [row[1] for row in found.values()] == values


@pytest.mark.parametrize("text", ["by_agent = train_all(", "value_in_the_middle}"])
def test_without_seeds_there_is_no_empty_table(cell, trained, text):
    found = cell(text, COMPARE_SEEDS=0, seeds=[], remember_final=None)
    assert found.shown == [] and trained == []


# Why it helps.


def test_an_answer_to_the_pole_is_exchanged_and_nothing_else(lesson):
    own = Says(1.0, 2.0, 5.0, 7.0, more=3.0)
    other = Says(90.0, 80.0, -2.0, 0.5, more=-1.0)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    x, v, angle, turning = states.T
    for dose in (1, 0.1):
        found = lesson.with_pole_of(own, other, dose)(states)
        expected = x + 2 * v + dose * (-2 * angle + 0.5 * turning - 1) > 0
        assert np.array_equal(found, expected)


def test_the_exchange_is_between_the_worst_and_the_last(lesson, cell, games):
    """The worst network of plain DQN's second half, the careful one's last weights."""
    run = made_up(5, 400, 9, 300, 20)
    asked = []

    def with_pole_of(net, other, dose):
        asked.append((net, other, dose))
        return (dose,)

    for evaluation in run.evaluations:
        evaluation.network = (evaluation.mean,)
    found = cell(
        "failing = ",
        plain_run=run,
        careful_run=made_up(1, policy_net=(444,)),
        make_networks=lambda *_: ((222,), None, None),
        with_pole_of=with_pole_of,
    )
    rows = [float(*row) for row in table_of(found.shown[0].data).values()]
    assert rows == [9, 1, 0.1, 0.0, 50, 444, 1, 222, 1]
    assert [dose for *_, dose in asked] == [1, 0.1, 0.02, 50, 1, 1]
    failing, steady, untrained = (9,), (444,), (222,)
    pairs = 3 * [(failing, steady)] + [(failing, failing), (steady, failing)]
    assert [pair[:2] for pair in asked] == [*pairs, (untrained, steady)]


def test_disturbances_are_changes_of_the_plain_network(lesson, cell, patch):
    run, asked = made_up(*[0] * 8), []
    nets = [Says(1.0 * i**2, 0.0, 0.0, 0.0) for i in range(8)]
    for evaluation, net in zip(run.evaluations, nets, strict=True):
        evaluation.network = net
    steady = Says(0.0, 1.0, 0.0, 0.0)
    states = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)

    def evaluate(policy, starts):
        asked.append(policy(states).tolist())
        assert starts == lesson.VALIDATION_STARTS
        return np.array([float(len(asked))])

    found = cell("(1, 0.2, 0.02)", plain_run=run, steady=steady, evaluate=evaluate)
    x, v, *_ = states.T
    expected = []
    for factor in (1, 0.2, 0.02):
        for i in (4, 5, 6):  # of the second half
            change = (i + 1) ** 2 - i**2
            expected.append((factor * v + change * x > 0).tolist())
    assert asked == expected
    rows = table_of(found.shown[-1].data)
    assert [row for (row,) in rows.values()] == ["1; 2; 3", "4; 5; 6", "7; 8; 9"]
    assert [float(name) for name in rows] == [1, 0.2, 0.02]


# What the values mean.


def test_the_stumbling_player_is_greedy_first_and_then_stumbles(lesson):
    net, states = Says(more=1.0), np.zeros((4_000, 4), np.float32)
    policy = lesson.stumbling(net, 0.6, np.random.default_rng(0))
    assert set(policy(states)) == {1}
    for _ in range(2):
        assert np.mean(policy(states) == 0) == pytest.approx(0.3, abs=0.03)


def test_promised_and_received(lesson, cell, patch):
    """Half of 300 episodes last two steps and half three, with γ = 1/2.

    1 + 1/2 and 1 + 1/2 + 1/4 lie 1/8 to both sides of 1.625.
    """
    asked = []

    def evaluate(policy, starts):
        asked.append((policy, starts))
        return np.array([2.0, 3.0] * 150)

    patch("settings", replace(lesson.settings, GAMMA=0.5))
    careful = made_up(0, policy_net=Says(1e3, 0.0, 0.0, 0.0))
    careful.settings = replace(lesson.settings, TARGET_EPSILON=0.3)
    found = cell(
        "return_of_length = ",
        careful_run=careful,
        plain_run=made_up(0, policy_net=Says(more=-2.0)),
        stumbling=lambda net, share, rng: (net, share),
        evaluate=evaluate,
    )
    (player, starts), (plain, _) = asked
    assert player == (careful.policy_net, 0.3) and plain[1] == 0
    env = lesson.make_env("CartPole-v1")
    states = np.array([lesson.reset_env(env, start) for start in starts])
    promised = np.maximum(7, 7 + 1e3 * states[:, 0]).mean()
    received = f"1.6 ± {2 * 0.125 / math.sqrt(300):.1f}"
    rows = list(table_of(found.shown[0].data).values())
    assert [row[1:] for row in rows] == 2 * [[received, "2"]]
    assert [float(row[0]) for row in rows] == pytest.approx([promised, 7], abs=0.06)
    seen = {*lesson.VALIDATION_STARTS, *lesson.HELD_OUT_STARTS}
    assert len(starts) == 300 and not seen & set(starts)


def test_the_maps_are_of_the_careful_network(cell):
    """In the middle and at the right end, beside an untrained one."""
    names = {"careful_run": made_up(0, policy_net=Says(1.0, 2.0, 3.0, 4.0))}
    names |= {"untrained": Says(), "plot_maps": lambda maps: maps}
    untrained, middle, right = cell("plot_maps(\n", **names).shown[-1].values()
    states = np.random.default_rng(0).normal(size=(3, 2, 4))
    for values, _ in (middle, right):
        assert np.allclose(values(states)[..., 1], 7 + states @ [1, 2, 3, 4], atol=1e-4)
    assert [position for _, position in (untrained, middle, right)] == [0, 0, 2]
    assert np.all(untrained[0](states) == 7)


# What is saved is what was trained.


@pytest.fixture
def final(lesson):
    """A small run whose settings, scale and functions are not those of the lesson."""
    s = replace(lesson.settings, SEED=17, MAX_STEPS=40, EVAL_EVERY=20, BATCH_SIZE=8)
    s = replace(s, TARGET_EPSILON=0.25, LR=0.125)
    how = [lesson.td_targets, lesson.remember_mirrored, functional.mse_loss]
    return lesson.train(s, *how, scale=[1, 2, 3, 4])


def test_what_is_saved_comes_from_the_run_whatever_changed_since(
    lesson, cell, final, patch, tmp_path
):
    patch("settings", replace(lesson.settings, SEED=99, TARGET_EPSILON=0.9))
    patch("SCALE", [9, 9, 9, 9])
    patch("TARGET_EPSILON", 0.9)
    curves = SimpleNamespace(data=b"two curves")
    cell("torch.save(", final=final, OUTPUT=tmp_path, collapse_and_cure=curves)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    agent = lesson.greedy(final.policy_net)
    scores = lesson.evaluate(agent, lesson.HELD_OUT_STARTS)
    assert metrics["seed"] == 17 and metrics["env_steps"] == 40
    assert metrics["greedy_mean"] == scores.mean()
    assert metrics["share_of_passes"] == 0
    net, made_with = lesson.load_agent(tmp_path / "model.pt")
    assert made_with == {
        **asdict(final.settings),
        "targets": "td_targets",
        "remember": "remember_mirrored",
        "loss_function": "mse_loss",
        "env_id": "CartPole-v1",
        "scale": [1, 2, 3, 4],
    }
    states = torch.randn(50, 4)
    assert torch.equal(net(states), final.policy_net(states)), "with its own scale"
    assert (tmp_path / "collapse_and_cure.png").read_bytes() == b"two curves"

    found = cell("= load_agent(", OUTPUT=tmp_path, metrics=metrics)
    assert numbers(found.printed)[0] == pytest.approx(scores.mean(), abs=0.06)
    with pytest.raises(AssertionError):  # the file holds another agent
        cell("= load_agent(", OUTPUT=tmp_path, metrics={"greedy_mean": 500.0})


def test_what_is_tracked_comes_from_the_runs(lesson, cell, final):
    """Each under its own name, the final agent last: a job has one run."""
    sent = []
    other = made_up(1, 500, policy_net=final.policy_net)
    other.settings = replace(lesson.settings, SEED=18, MAX_STEPS=200)
    cell(
        "log_to_mlflow(runs",
        TRACKING="mlflow",
        IN_JOB="in a job",
        both={"plain DQN": other, "careful target": other},
        final=final,
        log_to_mlflow=lambda *given: sent.append(given),
    )
    ((runs, in_job),) = sent
    assert in_job == "in a job" and list(runs)[:2] == ["plain DQN", "careful target"]
    results, metrics = zip(*runs.values(), strict=True)
    assert results == (other, other, final)
    assert [numbers["seed"] for numbers in metrics] == [18, 18, 17]
    assert [numbers["share_of_passes"] for numbers in metrics] == [1, 1, 0]


def test_an_agent_for_another_task_saved_on_a_gpu_is_the_same_without_one(
    lesson, tmp_path, monkeypatch
):
    scale = [1.0, 1.0, 1.0, 1.0, 6.0, 12.0]
    net, states = lesson.DQN(6, 3, scale), torch.randn(50, 6)
    saved = {"weights": net.state_dict(), "made_with": {"scale": scale}}
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        torch.save(saved, tmp_path / "model.pt")
    loaded, _ = lesson.load_agent(tmp_path / "model.pt")
    assert {value.device.type for value in loaded.state_dict().values()} == {"cpu"}
    assert torch.equal(net(states), loaded(states))


def test_a_file_with_code_is_refused(lesson, tmp_path):
    torch.save({"weights": print}, tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        lesson.load_agent(tmp_path / "model.pt")


# Small tasks with an answer that is known.

EXAMPLES = {
    "q_table = ": [0.73, 0.73, 0.81, 0.81, 0.9, 1.0],  # 0.9 for each step to the goal
    "memory = ReplayMemory(4": [4, 1, 2, 3],
    "sgd = ": [25, 5, 5],
    "amax(dim=0)": [90, 50],
    "clock_stops = ": [33],  # about 1 / (1 - 0.99 * 49 / 50)
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_ends_with_what_it_must(cell, text):
    *_, last = cell(text).printed.splitlines()
    expected = EXAMPLES[text]
    assert numbers(last)[-len(expected) :] == pytest.approx(expected, abs=0.1)
