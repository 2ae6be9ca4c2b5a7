"""Targets that others have proposed, for `train` and for the benchmarks' own loop.

Each takes (batch, policy_net, target_net, settings) and returns (B,) targets, as the
notebook's `td_targets` does.
"""

import functools

import torch


def bootstrap(batch, next_values, settings):
    """Return reward + γ · next value, (B,); at terminal steps the reward alone."""
    return batch.reward + settings.GAMMA * next_values * ~batch.terminated


@torch.no_grad()
def double(batch, policy_net, target_net, settings):
    """Let the policy network choose and the target network value (van Hasselt)."""
    chosen = policy_net(batch.next_state).argmax(dim=1, keepdim=True)
    next_values = target_net(batch.next_state).gather(1, chosen).squeeze(1)
    return bootstrap(batch, next_values, settings)


@torch.no_grad()
def advantage_learning(batch, policy_net, target_net, settings, alpha):
    """Subtract a share of what the action is worth less than the best (Bellemare)."""
    next_values = target_net(batch.next_state).amax(dim=1)
    q = target_net(batch.state)
    behind = q.amax(dim=1) - q.gather(1, batch.action).squeeze(1)
    return bootstrap(batch, next_values, settings) - alpha * behind


@torch.no_grad()
def munchausen(batch, policy_net, target_net, settings, alpha, temperature):
    """Add a share of the action's log-probability to the reward (Vieillard)."""
    next_q = target_net(batch.next_state)
    next_log = torch.log_softmax(next_q / temperature, dim=1)
    next_values = (next_log.exp() * (next_q - temperature * next_log)).sum(dim=1)
    log = torch.log_softmax(target_net(batch.state) / temperature, dim=1)
    bonus = (temperature * log.gather(1, batch.action).squeeze(1)).clamp(-1, 0)
    return bootstrap(batch, next_values, settings) + alpha * bonus


@torch.no_grad()
def softmax_mean(batch, policy_net, target_net, settings, temperature):
    """Value a state by the mean of its Q-values with softmax weights."""
    next_q = target_net(batch.next_state)
    weights = torch.softmax(next_q / temperature, dim=1)
    return bootstrap(batch, (weights * next_q).sum(dim=1), settings)


def targets_named(lesson, name, **constants):
    """Return a function for targets, with its constants set.

    "plain" and "careful" are the notebook's.
    """
    function = {
        "plain": lesson.td_targets,
        "careful": lesson.careful_targets,
        "double": double,
        "advantage": advantage_learning,
        "munchausen": munchausen,
        "softmax": softmax_mean,
    }[name]
    return functools.partial(function, **constants)
