"""The pieces of the algorithm, each against a case computed by hand."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import load_definitions as loader


def transitions(lesson, **fields):
    """A batch of two steps; `fields` replace some of theirs."""
    given = {
        "state": [[1.0, 0, 0, 0], [2.0, 0, 0, 0]],
        "action": [[1], [0]],
        "next_state": [[10.0, 0, 0, 0], [20.0, 0, 0, 0]],
        "reward": [1.0, -2.5],
        "terminated": [False, False],
    }
    return lesson.Transition(**{k: torch.tensor(v) for k, v in {**given, **fields}.items()})


def says(states):
    """Stands for a network: for a state with first number x it says [x, 3x]."""
    return states[:, :1] * torch.tensor([1.0, 3.0])


def networks(lesson, **changes):
    return lesson.make_networks(4, 2, lesson.SCALE, lesson.changed(lesson.settings, **changes))


def weights(net):
    return [weight.detach().clone() for weight in net.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# --- memory --------------------------------------------------------------------------------


def filled(lesson, capacity, pushes, seed=0):
    """A memory whose i-th transition has i in all its fields."""
    memory = lesson.ReplayMemory(capacity, 4, np.random.default_rng(seed))
    for i in range(pushes):
        memory.push(lesson.Transition(np.full(4, i), i % 2, np.full(4, i + 0.5), 10.0 * i, i == 3))
    return memory


@pytest.mark.parametrize("pushes,held", [(2, {0, 1}), (4, {0, 1, 2, 3}), (6, {2, 3, 4, 5})])
def test_memory_samples_all_it_holds_and_nothing_else(lesson, pushes, held):
    memory = filled(lesson, 4, pushes)
    assert len(memory) == len(held)
    batch = memory.sample(4_000)
    labels, counts = np.unique(batch.reward.numpy() / 10, return_counts=True)
    assert set(labels) == held
    assert np.all(np.abs(counts / 4_000 - 1 / len(held)) < 0.04), "all equally often"


def test_fields_of_a_sampled_transition_belong_together(lesson):
    batch = filled(lesson, 5, 8).sample(50)
    label = batch.reward / 10
    assert torch.equal(batch.state, label[:, None].expand(50, 4))
    assert torch.equal(batch.next_state, label[:, None].expand(50, 4) + 0.5)
    assert torch.equal(batch.action[:, 0], label.long() % 2)
    assert torch.equal(batch.terminated, label == 3)


def test_shapes_and_types_of_a_batch(lesson):
    batch = filled(lesson, 5, 5).sample(3)
    assert [tuple(t.shape) for t in batch] == [(3, 4), (3, 1), (3, 4), (3,), (3,)]
    kinds = [torch.float32, torch.int64, torch.float32, torch.float32, torch.bool]
    assert [t.dtype for t in batch] == kinds


def test_samples_depend_on_the_seed_alone_and_differ_each_time(lesson):
    draws = [filled(lesson, 50, 50, seed).sample(20).reward for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    memory = filled(lesson, 50, 50)
    assert not torch.equal(memory.sample(20).reward, memory.sample(20).reward)


def test_memory_keeps_copies(lesson):
    memory, state = lesson.ReplayMemory(2, 4, np.random.default_rng(0)), np.ones(4)
    memory.push(lesson.Transition(state, 0, state, 1.0, False))
    state += 5
    memory.sample(1).state.zero_()
    assert torch.equal(memory.sample(1).state, torch.ones(1, 4))


# --- networks ------------------------------------------------------------------------------


def test_network_computes_what_its_layers_say(lesson):
    torch.manual_seed(0)
    net = lesson.DQN(3, 5, [2.0, 1.0, 0.1])
    w = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    states = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    x = states / np.array([2.0, 1.0, 0.1], np.float32)
    for layer in ("layer1", "layer2", "layer3"):
        x = x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]
        x = x if layer == "layer3" else np.maximum(x, 0)
    found = net(torch.tensor(states)).detach().numpy()
    assert found.shape == (6, 5) and np.allclose(found, x, atol=1e-5)


def test_scale_is_saved_and_not_trained(lesson):
    net = lesson.DQN(4, 2, lesson.SCALE)
    assert torch.allclose(net.state_dict()["scale"], torch.tensor(lesson.SCALE))
    assert len(list(net.parameters())) == 6


def test_make_networks_depends_on_the_seed_alone(lesson):
    torch.manual_seed(123)
    first, again, other = (networks(lesson, SEED=seed)[0] for seed in (4, 4, 5))
    assert equal(weights(first), weights(again)) and not equal(weights(first), weights(other))


def test_target_network_is_a_frozen_copy(lesson):
    policy_net, target_net, optimizer = networks(lesson, LR=0.0123)
    assert equal(weights(policy_net), weights(target_net))
    for mine, other in zip(policy_net.parameters(), target_net.parameters(), strict=True):
        assert mine.data_ptr() != other.data_ptr()
        assert mine.requires_grad and not other.requires_grad
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in policy_net.parameters()}
    assert isinstance(optimizer, torch.optim.AdamW) and group["lr"] == 0.0123


# --- exploration ---------------------------------------------------------------------------


def test_epsilon_falls_from_start_to_end(lesson):
    s = lesson.changed(lesson.settings, EPS_START=0.8, EPS_END=0.2, EPS_DECAY=500)
    assert lesson.epsilon_at(0, s) == pytest.approx(0.8)
    assert lesson.epsilon_at(500, s) == pytest.approx(0.2 + 0.6 / math.e)
    assert lesson.epsilon_at(1_000, s) == pytest.approx(0.2 + 0.6 / math.e**2)
    assert lesson.epsilon_at(10**6, s) == pytest.approx(0.2)


def test_without_exploration_the_better_action_is_taken(lesson):
    net, rng = lesson.DQN(4, 3, [1, 1, 1, 1]), np.random.default_rng(0)
    states = rng.normal(size=(100, 4)).astype(np.float32) * 3
    best = net(torch.tensor(states)).argmax(dim=1).tolist()
    assert len(set(best)) > 1
    found = [lesson.select_action(state, net, 0.0, rng) for state in states]
    assert found == best == lesson.greedy(net)(states) and type(found[0]) is int


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_a_share_of_epsilon_is_random_and_uniform(lesson, epsilon):
    net, rng, state = lesson.DQN(4, 3, [1, 1, 1, 1]), np.random.default_rng(0), np.ones(4)
    state = state.astype(np.float32)
    best = lesson.select_action(state, net, 0.0, rng)
    found = [lesson.select_action(state, net, epsilon, rng) for _ in range(6_000)]
    shares = np.bincount(found, minlength=3) / 6_000
    expected = np.full(3, epsilon / 3)
    expected[best] += 1 - epsilon
    assert np.allclose(shares, expected, atol=0.02)


# --- targets and the optimisation step -----------------------------------------------------


@pytest.mark.parametrize(
    "target_epsilon,values",
    [(0.0, [30, 60]), (1.0, [20, 40]), (0.7, [0.3 * 30 + 0.7 * 20, 0.3 * 60 + 0.7 * 40])],
)
@pytest.mark.parametrize("ends", [[False, False], [True, False], [False, True], [True, True]])
def test_targets_by_hand(lesson, target_epsilon, values, ends):
    s = lesson.changed(lesson.settings, GAMMA=0.5, TARGET_EPSILON=target_epsilon)
    found = lesson.td_targets(transitions(lesson, terminated=ends), says, s)
    expected = [
        r + 0.5 * v * (not end) for r, v, end in zip([1.0, -2.5], values, ends, strict=True)
    ]
    assert found.shape == (2,) and np.allclose(found, expected)


def test_targets_with_three_actions_take_maximum_and_mean_over_actions(lesson):
    q = torch.tensor([[1.0, 5.0, 3.0], [9.0, 0.0, 0.0]])
    s = lesson.changed(lesson.settings, TARGET_EPSILON=0.5)
    assert np.allclose(lesson.next_value(q, s), [0.5 * 5 + 0.5 * 3, 0.5 * 9 + 0.5 * 3])


def test_no_gradient_goes_through_the_target(lesson):
    net = lesson.DQN(4, 2, lesson.SCALE)
    assert not lesson.td_targets(transitions(lesson), net, lesson.settings).requires_grad


def test_without_caution_the_new_line_is_the_old_one_bit_for_bit(lesson):
    sources = [cell["source"] for cell in loader.cells() if cell["cell_type"] == "code"]
    first = next(source for source in sources if "def next_value(" in source)
    names = dict(lesson.train.__globals__)
    exec(first, names)
    s = lesson.changed(lesson.settings, TARGET_EPSILON=0.0)
    q = torch.randn(5_000, 2, generator=torch.Generator().manual_seed(0)) * 100
    assert names["next_value"] is not lesson.next_value
    assert torch.equal(names["next_value"](q, s), lesson.next_value(q, s))
    assert torch.equal(lesson.next_value(q, s), torch.maximum(q[:, 0], q[:, 1]))


class Fixed:
    """Stands for a memory that always gives the same batch."""

    def __init__(self, batch):
        self.batch, self.asked = batch, []

    def sample(self, batch_size):
        self.asked.append(batch_size)
        return self.batch


def step_by_hand(lesson, policy_net, target_net, batch, s):
    """The loss of a batch and the weights after one step, written out."""
    net = copy.deepcopy(policy_net)
    errors = []
    for state, action, next_state, reward, terminated in zip(*batch, strict=True):
        following = target_net(next_state[None])[0]
        value = (1 - s.TARGET_EPSILON) * following.max() + s.TARGET_EPSILON * following.mean()
        target = reward + (0.0 if terminated else s.GAMMA * value.item())
        errors.append(net(state[None])[0, action[0]] - target)
    huber = [0.5 * e**2 if abs(e.item()) < 1 else abs(e) - 0.5 for e in errors]
    loss = sum(huber) / len(huber)
    loss.backward()
    optimizer = torch.optim.AdamW(net.parameters(), lr=s.LR, amsgrad=True)
    optimizer.step()
    return loss.item(), weights(net)


@pytest.mark.parametrize("target_epsilon", [0.0, 0.7])
def test_an_optimisation_step_by_hand(lesson, target_epsilon):
    s = lesson.changed(lesson.settings, TARGET_EPSILON=target_epsilon, BATCH_SIZE=4, LR=0.01)
    policy_net, target_net, optimizer = lesson.make_networks(4, 2, lesson.SCALE, s)
    lesson.update_target(target_net, networks(lesson, SEED=9)[0], 1.0)
    rng = np.random.default_rng(0)
    memory = lesson.ReplayMemory(4, 4, rng)
    for action, reward, end in [(0, 1.0, False), (1, 0.3, True), (1, 7.0, False), (0, -5.0, True)]:
        memory.push(lesson.Transition(rng.normal(size=4), action, rng.normal(size=4), reward, end))
    batch = memory.sample(8)
    fixed, before = Fixed(batch), weights(target_net)
    loss, expected = step_by_hand(lesson, policy_net, target_net, batch, s)
    for weight in policy_net.parameters():
        weight.grad = torch.full_like(weight, 1e6)  # left over: it must not count
    found = lesson.optimize_model(policy_net, target_net, optimizer, fixed, s)
    assert type(found) is float and found == pytest.approx(loss, rel=1e-5)
    assert fixed.asked == [4]
    for weight, right in zip(weights(policy_net), expected, strict=True):
        assert torch.allclose(weight, right, atol=1e-5)
    assert equal(weights(target_net), before)


@pytest.mark.parametrize("reward", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_with_an_explanation(lesson, reward):
    policy_net, target_net, optimizer = networks(lesson)
    before = weights(policy_net)
    memory = Fixed(transitions(lesson, reward=[reward, 1.0]))
    with pytest.raises(FloatingPointError, match="LR"):
        lesson.optimize_model(policy_net, target_net, optimizer, memory, lesson.settings)
    assert equal(weights(policy_net), before)


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.25, 1.0])
def test_soft_update_by_hand(lesson, tau):
    policy_net, target_net = networks(lesson, SEED=1)[0], networks(lesson, SEED=2)[1]
    mine, others = weights(policy_net), weights(target_net)
    lesson.update_target(target_net, policy_net, tau)
    assert equal(weights(policy_net), mine)
    for now, weight, before in zip(weights(target_net), mine, others, strict=True):
        assert torch.allclose(now, tau * weight + (1 - tau) * before, atol=1e-7)
    if tau in (0.0, 1.0):
        assert equal(weights(target_net), mine if tau else others)


# --- mirror --------------------------------------------------------------------------------


class Notes(list):
    """Stands for a memory and keeps the transitions as they come."""

    push = list.append


def remembered(lesson, mirror, state, action, next_state, reward, terminated):
    notes = Notes()
    transition = lesson.Transition(state, action, next_state, reward, terminated)
    lesson.remember(notes, transition, lesson.changed(lesson.settings, MIRROR=mirror))
    return notes


def test_without_mirror_a_step_is_remembered_once(lesson):
    step = (np.ones(4), 1, np.ones(4) * 2, 0.5, True)
    (found,) = remembered(lesson, False, *step)
    assert all(np.array_equal(a, b) for a, b in zip(found, step, strict=True))


def test_the_mirror_image_is_what_the_environment_does(lesson):
    env, rng = lesson.make_env("CartPole-v1"), np.random.default_rng(0)
    ends = set()
    for _ in range(60):
        state, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(state)
        next_state, reward, terminated, *_ = env.step(action)
        itself, image = remembered(lesson, True, state, action, next_state, reward, terminated)
        assert np.array_equal(itself.state, state) and itself.action == action
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(image.state)
        expected, reward, terminated, *_ = env.step(int(image.action))
        assert np.allclose(image.state, -state) and image.action != action
        assert np.allclose(image.next_state, expected, atol=1e-5)
        assert (image.reward, image.terminated) == (reward, terminated)
        ends.add(bool(terminated))
    assert ends == {True, False}


# --- what is measured ----------------------------------------------------------------------


def test_gap_and_error_by_hand(lesson):
    batch = transitions(lesson, terminated=[False, True])
    s = lesson.changed(lesson.settings, GAMMA=0.5, TARGET_EPSILON=0.0)
    double = lambda states: 2 * says(states)  # noqa: E731
    result = SimpleNamespace(memory=Fixed(batch), settings=s, policy_net=says, target_net=double)
    gaps, errors = lesson.gap_and_error(result, 2)
    assert np.allclose(gaps, [2, 4])
    assert np.allclose(errors, [abs(1 + 0.5 * 60 - 3), abs(-2.5 - 2)])
    assert result.memory.asked == [2]


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_stumbling_player_is_greedy_first_and_then_stumbles(lesson, share):
    net, states = lesson.DQN(4, 2, lesson.SCALE), np.zeros((4_000, 4), np.float32)
    best = lesson.greedy(net)(states[:1])[0]
    policy = lesson.stumbling(net, share, np.random.default_rng(0))
    assert set(policy(states)) == {best}
    for _ in range(2):
        assert np.mean(policy(states) != best) == pytest.approx(share / 2, abs=0.03)


def test_q_map_has_angles_along_and_speeds_up(lesson):
    net = lesson.DQN(4, 2, lesson.SCALE)
    q = lesson.q_map(net, 1.5)
    for i, speed in ((0, -2.0), (60, 2.0)):
        for j, angle in ((0, -0.2), (30, 0.0), (60, 0.2)):
            value = net(torch.tensor([[1.5, 0.0, angle, speed]]))[0].detach().numpy()
            assert np.allclose(q[i, j], value, atol=1e-4)


def test_bootstrap_interval(lesson):
    assert {float(n) for n in lesson.interval(np.full(100, 500.0)).split(" to ")} == {500.0}
    returns = np.random.default_rng(1).normal(300, 50, 400)
    low, high = map(float, lesson.interval(returns).split(" to "))
    half = 1.96 * returns.std() / 20
    assert low == pytest.approx(returns.mean() - half, abs=1)
    assert high == pytest.approx(returns.mean() + half, abs=1)
