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
from torch import nn
from torch.nn import functional

from .targets import targets_named


def loop(
    lesson,
    settings,
    targets,
    remember,
    env_id,
    scale,
    show=None,
    *,
    update_every=1,
    copy_every=0,
    n_steps=1,
    average=0.0,
    layer_norm=False,
    lr_falls=False,
    squared=False,
):
    """Train from scratch and return the result; `show(result)` at each evaluation.

    update_every: steps from one update to the next.
    copy_every: updates from one copy of the target network to the next, instead of
        the soft update at each of them; 0 keeps the soft update.
    n_steps: rewards in a target before a value takes over.
    average: how far the player moves toward the policy network at each update; with 0
        the policy network itself plays.
    layer_norm: normalise both hidden layers.
    lr_falls: let the learning rate fall to 0 along a straight line.
    squared: mean squared error instead of the Huber loss.
    """
    env = lesson.make_env(env_id)
    rng = np.random.default_rng(settings.SEED)
    state = lesson.reset_env(env, settings.SEED)
    nets = lesson.make_networks(len(state), int(env.action_space.n), scale, settings)
    policy_net, target_net, optimizer = nets
    if layer_norm:
        normalise(policy_net, target_net, optimizer)
    player = copy.deepcopy(policy_net) if average else policy_net
    memory = lesson.ReplayMemory(settings.MEMORY_SIZE, len(state), rng)
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
        transition = lesson.Transition(state, action, next_state, reward, terminated)
        for complete in window.add(transition, truncated):
            remember(memory, complete, settings)
        state = next_state
        if len(memory) >= settings.BATCH_SIZE and step % update_every == 0:
            if lr_falls:
                for group in optimizer.param_groups:
                    group["lr"] = settings.LR * (1 - step / settings.MAX_STEPS)
            batch = memory.sample(settings.BATCH_SIZE)
            wanted = targets(batch, policy_net, target_net, target_settings)
            result.losses.append(optimize(policy_net, optimizer, batch, wanted))
            if copy_every == 0:
                lesson.update_target(target_net, policy_net, settings.TAU)
            elif len(result.losses) % copy_every == 0:
                lesson.update_target(target_net, policy_net, 1.0)
            if average:
                lesson.update_target(player, policy_net, average)
        if terminated or truncated:
            result.durations.append((step, step - episode_start))
            episode_start = step
            state = lesson.reset_env(env)
        if step % settings.EVAL_EVERY == 0 or step == settings.MAX_STEPS:
            result.seconds += time.perf_counter() - started
            lesson.record_evaluation(result, step, env_id)
            result.finished = step == settings.MAX_STEPS
            if show:
                show(result)
            started = time.perf_counter()
    return result


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


def train_variant(lesson, variant, seed, steps, every, show=None):
    """Train one variant of the notebook's agent, as settings.json describes it.

    settings: constants that differ from the notebook's. targets: a name and its
    constants. env_id, scale: as `train` takes them. loop: options of the loop above;
    without them the notebook's `train` does it.
    """
    fixed = {"SEED": seed, "MAX_STEPS": steps, "EVAL_EVERY": every}
    settings = replace(lesson.settings, **variant.get("settings", {}), **fixed)
    targets = targets_named(lesson, **variant.get("targets", {}))
    env_id = variant.get("env_id", "CartPole-v1")
    scale = variant.get("scale", lesson.SCALE)
    parts = (targets, lesson.remember_mirrored, env_id, scale)
    if "loop" in variant:
        return loop(lesson, settings, *parts, show=show, **variant["loop"])
    return lesson.train(settings, *parts, show=show)
