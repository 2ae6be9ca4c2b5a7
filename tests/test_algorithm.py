"""The pieces of the algorithm, each against a case computed by hand."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def two_steps(lesson, **fields):
    """A batch of two steps; `fields` replace some of theirs."""
    given = {"state": [[1.0, 0, 0, 0], [2.0, 0, 0, 0]], "action": [[1], [0]]}
    given |= {"next_state": [[10.0, 0, 0, 0], [20.0, 0, 0, 0]], "reward": [1.0, -2.5]}
    given |= {"terminated": [False, False], **fields}
    return lesson.Transition(
        **{name: torch.tensor(value) for name, value in given.items()}
    )


def says(states):
    """Stands for a network: for a state with first number x it says [x, 3x]."""
    return states[:, :1] * torch.tensor([1.0, 3.0])


def networks(lesson, **changes):
    return lesson.make_networks(4, 2, lesson.SCALE, replace(lesson.settings, **changes))


def weights(net):
    return [weight.detach().clone() for weight in net.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def filled(lesson, capacity, pushes, seed=0):
    """A memory whose i-th transition has i in all its fields."""
    memory = lesson.ReplayMemory(capacity, 4, np.random.default_rng(seed))
    for i in range(pushes):
        memory.push(
            lesson.Transition(
                np.full(4, i), i % 2, np.full(4, i + 0.5), 10.0 * i, i == 3
            )
        )
    return memory


@pytest.mark.parametrize(
    "pushes,held", [(2, {0, 1}), (4, {0, 1, 2, 3}), (6, {2, 3, 4, 5})]
)
def test_memory_samples_all_it_holds_and_nothing_else(lesson, pushes, held):
    memory = filled(lesson, 4, pushes)
    assert len(memory) == len(held)
    labels, counts = np.unique(
        memory.sample(4_000).reward.numpy() / 10, return_counts=True
    )
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


def test_network_computes_what_its_layers_say_and_does_not_train_its_scale(lesson):
    net = lesson.DQN(3, 5, [2.0, 1.0, 0.1])
    w = {name: value.detach().numpy() for name, value in net.state_dict().items()}
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
    first, again, other = (networks(lesson, SEED=seed)[0] for seed in (4, 4, 5))
    assert equal(weights(first), weights(again)) and not equal(
        weights(first), weights(other)
    )
    policy_net, target_net, optimizer = networks(lesson, LR=0.0123)
    assert equal(weights(policy_net), weights(target_net))
    for mine, other in zip(
        policy_net.parameters(), target_net.parameters(), strict=True
    ):
        assert mine.data_ptr() != other.data_ptr()
        assert mine.requires_grad and not other.requires_grad
    (group,) = optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in policy_net.parameters()}
    assert isinstance(optimizer, torch.optim.AdamW) and group["lr"] == 0.0123


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
        found = [
            lesson.select_action(states[0], net, epsilon, rng) for _ in range(6_000)
        ]
        assert np.allclose(np.bincount(found, minlength=3) / 6_000, expected, atol=0.02)


@pytest.mark.parametrize(
    "caution,values", [(0, [30, 60]), (1, [20, 40]), (0.7, [23, 46])]
)
@pytest.mark.parametrize(
    "ends", [[False, False], [True, False], [False, True], [True, True]]
)
def test_targets_by_hand(lesson, caution, values, ends):
    s = replace(lesson.settings, GAMMA=0.5, TARGET_EPSILON=caution)
    found = lesson.careful_targets(two_steps(lesson, terminated=ends), None, says, s)
    steps = zip([1.0, -2.5], values, ends, strict=True)
    expected = [reward + 0.5 * value * (not end) for reward, value, end in steps]
    assert found.shape == (2,) and np.allclose(found, expected)


def test_targets_have_no_gradient_and_average_over_three_actions(lesson):
    q = torch.tensor([[1.0, 5.0, 3.0], [9.0, 0.0, 0.0]])
    s = replace(lesson.settings, GAMMA=1.0, TARGET_EPSILON=0.5)
    batch = two_steps(lesson, reward=[0.0, 0.0])
    found = lesson.careful_targets(batch, None, lambda states: q, s)
    assert np.allclose(found, [0.5 * 5 + 0.5 * 3, 0.5 * 9 + 0.5 * 3])
    net = lesson.DQN(4, 2, lesson.SCALE)
    for targets in (lesson.td_targets, lesson.careful_targets):
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
    s = replace(lesson.settings, TARGET_EPSILON=0.0)
    plain = lesson.td_targets(batch, None, lambda states: states, s)
    careful = lesson.careful_targets(batch, None, lambda states: states, s)
    assert torch.equal(plain, careful)
    cautious = replace(s, TARGET_EPSILON=0.1)
    other = lesson.careful_targets(batch, None, lambda states: states, cautious)
    assert not torch.equal(plain, other)


def step_by_hand(policy_net, target_net, batch, s):
    """The loss of a batch and the weights after one step, written out."""
    net, losses = copy.deepcopy(policy_net), []
    for state, action, next_state, reward, terminated in zip(*batch, strict=True):
        following = target_net(next_state[None])[0]
        value = (
            1 - s.TARGET_EPSILON
        ) * following.max() + s.TARGET_EPSILON * following.mean()
        target = reward + (0.0 if terminated else s.GAMMA * value.item())
        error = net(state[None])[0, action[0]] - target
        losses.append(0.5 * error**2 if abs(error.item()) < 1 else abs(error) - 0.5)
    loss = sum(losses) / len(losses)
    loss.backward()
    torch.optim.AdamW(net.parameters(), lr=s.LR, amsgrad=True).step()
    return loss.item(), weights(net)


@pytest.mark.parametrize("caution", [0.0, 0.7])
def test_an_optimisation_step_by_hand(lesson, caution):
    s = replace(lesson.settings, TARGET_EPSILON=caution, BATCH_SIZE=4, LR=0.01)
    policy_net, target_net, optimizer = lesson.make_networks(4, 2, lesson.SCALE, s)
    lesson.update_target(target_net, networks(lesson, SEED=9)[0], 1.0)
    rng = np.random.default_rng(0)
    memory = lesson.ReplayMemory(4, 4, rng)
    for action, reward, end in (
        (0, 1.0, False),
        (1, 0.3, True),
        (1, 7.0, False),
        (0, -5.0, True),
    ):
        state, next_state = rng.normal(size=(2, 4))
        memory.push(lesson.Transition(state, action, next_state, reward, end))
    batch = memory.sample(8)
    before = weights(target_net)
    loss, expected = step_by_hand(policy_net, target_net, batch, s)
    for weight in policy_net.parameters():
        weight.grad = torch.full_like(weight, 1e6)  # left over: it must not count
    targets = lesson.careful_targets(batch, policy_net, target_net, s)
    found = lesson.optimize_model(policy_net, optimizer, batch, targets)
    assert type(found) is float and found == pytest.approx(loss, rel=1e-5)
    assert equal(weights(target_net), before)
    for weight, right in zip(weights(policy_net), expected, strict=True):
        assert torch.allclose(weight, right, atol=1e-5)


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


def remembered(lesson, mirror, *step):
    """What is pushed into the memory after a step."""
    pushed = []
    settings = replace(lesson.settings, MIRROR=mirror)
    memory = SimpleNamespace(push=pushed.append)
    lesson.remember_mirrored(memory, lesson.Transition(*step), settings)
    return pushed


def test_the_mirror_image_is_what_the_environment_does(lesson):
    env, rng, ends = lesson.make_env("CartPole-v1"), np.random.default_rng(0), set()

    def play(state, action):
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(state)
        return env.step(int(action))[:3]

    for _ in range(60):
        state, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        step = (state, action, *play(state, action))
        (alone,) = remembered(lesson, False, *step)
        itself, image = remembered(lesson, True, *step)
        for kept in (alone, itself):
            assert all(np.array_equal(a, b) for a, b in zip(kept, step, strict=True))
        assert np.allclose(image.state, -state) and image.action != action
        next_state, reward, terminated = play(image.state, image.action)
        assert np.allclose(image.next_state, next_state, atol=1e-5)
        assert (image.reward, image.terminated) == (reward, terminated)
        ends.add(bool(terminated))
    assert ends == {True, False}


class Leaning(torch.nn.Module):
    """Stands for a network: Q(right) − Q(left) is x minus a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, states):
        x = states[:, 0] + 10 * states[:, 1:].sum(dim=1)  # at rest and upright: x
        return torch.stack([torch.full_like(x, 7.0), 7 + x - self.threshold], dim=1)


def test_the_lead_along_the_track_by_hand(lesson):
    leads = [lesson.lead_along_track(Leaning(threshold)) for threshold in (-1.05, 1.05)]
    assert np.allclose(leads[0], lesson.PLACES + 1.05, atol=1e-5)
    left = (lesson.PLACES < -1.05) | (lesson.PLACES > 1.05)
    assert lesson.agreement(np.array(leads)) == pytest.approx(left.mean())
    assert lesson.agreement(np.array(leads[:1])) == 1.0
    middle = lesson.lead_along_track(Leaning(0.0))
    shares = lesson.outward_share(np.array([middle, -middle, *leads]))
    assert shares[0] == 1.0 and shares[1] == 0.0
    assert shares[2] == pytest.approx(30 / 40) == shares[3]


def test_a_mirror_for_three_actions_is_refused_before_training(lesson, patch):
    steps = []
    patch("select_action", lambda *_: steps.append(1) or 0)
    s = lesson.replace(lesson.settings, MIRROR=True, MAX_STEPS=5)
    options = {"env_id": "Acrobot-v1", "scale": [1, 1, 1, 1, 6, 12]}
    options["remember"] = lesson.remember_mirrored
    with pytest.raises(ValueError, match=r"MIRROR.*two actions"):
        lesson.train(s, **options)
    assert steps == []
    lesson.train(lesson.replace(s, MIRROR=False), **options)
    assert len(steps) == 5


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
    for i, j in ((0, 0), (0, 60), (60, 30), (60, 0)):
        state = torch.tensor([[1.5, 0.0, -0.2 + 0.4 * j / 60, -2.0 + 4 * i / 60]])
        assert np.allclose(q[i, j], net(state)[0].detach().numpy(), atol=1e-4)


def test_bootstrap_interval(lesson):
    returns = np.random.default_rng(1).normal(300, 50, 400)
    half = 1.96 * returns.std() / 20
    found = [float(end) for end in lesson.interval(returns).split(" to ")]
    assert found == pytest.approx([returns.mean() - half, returns.mean() + half], abs=1)
    assert set(lesson.interval(np.full(100, 500.0)).split(" to ")) == {"500.0"}
