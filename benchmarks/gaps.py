"""The exchange of gaps: python -m benchmarks.gaps

Is the action gap at rest what makes a network succeed? On each seed, and at three
moments of training, the networks of plain DQN and of the final agent exchange their
gaps at rest: at each place of the track the difference between both pushes is moved by
a constant, so that the cart at rest and upright there has the other network's gap. All
else stays. Counted are the pairs of which plain DQN's fails and the final agent's not.
"""

import copy
import json
import math
import time
from dataclasses import replace
from operator import itemgetter

import numpy as np
import torch

from . import run
from .loop import train_row
from .measure import lesson
from .rows import FINAL, PLAIN

SAVED = run.RESULTS / "gaps.jsonl"
WANTED = 24  # pairs that are counted
MOMENTS = (6_000, 8_000, 10_000)
HASHED = (*run.CODE[:3], "gaps.py")


def gap(net, states):
    """Return Q(right) − Q(left) of states, (N,)."""
    with torch.no_grad():
        q_values = net(torch.as_tensor(states, dtype=torch.float32))
    return (q_values[:, 1] - q_values[:, 0]).numpy()


def at_rest(states):
    """Return the same places of the track with the cart at rest and upright."""
    still = np.zeros_like(states)
    still[:, 0] = states[:, 0]
    return still


def with_gap_of(net, other):
    """Return the greedy policy of a network that has the other's gap at rest."""

    def policy(states):
        still = at_rest(states)
        moved = gap(net, states) - gap(net, still) + gap(other, still)
        return (moved > 0).astype(int).tolist()

    return policy


def networks(lesson, row, seed, moments=MOMENTS):
    """Return the policy networks of a run at some moments, by step."""
    found = {}

    def keep(step, seconds, policy, mean, gaps, net):
        if step in moments:
            found[step] = copy.deepcopy(net)

    every = math.gcd(*moments)
    row = replace(row, steps=max(moments), every=every)
    train_row(lesson, row, seed, keep)
    return found


def exchange(lesson, seed, moments=MOMENTS):
    """Return the held-out means of both networks, before and after the exchange."""
    plain_nets = networks(lesson, PLAIN, seed, moments)
    final_nets = networks(lesson, FINAL, seed, moments)
    pairs = []
    for step in moments:
        plain_net, final_net = plain_nets[step], final_nets[step]
        policies = {
            "plain": lesson.greedy(plain_net),
            "plain_given": with_gap_of(plain_net, final_net),
            "final": lesson.greedy(final_net),
            "final_given": with_gap_of(final_net, plain_net),
        }
        pair = {"seed": seed, "step": step, "code": run.hash_of_code(HASHED)}
        for name, policy in policies.items():
            scores = lesson.evaluate(policy, lesson.HELD_OUT_STARTS)
            pair[name] = round(float(scores.mean()), 2)
        pairs.append(pair)
    return pairs


def load(path=SAVED):
    """Return the pairs that today's code has found, in the order of the seeds."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = [json.loads(line) for line in text.splitlines()]
    valid = [one for one in found if one["code"] == run.hash_of_code(HASHED)]
    return sorted(valid, key=itemgetter("seed", "step"))


def counted(found, threshold=475):
    """Return the first pairs of which plain fails and final does not."""
    kept = []
    for one in found:
        if one["plain"] < threshold <= one["final"]:
            kept.append(one)
    return kept[:WANTED]


def go_on(path=SAVED):
    """Exchange gaps on seeds 0, 1, 2, … until enough pairs count."""
    found = load(path)
    while len(counted(found)) < WANTED:
        seed = 1 + max((one["seed"] for one in found), default=-1)
        for one in exchange(lesson(), seed):
            found.append(one)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
            print(time.strftime("%H:%M:%S"), one, flush=True)


if __name__ == "__main__":
    go_on()
