"""The training loop, the evaluation and what is said about a run."""

import itertools
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

TINY = {
    "MAX_STEPS": 400,
    "EVAL_EVERY": 200,
    "BATCH_SIZE": 16,
    "MEMORY_SIZE": 1_000,
    "SEED": 3,
}


def tiny(lesson, **changes):
    plain = {"TARGET_EPSILON": 0.0, "MIRROR": False}
    return replace(lesson.settings, **{**TINY, **plain, **changes})


def same_weights(net, other):
    return all(map(torch.equal, net.parameters(), other.parameters()))


@pytest.fixture(scope="module")
def tiny_run(lesson):
    """A short run of the plain agent without mirror."""
    return lesson.train(tiny(lesson))


class Clockwork:
    """Stands for an environment.

    Odd episodes fall at step 7, some of them in the clock's last tick. Even ones are
    cut off at step 5.
    """

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
        truncated = self.time == (
            5 if self.episode % 2 == 0 else 7 if self.episode % 3 == 0 else 0
        )
        return self.observation(), self.time / 10, terminated, truncated, {}


@pytest.fixture
def clockwork(lesson, patch):
    """Train in the clockwork environment; return the result and all environments."""
    made = []
    patch("make_env", lambda env_id: made.append(Clockwork(env_id)) or made[-1])
    return lambda **changes: (lesson.train(tiny(lesson, **changes)), made)


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


def test_evaluations_use_the_validation_starts_and_environments_of_their_own(
    lesson, clockwork
):
    result, (_, *others) = clockwork(MAX_STEPS=100, EVAL_EVERY=30)
    assert [step for step, *_ in result.evaluations] == [
        30,
        60,
        90,
        100,
    ] and result.steps == 100
    assert [env.seeds for env in others] == 4 * [
        [seed] for seed in lesson.VALIDATION_STARTS
    ]
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100) and not validation & held_out
    assert not (validation | held_out) & set(range(1_000_000)), (
        "seeds that a run may have"
    )


def test_the_loop_acts_on_what_it_sees_with_the_epsilon_of_its_step(
    lesson, patch, clockwork
):
    calls = []

    def select_action(state, net, epsilon, rng):
        calls.append((state.tolist()[:2], net, epsilon))
        return len(calls) % 2

    patch("select_action", select_action)
    result, _ = clockwork(MAX_STEPS=30)
    assert [state for state, *_ in calls] == result.memory.fields.state[
        :30, :2
    ].tolist()
    assert result.memory.fields.action[:30, 0].tolist() == [n % 2 for n in range(1, 31)]
    assert all(net is result.policy_net for _, net, _ in calls)
    s = result.settings
    assert [epsilon for *_, epsilon in calls] == [
        lesson.epsilon_at(n, s) for n in range(1, 31)
    ]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_target_network_follows_at_every_step(lesson, patch, tau):
    taus, update = [], lesson.update_target
    patch("update_target", lambda *args: (taus.append(args[2]), update(*args)))
    s = tiny(lesson, TAU=tau, MAX_STEPS=30)
    result = lesson.train(s)
    start = lesson.make_networks(4, 2, lesson.SCALE, s)[0]
    assert taus == [tau] * len(result.losses) == [tau] * 15, (
        "from the first full batch on"
    )
    assert not same_weights(result.policy_net, start)
    assert same_weights(result.target_net, start) is (tau == 0)
    assert same_weights(result.target_net, result.policy_net) is (tau == 1)


def test_a_run_in_numbers(lesson, tiny_run):
    ends, durations = zip(*tiny_run.durations, strict=True)
    assert list(itertools.accumulate(durations)) == list(ends)
    assert max(durations) <= 500 and ends[-1] <= 400 == tiny_run.steps
    fields = tiny_run.memory.fields
    assert np.array_equal(
        fields.state[0], lesson.reset_env(lesson.make_env("CartPole-v1"), 3)
    )
    assert [n + 1 for n in range(400) if fields.terminated[n]] == list(ends)
    returns = lesson.evaluate(
        lesson.greedy(tiny_run.policy_net), lesson.VALIDATION_STARTS
    )
    assert tiny_run.evaluations[-1][:3] == (400, returns.mean(), returns.min())
    assert tiny_run.threshold == 475 and tiny_run.finished


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lesson, tiny_run):
    np.random.seed(99)
    torch.manual_seed(99)
    again = lesson.train(tiny_run.settings)
    for history in ("durations", "losses"):
        assert getattr(again, history) == getattr(tiny_run, history)
    assert same_weights(again.policy_net, tiny_run.policy_net)
    some = [lesson.train(tiny(lesson, SEED=seed, MAX_STEPS=8)) for seed in (3, 4)]
    assert not same_weights(some[0].policy_net, some[1].policy_net)
    fields = [result.memory.fields for result in some]
    assert not np.array_equal(fields[0].state[0], fields[1].state[0])
    assert not np.array_equal(fields[0].action, fields[1].action)


def test_evaluating_more_often_does_not_change_the_training(lesson, tiny_run):
    often = lesson.train(replace(tiny_run.settings, EVAL_EVERY=40))
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
    s = tiny(lesson, MAX_STEPS=45, EVAL_EVERY=20)
    result = lesson.train(s, show=lambda _: tick(1e9))
    assert [seconds for *_, seconds in result.evaluations] == [
        5,
        25,
        30,
    ] and result.seconds == 30


@pytest.mark.parametrize("score,passes", [(474.9, False), (475.0, True)])
def test_stop_at_first_pass(lesson, patch, score, passes):
    shown, scores = [], iter([0.0, score] + [0.0] * 20)
    patch("evaluate", lambda *_: np.full(20, next(scores)))
    s = tiny(lesson, MAX_STEPS=60, EVAL_EVERY=10)
    show = lambda result: shown.append((result.steps, result.finished))  # noqa: E731
    result = lesson.train(s, stop_at_first_pass=True, show=show)
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
            state, reward, terminated, truncated, _ = env.step(
                int(state[2] + state[3] > 0)
            )
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
    assert lesson.evaluate(idle, range(2), "Acrobot-v1").tolist() == [-500, -500], (
        "rewards"
    )


def with_means(lesson, *means):
    """A result with evaluations at 1000, 2000, … of a budget of as many steps."""
    steps = range(1_000, 1_000 * len(means) + 1, 1_000)
    evaluations = [
        lesson.Evaluation(s, m, m - 10, s / 100)
        for s, m in zip(steps, means, strict=True)
    ]
    settings = replace(lesson.settings, MAX_STEPS=steps[-1])
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
    numbers = [
        [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", w)]
        for w in said
    ]
    assert set(numbers[0]) == {475, 3_000} and numbers[3][:2] == [3_000, 30]
    assert numbers[1][:2] == [2_000, 20] and sorted(numbers[2]) == [1, 3, 10, 1_000]


class Parallel:
    """Stands for joblib.Parallel: in this process, and it may fail after some jobs."""

    workers = None
    fails_after = None

    def __init__(self, workers, return_as):
        Parallel.workers = workers

    def __call__(self, jobs):
        for i, (function, arguments) in enumerate(jobs):
            if i == self.fails_after:
                raise RuntimeError("a worker has died")
            yield function(*arguments)


@pytest.mark.parametrize("fails_after", [None, 0, 3])
def test_compare_gives_every_variant_its_seeds(lesson, patch, capsys, fails_after):
    def delayed(function):
        return lambda *arguments: (function, arguments)

    fake = SimpleNamespace(Parallel=Parallel, delayed=delayed, cpu_count=lambda: 4)
    Parallel.fails_after = fails_after
    patch("joblib", fake)
    patch("train", lambda settings, **options: SimpleNamespace(s=settings, o=options))
    variants = {
        rate: (replace(lesson.settings, LR=rate), {"targets": rate})
        for rate in (0.5, 0.25)
    }
    found = lesson.compare(variants, range(7, 10))
    assert list(found) == [0.5, 0.25]
    for rate, runs in found.items():
        assert [run.s.SEED for run in runs] == [7, 8, 9]
        assert all(run.s.LR == run.o["targets"] == rate for run in runs)
        assert all(run.memory is None for run in runs), "memories stay where they are"
    said = capsys.readouterr().out
    assert ("RuntimeError" in said) is (fails_after is not None)
    assert Parallel.workers == 4, "no more workers than cores"
    assert lesson.compare({"one": variants[0.5]}, [1]) and Parallel.workers == 1
    assert lesson.compare(variants, []) == {0.5: [], 0.25: []}


def test_real_workers_give_what_one_process_gives(lesson):
    s = tiny(lesson, MAX_STEPS=60, MEMORY_SIZE=1_000_000)
    found = lesson.compare({"plain": (s, {})}, [3, 4])["plain"]
    for seed, run in zip((3, 4), found, strict=True):
        expected = lesson.train(replace(s, SEED=seed))
        assert (run.losses, run.durations) == (expected.losses, expected.durations)
        assert run.memory is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_final_agent_solves_the_task(lesson, seed):
    s = replace(lesson.settings, SEED=seed, MAX_STEPS=5_000)
    result = lesson.train(
        s,
        targets=lesson.careful_targets,
        remember=lesson.remember_mirrored,
        stop_at_first_pass=True,
    )
    assert lesson.first_pass(result) == result.evaluations[-1]


def test_with_caution_it_stays_and_the_lead_is_larger_than_its_movement(lesson):
    ratios = {}
    for name, caution in (("plain", 0.0), ("careful", 0.7)):
        networks = []
        s = replace(
            lesson.settings, TARGET_EPSILON=caution, MIRROR=False, MAX_STEPS=3_000
        )
        show = lesson.keep_copies(networks, lambda result: None)
        result = lesson.train(s, targets=lesson.careful_targets, show=show)
        chosen, passes = lesson.second_half(networks, result)
        assert len(chosen) == len(passes) == 6
        *_, size, movement = map(float, lesson.movements(chosen))
        ratios[name] = size / movement
    assert sum(e.mean >= 475 for e in result.evaluations[-4:]) >= 3
    assert ratios["careful"] > 1.5 * ratios["plain"], ratios


def test_a_mirror_for_three_actions_is_refused_before_training(lesson):
    s = replace(lesson.settings, MIRROR=True)
    with pytest.raises(ValueError, match="MIRROR"):
        lesson.train(s, env_id="Acrobot-v1", scale=[1, 1, 1, 1, 6, 12])


def test_the_loop_takes_its_functions(lesson):
    calls = []

    def targets(batch, policy_net, target_net, settings):
        calls.append("targets")
        assert policy_net.layer1.weight.requires_grad
        assert not target_net.layer1.weight.requires_grad
        return lesson.td_targets(batch, policy_net, target_net, settings)

    def remember(memory, transition, settings):
        calls.append("remember")
        lesson.remember(memory, transition, settings)

    s = tiny(lesson, MAX_STEPS=20)
    result = lesson.train(s, targets=targets, remember=remember)
    assert calls.count("remember") == 20 and calls.count("targets") == 5
    assert result.losses == lesson.train(s).losses
