"""What is measured of one run."""

import functools
import math

import numpy as np

from tools.load_definitions import load

from .cartpole import (
    CARTPOLE,
    CLOCK,
    POLE_FALLEN,
    TRACK_END,
    first_states,
    play_from,
)
from .rows import RESULTS

BOUNDS = (1.5, 0.5, 0.1, 0.5)  # position, velocity, angle, angular velocity
LEANS = (-5, 5)  # degrees, between which the slope is taken


@functools.cache
def lesson():
    """Return the notebook's definitions, on the CPU, with quicker physics.

    The results of `train` stay the same; a test compares both physics.
    """
    found = load(DEVICE="cpu", TRACKING="none", OUTPUT_DIR=str(RESULTS))
    by_gym = found.play_all
    firsts = functools.cache(functools.partial(first_states, found))

    def play_all(policy, starts, env_id=CARTPOLE, max_steps=None):
        if env_id != CARTPOLE:
            return by_gym(policy, starts, env_id, max_steps)
        return play_from(policy, firsts(starts), max_steps or CLOCK)

    found.play_all = found.train.__globals__["play_all"] = play_all
    return found


def random_states(number):
    """Return states within wide bounds, (number, 4), always the same."""
    bounds = np.array(BOUNDS)
    return np.random.default_rng(0).uniform(-bounds, bounds, size=(number, 4))


def gap(lesson, net, states):
    """Return Q(right) − Q(left) of states, (N,)."""
    q_values = lesson.q_values_of(net, states)
    return (q_values[:, 1] - q_values[:, 0]).cpu().numpy()


def slope(lesson, net):
    """Return how much the gap grows for each degree by which the pole leans.

    The cart is at rest in the middle, and the pole does not turn.
    """
    states = np.zeros((2, 4))
    states[:, 2] = np.radians(LEANS)
    left, right = gap(lesson, net, states)
    return float(right - left) / (LEANS[1] - LEANS[0])


def churn(lesson, nets):
    """Return in what share of states each net acts otherwise than the one before."""
    states = random_states(1_000)
    actions = np.array([gap(lesson, net, states) > 0 for net in nets])
    return (actions[1:] != actions[:-1]).mean(axis=1).tolist()


def score_from(lesson, net, starts, row, steps=None):
    """Return the scores of a network's episodes from some starts, (N,)."""
    return lesson.play_all(lesson.greedy(net), starts, row.env_id, steps)[0]


def ends_of(evaluations):
    """Return how many episodes ended left, right, by the pole and by the clock."""
    counts = np.zeros(4, int)
    for one in evaluations:
        x, angle = one.last_states[:, 0], one.last_states[:, 2]
        left, right = x < -TRACK_END, x > TRACK_END
        pole = (np.abs(angle) > POLE_FALLEN) & ~left & ~right
        counts += [left.sum(), right.sum(), pole.sum(), (~left & ~right & ~pole).sum()]
    return counts.tolist()


def measured(lesson, row, result):
    """Return all that is measured of a run, by name.

    A run that diverged lacks evaluations; they count as ones that do not pass.
    """
    evaluations, threshold = result.evaluations, result.threshold
    best = max(evaluations, key=lambda one: one.mean)  # the first with the highest mean
    steps = np.array([one.step for one in evaluations], float)
    passes = np.array([one.mean >= threshold for one in evaluations])
    planned = np.arange(row.every, row.steps + 1, row.every)
    late = np.sum(planned > row.steps / 2)
    first_pass = float(np.min(steps[passes], initial=np.inf))
    after = passes[steps > first_pass]
    starts = lesson.HELD_OUT_STARTS
    last_scores = score_from(lesson, evaluations[-1].network, starts, row)
    best_scores = score_from(lesson, best.network, starts, row)
    found = {
        "means": [one.mean for one in evaluations],
        "share": float(np.sum(passes[steps > row.steps / 2]) / late),
        "first_pass": first_pass,
        "share_after": float(after.mean()) if len(after) else None,
        "solved": confirmed(lesson, row, result),
        "held_out": float(last_scores.mean()),
        "held_out_worst": float(last_scores.min()),
        "best_step": best.step,
        "best": float(best_scores.mean()),
        "best_worst": float(best_scores.min()),
    }
    if row.env_id == CARTPOLE:
        for name, net in (("", evaluations[-1].network), ("best_", best.network)):
            found[f"{name}far"] = far(lesson, net, row)
            found[f"{name}wide"] = wide(lesson, net)
        found |= measured_inside(lesson, row, result)
    return found


def confirmed(lesson, row, result):
    """Return the step of the first pass that the held-out starts confirm; inf: none."""
    for one in result.evaluations:
        if one.mean >= result.threshold:
            scores = score_from(lesson, one.network, lesson.HELD_OUT_STARTS, row)
            if scores.mean() >= result.threshold:
                return float(one.step)
    return math.inf


def far(lesson, net, row):
    """Return the share of held-out starts from which `row.far` steps are survived."""
    scores = score_from(lesson, net, lesson.HELD_OUT_STARTS, row, row.far)
    return float((scores == row.far).mean())


def wide(lesson, net):
    """Return the share of 300 wide starts from which the clock is reached."""
    scores, _ = play_from(lesson.greedy(net), random_states(300), CLOCK)
    return float((scores == CLOCK).mean())


def measured_inside(lesson, row, result):
    """Return how a run's networks answer to a lean, how they change, how games end."""
    late = [one for one in result.evaluations if one.step > row.steps / 2]
    nets = [one.network for one in late]
    middle = lesson.q_values_of(result.evaluations[-1].network, np.zeros((1, 4)))
    played = sum(one.mean for one in result.evaluations)
    return {
        "slopes": [slope(lesson, net) for net in nets],
        "churns": churn(lesson, nets) if len(nets) > 1 else [],
        "value": float(middle.max()),
        "ends": ends_of([one for one in late if one.mean < result.threshold]),
        "played": round(played * len(lesson.VALIDATION_STARTS)),
    }
