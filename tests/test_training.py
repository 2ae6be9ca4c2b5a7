"""The training loop, the evaluation, the comparison and what is said about a run."""

import itertools
import os
import re
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch

TINY = {
    "MAX_STEPS": 400,
    "EVAL_EVERY": 200,
    "BATCH_SIZE": 16,
    "MEMORY_SIZE": 1_000,
    "SEED": 3,
    "MIRROR": False,
}


def tiny(lesson, **changes):
    return lesson.replace(lesson.settings, **{**TINY, **changes})


def same_weights(net, other):
    pairs = zip(net.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def tiny_run(lesson):
    """A short run of plain DQN."""
    return lesson.train(tiny(lesson))


class Clockwork:
    """Stands for an environment whose episodes last 7 and 5 steps in turn.

    Those of 7 steps terminate, and every third episode is truncated at the same step.
    Those of 5 steps are truncated.
    """

    spec = SimpleNamespace(reward_threshold=475)
    action_space = SimpleNamespace(n=2)

    def __init__(self):
        self.seeds, self.episode, self.time = [], 0, 0

    def observation(self):
        return np.array([self.episode, self.time, 0.0, 0.0], np.float32)

    def reset(self, seed=None, **_):
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self.observation(), {}

    def step(self, action):
        self.time += 1
        if self.episode % 2 == 1:
            terminated = self.time == 7
            truncated = terminated and self.episode % 3 == 0
        else:
            terminated = False
            truncated = self.time == 5
        return self.observation(), self.time / 10, terminated, truncated, {}


@pytest.fixture
def clockwork(lesson, patch):
    """Train in the clockwork environment; return the result and all environments."""
    made = []

    def make_env(env_id):
        made.append(Clockwork())
        return made[-1]

    patch("make_env", make_env)
    return lambda **changes: (lesson.train(tiny(lesson, **changes)), made)


def test_the_memory_gets_falls_but_not_cuts_and_episodes_follow(clockwork):
    result, (env, *_) = clockwork(MAX_STEPS=60)
    fields = result.memory.fields
    assert len(result.memory) == 60
    now = fields.state[:60, :2].tolist()
    after = fields.next_state[:60, :2].tolist()
    played = [[e, time] for e in range(1, 12) for time in range(7 if e % 2 else 5)]
    assert now == played[:60]
    assert after == [[episode, time + 1] for episode, time in now]
    falls = [episode % 2 == 1 and time == 7 for episode, time in after]
    assert fields.terminated[:60].tolist() == falls and sum(falls) == 5
    assert np.allclose(fields.reward[:60], [time / 10 for _, time in after])
    assert set(fields.action[:60, 0]) == {0, 1}
    ends = list(itertools.accumulate([7, 5] * 5))
    assert result.durations == list(zip(ends, [7, 5] * 5, strict=True))
    assert env.seeds == [3] + [None] * 10, "seeded once, and started at every end"


def test_evaluations_use_the_validation_starts_and_environments_of_their_own(
    lesson, clockwork
):
    result, (_, *others) = clockwork(MAX_STEPS=100, EVAL_EVERY=30)
    assert [e.step for e in result.evaluations] == [30, 60, 90, 100]
    assert result.steps == 100
    seeds = [[seed] for seed in lesson.VALIDATION_STARTS]
    assert [env.seeds for env in others] == 4 * seeds


def test_starts_for_different_purposes_do_not_overlap(lesson):
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100)
    assert not validation & held_out
    with pytest.raises(ValueError, match="SEED"):
        lesson.replace(lesson.settings, SEED=min(validation | held_out))


def test_the_loop_acts_on_what_it_sees_with_the_epsilon_of_its_step(
    lesson, patch, clockwork
):
    calls = []

    def select_action(state, net, epsilon, rng):
        calls.append((state.tolist()[:2], net, epsilon))
        return len(calls) % 2

    patch("select_action", select_action)
    result, _ = clockwork(MAX_STEPS=30)
    fields = result.memory.fields
    assert [state for state, *_ in calls] == fields.state[:30, :2].tolist()
    assert fields.action[:30, 0].tolist() == [n % 2 for n in range(1, 31)]
    assert all(net is result.policy_net for _, net, _ in calls)
    epsilons = [lesson.epsilon_at(step, result.settings) for step in range(1, 31)]
    assert [epsilon for *_, epsilon in calls] == epsilons


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_target_network_follows_at_every_step(lesson, patch, tau):
    taus, update = [], lesson.update_target

    def noted(target_net, policy_net, tau):
        taus.append(tau)
        update(target_net, policy_net, tau)

    patch("update_target", noted)
    s = tiny(lesson, TAU=tau, MAX_STEPS=30)
    result = lesson.train(s)
    start = lesson.make_networks(4, 2, lesson.SCALE, s)[0]
    assert len(result.losses) == 15, "from the first full batch on"
    assert taus == [tau] * 15
    assert not same_weights(result.policy_net, start)
    assert same_weights(result.target_net, start) is (tau == 0)
    assert same_weights(result.target_net, result.policy_net) is (tau == 1)


def test_targets_and_memory_are_exchanged_as_arguments(lesson):
    seen = []

    def targets(batch, policy_net, target_net, settings):
        seen.append((policy_net, target_net, settings, len(batch.reward)))
        return torch.zeros_like(batch.reward)

    def remember_twice(memory, transition, settings):
        memory.push(transition)
        memory.push(transition)

    s = tiny(lesson, MAX_STEPS=20)
    result = lesson.train(s, targets=targets, remember=remember_twice)
    assert result.memory.pushed == 40
    asked = (result.policy_net, result.target_net, s, 16)
    assert seen == 13 * [asked], "from step 8 on there is a full batch"


def run_by_hand(lesson, settings, targets, pushes):
    """Deep Q-learning once more, as a reader might write it; losses and durations."""
    rng = np.random.default_rng(settings.SEED)
    env = lesson.make_env("CartPole-v1")
    state = lesson.reset_env(env, settings.SEED)
    net, slow, optimizer = lesson.make_networks(4, 2, lesson.SCALE, settings)
    rows, losses, durations, begun = [], [], [], 0
    for step in range(1, settings.MAX_STEPS + 1):
        part = settings.EPS_START - settings.EPS_END
        epsilon = settings.EPS_END + part * np.exp(-step / settings.EPS_DECAY)
        if rng.random() < epsilon:
            action = int(rng.integers(2))
        else:
            action = int(net(torch.tensor(state)).argmax())
        next_state, reward, terminated, truncated, _ = env.step(action)
        rows.append((state, action, next_state, reward, terminated))
        if pushes == 2:
            rows.append((-state, 1 - action, -next_state, reward, terminated))
        state = next_state
        if len(rows) >= settings.BATCH_SIZE:
            chosen = rng.integers(len(rows), size=settings.BATCH_SIZE)
            drawn = zip(*[rows[i] for i in chosen], strict=True)
            s, a, after, r, ends = [torch.tensor(np.array(field)) for field in drawn]
            with torch.no_grad():
                y = r.float() + targets(slow(after)) * ~ends
            values = net(s).gather(1, a[:, None])[:, 0]
            loss = torch.nn.functional.huber_loss(values, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            for old, new in zip(slow.parameters(), net.parameters(), strict=True):
                old.data += settings.TAU * (new.data - old.data)
        if terminated or truncated:
            durations.append(step - begun)
            begun = step
            state = lesson.reset_env(env)
    return losses, durations


@pytest.mark.parametrize("agent", ["plain", "final"])
def test_a_run_is_what_a_second_implementation_does(lesson, agent):
    s = lesson.replace(lesson.settings, SEED=5, MAX_STEPS=200, BATCH_SIZE=64)
    if agent == "plain":
        options, pushes = {}, 1
        s = lesson.replace(s, MIRROR=False)
    else:
        careful, mirrored = lesson.careful_targets, lesson.remember_mirrored
        options, pushes = {"targets": careful, "remember": mirrored}, 2

    def targets(q):
        if agent == "plain":
            return 0.99 * q.max(dim=1).values
        return 0.99 * (0.3 * q.max(dim=1).values + 0.7 * q.mean(dim=1))

    found = lesson.train(s, **options)
    losses, durations = run_by_hand(lesson, s, targets, pushes)
    assert [duration for _, duration in found.durations] == durations
    assert len(losses) > 100 and np.allclose(found.losses, losses, rtol=1e-3)


def test_a_run_in_numbers(lesson, tiny_run):
    ends, durations = zip(*tiny_run.durations, strict=True)
    assert list(itertools.accumulate(durations)) == list(ends)
    assert max(durations) <= 500 and ends[-1] <= 400 == tiny_run.steps
    fields = tiny_run.memory.fields
    start = lesson.reset_env(lesson.make_env("CartPole-v1"), 3)
    assert np.array_equal(fields.state[0], start)
    assert [n + 1 for n in range(400) if fields.terminated[n]] == list(ends)
    agent = lesson.greedy(tiny_run.policy_net)
    returns = lesson.evaluate(agent, lesson.VALIDATION_STARTS)
    last = (400, returns.mean(), returns.min())
    assert tiny_run.evaluations[-1][:3] == last
    assert tiny_run.threshold == 475 and tiny_run.finished


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lesson, tiny_run):
    np.random.seed(99)
    torch.manual_seed(99)
    again = lesson.train(tiny_run.settings)
    assert again.durations == tiny_run.durations and again.losses == tiny_run.losses
    assert same_weights(again.policy_net, tiny_run.policy_net)
    one, other = [lesson.train(tiny(lesson, SEED=n, MAX_STEPS=8)) for n in (3, 4)]
    assert not same_weights(one.policy_net, other.policy_net)
    some, others = one.memory.fields, other.memory.fields
    assert not np.array_equal(some.state[0], others.state[0])
    assert not np.array_equal(some.action, others.action)


def test_evaluating_more_often_does_not_change_the_training(lesson, tiny_run):
    often = lesson.train(lesson.replace(tiny_run.settings, EVAL_EVERY=40))
    assert len(often.evaluations) == 10
    assert often.durations == tiny_run.durations and often.losses == tiny_run.losses


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
    assert [e.seconds for e in result.evaluations] == [5, 25, 30]
    assert result.seconds == 30


@pytest.mark.parametrize("score, passes", [(474.9, False), (475.0, True)])
def test_a_run_may_stop_at_its_first_pass(lesson, patch, score, passes):
    shown, scores = [], iter([0.0, score] + [0.0] * 20)
    patch("evaluate", lambda *_: np.full(20, next(scores)))
    s = tiny(lesson, MAX_STEPS=60, EVAL_EVERY=10)

    def show(result):
        shown.append((result.steps, result.finished))

    result = lesson.train(s, stop_at_first_pass=True, show=show)
    last = 20 if passes else 60
    assert shown == [(step, step == last) for step in range(10, last + 1, 10)]
    assert result.steps == last and bool(lesson.first_pass(result)) is passes
    scores = iter([500.0] * 6)
    assert lesson.train(s).steps == 60, "only where it was asked for"


def push_where_it_falls(states):
    return states[:, 2] + states[:, 3] > 0


def test_evaluation_is_one_episode_from_each_start(lesson):
    starts, played = [*range(12), 2_000_000_000, 2_000_000_033], []
    for start in starts:
        env, total, over = lesson.make_env("CartPole-v1"), 0.0, False
        state = lesson.reset_env(env, start)
        while not over:
            action = int(push_where_it_falls(state[None])[0])
            state, reward, terminated, truncated, _ = env.step(action)
            total += reward
            over = terminated or truncated
        played.append(total)
    assert lesson.evaluate(push_where_it_falls, starts).tolist() == played
    assert max(played) == 500 > min(played)


def test_scores_do_not_depend_on_the_order_or_company_of_starts(lesson):
    def rule(states):
        return states[:, 2] > 0

    def idle(states):
        return np.ones(len(states), int)

    returns = lesson.evaluate(rule, range(8)).tolist()
    assert len(set(returns)) > 3
    assert lesson.evaluate(rule, range(7, -1, -1)).tolist() == returns[::-1]
    assert lesson.evaluate(rule, [5]).tolist() == [returns[5]]
    rewards = lesson.evaluate(idle, range(2), "Acrobot-v1")
    assert rewards.tolist() == [-500, -500], "rewards, not steps"


def test_an_episode_that_is_played_is_the_one_that_is_scored(lesson):
    score = lesson.evaluate(push_where_it_falls, [9])[0]
    observations = lesson.play(push_where_it_falls, 9)
    assert observations.shape == (score + 1, 4)
    start = lesson.reset_env(lesson.make_env("CartPole-v1"), 9)
    assert np.array_equal(observations[0], start)


def with_means(lesson, *means):
    """A result with evaluations at 1000, 2000, … of a budget of as many steps."""
    steps = range(1_000, 1_000 * len(means) + 1, 1_000)
    evaluations = []
    for step, mean in zip(steps, means, strict=True):
        evaluations.append(lesson.Evaluation(step, mean, mean - 10, step / 100))
    settings = lesson.replace(lesson.settings, MAX_STEPS=steps[-1])
    return SimpleNamespace(
        evaluations=evaluations, threshold=475, steps=steps[-1], settings=settings
    )


HELD = {
    (500, 500, 0, 0): 0,
    (0, 0, 500, 475): 1,
    (500, 500, 474.9, 480): 0.5,
    (0, 0, 500): 0.5,
}


@pytest.mark.parametrize("means", HELD)
def test_steadiness_counts_the_second_half_of_the_budget(lesson, means):
    assert lesson.steadiness(with_means(lesson, *means)) == HELD[means]


def test_the_second_half_has_the_networks_of_its_evaluations(lesson):
    result = with_means(lesson, 500, 0, 474, 475)
    networks, passes = lesson.second_half(["a", "b", "c", "d"], result)
    assert networks == ["c", "d"] and passes.tolist() == [False, True]


def numbers_in(sentence):
    found = re.findall(r"\d[\d,]*\.?\d*", sentence)
    return [float(number.rstrip(",.").replace(",", "")) for number in found]


def test_a_verdict_for_every_history(lesson):
    never = with_means(lesson, 0, 474, 0)
    stays = with_means(lesson, 0, 475, 500)
    falls = with_means(lesson, 500, 480, 20, 500)
    last = with_means(lesson, 0, 0, 480)
    assert lesson.first_pass(never) is None
    assert lesson.first_pass(stays) == (2_000, 475, 465, 20.0)
    assert set(numbers_in(lesson.verdict(never))) == {475, 3_000}
    assert numbers_in(lesson.verdict(stays)) == [2_000, 20, 0, 1]
    assert numbers_in(lesson.verdict(falls)) == [1_000, 10, 1, 3]
    assert numbers_in(lesson.verdict(last)) == [3_000, 30]


def variants(lesson, **changes):
    """Two agents, for a few steps."""
    s = tiny(lesson, MAX_STEPS=60, EVAL_EVERY=30, **changes)
    slow = lesson.replace(s, LR=0.0001)
    careful = {"targets": lesson.careful_targets}
    return {"fast": (s, {}), "slow": (slow, careful)}


def check_comparison(lesson, found):
    """What `compare` must return for `variants` and the seeds 7, 8 and 9."""
    assert list(found) == ["fast", "slow"]
    for name, rate in (("fast", lesson.settings.LR), ("slow", 0.0001)):
        settings = [result.settings for result in found[name]]
        assert [(s.SEED, s.LR) for s in settings] == [(n, rate) for n in (7, 8, 9)]
    one = found["slow"][1]
    alone = lesson.train(one.settings, targets=lesson.careful_targets)
    assert one.losses == alone.losses and one.durations == alone.durations
    assert same_weights(one.policy_net, alone.policy_net)


def test_a_comparison_has_every_variant_with_every_seed_and_no_memories(lesson, capfd):
    large = variants(lesson, MEMORY_SIZE=1_000_000)  # 45 MB each
    found = lesson.compare(large, range(7, 10))
    check_comparison(lesson, found)
    assert all(result.memory is None for result in found["fast"] + found["slow"])
    out, err = capfd.readouterr()
    assert "6 runs" in out and "fail" not in out and err == ""


@pytest.mark.parametrize("cores, runs, workers", [(8, 2, 2), (2, 6, 2), (4, 0, 1)])
def test_there_are_as_many_workers_as_cores_or_runs(
    lesson, patch, cores, runs, workers
):
    asked = []

    def parallel(number, **_):
        asked.append(number)
        return lambda jobs: (function(*args) for function, args, _ in jobs)

    stand_in = SimpleNamespace(
        Parallel=parallel, delayed=joblib.delayed, cpu_count=lambda: cores
    )
    patch("joblib", stand_in)
    patch("train_for_comparison", lambda settings, options: settings.SEED)
    found = lesson.compare(variants(lesson), range(runs // 2))
    seeds = list(range(runs // 2))
    assert found == {"fast": seeds, "slow": seeds} and asked == [workers]


def test_where_a_worker_dies_the_runs_go_on_in_this_process(lesson, patch, capsys):
    here, train = os.getpid(), lesson.train_for_comparison

    def dies_elsewhere(settings, options):
        if os.getpid() != here and settings.SEED == 8:
            os._exit(1)
        return train(settings, options)

    patch("train_for_comparison", dies_elsewhere)
    found = lesson.compare(variants(lesson), range(7, 10))
    check_comparison(lesson, found)
    assert "fail" in capsys.readouterr().out, "and it says so"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_final_agent_solves_the_task(lesson, seed):
    s = lesson.replace(lesson.settings, SEED=seed, MAX_STEPS=5_000)
    careful, mirrored = lesson.careful_targets, lesson.remember_mirrored
    result = lesson.train(
        s, targets=careful, remember=mirrored, stop_at_first_pass=True
    )
    assert lesson.first_pass(result) == result.evaluations[-1]


def test_with_the_careful_target_success_stays_and_the_lead_keeps_its_sign(lesson):
    s = lesson.replace(lesson.settings, MIRROR=False, MAX_STEPS=4_000)
    held, agree = {}, {}
    agents = {"plain": lesson.td_targets, "careful": lesson.careful_targets}
    for name, targets in agents.items():
        networks = []
        show = lesson.keep_copies(networks, lambda result: None)
        result = lesson.train(s, targets=targets, show=show)
        nets, _ = lesson.second_half(networks, result)
        leads = np.array([lesson.lead_along_track(net) for net in nets])
        held[name], agree[name] = lesson.steadiness(result), lesson.agreement(leads)
    assert held["careful"] > held["plain"] and held["careful"] >= 0.75, held
    assert agree["careful"] > agree["plain"], agree
