"""The pieces of the algorithm and its loop, against cases computed by hand."""

import itertools
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

TINY = {"MAX_STEPS": 400, "EVAL_EVERY": 200, "BATCH_SIZE": 16, "SEED": 3}


def tiny(lesson, **changes):
    """Settings of a short run."""
    return replace(lesson.settings, **{**TINY, "MEMORY_SIZE": 1_000, **changes})


def two_steps(lesson, terminated):
    """A batch of two steps with rewards 1 and −2.5."""
    states = torch.tensor([[10.0, 0, 0, 0], [20.0, 0, 0, 0]])
    action, reward = torch.tensor([[1], [0]]), torch.tensor([1.0, -2.5])
    return lesson.Transition(states, action, states, reward, torch.tensor(terminated))


def says(states):
    """Stands for a network: for a state with first number x it says [x, 3x, 2x]."""
    return states[:, :1] * torch.tensor([1.0, 3.0, 2.0])


def networks(lesson, **changes):
    return lesson.make_networks(4, 2, lesson.SCALE, replace(lesson.settings, **changes))


def weights(net):
    return [weight.detach().clone() for weight in net.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# The replay memory.


@pytest.mark.parametrize("pushes, held", [(2, {0, 1}), (6, {2, 3, 4, 5})])
def test_memory_samples_all_it_holds_and_nothing_else(lesson, pushes, held):
    """The i-th transition has i in all its fields."""
    memory = lesson.ReplayMemory(4, 4, np.random.default_rng(0))
    for i in range(pushes):
        state = np.full(4, i)
        step = lesson.Transition(state, i % 2, state + 0.5, 10.0 * i, i == 3)
        memory.push(step)
    assert len(memory) == len(held)
    batch = memory.sample(4_000)
    label = batch.reward / 10
    labels, counts = np.unique(label.numpy(), return_counts=True)
    assert set(labels) == held
    assert np.all(np.abs(counts / 4_000 - 1 / len(held)) < 0.04), "all equally often"
    assert torch.equal(batch.state, label[:, None].expand(4_000, 4))
    assert torch.equal(batch.next_state, batch.state + 0.5)
    assert torch.equal(batch.action, label[:, None].long() % 2)
    assert torch.equal(batch.terminated, label == 3) and label.shape == (4_000,)
    kinds = [torch.float32, torch.int64, torch.float32, torch.float32, torch.bool]
    assert [field.dtype for field in batch] == kinds


# The network, the optimiser and the actions.


def test_network_computes_what_its_layers_say_and_does_not_train_its_scale(lesson):
    net = lesson.DQN(3, 5, [2.0, 1.0, 0.1])
    w = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    assert w["layer2.weight"].shape == (lesson.HIDDEN, lesson.HIDDEN)
    states = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    x = states / np.array([2.0, 1.0, 0.1], np.float32)
    for layer in ("layer1", "layer2", "layer3"):
        x = x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]
        x = x if layer == "layer3" else np.maximum(x, 0)
    found = net(torch.tensor(states)).detach().numpy()
    assert found.shape == (6, 5) and np.allclose(found, x, atol=1e-5)
    assert len(weights(net)) == 6 and np.allclose(w["scale"], [2.0, 1.0, 0.1])


def test_networks_depend_on_the_seed_and_the_target_is_a_frozen_copy(lesson):
    torch.manual_seed(123)
    policy_net, target_net, _ = networks(lesson, SEED=4)
    again, other = [networks(lesson, SEED=seed)[0] for seed in (4, 5)]
    assert equal(weights(policy_net), weights(again))
    assert not equal(weights(policy_net), weights(other))
    assert equal(weights(policy_net), weights(target_net))
    assert all(weight.requires_grad for weight in policy_net.parameters())
    assert not any(weight.requires_grad for weight in target_net.parameters())


def test_the_optimiser_has_its_options_and_the_policy_network_alone(lesson):
    policy_net, _, optimizer = networks(lesson, LR=0.0123)
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in policy_net.parameters()}
    assert isinstance(optimizer, torch.optim.AdamW)
    assert group["lr"] == 0.0123 and group["amsgrad"] is True
    major, minor = torch.__version__.split(".")[:2]
    assert bool(group["fused"]) is ((int(major), int(minor)) >= (2, 4))


def test_epsilon_falls_from_start_to_end(lesson):
    s = replace(lesson.settings, EPS_START=0.8, EPS_END=0.2, EPS_DECAY=500)
    found = [lesson.epsilon_at(step, s) for step in (0, 500, 1_000, 10**6)]
    assert found == pytest.approx([0.8, 0.2 + 0.6 / math.e, 0.2 + 0.6 / math.e**2, 0.2])


def test_actions_are_random_in_a_share_of_epsilon_and_else_the_best(lesson):
    net, rng = lesson.DQN(4, 3, [1, 1, 1, 1]), np.random.default_rng(0)
    states = rng.normal(size=(100, 4)).astype(np.float32) * 3
    best = net(torch.tensor(states)).argmax(dim=1).tolist()
    found = [lesson.select_action(state, net, 0.0, rng) for state in states]
    assert found == best == lesson.greedy(net)(states)
    assert len(set(best)) > 1 and type(found[0]) is int
    for epsilon in (0.3, 1.0):
        expected = np.full(3, epsilon / 3)
        expected[best[0]] += 1 - epsilon
        found = []
        for _ in range(6_000):
            found.append(lesson.select_action(states[0], net, epsilon, rng))
        assert np.allclose(np.bincount(found, minlength=3) / 6_000, expected, atol=0.02)


# The targets, the optimisation step and the target network.


@pytest.mark.parametrize("ends", [[False, True], [True, False]])
def test_targets_by_hand(lesson, ends):
    """After the steps the best values are 30 and 60, and the means 20 and 40."""
    s = replace(lesson.settings, GAMMA=0.5)
    batch = two_steps(lesson, ends)
    careful = lesson.careful_targets
    found = {
        (30, 60): lesson.td_targets(batch, None, says, s),
        (20, 40): careful(batch, None, says, s, epsilon=1),
        (23, 46): careful(batch, None, says, s, epsilon=0.7),
    }
    for values, targets in found.items():
        steps = zip([1.0, -2.5], values, ends, strict=True)
        expected = [reward + 0.5 * value * (not end) for reward, value, end in steps]
        assert targets.shape == (2,) and np.allclose(targets, expected)


def test_targets_have_no_gradient(lesson):
    net, batch = lesson.DQN(4, 2, lesson.SCALE), two_steps(lesson, [False, False])
    for targets in (lesson.td_targets, partial(lesson.careful_targets, epsilon=0.5)):
        assert not targets(batch, net, net, lesson.settings).requires_grad


@pytest.mark.parametrize("target", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_with_an_explanation(lesson, target):
    policy_net, _, optimizer = networks(lesson)
    batch, before = two_steps(lesson, [False, False]), weights(policy_net)
    with pytest.raises(FloatingPointError, match="LR"):
        targets = torch.tensor([target, 1.0])
        lesson.optimize_model(policy_net, optimizer, batch, targets)
    assert equal(weights(policy_net), before)


def test_soft_update_by_hand(lesson):
    policy_net, target_net = networks(lesson, SEED=1)[0], networks(lesson, SEED=2)[1]
    mine, others = weights(policy_net), weights(target_net)
    lesson.update_target(target_net, policy_net, 0.25)
    assert equal(weights(policy_net), mine)
    for now, weight, before in zip(weights(target_net), mine, others, strict=True):
        assert torch.allclose(now, 0.25 * weight + 0.75 * before, atol=1e-7)


# What is remembered.


def test_the_mirror_image_is_what_the_environment_does(lesson):
    env, rng, ends = lesson.make_env("CartPole-v1"), np.random.default_rng(0), set()

    def play(state, action):
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(state)
        return env.step(int(action))[:3]

    for _ in range(60):
        state, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        step = lesson.Transition(state, action, *play(state, action))
        pushed = []
        lesson.remember(SimpleNamespace(push=pushed.append), step)
        lesson.remember_mirrored(SimpleNamespace(push=pushed.append), step)
        alone, itself, image = pushed
        assert alone is itself is step
        assert np.allclose(image.state, -state) and image.action != action
        next_state, reward, terminated = play(image.state, image.action)
        assert np.allclose(image.next_state, next_state, atol=1e-5)
        assert (image.reward, image.terminated) == (reward, terminated)
        ends.add(bool(terminated))
    assert ends == {True, False}


# The loop.


class Clockwork:
    """Stands for an environment whose episodes last 7 and 5 steps in turn.

    Those of 7 steps terminate, and every third episode is truncated at the same step.
    Those of 5 steps are truncated.
    """

    spec = SimpleNamespace(reward_threshold=75)
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
def clockwork(patch):
    """A list of all clockworks that are made instead of environments."""
    made = []

    def make_env(env_id, max_steps=None):
        made.append(Clockwork())
        return made[-1]

    patch("make_env", make_env)
    return made


def test_the_memory_gets_falls_but_not_cuts_and_episodes_follow(lesson, clockwork):
    """Evaluations have environments of their own, at the validation starts."""
    result = lesson.train(tiny(lesson, MAX_STEPS=60, EVAL_EVERY=25))
    fields = result.memory.fields
    assert len(result.memory) == 60 == result.steps
    now = fields.state[:60, :2].tolist()
    after = fields.next_state[:60, :2].tolist()
    played = [[e, time] for e in range(1, 12) for time in range(7 if e % 2 else 5)]
    assert now == played[:60]
    assert after == [[episode, time + 1] for episode, time in now]
    falls = [episode % 2 == 1 and time == 7 for episode, time in after]
    assert fields.terminated[:60].tolist() == falls and sum(falls) == 5
    assert np.allclose(fields.reward[:60], [time / 10 for _, time in after])
    ends = list(itertools.accumulate([7, 5] * 5))
    assert result.durations == list(zip(ends, [7, 5] * 5, strict=True))
    env, *others = clockwork
    assert env.seeds == [3] + [None] * 10, "seeded once, and started at every end"
    assert [e.step for e in result.evaluations] == [25, 50, 60]
    seeds = [[seed] for seed in lesson.VALIDATION_STARTS]
    assert [env.seeds for env in others] == 3 * seeds


def test_the_loop_acts_on_what_it_sees_with_the_epsilon_of_its_step(lesson, patch):
    calls = []

    def select_action(state, net, epsilon, rng):
        calls.append((state.tolist(), net, epsilon))
        return len(calls) % 2

    patch("select_action", select_action)
    result = lesson.train(tiny(lesson, MAX_STEPS=30))
    states, nets, epsilons = zip(*calls, strict=True)
    fields = result.memory.fields
    assert list(states) == fields.state[:30].tolist()
    assert fields.action[:30, 0].tolist() == [n % 2 for n in range(1, 31)]
    assert set(nets) == {result.policy_net}
    expected = [lesson.epsilon_at(step, result.settings) for step in range(1, 31)]
    assert list(epsilons) == expected


def test_targets_are_given_both_networks(lesson):
    seen = []

    def targets(batch, policy_net, target_net, settings):
        seen.append((policy_net, target_net, settings))
        return torch.zeros_like(batch.reward)

    s = tiny(lesson, MAX_STEPS=20)
    result = lesson.train(s, targets=targets)
    assert seen == 5 * [(result.policy_net, result.target_net, s)]


def run_by_hand(lesson, settings, targets, pushes):
    """Deep Q-learning once more, as a reader might write it; losses and durations."""
    rng = np.random.default_rng(settings.SEED)
    env = lesson.make_env("CartPole-v1")
    state = lesson.reset_env(env, settings.SEED)
    net, slow, _ = lesson.make_networks(4, 2, lesson.SCALE, settings)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.LR, amsgrad=True)
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
    """Settings differ from the defaults: none of them may be written in."""
    others = {"GAMMA": 0.9, "TAU": 0.1, "LR": 0.01, "EPS_END": 0.1, "EPS_DECAY": 100}
    s = replace(lesson.settings, SEED=5, MAX_STEPS=200, BATCH_SIZE=64, **others)
    options, pushes = {}, 1
    if agent == "final":
        options = {"targets": partial(lesson.careful_targets, epsilon=0.7)}
        options["remember"] = lesson.remember_mirrored
        pushes = 2

    def targets(q):
        if agent == "plain":
            return 0.9 * q.max(dim=1).values
        return 0.9 * (0.3 * q.max(dim=1).values + 0.7 * q.mean(dim=1))

    found = lesson.train(s, **options)
    losses, durations = run_by_hand(lesson, s, targets, pushes)
    assert [duration for _, duration in found.durations] == durations
    assert len(losses) > 100 and np.allclose(found.losses, losses, rtol=1e-3)


def test_a_run_depends_on_its_seed_and_is_scored_with_its_policy_network(lesson):
    """Neither other random numbers nor more evaluations change a run."""
    result = lesson.train(tiny(lesson))
    np.random.seed(99)
    torch.manual_seed(99)
    again = lesson.train(tiny(lesson, EVAL_EVERY=40))
    assert len(again.evaluations) == 10
    assert again.durations == result.durations and again.losses == result.losses
    assert equal(weights(again.policy_net), weights(result.policy_net))
    agent = lesson.greedy(result.policy_net)
    scores = lesson.evaluate(agent, lesson.VALIDATION_STARTS)
    assert result.evaluations[-1][:3] == (400, scores.mean(), scores.min())
    assert result.threshold == 475 and result.finished


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


@pytest.mark.parametrize("score, passes", [(74.9, False), (75.0, True)])
def test_a_run_may_stop_at_its_first_pass(lesson, patch, clockwork, score, passes):
    """The threshold is that of the environment."""
    shown, scores = [], iter([0.0, score] + [0.0] * 20)
    patch("evaluate", lambda *_: np.full(20, next(scores)))

    def show(result):
        shown.append((result.steps, result.finished))

    s = tiny(lesson, MAX_STEPS=60, EVAL_EVERY=10)
    result = lesson.train(s, stop_at_first_pass=True, show=show)
    last = 20 if passes else 60
    assert shown == [(step, step == last) for step in range(10, last + 1, 10)]
    assert result.steps == last and result.threshold == 75
    scores = iter([500.0] * 6)
    assert lesson.train(s).steps == 60, "only where it was asked for"


# The evaluation.


def test_evaluation_is_one_episode_from_each_start(lesson):
    def rule(states):
        return states[:, 2] + states[:, 3] > 0

    starts, played = [*range(12), 2_000_000_000, 2_000_000_033], []
    for start in starts:
        env, total, over = lesson.make_env("CartPole-v1"), 0.0, False
        state = lesson.reset_env(env, start)
        while not over:
            action = int(rule(state[None])[0])
            state, reward, terminated, truncated, _ = env.step(action)
            total += reward
            over = terminated or truncated
        played.append(total)
        assert np.array_equal(lesson.play(rule, start)[-1], state)
        assert len(lesson.play(rule, start)) == total + 1, "with the first state"
    assert lesson.evaluate(rule, starts).tolist() == played
    assert max(played) == 500 > min(played)
    assert lesson.evaluate(rule, [0], max_steps=7).tolist() == [7]
    rewards = lesson.evaluate(lambda states: [1], [0], "MountainCar-v0")
    assert rewards.tolist() == [-200], "rewards, not steps"


def test_starts_for_different_purposes_do_not_overlap(lesson):
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100)
    assert not validation & held_out
    with pytest.raises(ValueError, match="SEED"):
        replace(lesson.settings, SEED=min(validation | held_out))


# What it learns.


def test_the_final_agent_passes(lesson):
    result = lesson.train(
        replace(lesson.settings, MAX_STEPS=5_000),
        targets=partial(lesson.careful_targets, epsilon=lesson.TARGET_EPSILON),
        remember=lesson.remember_mirrored,
        stop_at_first_pass=True,
    )
    assert result.evaluations[-1].mean >= 475
