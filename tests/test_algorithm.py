"""The pieces of the algorithm and its loop, against a second implementation."""

import itertools
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dqn_helpers.cart import play

# Each setting has another value here than in the lesson.
OTHERS = {"SEED": 5, "MAX_STEPS": 240, "EVAL_EVERY": 90, "BATCH_SIZE": 50}
OTHERS |= {"GAMMA": 0.9, "EPS_START": 0.7, "EPS_END": 0.1, "EPS_DECAY": 100}
OTHERS |= {"TAU": 0.1, "LR": 0.01, "MEMORY_SIZE": 150, "TARGET_EPSILON": 0.4}
SMALL = {"MAX_STEPS": 160, "EVAL_EVERY": 80, "BATCH_SIZE": 32, "MEMORY_SIZE": 100}
SMALL |= {"EPS_DECAY": 50}
STARTS = range(7, 11)


def small(lesson, **changes):
    """Settings of a short run."""
    return replace(lesson.settings, **{**SMALL, **changes})


def weights(net):
    return [weight.detach().clone() for weight in net.parameters()]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def course(result):
    """What a run did, without its seconds."""
    evaluations = [(e.step, e.mean, e.worst) for e in result.evaluations]
    return result.losses, result.durations, evaluations


# A second implementation.


def episode_by_hand(lesson, act, start):
    """The score and the last state of an episode; `act` sees one state."""
    env, score, over = lesson.make_env("CartPole-v1"), 0, False
    state = lesson.reset_env(env, start)
    while not over:
        state, reward, terminated, truncated, _ = env.step(int(act(state)))
        score += reward
        over = terminated or truncated
    return score, state


def huber(error):
    return torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)


def run_by_hand(lesson, s, share, loss_of, pushes, scale):
    """Deep Q-learning once more, as a reader might write it: losses and so on.

    share: of the mean over the actions in the value of the next state.
    """
    rng = np.random.default_rng(s.SEED)
    env = lesson.make_env("CartPole-v1")
    state = lesson.reset_env(env, s.SEED)
    net, slow, _ = lesson.make_networks(4, 2, scale, s)
    optimizer = torch.optim.AdamW(net.parameters(), lr=s.LR, amsgrad=True)
    rows, oldest, begun = [], 0, 0
    losses, durations, evaluations = [], [], []

    def greedy(state):
        return net(torch.tensor(state)).argmax()

    for step in range(1, s.MAX_STEPS + 1):
        part = s.EPS_START - s.EPS_END
        if rng.random() < s.EPS_END + part * np.exp(-step / s.EPS_DECAY):
            action = int(rng.integers(2))
        else:
            action = int(greedy(state))
        next_state, reward, terminated, truncated, _ = env.step(action)
        new = [(state, action, next_state, reward, terminated)]
        new.append((-state, 1 - action, -next_state, reward, terminated))
        for row in new[:pushes]:
            if len(rows) < s.MEMORY_SIZE:
                rows.append(row)
            else:
                rows[oldest] = row
                oldest = (oldest + 1) % s.MEMORY_SIZE
        state = next_state
        if len(rows) >= s.BATCH_SIZE:
            chosen = rng.integers(len(rows), size=s.BATCH_SIZE)
            drawn = zip(*[rows[i] for i in chosen], strict=True)
            before, a, after, r, ends = [torch.tensor(np.array(x)) for x in drawn]
            q = slow(after).detach()
            value = (1 - share) * q.max(dim=1).values + share * (q[:, 0] + q[:, 1]) / 2
            y = r.float() + s.GAMMA * value * ~ends
            loss = loss_of(net(before)[range(s.BATCH_SIZE), a] - y).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            for old, now in zip(slow.parameters(), net.parameters(), strict=True):
                old.data += s.TAU * (now.data - old.data)
        if terminated or truncated:
            durations.append((step, step - begun))
            begun = step
            state = lesson.reset_env(env)
        if step % s.EVAL_EVERY == 0 or step == s.MAX_STEPS:
            scores = [episode_by_hand(lesson, greedy, start)[0] for start in STARTS]
            evaluations.append((step, np.mean(scores), min(scores)))
    return losses, durations, evaluations


@pytest.mark.parametrize(
    "targets, remember, loss",
    [
        ("td_targets", "remember", "smooth_l1_loss"),
        ("careful_targets", "remember", "mse_loss"),
        ("careful_targets", "remember_mirrored", "smooth_l1_loss"),
    ],
)
def test_a_run_is_what_a_second_implementation_does(
    lesson, patch, targets, remember, loss
):
    """No setting may be written in, so each of them differs from the lesson's."""
    s, default = replace(lesson.settings, **OTHERS), asdict(lesson.settings)
    same = [name for name, value in asdict(s).items() if value == default[name]]
    assert same == [], "give these another value in OTHERS; `run_by_hand` uses it"
    patch("VALIDATION_STARTS", STARTS)
    how = [getattr(lesson, targets), getattr(lesson, remember)]
    scale = [1.0, 2.0, 0.5, 4.0]
    found = lesson.train(s, *how, getattr(functional, loss), scale=scale)
    losses, *others = run_by_hand(
        lesson,
        s,
        share=s.TARGET_EPSILON if targets == "careful_targets" else 0,
        loss_of=torch.square if loss == "mse_loss" else huber,
        pushes=2 if remember == "remember_mirrored" else 1,
        scale=scale,
    )
    assert [*course(found)[1:]] == others
    assert len(losses) > 190 and np.allclose(found.losses, losses, rtol=1e-3)


@pytest.fixture(scope="module")
def short_run(lesson):
    return lesson.train(small(lesson), lesson.careful_targets, lesson.remember)


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_changes_the_run(lesson, short_run, name):
    """One that is not wired to what it is for changes nothing."""
    settings = small(lesson, **{name: OTHERS[name]})
    again = lesson.train(settings, lesson.careful_targets, lesson.remember)
    assert course(again) != course(short_run)


def test_nothing_but_its_settings_changes_a_run(lesson, short_run):
    """Neither other random numbers nor more evaluations."""
    np.random.seed(99)
    torch.manual_seed(99)
    settings = small(lesson, EVAL_EVERY=20)
    again = lesson.train(settings, lesson.careful_targets, lesson.remember)
    assert course(again)[:2] == course(short_run)[:2] and len(again.evaluations) == 8
    assert equal(weights(again.policy_net), weights(short_run.policy_net))
    networks = [e.network for e in again.evaluations]
    assert equal(weights(networks[-1]), weights(again.policy_net))
    assert not equal(weights(networks[3]), weights(networks[4])), "copies"


# Pieces that CartPole's two actions and short episodes do not try.


def two_steps(lesson, terminated):
    """A batch of two steps with rewards 1 and −2.5."""
    states = torch.tensor([[10.0, 0, 0, 0], [20.0, 0, 0, 0]])
    action, reward = torch.tensor([[1], [0]]), torch.tensor([1.0, -2.5])
    return lesson.Transition(states, action, reward, states, torch.tensor(terminated))


def test_targets_with_three_actions(lesson):
    """After the steps the best values are 30 and 60, and the means 14 and 28."""

    def says(states):
        return states[:, :1] * torch.tensor([1.0, 3.0, 0.2])

    s = replace(lesson.settings, GAMMA=0.5, TARGET_EPSILON=1.0)
    batch = two_steps(lesson, [False, True])
    for targets, value in ((lesson.td_targets, 30), (lesson.careful_targets, 14)):
        found = targets(batch, None, says, s)
        assert found.tolist() == pytest.approx([1 + value / 2, -2.5])


def test_the_target_network_starts_as_a_frozen_copy(lesson):
    policy_net, target_net, _ = lesson.make_networks(4, 2, lesson.SCALE, small(lesson))
    assert equal(weights(policy_net), weights(target_net))
    assert not any(weight.requires_grad for weight in target_net.parameters())
    assert len(weights(policy_net)) == 6, "the scale is not trained"


@pytest.mark.parametrize("target", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_before_it_does_harm(lesson, target):
    policy_net, _, optimizer = lesson.make_networks(4, 2, lesson.SCALE, small(lesson))
    batch, before = two_steps(lesson, [False, False]), weights(policy_net)
    targets = torch.tensor([target, 1.0])
    with pytest.raises(FloatingPointError, match="LR"):
        lesson.optimize_model(policy_net, optimizer, batch, targets, functional.l1_loss)
    assert equal(weights(policy_net), before)


def test_the_mirror_image_is_what_the_environment_does(lesson):
    env, rng, ends = lesson.make_env("CartPole-v1"), np.random.default_rng(0), set()

    def play(state, action):
        lesson.reset_env(env, 0)
        env.unwrapped.state = tuple(state)
        next_state, reward, terminated, *_ = env.step(int(action))
        return reward, next_state, terminated

    for _ in range(60):
        state, action = rng.uniform(-1, 1, 4) * [2.5, 2, 0.22, 2], int(rng.integers(2))
        step = lesson.Transition(state, action, *play(state, action))
        pushed = []
        memory = SimpleNamespace(push=pushed.append)
        lesson.remember_mirrored(memory, [None, step], lesson.settings)
        itself, image = pushed
        assert itself is step
        assert np.allclose(image.state, -state) and image.action != action
        reward, next_state, terminated = play(image.state, image.action)
        assert np.allclose(image.next_state, next_state, atol=1e-5)
        assert (image.reward, image.terminated) == (reward, terminated)
        ends.add(bool(terminated))
    assert ends == {True, False}


# The loop, around an environment that counts.


class Clockwork:
    """Stands for an environment whose episodes last 7 and 5 steps in turn.

    Those of 7 steps terminate, and every third episode is truncated at the same step.
    Those of 5 steps are truncated. Its observations have 64 bits.
    """

    def __init__(self, threshold=75, n_actions=2, shape=(4,)):
        self.spec = SimpleNamespace(id="Clockwork", reward_threshold=threshold)
        self.action_space = SimpleNamespace(n=n_actions)
        if n_actions is None:
            del self.action_space.n
        self.shape = shape
        self.seeds, self.episode, self.time = [], 0, 0

    def observation(self):
        numbers = np.zeros(math.prod(self.shape))
        numbers[:2] = self.episode, self.time
        return numbers.reshape(self.shape)

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
def clockworks(patch):
    """All clockworks that are made instead of environments."""
    made = []

    def make_env(env_id, max_steps=None):
        made.append(Clockwork())
        made[-1].asked_for = env_id
        return made[-1]

    patch("make_env", make_env)
    return made


def test_the_memory_gets_falls_but_not_cuts_and_episodes_follow(lesson, clockworks):
    """Evaluations have environments of their own, at the validation starts."""
    seen = []

    def targets(batch, *given):
        seen.append(given)
        return lesson.td_targets(batch, *given)

    settings = small(lesson, MAX_STEPS=60, EVAL_EVERY=25, SEED=3)
    result = lesson.train(settings, targets, lesson.remember, env_id="a clock")
    assert {env.asked_for for env in clockworks} == {"a clock"}
    ((policy_net, target_net, its_settings),) = set(seen)
    assert policy_net is result.policy_net is not target_net
    assert its_settings is settings and len(seen) == len(result.losses) == 29
    fields = result.memory.fields
    now, after = fields.state[:60, :2].tolist(), fields.next_state[:60, :2].tolist()
    played = [[e, time] for e in range(1, 12) for time in range(7 if e % 2 else 5)]
    assert now == played[:60] and len(result.memory) == 60
    assert after == [[episode, time + 1] for episode, time in now]
    falls = [episode % 2 == 1 and time == 7 for episode, time in after]
    assert fields.terminated[:60].tolist() == falls and sum(falls) == 5
    assert np.allclose(fields.reward[:60], [time / 10 for _, time in after])
    ends = list(itertools.accumulate([7, 5] * 5))
    assert result.durations == list(zip(ends, [7, 5] * 5, strict=True))
    env, *others = clockworks
    assert env.seeds == [3] + [None] * 10, "seeded once, and started at every end"
    assert [e.step for e in result.evaluations] == [25, 50, 60]
    seeds = [[seed] for seed in lesson.VALIDATION_STARTS]
    assert [env.seeds for env in others] == 3 * seeds


@pytest.mark.parametrize(
    "wrong", [{"threshold": None}, {"n_actions": None}, {"shape": (4, 2)}]
)
def test_a_task_that_cannot_be_learned_is_refused(lesson, patch, wrong):
    patch("make_env", lambda *_: Clockwork(**wrong))
    patch("make_networks", None)  # nothing has begun
    with pytest.raises(ValueError, match="Clockwork"):
        lesson.train(small(lesson), lesson.td_targets, lesson.remember)


def test_measured_seconds_are_those_of_training_alone(lesson, patch, clockworks):
    clock = [0.0]

    def tick(seconds, value=None):
        clock[0] += seconds
        return value

    patch("time", SimpleNamespace(perf_counter=lambda: clock[0], time=lambda: clock[0]))
    patch("update_target", lambda *_: tick(1.0))
    patch("play_all", lambda *_: tick(1e6, (np.zeros(20), np.zeros((20, 4)))))
    s = small(lesson, MAX_STEPS=45, EVAL_EVERY=20, BATCH_SIZE=16)
    how = [lesson.td_targets, lesson.remember]
    result = lesson.train(s, *how, show=lambda _: tick(1e9))
    assert [e.seconds for e in result.evaluations] == [5, 25, 30]
    assert result.seconds == 30


@pytest.mark.parametrize("score, passes", [(74.9, False), (75.0, True)])
def test_a_run_may_stop_at_its_first_pass(lesson, patch, clockworks, score, passes):
    """The threshold is that of the environment."""
    shown, scores = [], iter([0.0, score] + [0.0] * 20)
    patch("play_all", lambda *_: (np.full(20, next(scores)), None))

    def show(result):
        shown.append((result.evaluations[-1].step, result.finished))

    s = small(lesson, MAX_STEPS=60, EVAL_EVERY=10)
    how = [lesson.td_targets, lesson.remember]
    lesson.train(s, *how, stop_at_first_pass=True, show=show)
    last = 20 if passes else 60
    assert shown == [(step, step == last) for step in range(10, last + 1, 10)]
    scores = iter([500.0] * 6)
    assert len(lesson.train(s, *how).evaluations) == 6, "only where it was asked for"


# A reader may edit a cell and run it again, without the cells that follow it.


def test_defaults_of_arguments_are_nothing_that_a_reader_may_edit(lesson):
    """They would be those of the moment at which a function was defined."""
    allowed = [None, False, "CartPole-v1", functional.smooth_l1_loss]
    for thing in vars(lesson).values():
        if getattr(thing, "__module__", "") == "lesson":
            for default in getattr(thing, "__defaults__", None) or ():
                assert default in allowed, (thing, default)


def test_what_is_edited_is_used_and_a_result_says_so(lesson, patch):
    def careful_targets(batch, policy_net, target_net, settings):
        return torch.full_like(batch.reward, 7.0)

    patch("SCALE", [1, 2, 3, 4])
    s = small(lesson, MAX_STEPS=40)
    edited = lesson.train(s, careful_targets, lesson.remember_mirrored)
    assert edited.policy_net.scale.tolist() == edited.scale == [1, 2, 3, 4]
    there = [lesson.careful_targets, lesson.remember_mirrored]
    assert course(edited) != course(lesson.train(s, *there))
    patch("SCALE", [5, 6, 7, 8])
    assert edited.scale == [1, 2, 3, 4]
    names = edited.targets, edited.remember, edited.loss_function, edited.env_id
    assert names[:2] == ("careful_targets", "remember_mirrored")
    assert names[2:] == ("smooth_l1_loss", "CartPole-v1") and edited.settings == s


# The evaluation.


def test_evaluation_is_one_episode_from_each_start(lesson):
    def rule(states):
        return states[:, 2] + states[:, 3] > 0

    starts = [*range(12), 2_000_000_000, 2_000_000_033]
    by_hand = [episode_by_hand(lesson, lambda s: s[2] + s[3] > 0, x) for x in starts]
    played, last = zip(*by_hand, strict=True)
    scores, last_states = lesson.play_all(rule, starts)
    assert scores.tolist() == lesson.evaluate(rule, starts).tolist() == list(played)
    assert np.array_equal(last_states, last) and max(played) == 500 > min(played)
    env = lesson.make_env("CartPole-v1")
    states = play(env, lesson.reset_env(env, starts[-1]), rule)
    assert np.array_equal(states[-1], last[-1])
    assert len(states) == played[-1] + 1, "with the first state"
    rewards = lesson.evaluate(lambda states: [1], [0], "MountainCar-v0")
    assert rewards.tolist() == [-200], "rewards, not steps"


@pytest.mark.parametrize("limit", [7, 600])
def test_an_environment_may_have_another_limit(lesson, limit):
    def rule(states):
        return states @ [0.05, 0.1, 1.0, 1.0] > 0

    assert lesson.evaluate(rule, [0], max_steps=limit).tolist() == [limit]


def test_starts_for_different_purposes_do_not_overlap(lesson):
    validation, held_out = set(lesson.VALIDATION_STARTS), set(lesson.HELD_OUT_STARTS)
    assert (len(validation), len(held_out)) == (20, 100)
    assert not validation & held_out


# What it learns.


def test_the_final_agent_passes(lesson):
    s = replace(lesson.settings, MAX_STEPS=5_000)
    how = [lesson.careful_targets, lesson.remember_mirrored]
    result = lesson.train(s, *how, stop_at_first_pass=True)
    assert result.evaluations[-1].mean >= 475
