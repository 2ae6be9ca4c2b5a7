"""The benchmarks: every option against its formula, the report against its data."""

import copy
import subprocess
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks import contestants, gaps, loop, measure, report, rows, run, targets
from tests.helpers import prose
from tools.load_definitions import ROOT

PYTHON = ROOT / ".venv-bench" / "bin" / "python"
START = torch.tensor([[0.1, 0.2, 0.01, 0.3]])


def weights(net):
    """A copy of all weights of a network, as one vector."""
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()


class Watched:
    """Runs the loop and notes what its pieces are given at each update.

    The pieces do their work; the lesson stays as it is.
    """

    def __init__(self, lesson, steps, targets=None, **options):
        self.before, self.after = [], []  # weights of the policy network
        self.values = []  # of the target network, for one state
        self.rates, self.gammas, self.epsilons = [], [], []
        self.steps = []  # of the environment, at each update
        self.remembered = []
        self.lesson = lesson
        self.inner = targets or lesson.td_targets
        watched = SimpleNamespace(**{**vars(lesson), "optimize_model": self.optimize})
        self.settings = replace(lesson.settings, MAX_STEPS=steps, EVAL_EVERY=steps)
        self.result = loop.loop(
            watched, self.settings, self.targets, self.remember, **options
        )

    def remember(self, memory, transition):
        self.remembered.append(transition)
        memory.push(transition)

    def targets(self, batch, policy_net, target_net, settings, **known):
        self.before.append(weights(policy_net))
        self.values.append(target_net(START).detach().clone())
        self.gammas.append(settings.GAMMA)
        self.steps.append(len(self.remembered))
        self.epsilons.append(known.get("epsilon"))
        return self.inner(batch, policy_net, target_net, settings, **known)

    def optimize(self, policy_net, optimizer, batch, wanted):
        self.rates.append(optimizer.param_groups[0]["lr"])
        loss = self.lesson.optimize_model(policy_net, optimizer, batch, wanted)
        self.after.append(weights(policy_net))
        return loss


# The loop.


@pytest.mark.parametrize("final", [False, True])
def test_the_loop_without_options_is_train(lesson, final):
    functions = (lesson.td_targets, lesson.remember)
    if final:
        careful = partial(lesson.careful_targets, epsilon=0.7)
        functions = (careful, lesson.remember_mirrored)
    settings = replace(lesson.settings, SEED=3, MAX_STEPS=600, EVAL_EVERY=300)
    expected = lesson.train(settings, *functions)
    found = loop.loop(lesson, settings, *functions)
    assert found.losses == expected.losses
    assert found.durations == expected.durations
    for one, other in zip(found.evaluations, expected.evaluations, strict=True):
        assert one[:3] == other[:3]
    for name in ("policy_net", "target_net"):
        mine, notebook = getattr(found, name), getattr(expected, name)
        assert torch.equal(weights(mine), weights(notebook))


def test_updates_come_every_so_many_steps(lesson):
    watched = Watched(lesson, steps=200, update_every=3)
    assert watched.steps == [step for step in range(128, 201) if step % 3 == 0]


def test_the_learning_rate_falls_along_a_line_to_zero(lesson):
    watched = Watched(lesson, steps=200, lr_falls=True)
    steps = np.array(watched.steps)
    assert watched.rates == pytest.approx(0.002 * (1 - steps / 200))
    assert watched.rates[-1] == 0.0


@pytest.mark.parametrize("copies", [1, 2])
def test_the_target_network_is_the_mean_of_the_latest_copies(lesson, copies):
    watched = Watched(lesson, steps=140, copies=copies, copy_every=3)
    first = weights(lesson.make_networks(4, 2, lesson.SCALE, watched.settings)[0])
    net = copy.deepcopy(watched.result.policy_net)
    for done, found in enumerate(watched.values):  # updates before this one
        made = [first] * copies
        made += [watched.after[i - 1] for i in range(3, done + 1, 3)]
        values = []
        for one in made[-copies:]:
            torch.nn.utils.vector_to_parameters(one, net.parameters())
            values.append(net(START))
        assert torch.allclose(found, sum(values) / copies, atol=1e-6), done


@pytest.mark.parametrize("rate", [1e-9, 0.3])
def test_the_average_begins_as_the_plain_mean_of_the_weights(lesson, rate):
    watched = Watched(lesson, steps=140, average=rate)
    expected = watched.before[0]
    for done, after in enumerate(watched.after, start=1):
        expected = torch.lerp(expected, after, max(rate, 1 / (1 + done)))
    player = weights(watched.result.policy_net)
    assert torch.allclose(player, expected, atol=1e-6)
    assert torch.equal(watched.before[1], watched.after[0]), "it acts and learns alone"


def test_the_discount_of_n_steps_is_its_power(lesson):
    watched = Watched(lesson, steps=200, n_steps=5)
    assert watched.gammas == pytest.approx([0.99**5] * len(watched.gammas))
    rewards = {round(float(one.reward), 6) for one in watched.remembered}
    sums = [round(sum(0.99**i for i in range(n)), 6) for n in range(1, 6)]
    assert rewards == set(sums)
    for one in watched.remembered:
        assert one.terminated or float(one.reward) == pytest.approx(sums[-1], abs=1e-5)


def step(i, terminated=False):
    return SimpleNamespace(
        state=i,
        next_state=i + 1,
        reward=1.0,
        terminated=terminated,
        _replace=lambda **new: SimpleNamespace(state=i, **new),
    )


def test_a_window_joins_n_steps_of_one_episode():
    window = loop.Window(3, gamma=0.5)
    assert window.add(step(0), truncated=False) == []
    assert window.add(step(1), truncated=False) == []
    (first,) = window.add(step(2), truncated=False)
    assert (first.state, first.next_state, first.reward) == (0, 3, 1.75)
    assert not first.terminated
    rest = window.add(step(3, terminated=True), truncated=False)
    found = [(s.state, s.next_state, s.reward, s.terminated) for s in rest]
    assert found == [(1, 4, 1.75, True), (2, 4, 1.5, True), (3, 4, 1.0, True)]
    assert not window.steps
    assert window.add(step(4), truncated=True) == []
    assert not window.steps, "nothing of one episode goes into the next"


def filled_memory(lesson, failed):
    """A memory of 100 rows, numbered in `reward`; some of them terminated."""
    rng = np.random.default_rng(0)
    memory = loop.memory_with_failures(lesson, 0.1)(200, 4, rng)
    for i in range(100):
        state = np.zeros(4, np.float32)
        memory.push(lesson.Transition(state, 0, state, float(i), i in failed))
    return memory


def test_a_share_of_each_batch_is_drawn_from_failures(lesson):
    batch = filled_memory(lesson, failed={10, 90}).sample(20_000)
    failures, others = batch.reward[:2_000].numpy(), batch.reward[2_000:].numpy()
    assert set(failures) == {10.0, 90.0}
    assert np.mean(failures) == pytest.approx(50, abs=5), "both as often"
    assert set(others) == set(map(float, range(100))), "the rest is drawn from all"
    assert np.mean(np.isin(others, [10, 90])) == pytest.approx(0.02, abs=0.005)


def test_without_a_failure_the_whole_batch_is_drawn_from_all(lesson):
    memory = filled_memory(lesson, failed=set())
    assert len(set(memory.sample(5_000).reward[:500].tolist())) == 100


def test_the_loop_draws_from_failures_if_it_is_told_to(lesson):
    seen = []

    def look(batch, *others):
        seen.append(bool(batch.terminated[:12].all()))
        return lesson.td_targets(batch, *others)

    Watched(lesson, steps=200, targets=look, failures=0.1)
    assert seen and all(seen)


def test_a_failure_is_punished_and_nothing_else_counts(lesson):
    watched = Watched(lesson, steps=150, punish=True, clock=12)
    for one in watched.remembered:
        assert one.reward == (-1.0 if one.terminated else 0.0)
    lengths = [length for _, length in watched.result.durations]
    assert max(lengths) == 12, "the clock cuts episodes off, and that is no failure"


def test_the_targets_get_the_epsilon_of_their_step(lesson):
    careful = lesson.careful_targets
    watched = Watched(lesson, steps=200, targets=careful, own_epsilon=True)
    expected = [lesson.epsilon_at(step, watched.settings) for step in watched.steps]
    assert watched.epsilons == expected


def test_random_pushes_begin_an_episode_and_are_not_remembered(lesson):
    env = lesson.make_env("CartPole-v1")
    counts = []

    def count(action):
        counts[-1] += 1
        return inner(action)

    inner, env.step = env.step, count
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts.append(0)
        state = loop.begin(lesson, env, rng, pushes=12)
        assert np.allclose(state, env.unwrapped.state, atol=1e-6)
    assert (min(counts), max(counts)) == (0, 12)
    assert np.mean(counts) == pytest.approx(6, abs=0.7)
    watched = Watched(lesson, steps=150, pushes=12)
    assert len(watched.remembered) == 150


def test_normalised_layers_are_normalised_and_trained(lesson):
    result = Watched(lesson, steps=200, layer_norm=True).result
    net = result.policy_net
    x = START / net.scale
    for layer, norm in (net.layer1, net.layer2):
        z = layer(x)
        z = (z - z.mean()) / torch.sqrt(z.var(unbiased=False) + 1e-5)
        x = functional.relu(z * norm.weight + norm.bias)
        assert not torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert torch.allclose(net(START), net.layer3(x), atol=1e-4)
    slow, fast = result.target_net.layer1[1].bias, net.layer1[1].bias
    assert not slow.requires_grad
    assert 0 < slow.norm() < fast.norm(), "the target network follows"


def test_the_squared_error_and_its_gradient_by_hand(lesson):
    """Values 2 and 0, targets 5 and −1: errors −3 and 1, mean of squares 5."""
    net = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0], [0.0]]))
    batch = SimpleNamespace(state=torch.ones(2, 1), action=torch.tensor([[0], [1]]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    wanted = torch.tensor([5.0, -1.0])
    assert loop.optimize_squared(net, optimizer, batch, wanted) == pytest.approx(5.0)
    assert net.weight.flatten().tolist() == pytest.approx([2.3, -0.1])
    watched = Watched(lesson, steps=140, squared=True)
    assert watched.result.losses and watched.rates == [], "instead of the lesson's"


MUNCHAUSEN = {"alpha": 0.9, "temperature": 1.0}


@pytest.mark.parametrize(
    "name, constants, action, future, bonus",
    [
        ("plain", {}, 1, 4, 0),
        ("careful", {"epsilon": 0.5}, 1, 3.5, 0),
        ("double", {}, 1, 2, 0),
        ("advantage", {"alpha": 0.9}, 1, 4, -0.9),
        ("advantage", {"alpha": 0.9}, 0, 4, 0),
        ("softmax", {"temperature": 1.0}, 1, 3.761594, 0),
        ("softmax", {"temperature": 1e6}, 1, 3, 0),
        # ln(e⁴ + e²) = 4.126928; ln π of action 0 is −0.313262, of action 1 −1.313262
        ("munchausen", MUNCHAUSEN, 0, 4.126928, -0.9 * 0.313262),
        ("munchausen", MUNCHAUSEN, 1, 4.126928, -0.9),
    ],
)
def test_targets_by_hand(lesson, name, constants, action, future, bonus):
    """Target values are [3, 2] before the step and [4, 2] after it, γ is 0.5.

    The policy network prefers action 1 after the step. `future` is what the state
    after the step is worth; a bonus is added even where an episode has ended.
    """
    batch = lesson.Transition(
        state=torch.zeros(2, 4),
        action=torch.full((2, 1), action),
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
    found = function(batch, policy_net, target_net, settings).tolist()
    assert found == pytest.approx([1 + 0.5 * future + bonus, 1 + bonus], abs=1e-4)


# Rows.


def test_the_final_agent_is_the_notebooks(lesson):
    assert rows.FINAL.targets == {"name": "careful", "epsilon": lesson.TARGET_EPSILON}
    assert rows.FINAL.mirror == lesson.MIRROR
    short = replace(rows.FINAL, steps=300, every=300)
    settings = replace(lesson.settings, SEED=2, MAX_STEPS=300, EVAL_EVERY=300)
    careful = partial(lesson.careful_targets, epsilon=lesson.TARGET_EPSILON)
    expected = lesson.train(settings, careful, lesson.remember_mirrored)
    assert loop.train_row(lesson, short, 2).losses == expected.losses


def test_each_row_takes_away_the_part_that_it_names():
    labels = {row.label: row for row in rows.TOGETHER}
    whole = rows.MASTER
    parts = {
        "5-step": {"loop": {"average": 0.002, "failures": 0.1}},
        "ε′": {"targets": {"name": "plain"}},
        "mirror": {"mirror": False},
        "averaged weights": {"loop": {"n_steps": 5, "failures": 0.1}},
        "failures": {"loop": {"n_steps": 5, "average": 0.002}},
    }
    for part, changes in parts.items():
        row = labels[f"the same without {part}"]
        expected = replace(whole, label=row.label, seeds=row.seeds, **changes)
        assert row == expected, part


def test_no_two_rows_are_the_same_under_two_names():
    seen = {}
    for label, row in rows.all_rows().items():
        what = (run.options_of(row), row.seeds)
        assert seen.setdefault(what, label) == label


def test_rows_that_were_put_together_have_seeds_of_their_own():
    chosen_on = {*range(100), *range(300, 306), *range(1_000, 2_000)}
    for row in rows.TOGETHER:
        if row != rows.FINAL:
            assert not chosen_on & set(row.seeds), row.label


# What is measured.


def leans(states):
    """A rule that balances for a while."""
    return (states[:, 2] > 0).tolist()


def test_survival_is_what_evaluate_says(lesson):
    starts = lesson.HELD_OUT_STARTS
    for steps in (20, 40, 60):
        scores = lesson.evaluate(leans, starts, max_steps=steps + 1)
        found = measure.far(lesson, leans, steps)
        assert found == np.mean(scores > steps)  # a failing step counts in a score
        assert steps != 40 or 0 < found < 1


def test_the_clock_is_off_beyond_500_steps(lesson):
    assert measure.far(lesson, measure.hand_rule, 700) == 1.0


def test_wide_starts_are_as_wide_as_they_say(lesson):
    states = measure.wide_states()
    assert states.shape == (300, 4)
    bounds = np.array(measure.WIDE_BOUNDS)
    for side in (states, -states):
        assert np.all(0.95 * bounds < side.max(axis=0))
        assert np.all(side.max(axis=0) <= bounds)
    first = []

    def look(observations):
        first.append(observations.copy())
        return [0] * len(observations)

    assert measure.wide(lesson, look, steps=200) == 0.0
    assert np.allclose(first[0], states, atol=1e-6)


def test_the_rule_by_hand_weighs_all_four_numbers():
    states = np.array([[0, 0, 0.1, -0.2], [3, 0, 0.1, -0.2], [0, 2, 0.1, -0.2]])
    assert measure.hand_rule(states) == [False, True, True]


def test_the_share_of_passes_is_of_the_second_half():
    means = {250: 500, 500: 500, 750: 475, 1000: 474}
    assert measure.share_of_passes(means, 475, 1_000, 250) == 0.5
    assert measure.share_of_passes({750: 500}, 475, 1_000, 250) == 0.5, "it diverged"


def test_agreement_and_size_of_gaps_by_hand():
    found = np.array([[1.0, -1.0, 4.0], [3.0, 1.0, 4.0], [2.0, 3.0, 4.0]])
    found = measure.along_track(found)
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["ratio"] == pytest.approx(2 / np.std([1, 2, 3]))


def test_a_run_is_judged_by_hand(lesson):
    """Five evaluations: the second is the best, and the third is confirmed."""
    held_out = {1: 100.0, 2: 400.0, 3: 480.0, 4: 300.0, 5: 470.0}
    now = SimpleNamespace(step=0)

    def evaluate(policy, starts, env_id):
        assert starts == lesson.HELD_OUT_STARTS
        return np.array([held_out[now.step], held_out[now.step]])

    fake = SimpleNamespace(**{**vars(lesson), "evaluate": evaluate})
    row = rows.Row("a row", env_id="Acrobot-v1", steps=5, every=1)
    judge = measure.Judge(fake, row)
    judge.threshold = 475
    for now.step, mean in enumerate([90, 490, 480, 200, 474], start=1):
        over = judge(now.step, now.step / 10, policy=None, mean=mean)
        assert over == (now.step == 5)
    found = judge.found()
    assert (found["first_pass"], found["solved"], found["seconds"]) == (2, 3, 0.3)
    assert found["share"] == pytest.approx(1 / 3)
    assert (found["best"], found["held_out"], found["end"]) == (400, 470, 474)


def test_a_model_of_others_gets_careful_targets():
    states = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Linear(4, 2)
    values = net(states)
    contestants.make_careful(SimpleNamespace(q_net_target=net), 0.7)
    expected = 0.3 * values.amax(dim=1) + 0.7 * values.mean(dim=1)
    assert torch.allclose(net(states).amax(dim=1), expected)


# Saved runs.

SHORT = {"steps": 300, "every": 150, "far": 50}
SMALL = rows.Row("a row", range(2), targets={"name": "plain"}, **SHORT)


def a_run(row, seed, **changes):
    made_by = {"code": run.code_of(row), "options": run.options_of(row)}
    usual = {"machine": "m", "share": 0.5, "first_pass": 1.0}
    return run.Run(row.label, seed, **{**made_by, **usual, **changes})


def test_a_change_in_wording_keeps_the_runs_and_one_in_arithmetic_does_not():
    def text(source):
        return run.bare(run.ast.parse(source))

    code = (
        'def f(x):\n    """Say."""\n    if x:\n        raise ValueError("no")\n'
        "    return x + 1\n"
    )
    assert text(code) == text(code.replace("Say.", "Tell.").replace("no", "never"))
    assert text(code) == text(code.replace("return", "# a comment\n    return"))
    assert text(code) != text(code.replace("x + 1", "x - 1"))
    assert text(code) != text(code.replace("ValueError", "TypeError"))


@pytest.mark.parametrize(
    "old, new",
    [
        ("nn.Linear(HIDDEN, HIDDEN)", "nn.Linear(HIDDEN, 2 * HIDDEN)"),
        ("HIDDEN = 128", "HIDDEN = 64"),
        ("F.smooth_l1_loss", "F.mse_loss"),
        ("range(2_000_000_000,", "range(2_000_000_001,"),
    ],
)
def test_the_hash_sees_what_training_needs(tmp_path, old, new):
    changed = tmp_path / "changed.ipynb"
    text = run.NOTEBOOK.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), encoding="utf-8")
    assert run.hash_of_code(run.CODE, changed) != run.hash_of_code(run.CODE)


def test_runs_of_other_code_or_options_are_not_used(tmp_path):
    path = tmp_path / "runs.jsonl"
    run.add(a_run(SMALL, 0, code="other"), path)
    run.add(a_run(SMALL, 1), path)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"row": "cut o')
    runs = run.load(path)
    assert [one.seed for one in run.valid(runs, SMALL)] == [1]
    assert run.valid(runs, replace(SMALL, steps=450)) == []
    assert run.valid(runs, replace(SMALL, loop={"squared": True})) == []
    run.save(runs, path)
    assert run.load(path) == runs


def test_older_runs_are_accepted_only_if_they_come_out_the_same(tmp_path):
    path = tmp_path / "runs.jsonl"
    labels = {SMALL.label: SMALL}
    true = replace(run.do(SMALL, 0), code="old", far=None)
    run.add(true, path)
    run.add(replace(true, seed=1, share=1.0, end=2.0), path)
    assert run.restamp("old", labels, path, checks=2) == 1
    assert run.valid(run.load(path), SMALL) == []
    assert run.restamp("old", labels, path, checks=1) == 0
    kept = run.valid(run.load(path), SMALL)
    assert [(one.seed, one.before) for one in kept] == [(0, "old"), (1, "old")]


def test_what_differs_is_seen_and_what_was_not_measured_is_not():
    one = a_run(SMALL, 0, far=0.5, seconds=1.0)
    assert run.same(one, replace(one, seconds=2.0, far=None, code="x"))
    assert not run.same(one, replace(one, far=0.51))
    assert not run.same(one, replace(one, first_pass=np.inf))


# The exchange of gaps.


class Simple(torch.nn.Module):
    """Q(right) − Q(left) is a·x + b·θ."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, states):
        gap = self.a * states[:, 0] + self.b * states[:, 2]
        return torch.stack([torch.zeros_like(gap), gap], dim=1)


def test_a_network_gets_the_others_gap_at_rest_and_keeps_the_rest():
    own, other = Simple(1.0, 10.0), Simple(-2.0, 0.0)
    states = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0.3, 0], [1, 0, 0.1, 0]])
    policy = gaps.with_gap_of(own, other)
    assert policy(states.astype(np.float32)) == [0, 1, 1, 0]  # −2x + 10θ > 0


def test_networks_are_those_of_their_moments(lesson):
    found = gaps.networks(lesson, rows.PLAIN, seed=1, moments=(150, 300))
    for steps, net in found.items():
        row = replace(rows.PLAIN, steps=steps, every=steps)
        expected = loop.train_row(lesson, row, 1).policy_net
        assert torch.equal(weights(net), weights(expected))
    assert list(found) == [150, 300]


def test_only_pairs_of_which_plain_fails_and_final_passes_are_counted():
    found = [
        {"seed": 0, "plain": 100, "final": 500},
        {"seed": 1, "plain": 475, "final": 500},
        {"seed": 2, "plain": 100, "final": 400},
        {"seed": 3, "plain": 474, "final": 475},
    ]
    assert [one["seed"] for one in gaps.counted(found)] == [0, 3]


# The report.


@pytest.fixture(scope="module")
def runs():
    """The tracked runs."""
    return run.load()


def test_figures_by_hand():
    made = [
        a_run(SMALL, 0, share=1.0, first_pass=500.0, far=0.2),
        a_run(SMALL, 1, share=0.5, first_pass=np.inf, far=0.4),
        a_run(SMALL, 2, share=0.75, first_pass=1_000.0),
    ]
    found = report.pairs(made)
    assert found["share"] == "0.75 (0.50)"
    assert found["first_pass"] == "1,000 (never)"
    assert found["far"] == "0.30 (0.20)"
    assert report.cell(made, "far") == "0.30 (0.20), 2 seeds"
    assert report.cell(made, "wide") == "–"


def test_rank_correlation_by_hand():
    assert report.rank_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)
    assert report.rank_correlation([1, 1, 2], [5, 5, 9]) == pytest.approx(1.0)


def test_a_contestant_is_summarised_by_hand():
    made = [
        a_run(SMALL, 0, solved=500.0, seconds=1.0, us_per_step=10.0),
        a_run(SMALL, 1, solved=np.inf, us_per_step=30.0),
        a_run(SMALL, 2, solved=700.0, seconds=3.0, us_per_step=20.0),
    ]
    found = report.summary(SMALL, made, own=[0.5, 0.5, 0.5])
    assert (found["solved"], found["seeds"]) == (2, 3)
    assert found["steps"] == [700.0, np.inf]
    assert (found["seconds"], found["us_per_step"]) == (3.0, 20.0)
    assert found["ratio"] == [6.0, 2.0, np.inf]


def test_the_exchange_is_counted_by_hand():
    one = {"plain": 100, "plain_given": 480, "final": 500, "final_given": 470}
    text = report.exchanged([one, {**one, "plain_given": 10}])
    assert text.splitlines()[2:] == [
        "| plain DQN | 2 | 0 | 1 | 100 | 245 |",
        "| final agent | 2 | 2 | 0 | 500 | 470 |",
    ]


def test_the_report_has_the_tables_of_the_tracked_runs(runs):
    text = report.README.read_text(encoding="utf-8")
    texts = report.all_tables(runs, gaps.counted(gaps.load()))
    assert report.filled(text, texts) == text
    named = {name for _, name, _ in report.MARKED.findall(text)}
    assert named == set(texts), "each table has its place"


def quoted(runs):
    """What others quote: where, the row, the figure as it is there, the figure."""
    valid = {label: run.valid(runs, row) for label, row in rows.all_rows().items()}

    def mean(label):
        return f"{np.mean(report.known(valid[label], 'share')):.2f}"

    def worst(label):
        return f"{min(report.known(valid[label], 'share')):.2f}"

    def median(label, name, decimals):
        return f"{np.median(report.known(valid[label], name)):.{decimals}f}"

    plain = valid[rows.PLAIN.label]
    shares, sizes = report.known(plain, "share"), report.known(plain, "ratio")
    survived = report.known(valid[rows.FINAL.label], "far")
    against = report.rank_correlation(shares, sizes)
    slow = report.at_own_length(rows.OWN_LENGTH[0], runs)
    compared = report.comparison(runs)
    contest = compared["its plain DQN, the same hyperparameters"]
    same = "Stable-Baselines3, this notebook's hyperparameters"
    return [
        ("lesson", "0.34", f"{np.mean(contest['shares']):.2f}"),
        ("README", "0.34", f"{np.mean(contest['shares']):.2f}"),
        ("lesson", "0.28", mean("plain DQN")),
        ("lesson", "0.97", mean("careful target, ε′ = 0.7")),
        ("lesson", "0.53", mean("Acrobot, ε′ = 0.0")),
        ("lesson", "0.04", mean("Acrobot, ε′ = 0.7")),
        ("lesson", "0.09", mean("final agent, inputs not scaled")),
        ("lesson", "0.79", f"{min(slow['shares']):.2f}"),
        ("lesson", "0.32", mean("an update every tenth step")),
        ("lesson", "0.57", mean("an update every tenth step, a copy every 50 updates")),
        ("lesson", "0.87", mean("10-step returns")),
        ("lesson", "0.27", mean("Double DQN")),
        ("lesson", "0.18", mean("PyTorch tutorial, older settings, ε′ = 0.7")),
        ("lesson", "0.22", mean("PyTorch tutorial, settings of today, ε′ = 0.7")),
        ("lesson", "0.25", mean("Stable-Baselines3, the zoo's settings, ε′ = 0.7")),
        ("lesson", "0.99", mean(f"{same}, ε′ = 0.7")),
        ("README", "0.99", mean(f"{same}, ε′ = 0.7")),
        ("lesson", "0.38", f"{np.mean(compared[same]['shares']):.2f}"),
        ("lesson", "1.00", worst("careful target, ε′ = 1.0")),
        ("lesson", "1.00", worst("final agent")),
        ("lesson", "0.75", f"{np.median(survived):.2f}"),
        ("lesson", "0.28", f"{min(survived):.2f}"),
        ("lesson", "0.9", median("plain DQN", "ratio", 1)),
        ("lesson", "5.6", median("careful target, ε′ = 0.7", "ratio", 1)),
        ("lesson", "8.0", median("final agent, inputs not scaled", "ratio", 1)),
        ("lesson", "−0.27", f"{against:.2f}".replace("-", "−")),
    ]


def test_readme_and_lesson_quote_the_results(runs, committed):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    texts = {"lesson": prose(committed), "README": readme}
    for where, there, found in quoted(runs):
        assert there == found
        assert there in texts[where]


# Whole runs, in the environment of the benchmarks.


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
