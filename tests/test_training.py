"""The training loop, the evaluation and what is said about a run."""

import copy
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import load_definitions as loader

TINY = {"MAX_STEPS": 400, "EVAL_EVERY": 200, "BATCH_SIZE": 16, "MEMORY_SIZE": 1_000, "SEED": 3}


def tiny(lesson, **changes):
    return lesson.changed(lesson.settings, **{**TINY, **changes})


def same_weights(net, other):
    return all(map(torch.equal, net.parameters(), other.parameters()))


@pytest.fixture(scope="module")
def tiny_run(lesson):
    """A short run of the plain agent without mirror."""
    return lesson.train(tiny(lesson, TARGET_EPSILON=0.0, MIRROR=False))


class Clockwork:
    """Stands for an environment: odd episodes fall at step 7 (some in the last tick), even ones
    are cut off at 5."""

    spec = SimpleNamespace(reward_threshold=475)
    action_space = SimpleNamespace(n=2)

    def __init__(self, env_id):
        self.seeds, self.episode, self.time = [], 0, 0

    def observation(self):
        return np.array([self.episode, self.time, 0.0, 0.0], np.float32)

    def reset(self, seed=None, **_):
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self.observation(), {}

    def step(self, action):
        self.time += 1
        terminated = self.episode % 2 == 1 and self.time == 7
        truncated = self.time == (5 if self.episode % 2 == 0 else 7 if self.episode % 3 == 0 else 0)
        return self.observation(), self.time / 10, terminated, truncated, {}


@pytest.fixture
def clockwork(lesson, patch):
    """Train in the clockwork environment; return the result and all environments."""
    made = []
    patch("make_env", lambda env_id: made.append(Clockwork(env_id)) or made[-1])
    return lambda **changes: (lesson.train(tiny(lesson, MIRROR=False, **changes)), made)


def test_the_memory_gets_falls_but_not_cuts_and_episodes_follow_one_another(clockwork):
    result, (env, *_) = clockwork(MAX_STEPS=60)
    fields = result.memory.fields
    assert len(result.memory) == 60
    now, after = fields.state[:60, :2].tolist(), fields.next_state[:60, :2].tolist()
    played = [[e, time] for e in range(1, 12) for time in range(7 if e % 2 else 5)][:60]
    assert (now, after) == (played, [[episode, time + 1] for episode, time in played])
    falls = [episode % 2 == 1 and time == 7 for episode, time in after]
    assert fields.terminated[:60].tolist() == falls and sum(falls) == 5
    assert np.allclose(fields.reward[:60], [time / 10 for _, time in after])
    assert set(fields.action[:60, 0]) == {0, 1}
    ends = list(itertools.accumulate([7, 5] * 5))
    assert result.durations == list(zip(ends, [7, 5] * 5, strict=True))
    assert env.seeds == [3] + [None] * 10, "seeded once, and started again at every end"


def test_evaluations_use_the_validation_starts_and_environments_of_their_own(lesson, clockwork):
    result, (_, *others) = clockwork(MAX_STEPS=100, EVAL_EVERY=30)
    assert [step for step, *_ in result.evaluations] == [30, 60, 90, 100] and result.steps == 100
    assert [env.seeds for env in others] == 4 * [[seed] for seed in lesson.VALIDATION_STARTS]
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100) and not validation & held_out
    assert not (validation | held_out) & set(range(1_000_000)), "seeds that a run may have"


def test_the_loop_acts_on_what_it_sees_with_the_epsilon_of_its_step(lesson, patch, clockwork):
    calls = []

    def select_action(state, net, epsilon, rng):
        calls.append((state.tolist()[:2], net, epsilon))
        return len(calls) % 2

    patch("select_action", select_action)
    result, _ = clockwork(MAX_STEPS=30)
    assert [state for state, *_ in calls] == result.memory.fields.state[:30, :2].tolist()
    assert result.memory.fields.action[:30, 0].tolist() == [n % 2 for n in range(1, 31)]
    assert all(net is result.policy_net for _, net, _ in calls)
    s = result.settings
    assert [epsilon for *_, epsilon in calls] == [lesson.epsilon_at(n, s) for n in range(1, 31)]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_target_network_follows_at_every_step(lesson, patch, tau):
    taus, update = [], lesson.update_target
    patch("update_target", lambda *args: (taus.append(args[2]), update(*args)))
    s = tiny(lesson, TAU=tau, MAX_STEPS=30, MIRROR=False)
    result = lesson.train(s)
    start = lesson.make_networks(4, 2, lesson.SCALE, s)[0]
    assert taus == [tau] * len(result.losses) == [tau] * 15, "from the first full batch on"
    assert not same_weights(result.policy_net, start)
    assert same_weights(result.target_net, start) is (tau == 0)
    assert same_weights(result.target_net, result.policy_net) is (tau == 1)


def test_a_run_in_numbers(lesson, tiny_run):
    ends, durations = zip(*tiny_run.durations, strict=True)
    assert list(itertools.accumulate(durations)) == list(ends)
    assert max(durations) <= 500 and ends[-1] <= 400 == tiny_run.steps
    fields = tiny_run.memory.fields
    assert np.array_equal(fields.state[0], lesson.reset_env(lesson.make_env("CartPole-v1"), 3))
    assert [n + 1 for n in range(400) if fields.terminated[n]] == list(ends)
    returns = lesson.evaluate(lesson.greedy(tiny_run.policy_net), lesson.VALIDATION_STARTS)
    assert tiny_run.evaluations[-1][:3] == (400, returns.mean(), returns.min())
    assert tiny_run.threshold == 475 and tiny_run.finished


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lesson, tiny_run):
    np.random.seed(99)
    torch.manual_seed(99)
    again = lesson.train(tiny_run.settings)
    for history in ("durations", "losses"):
        assert getattr(again, history) == getattr(tiny_run, history)
    assert same_weights(again.policy_net, tiny_run.policy_net)
    some = [lesson.train(tiny(lesson, SEED=seed, MAX_STEPS=8, MIRROR=False)) for seed in (3, 4)]
    assert not same_weights(some[0].policy_net, some[1].policy_net)
    fields = [result.memory.fields for result in some]
    assert not np.array_equal(fields[0].state[0], fields[1].state[0])
    assert not np.array_equal(fields[0].action, fields[1].action)


def test_evaluating_more_often_does_not_change_the_training(lesson, tiny_run):
    often = lesson.train(lesson.changed(tiny_run.settings, EVAL_EVERY=40))
    assert len(often.evaluations) == 10
    assert (often.durations, often.losses) == (tiny_run.durations, tiny_run.losses)


def test_measured_seconds_are_those_of_training_alone(lesson, patch):
    clock = [0.0]

    def tick(seconds, value=None):
        clock[0] += seconds
        return value

    patch("time", SimpleNamespace(perf_counter=lambda: clock[0]))
    patch("update_target", lambda *_: tick(1.0))
    patch("evaluate", lambda *_: tick(1e6, np.zeros(20)))
    s = tiny(lesson, MAX_STEPS=45, EVAL_EVERY=20, MIRROR=False)
    result = lesson.train(s, show=lambda _: tick(1e9))
    assert [seconds for *_, seconds in result.evaluations] == [5, 25, 30] and result.seconds == 30


@pytest.mark.parametrize("score,passes", [(474.9, False), (475.0, True)])
def test_stop_when_solved(lesson, patch, score, passes):
    shown, scores = [], iter([0.0, score] + [0.0] * 20)
    patch("evaluate", lambda *_: np.full(20, next(scores)))
    s = tiny(lesson, MAX_STEPS=60, EVAL_EVERY=10)
    show = lambda result: shown.append((result.steps, result.finished))  # noqa: E731
    result = lesson.train(s, stop_when_solved=True, show=show)
    last = 20 if passes else 60
    assert shown == [(step, step == last) for step in range(10, last + 1, 10)]
    assert result.steps == last and bool(lesson.first_pass(result)) is passes
    scores = iter([500.0] * 6)
    assert lesson.train(s).steps == 60, "only where it was asked for"


def test_evaluation_is_one_episode_from_each_start(lesson):
    starts, played = [*range(12), 2_000_000_000, 2_000_000_033], []
    for start in starts:
        env, total, over = lesson.make_env("CartPole-v1"), 0.0, False
        state = lesson.reset_env(env, start)
        while not over:
            state, reward, terminated, truncated, _ = env.step(int(state[2] + state[3] > 0))
            total, over = total + reward, terminated or truncated
        played.append(total)
    assert lesson.evaluate(lambda s: s[:, 2] + s[:, 3] > 0, starts).tolist() == played
    assert max(played) == 500 > min(played)


def test_scores_do_not_depend_on_the_order_or_company_of_starts(lesson):
    rule = lambda states: states[:, 2] > 0  # noqa: E731
    returns = lesson.evaluate(rule, range(8))
    assert len(set(returns)) > 3
    assert lesson.evaluate(rule, range(7, -1, -1))[::-1].tolist() == returns.tolist()
    assert lesson.evaluate(rule, [5]).tolist() == [returns[5]]
    idle = lambda states: np.ones(len(states), int)  # noqa: E731
    assert lesson.evaluate(idle, range(2), "Acrobot-v1").tolist() == [-500, -500], "rewards"


def with_means(lesson, *means):
    """A result with evaluations at 1000, 2000, … of a budget of as many steps."""
    steps = range(1_000, 1_000 * len(means) + 1, 1_000)
    evaluations = [(s, m, m - 10, s / 100) for s, m in zip(steps, means, strict=True)]
    settings = lesson.changed(lesson.settings, MAX_STEPS=steps[-1])
    end = {"threshold": 475, "steps": steps[-1], "settings": settings}
    return SimpleNamespace(evaluations=evaluations, **end)


def test_steadiness_counts_the_second_half_of_the_budget(lesson):
    cases = [[500, 500, 0, 0], [0, 0, 500, 475], [500, 500, 474.9, 480], [0, 0, 500]]
    found = [lesson.steadiness(with_means(lesson, *means)) for means in cases]
    assert found == [0, 1, 0.5, 0.5]


def test_a_verdict_for_every_history(lesson):
    means = [0, 474, 0], [0, 475, 500], [500, 480, 20, 500], [0, 0, 480]
    never, stays, falls, last = (with_means(lesson, *some) for some in means)
    assert lesson.first_pass(never) is None
    assert lesson.first_pass(stays) == (2_000, 475, 465, 20.0)
    said = [lesson.verdict(result) for result in (never, stays, falls, last)]
    numbers = [[float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", w)] for w in said]
    assert set(numbers[0]) == {475, 3_000} and numbers[3][:2] == [3_000, 30]
    assert numbers[1][:2] == [2_000, 20] and sorted(numbers[2]) == [1, 3, 10, 1_000]


def test_compare_gives_every_variant_its_seeds(lesson, patch):
    parallel = lambda **_: lambda jobs: (function(*args) for function, args in jobs)  # noqa: E731
    delayed = lambda function: lambda *args: (function, args)  # noqa: E731
    patch("joblib", SimpleNamespace(Parallel=parallel, delayed=delayed))
    patch("train", lambda settings: settings)
    variants = {rate: lesson.changed(lesson.settings, LR=rate) for rate in (0.5, 0.25)}
    found = lesson.compare(variants, range(7, 10))
    assert {rate: [(s.LR, s.SEED) for s in runs] for rate, runs in found.items()} == {
        rate: [(rate, seed) for seed in (7, 8, 9)] for rate in (0.5, 0.25)
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_final_agent_solves_the_task(lesson, seed):
    s = lesson.changed(lesson.settings, SEED=seed, MAX_STEPS=5_000)
    result = lesson.train(s, stop_when_solved=True)
    assert lesson.first_pass(result) == result.evaluations[-1]


def test_with_caution_it_stays_and_decisions_are_larger_than_errors(lesson):
    shares = {}
    for name, caution in (("plain", 0.0), ("careful", 0.7)):
        s = lesson.changed(lesson.settings, TARGET_EPSILON=caution, MIRROR=False, MAX_STEPS=3_000)
        result = lesson.train(s)
        gaps, errors = lesson.gap_and_error(result)
        shares[name] = np.mean(errors > gaps)
    assert sum(mean >= 475 for _, mean, *_ in result.evaluations[-4:]) >= 3
    assert shares["careful"] < 0.6 * shares["plain"], shares


BAD = {
    "SEED COMPARE_SEEDS": [-1, 1.0, True, None, "0"],
    "MAX_STEPS EVAL_EVERY BATCH_SIZE EPS_DECAY MEMORY_SIZE": [0, -250, 2.5, True, "many"],
    "GAMMA EPS_START EPS_END TAU LR TARGET_EPSILON": [1.2, -0.1, float("nan"), "0.99", True],
    "MIRROR": ["yes", 1, None],
    "TRACKING DEVICE": ["on", None, True],
    "OUTPUT_DIR": ["", "  ", None, 3],
}
GOOD = {"SEED": 7, "TAU": 1, "LR": 0.1, "MIRROR": False, "COMPARE_SEEDS": 0, "MAX_STEPS": 1}
GOOD |= {"GAMMA": 0.0, "EPS_START": 1.0, "OUTPUT_DIR": "some where", "TRACKING": "auto"}


def test_bad_values_of_every_parameter_are_refused_with_name_and_value(lesson):
    assert set(" ".join(BAD).split()) == set(vars(lesson.settings))
    for names, values in BAD.items():
        for name, value in itertools.product(names.split(), values):
            with pytest.raises(ValueError) as refused:
                lesson.changed(lesson.settings, **{name: value})
            said = str(refused.value)
            assert name in said and repr(value) in said
            assert len(said.replace(repr(value), "").split()) >= 4, "and what is allowed"


def test_good_values_make_a_copy(lesson):
    before = copy.copy(vars(lesson.settings))
    found = lesson.changed(lesson.settings, **GOOD)
    assert vars(found) == {**before, **GOOD} and vars(lesson.settings) == before
    assert lesson.changed(lesson.settings, **lesson.ORIGINAL_SETTINGS).TARGET_EPSILON == 0


def test_settings_that_do_not_exist_or_fit_are_refused(lesson):
    with pytest.raises(ValueError, match="GAMA"):
        lesson.changed(lesson.settings, GAMA=0.9)
    with pytest.raises(ValueError, match="BATCH_SIZE.*129.*MEMORY_SIZE"):
        lesson.changed(lesson.settings, BATCH_SIZE=129, MEMORY_SIZE=128)
    assert lesson.changed(lesson.settings, BATCH_SIZE=128, MEMORY_SIZE=128)
    with pytest.raises(ValueError, match="TAU.*1.5"):
        loader.load(TAU=1.5)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="DEVICE.*cuda"):
            lesson.changed(lesson.settings, DEVICE="cuda")
