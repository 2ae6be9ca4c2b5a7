"""The pieces of the algorithm and its loop, against cases computed by hand."""

import copy
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


def two_steps(lesson, **fields):
    """A batch of two steps; `fields` replace some of theirs."""
    given = {"state": [[1.0, 0, 0, 0], [2.0, 0, 0, 0]], "action": [[1], [0]]}
    given |= {"next_state": [[10.0, 0, 0, 0], [20.0, 0, 0, 0]], "reward": [1.0, -2.5]}
    given |= {"terminated": [False, False], **fields}
    tensors = {name: torch.tensor(value) for name, value in given.items()}
    return lesson.Transition(**tensors)


def says(states):
    """Stands for a network: for a state with first number x it says [x, 3x]."""
    return states[:, :1] * torch.tensor([1.0, 3.0])


def networks(lesson, **changes):
    return lesson.make_networks(4, 2, lesson.SCALE, replace(lesson.settings, **changes))


def weights(net):
    return [weight.detach().clone() for weight in net.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# The replay memory.


def filled(lesson, capacity, pushes, seed=0):
    """A memory whose i-th transition has i in all its fields."""
    memory = lesson.ReplayMemory(capacity, 4, np.random.default_rng(seed))
    for i in range(pushes):
        state = np.full(4, i)
        step = lesson.Transition(state, i % 2, state + 0.5, 10.0 * i, i == 3)
        memory.push(step)
    return memory


@pytest.mark.parametrize(
    "pushes,held", [(2, {0, 1}), (4, {0, 1, 2, 3}), (6, {2, 3, 4, 5})]
)
def test_memory_samples_all_it_holds_and_nothing_else(lesson, pushes, held):
    memory = filled(lesson, 4, pushes)
    assert len(memory) == len(held)
    labels = memory.sample(4_000).reward.numpy() / 10
    labels, counts = np.unique(labels, return_counts=True)
    assert set(labels) == held
    assert np.all(np.abs(counts / 4_000 - 1 / len(held)) < 0.04), "all equally often"


def test_a_batch_has_the_right_types_and_fields_that_belong_together(lesson):
    batch = filled(lesson, 5, 8).sample(50)
    label = batch.reward / 10
    assert torch.equal(batch.state, label[:, None].expand(50, 4))
    assert torch.equal(batch.next_state, label[:, None].expand(50, 4) + 0.5)
    assert torch.equal(batch.action, label[:, None].long() % 2)
    assert torch.equal(batch.terminated, label == 3) and label.shape == (50,)
    kinds = [torch.float32, torch.int64, torch.float32, torch.float32, torch.bool]
    assert [field.dtype for field in batch] == kinds


def test_samples_are_copies_that_depend_on_the_seed_and_differ_each_time(lesson):
    draws = [filled(lesson, 50, 50, seed).sample(20).reward for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    memory = filled(lesson, 50, 50)
    assert not torch.equal(memory.sample(20).reward, memory.sample(20).reward)
    memory, state = lesson.ReplayMemory(2, 4, np.random.default_rng(0)), np.ones(4)
    memory.push(lesson.Transition(state, 0, state, 1.0, False))
    state += 5
    memory.sample(1).state.zero_()
    assert torch.equal(memory.sample(1).state, torch.ones(1, 4))


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
    first, again, other = [networks(lesson, SEED=seed)[0] for seed in (4, 4, 5)]
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))
    policy_net, target_net, _ = networks(lesson)
    assert equal(weights(policy_net), weights(target_net))
    pairs = zip(policy_net.parameters(), target_net.parameters(), strict=True)
    for mine, other in pairs:
        assert mine.data_ptr() != other.data_ptr()
        assert mine.requires_grad and not other.requires_grad


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

ENDS = [[False, False], [True, False], [False, True], [True, True]]


@pytest.mark.parametrize(
    "epsilon, values", [(0, [30, 60]), (1, [20, 40]), (0.7, [23, 46])]
)
@pytest.mark.parametrize("ends", ENDS)
def test_targets_by_hand(lesson, epsilon, values, ends):
    s = replace(lesson.settings, GAMMA=0.5)
    batch = two_steps(lesson, terminated=ends)
    steps = zip([1.0, -2.5], values, ends, strict=True)
    expected = [reward + 0.5 * value * (not end) for reward, value, end in steps]
    found = [lesson.careful_targets(batch, None, says, s, epsilon)]
    if epsilon == 0:
        found.append(lesson.td_targets(batch, None, says, s))
    for targets in found:
        assert targets.shape == (2,) and np.allclose(targets, expected)


def test_targets_have_no_gradient_and_average_over_three_actions(lesson):
    q = torch.tensor([[1.0, 5.0, 3.0], [9.0, 0.0, 0.0]])
    s = replace(lesson.settings, GAMMA=1.0)
    batch = two_steps(lesson, reward=[0.0, 0.0])
    found = lesson.careful_targets(batch, None, lambda states: q, s, epsilon=0.5)
    assert np.allclose(found, [0.5 * 5 + 0.5 * 3, 0.5 * 9 + 0.5 * 3])
    net = lesson.DQN(4, 2, lesson.SCALE)
    for targets in (lesson.td_targets, partial(lesson.careful_targets, epsilon=0.5)):
        assert not targets(two_steps(lesson), net, net, s).requires_grad


def test_without_caution_both_targets_are_the_same_bits(lesson):
    q = torch.randn(5_000, 2, generator=torch.Generator().manual_seed(0)) * 100
    batch = lesson.Transition(
        state=None,
        action=None,
        next_state=q,
        reward=torch.ones(5_000),
        terminated=torch.zeros(5_000, dtype=torch.bool),
    )

    def q_of(states):
        return states

    plain = lesson.td_targets(batch, None, q_of, lesson.settings)
    for epsilon, same in ((0.0, True), (0.1, False)):
        found = lesson.careful_targets(batch, None, q_of, lesson.settings, epsilon)
        assert torch.equal(plain, found) is same


def three_updates_by_hand(policy_net, batch, targets, lr):
    """The losses of three updates with the same batch, and the weights after them.

    The second time the targets are far away, so that a maximum over past gradients,
    which is AMSGrad, differs from their average.
    """
    net, losses = copy.deepcopy(policy_net), []
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, amsgrad=True)
    for goals in (targets, targets + 1e4, targets):
        errors = []
        rows = zip(batch.state, batch.action, goals, strict=True)
        for state, action, goal in rows:
            error = abs(net(state[None])[0, action[0]] - goal)
            errors.append(0.5 * error**2 if error.item() < 1 else error - 0.5)
        loss = sum(errors) / len(errors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, weights(net)


def test_optimisation_steps_by_hand(lesson):
    policy_net, _, optimizer = networks(lesson, LR=0.01)
    rng = np.random.default_rng(0)
    batch = lesson.Transition(
        state=torch.tensor(rng.normal(size=(6, 4)), dtype=torch.float32),
        action=torch.tensor([[0], [1], [1], [0], [1], [1]]),
        next_state=None,
        reward=None,
        terminated=None,
    )
    targets = torch.tensor([1.0, 0.3, 7.0, -5.0, 0.0, 0.1])
    losses, expected = three_updates_by_hand(policy_net, batch, targets, 0.01)
    for weight in policy_net.parameters():
        weight.grad = torch.full_like(weight, 1e6)  # left over: it must not count
    found = []
    for goals in (targets, targets + 1e4, targets):
        found.append(lesson.optimize_model(policy_net, optimizer, batch, goals))
    assert type(found[0]) is float and found == pytest.approx(losses, rel=1e-4)
    for weight, right in zip(weights(policy_net), expected, strict=True):
        assert torch.allclose(weight, right, atol=1e-4)


@pytest.mark.parametrize("target", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_with_an_explanation(lesson, target):
    policy_net, _, optimizer = networks(lesson)
    before = weights(policy_net)
    with pytest.raises(FloatingPointError, match="LR"):
        targets = torch.tensor([target, 1.0])
        lesson.optimize_model(policy_net, optimizer, two_steps(lesson), targets)
    assert equal(weights(policy_net), before)


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.25, 1.0])
def test_soft_update_by_hand(lesson, tau):
    policy_net, target_net = networks(lesson, SEED=1)[0], networks(lesson, SEED=2)[1]
    mine, others = weights(policy_net), weights(target_net)
    lesson.update_target(target_net, policy_net, tau)
    assert equal(weights(policy_net), mine)
    for now, weight, before in zip(weights(target_net), mine, others, strict=True):
        assert torch.allclose(now, tau * weight + (1 - tau) * before, atol=1e-7)
    assert tau not in (0.0, 1.0) or equal(weights(target_net), mine if tau else others)


# What is remembered.


def remembered(remember, step):
    """What a function pushes into the memory after a step."""
    pushed = []
    remember(SimpleNamespace(push=pushed.append), step)
    return pushed


def test_the_mirror_image_is_what_the_environment_does(lesson):
    env, rng, ends = lesson.make_env("CartPole-v1"), np.random.default_rng(0), set()

    def play(state, action):
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(state)
        return env.step(int(action))[:3]

    for _ in range(60):
        state, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        step = lesson.Transition(state, action, *play(state, action))
        (alone,) = remembered(lesson.remember, step)
        itself, image = remembered(lesson.remember_mirrored, step)
        for kept in (alone, itself):
            assert all(np.array_equal(a, b) for a, b in zip(kept, step, strict=True))
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
def clockwork(lesson, patch):
    """Train in the clockwork environment; return the result and all environments."""
    made = []

    def make_env(env_id, max_steps=None):
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
    start = weights(lesson.make_networks(4, 2, lesson.SCALE, s)[0])
    assert len(result.losses) == 15, "from the first full batch on"
    assert taus == [tau] * 15
    policy, target = weights(result.policy_net), weights(result.target_net)
    assert not equal(policy, start)
    assert equal(target, start) is (tau == 0)
    assert equal(target, policy) is (tau == 1)


def test_targets_and_memory_are_exchanged_as_arguments(lesson):
    seen = []

    def targets(batch, policy_net, target_net, settings):
        seen.append((policy_net, target_net, settings, len(batch.reward)))
        return torch.zeros_like(batch.reward)

    def remember_twice(memory, transition):
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
    s = replace(lesson.settings, SEED=5, MAX_STEPS=200, BATCH_SIZE=64)
    options, pushes = {}, 1
    if agent == "final":
        options = {"targets": partial(lesson.careful_targets, epsilon=0.7)}
        options["remember"] = lesson.remember_mirrored
        pushes = 2

    def targets(q):
        if agent == "plain":
            return 0.99 * q.max(dim=1).values
        return 0.99 * (0.3 * q.max(dim=1).values + 0.7 * q.mean(dim=1))

    found = lesson.train(s, **options)
    losses, durations = run_by_hand(lesson, s, targets, pushes)
    assert [duration for _, duration in found.durations] == durations
    assert len(losses) > 100 and np.allclose(found.losses, losses, rtol=1e-3)


@pytest.fixture(scope="module")
def tiny_run(lesson):
    """A short run of plain DQN."""
    return lesson.train(tiny(lesson))


def test_a_run_in_numbers(lesson, tiny_run):
    ends, durations = zip(*tiny_run.durations, strict=True)
    assert list(itertools.accumulate(durations)) == list(ends)
    assert max(durations) <= 500 and ends[-1] <= 400 == tiny_run.steps
    fields = tiny_run.memory.fields
    start = lesson.reset_env(lesson.make_env("CartPole-v1"), 3)
    assert np.array_equal(fields.state[0], start)
    assert [n + 1 for n in range(400) if fields.terminated[n]] == list(ends)
    agent = lesson.greedy(tiny_run.policy_net)
    scores = lesson.evaluate(agent, lesson.VALIDATION_STARTS)
    assert tiny_run.evaluations[-1][:3] == (400, scores.mean(), scores.min())
    assert tiny_run.threshold == 475 and tiny_run.finished


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lesson, tiny_run):
    """Neither other random numbers nor more evaluations change a run."""
    np.random.seed(99)
    torch.manual_seed(99)
    again = lesson.train(replace(tiny_run.settings, EVAL_EVERY=40))
    assert len(again.evaluations) == 10
    assert again.durations == tiny_run.durations and again.losses == tiny_run.losses
    assert equal(weights(again.policy_net), weights(tiny_run.policy_net))
    one, other = [lesson.train(tiny(lesson, SEED=n, MAX_STEPS=8)) for n in (3, 4)]
    assert not equal(weights(one.policy_net), weights(other.policy_net))
    some, others = one.memory.fields, other.memory.fields
    assert not np.array_equal(some.state[0], others.state[0])
    assert not np.array_equal(some.action, others.action)


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
    assert lesson.evaluate(push_where_it_falls, [0], max_steps=7).tolist() == [7]


def test_scores_do_not_depend_on_the_order_or_company_of_starts(lesson):
    def rule(states):
        return states[:, 2] > 0

    def idle(states):
        return np.ones(len(states), int)

    scores = lesson.evaluate(rule, range(8)).tolist()
    assert len(set(scores)) > 3
    assert lesson.evaluate(rule, range(7, -1, -1)).tolist() == scores[::-1]
    assert lesson.evaluate(rule, [5]).tolist() == [scores[5]]
    rewards = lesson.evaluate(idle, range(2), "MountainCar-v0")
    assert rewards.tolist() == [-200, -200], "rewards, not steps"


def test_starts_for_different_purposes_do_not_overlap(lesson):
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100)
    assert not validation & held_out
    with pytest.raises(ValueError, match="SEED"):
        replace(lesson.settings, SEED=min(validation | held_out))


def test_an_episode_that_is_played_is_the_one_that_is_scored(lesson):
    score = lesson.evaluate(push_where_it_falls, [9])[0]
    observations = lesson.play(push_where_it_falls, 9)
    assert observations.shape == (score + 1, 4)
    start = lesson.reset_env(lesson.make_env("CartPole-v1"), 9)
    assert np.array_equal(observations[0], start)


# What it learns.


@pytest.mark.parametrize("seed", [0, 1])
def test_the_final_agent_passes(lesson, seed):
    result = lesson.train(
        replace(lesson.settings, SEED=seed, MAX_STEPS=5_000),
        targets=partial(lesson.careful_targets, epsilon=lesson.TARGET_EPSILON),
        remember=lesson.remember_mirrored,
        stop_at_first_pass=True,
    )
    assert result.evaluations[-1].mean >= 475
