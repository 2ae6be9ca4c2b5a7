"""A training loop with options that the notebook's `train` does not have.

It is built from the notebook's pieces. Without options it is `train`, bit for bit; a
test compares them.
"""

import copy
import math
import time
from collections import deque
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .targets import targets_named


def loop(
    lesson,
    settings,
    targets,
    remember,
    env_id="CartPole-v1",
    scale=None,
    show=None,
    *,
    update_every=1,
    copy_every=0,
    copies=1,
    n_steps=1,
    average=0.0,
    failures=0.0,
    pushes=0,
    clock=None,
    punish=False,
    own_epsilon=False,
    layer_norm=False,
    lr_falls=False,
    squared=False,
):
    """Train from scratch and return the result; `show(result)` at each evaluation.

    update_every: steps from one update to the next.
    copy_every: updates from one copy of the target network to the next, instead of
        the soft update at each of them; 0 keeps the soft update.
    copies: latest copies whose mean is the target network (Averaged-DQN).
    n_steps: rewards in a target before a value takes over.
    average: how far the player moves toward the policy network at each update, in the
        long run; it begins as the plain mean of the weights so far. With 0 the policy
        network itself plays.
    failures: share of each batch that is drawn from steps that terminated.
    pushes: at most so many random pushes begin an episode; they are not remembered.
    clock: steps after which an episode is cut off; None keeps the environment's own.
    punish: reward −1 where a step terminated and 0 elsewhere.
    own_epsilon: the careful target at the ε with which the agent acts at that step.
    layer_norm: normalise both hidden layers.
    lr_falls: let the learning rate fall to 0 along a straight line.
    squared: mean squared error instead of the Huber loss.
    """
    scale = lesson.SCALE if scale is None else scale
    env = lesson.make_env(env_id, clock)
    rng = np.random.default_rng(settings.SEED)
    state = begin(lesson, env, rng, pushes, settings.SEED)
    nets = lesson.make_networks(len(state), int(env.action_space.n), scale, settings)
    policy_net, target_net, optimizer = nets
    if layer_norm:
        normalise(policy_net, target_net, optimizer)
    if copies > 1:
        target_net = Copies(target_net, copies)
    player = copy.deepcopy(policy_net) if average else policy_net
    memory_class = memory_with_failures(lesson, failures)
    memory = memory_class(settings.MEMORY_SIZE, len(state), rng)
    window = Window(n_steps, settings.GAMMA)
    target_settings = replace(settings, GAMMA=settings.GAMMA**n_steps)
    optimize = optimize_squared if squared else lesson.optimize_model
    threshold = env.spec.reward_threshold
    result = lesson.Result(settings, player, target_net, memory, threshold, [], [], [])
    episode_start = 0
    started = time.perf_counter()
    for step in range(1, settings.MAX_STEPS + 1):
        epsilon = lesson.epsilon_at(step, settings)
        action = lesson.select_action(state, policy_net, epsilon, rng)
        next_state, reward, terminated, truncated, _ = env.step(action)
        if punish:
            reward = -1.0 if terminated else 0.0
        transition = lesson.Transition(state, action, next_state, reward, terminated)
        for complete in window.add(transition, truncated):
            remember(memory, complete)
        state = next_state
        if len(memory) >= settings.BATCH_SIZE and step % update_every == 0:
            if lr_falls:
                for group in optimizer.param_groups:
                    group["lr"] = settings.LR * (1 - step / settings.MAX_STEPS)
            batch = memory.sample(settings.BATCH_SIZE)
            known = {"epsilon": epsilon} if own_epsilon else {}
            wanted = targets(batch, policy_net, target_net, target_settings, **known)
            result.losses.append(optimize(policy_net, optimizer, batch, wanted))
            updates = len(result.losses)
            if copy_every == 0:
                lesson.update_target(target_net, policy_net, settings.TAU)
            elif updates % copy_every == 0 and copies > 1:
                target_net.take(policy_net)
            elif updates % copy_every == 0:
                lesson.update_target(target_net, policy_net, 1.0)
            if average:
                share = max(average, 1 / (1 + updates))
                lesson.update_target(player, policy_net, share)
        if terminated or truncated:
            result.durations.append((step, step - episode_start))
            episode_start = step
            state = begin(lesson, env, rng, pushes)
        if step % settings.EVAL_EVERY == 0 or step == settings.MAX_STEPS:
            result.seconds += time.perf_counter() - started
            lesson.record_evaluation(result, step, env_id)
            result.finished = step == settings.MAX_STEPS
            if show:
                show(result)
            started = time.perf_counter()
    return result


def begin(lesson, env, rng, pushes, seed=None):
    """Start an episode with up to `pushes` random pushes; return its observation."""
    state = lesson.reset_env(env, seed)
    if pushes:
        for _ in range(rng.integers(pushes + 1)):
            action = int(rng.integers(env.action_space.n))
            state, _, terminated, _, _ = env.step(action)
            if terminated:
                state = lesson.reset_env(env)
    return state


class Window:
    """The last steps of an episode, until n of them make one transition."""

    def __init__(self, n, gamma):
        self.n = n
        self.gamma = gamma
        self.steps = deque()

    def add(self, transition, truncated):
        """Return the transitions that this step completes.

        A terminal step completes all that wait. At a cut-off those that are short of n
        steps are dropped.
        """
        self.steps.append(transition)
        complete = []
        if len(self.steps) == self.n:
            complete.append(self.joined())
            self.steps.popleft()
        while transition.terminated and self.steps:
            complete.append(self.joined())
            self.steps.popleft()
        if truncated:
            self.steps.clear()
        return complete

    def joined(self):
        """Return the waiting steps as one: first state, last one, rewards added up."""
        reward = sum(self.gamma**i * step.reward for i, step in enumerate(self.steps))
        last = self.steps[-1]
        return self.steps[0]._replace(
            next_state=last.next_state, reward=reward, terminated=last.terminated
        )


def memory_with_failures(lesson, share):
    """Return the notebook's memory, or one that draws a share from failures."""
    if share == 0:
        return lesson.ReplayMemory

    class FailureMemory(lesson.ReplayMemory):
        def sample(self, batch_size):
            rows = self.rng.integers(len(self), size=batch_size)
            failed = np.flatnonzero(self.fields.terminated[: len(self)])
            wanted = int(share * batch_size)
            if len(failed):
                rows[:wanted] = failed[self.rng.integers(len(failed), size=wanted)]
            tensors = [torch.from_numpy(field[rows]) for field in self.fields]
            return lesson.Transition(*tensors)

    return FailureMemory


class Copies(nn.Module):
    """The latest copies of a network, valued by their mean (Anschel et al., 2017)."""

    def __init__(self, net, number):
        super().__init__()
        self.nets = nn.ModuleList(copy.deepcopy(net) for _ in range(number))
        self.oldest = 0

    def take(self, net):
        """Put a copy of the network in the place of the oldest one."""
        self.nets[self.oldest].load_state_dict(net.state_dict())
        self.oldest = (self.oldest + 1) % len(self.nets)

    def forward(self, states):
        return torch.stack([net(states) for net in self.nets]).mean(dim=0)


def normalise(policy_net, target_net, optimizer):
    """Put a layer normalisation behind the hidden layers, before their ReLU."""
    for name in ("layer1", "layer2"):
        layer = getattr(policy_net, name)
        norm = nn.LayerNorm(layer.out_features).to(layer.weight.device)
        optimizer.add_param_group({"params": norm.parameters()})
        setattr(policy_net, name, nn.Sequential(layer, norm))
        slow = nn.Sequential(getattr(target_net, name), copy.deepcopy(norm))
        setattr(target_net, name, slow.requires_grad_(False))


def optimize_squared(policy_net, optimizer, batch, targets):
    """Take an optimisation step as the notebook's, on the mean squared error."""
    values = policy_net(batch.state).gather(1, batch.action).squeeze(1)
    loss = functional.mse_loss(values, targets)
    if not math.isfinite(loss.item()):
        raise FloatingPointError("training diverged")
    policy_net.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def train_row(lesson, row, seed, judge=None):
    """Train the notebook's agent as a row says; return its result.

    `judge` is told of each evaluation: step, seconds, greedy policy, mean score, action
    gaps along the track and network.
    """
    fixed = {"SEED": seed, "MAX_STEPS": row.steps, "EVAL_EVERY": row.every}
    settings = replace(lesson.settings, **row.settings, **fixed)
    targets = targets_named(lesson, **row.targets)
    remember = lesson.remember_mirrored if row.mirror else lesson.remember
    scale = row.scale or lesson.SCALE

    def show(result):
        last, net = result.evaluations[-1], result.policy_net
        gaps = None
        if row.env_id == "CartPole-v1":
            gaps = lesson.action_gaps(net)
        policy = lesson.greedy(net)
        judge(last.step, last.seconds, policy, last.mean, gaps, net)

    parts = (settings, targets, remember, row.env_id, scale)
    shown = show if judge else None
    if row.loop:
        return loop(lesson, *parts, show=shown, **row.loop)
    return lesson.train(*parts, show=shown)
