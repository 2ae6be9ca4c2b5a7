"""Why the skill is lost: python -m benchmarks.exchange

A network acts by its gap, Q(right) − Q(left). Its answer to the pole is the gap at the
same lean with the cart at rest in the middle. Here networks get the answer of another
one in the place of their own, and then play the held-out starts. Counted are the seeds
and moments of training at which plain DQN's network fails and the final agent's passes.
"""

import json
import math

import numpy as np

from . import run
from .cartpole import moved
from .measure import LEANS, gap, lesson
from .rows import FINAL, PLAIN, RESULTS, TWENTY

SAVED = RESULTS / "exchange.jsonl"
EXACT = RESULTS / "exact.json"
KEPT_OF_STATE = {  # position, velocity, angle, angular velocity
    "pole": (0, 0, 1, 1),
    "cart": (1, 1, 0, 0),
    "place": (1, 0, 0, 0),
}


def gap_of(lesson, net):
    """Return a network's gap, as a function of states."""
    return lambda states: gap(lesson, net, states)


def answer(part, gap, size=1.0):
    """Return the part of a gap that answers to the pole, the cart or its place."""
    kept = np.array(KEPT_OF_STATE[part], np.float32)
    return lambda states: size * gap(states * kept)


def exchanged(own, part, new):
    """Return a gap with a new answer to a part of the state in the place of its own."""
    old = answer(part, own)
    return lambda states: own(states) - old(states) + new(states)


def added(own, angle, turning):
    """Return a gap to which a made-up answer to the pole is added."""
    weights = np.array([0, 0, angle, turning])
    return lambda states: own(states) + states @ weights


def disturbed(good, size, now, before):
    """Return a gap made smaller and changed by what another one's changes."""
    return lambda states: size * good(states) + now(states) - before(states)


def score(lesson, gap):
    """Return the mean score of the policy with this gap from the held-out starts."""

    def policy(states):
        return (gap(states) > 0).astype(int)

    scores, _ = lesson.play_all(policy, lesson.HELD_OUT_STARTS)
    return float(scores.mean())


def treatments(plain, before, other, final):
    """Return all gaps that are tried, by name; all arguments are gaps.

    before: plain DQN's, one evaluation earlier. other: that of another failing network.
    """
    tried = {
        "plain": plain,
        "plain, final's pole": exchanged(plain, "pole", answer("pole", final)),
        "plain, other's pole": exchanged(plain, "pole", answer("pole", other)),
        "plain, final's cart": exchanged(plain, "cart", answer("cart", final)),
        "plain, final's place": exchanged(plain, "place", answer("place", final)),
        "plain + 50 θ": added(plain, 50, 0),
        "plain + 50 θ + 15 θ̇": added(plain, 50, 15),
        "plain + 5 θ + 1.5 θ̇": added(plain, 5, 1.5),
        "final": final,
        "final, plain's pole": exchanged(final, "pole", answer("pole", plain)),
        "final, plain's cart": exchanged(final, "cart", answer("cart", plain)),
        "final, plain's place": exchanged(final, "place", answer("place", plain)),
        "final's pole alone": answer("pole", final),
    }
    for size in (0.1, 0.02):
        new = answer("pole", final, size)
        tried[f"plain, final's pole × {size}"] = exchanged(plain, "pole", new)
    for size in (1.0, 0.2, 0.02):
        name = f"final × {size}, disturbed"
        tried[name] = disturbed(final, size, plain, before)
    return tried


def failing_plain(lesson, seeds):
    """Return the gaps of plain DQN's failing networks, by (seed, step)."""
    found = {}
    for seed in seeds:
        nets = run.networks(PLAIN, seed)
        for step in run.MOMENTS:
            own = gap_of(lesson, nets[step])
            if score(lesson, own) < 475:
                found[seed, step] = own
    return found


def exchange(lesson, seeds):
    """Yield the scores of all treatments, for each seed and moment that counts."""
    failing = failing_plain(lesson, seeds)
    cases = list(failing)
    for place, (seed, step) in enumerate(cases):
        final = gap_of(lesson, run.networks(FINAL, seed)[step])
        if score(lesson, final) < 475:
            continue
        following = cases[place + 1 :] + cases[:place]
        other = next(case for case in following if case[0] != seed)
        tried = treatments(
            failing[seed, step],
            gap_of(lesson, run.networks(PLAIN, seed)[step - run.BEFORE]),
            failing[other],
            final,
        )
        scores = {name: round(score(lesson, gap), 2) for name, gap in tried.items()}
        yield {"seed": seed, "step": step, "scores": scores}


def exact_slope(episodes=5_000, batches=10, steps=300, gamma=0.99):
    """Return the exact slope of a player who always acts at random, and its error.

    From both leans, with each first push, episodes are played on at random. The gap is
    the difference of the mean discounted rewards.
    """
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(batches):
        values = {}
        for lean in LEANS:
            for push in (0, 1):
                states = np.zeros((episodes, 4))
                states[:, 2] = math.radians(lean)
                values[lean, push] = returns(states, push, steps, gamma, rng).mean()
        left, right = (values[lean, 1] - values[lean, 0] for lean in LEANS)
        slopes.append((right - left) / (LEANS[1] - LEANS[0]))
    return float(np.mean(slopes)), float(np.std(slopes, ddof=1) / math.sqrt(batches))


def returns(states, push, steps, gamma, rng):
    """Return discounted rewards of one push and then random ones, (N,)."""
    found = np.zeros(len(states))
    playing = np.arange(len(states))
    actions = np.full(len(states), push)
    for i in range(steps):
        states, failed = moved(states, actions)
        found[playing] += gamma**i
        states, playing = states[~failed], playing[~failed]
        actions = rng.integers(2, size=len(playing))
    return found


def made_by(function):
    """Return the hash of all that makes the results of a function of this file."""
    rows = [run.made_by(row) for row in (PLAIN, FINAL)]
    return run.hash_of({function.__name__, "lesson"}, rows, (*run.CODE, "exchange.py"))


def load(path=SAVED):
    """Return what today's code has found, a case a line."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    found = [json.loads(line) for line in lines]
    return [one for one in found if one["code"] == made_by(exchange)]


def go_on():
    """Exchange answers unless today's code has done so, and save what came of it."""
    if load():
        return
    made = {"code": made_by(exchange), "commit": run.commit()}
    with SAVED.open("w", encoding="utf-8") as file:
        for one in exchange(lesson(), TWENTY):
            print(one, flush=True)
            file.write(json.dumps({**made, **one}, ensure_ascii=False) + "\n")
    slope, error = exact_slope()
    made["code"] = made_by(exact_slope)
    EXACT.write_text(json.dumps({**made, "slope": slope, "error": error}) + "\n")


if __name__ == "__main__":
    go_on()
