"""Why the skill is lost: python -m benchmarks.exchange

A network acts by its gap, Q(right) − Q(left). Its answer to the pole is the gap at the
same lean with the cart at rest in the middle. Here networks get the answer of another
one in the place of their own, and then play the held-out starts.

`exchange` is between plain DQN and the final agent: it counts the seeds and moments of
training at which plain DQN's network fails and the final agent's passes. `adjacent` is
between two evaluations of plain DQN next to each other, one of which passes. `lines`
looks at each network's gap against the lean.
"""

import json
import math
from dataclasses import replace

import numpy as np

from . import run
from .cartpole import TRACK_END, moved
from .measure import LEANS, gap, lesson, random_states
from .rows import FINAL, OURS, PLAIN, RESULTS, TWENTY

PASS = 475
EXACT = RESULTS / "exact.json"
KEPT_OF_STATE = {  # position, velocity, angle, angular velocity
    "pole": (0, 0, 1, 1),
    "cart": (1, 1, 0, 0),
    "place": (1, 0, 0, 0),
    "level": (0, 0, 0, 0),  # the gap of the upright pole, at rest in the middle
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


def symmetric(own):
    """Return a gap that answers to a mirrored state with the mirrored answer."""
    return lambda states: own(states) - own(-states)


def size_of(part, gap):
    """Return the root mean square of an answer, over the states of the churn."""
    return float(np.sqrt(np.mean(answer(part, gap)(random_states(1_000)) ** 2)))


def score(lesson, gap):
    """Return the mean score of the policy with this gap from the held-out starts."""

    def policy(states):
        return (gap(states) > 0).astype(int)

    scores, _ = lesson.play_all(policy, lesson.HELD_OUT_STARTS)
    return float(scores.mean())


def scores_of(lesson, gaps):
    """Return the scores of gaps, by name."""
    return {name: round(score(lesson, gap), 2) for name, gap in gaps.items()}


# Plain DQN and the final agent.


def treatments(plain, before, other, passing, final, final_before, untrained):
    """Return all gaps that are tried, by name; all arguments are gaps.

    before: one evaluation earlier. other, passing: of plain DQN's networks with other
    seeds, a failing and a passing one. untrained: with which plain's run began.
    """
    pole = answer("pole", final)
    small = size_of("pole", plain) / size_of("pole", final)
    tried = {
        "plain": plain,
        "plain, final's pole": exchanged(plain, "pole", pole),
        "plain, other's pole": exchanged(plain, "pole", answer("pole", other)),
        "plain, passing plain's pole": exchanged(
            plain, "pole", answer("pole", passing)
        ),
        "plain, final's cart": exchanged(plain, "cart", answer("cart", final)),
        "plain, final's place": exchanged(plain, "place", answer("place", final)),
        "plain, level 0": exchanged(plain, "level", answer("level", plain, 0)),
        "plain, made symmetric": symmetric(plain),
        "plain + 50 θ": added(plain, 50, 0),
        "plain + 50 θ + 15 θ̇": added(plain, 50, 15),
        "plain + 5 θ + 1.5 θ̇": added(plain, 5, 1.5),
        "untrained": untrained,
        "untrained, final's pole": exchanged(untrained, "pole", pole),
        "final": final,
        "final, plain's pole": exchanged(final, "pole", answer("pole", plain)),
        "final, plain's cart": exchanged(final, "cart", answer("cart", plain)),
        "final, plain's place": exchanged(final, "place", answer("place", plain)),
        "final's pole alone": pole,
        "plain, final's pole at plain's size": exchanged(
            plain, "pole", answer("pole", final, small)
        ),
        "final × 0.02, own changes": disturbed(final, 0.02, final, final_before),
    }
    for size in (0.1, 0.02):
        new = answer("pole", final, size)
        tried[f"plain, final's pole × {size}"] = exchanged(plain, "pole", new)
    for size in (10, 50):
        new = answer("pole", plain, size)
        tried[f"plain, own pole × {size}"] = exchanged(plain, "pole", new)
    for size in (1.0, 0.2, 0.02):
        name = f"final × {size}, disturbed"
        tried[name] = disturbed(final, size, plain, before)
    return tried


def of_another_seed(cases, seed, step):
    """Return the gap of the next case of another seed; cases: (seed, step) → gap."""
    others = [case for case in cases if case[0] != seed]
    return cases[min(others, key=lambda case: (case < (seed, step), case))]


def exchange(lesson):
    """Yield the scores of all treatments, for each seed and moment that counts."""
    failing, passing = {}, {}
    for seed in TWENTY:
        nets = run.networks(PLAIN, seed)
        for step in run.MOMENTS:
            own = gap_of(lesson, nets[step])
            cases = passing if score(lesson, own) >= PASS else failing
            cases[seed, step] = own
    for (seed, step), plain in failing.items():
        nets, earlier = run.networks(FINAL, seed), step - run.BEFORE
        final = gap_of(lesson, nets[step])
        if score(lesson, final) < PASS:
            continue
        settings = replace(lesson.settings, SEED=seed)
        untrained = lesson.make_networks(4, 2, lesson.SCALE, settings)[0]
        tried = treatments(
            plain,
            before=gap_of(lesson, run.networks(PLAIN, seed)[earlier]),
            other=of_another_seed(failing, seed, step),
            passing=of_another_seed(passing, seed, step),
            final=final,
            final_before=gap_of(lesson, nets[earlier]),
            untrained=gap_of(lesson, untrained),
        )
        yield {"seed": seed, "step": step, "scores": scores_of(lesson, tried)}


# Two evaluations of plain DQN.


def adjacent(lesson):
    """Yield the scores of all exchanges, for each pair of which one passes."""
    for seed in PLAIN.seeds:
        nets = run.networks(PLAIN, seed)
        for step in run.MOMENTS:
            pair = [gap_of(lesson, nets[at]) for at in (step - run.BEFORE, step)]
            failing, passing = sorted(pair, key=lambda gap: score(lesson, gap))
            if not score(lesson, failing) < PASS <= score(lesson, passing):
                continue
            tried = {"failing": failing, "passing": passing}
            for part in KEPT_OF_STATE:
                new = exchanged(failing, part, answer(part, passing))
                tried[f"failing, passing's {part}"] = new
                new = exchanged(passing, part, answer(part, failing))
                tried[f"passing, failing's {part}"] = new
            yield {"seed": seed, "step": step, "scores": scores_of(lesson, tried)}


# The lines of the lesson's picture.


def lines(lesson):
    """Yield what each kept network answers to a lean, and how its games end.

    The cart is at rest in the middle, and the pole leans by up to five degrees. Level:
    the gap of the upright pole. One-sided: the gap has the same sign at each lean.
    """
    leaning = np.zeros((41, 4), np.float32)
    leaning[:, 2] = np.radians(np.linspace(*LEANS, 41))
    for row in OURS:
        for seed in TWENTY:
            for step, net in run.networks(row, seed).items():
                policy = lesson.greedy(net)
                scores, last = lesson.play_all(policy, lesson.VALIDATION_STARTS)
                gaps, places = gap(lesson, net, leaning), last[:, 0]
                right, left = (places > TRACK_END).mean(), (places < -TRACK_END).mean()
                found = {
                    "passes": bool(scores.mean() >= PASS),
                    "level": round(float(gaps[20]), 4),
                    "one_sided": bool(gaps.min() > 0 or gaps.max() < 0),
                    "lost_right": float(right - left),  # less than 0: on the left
                }
                yield {"row": row.label, "seed": seed, "step": step, **found}


# The exact values.


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


# What is saved.


def made_by(function):
    """Return the hash of all that makes the results of a function of this file."""
    rows = [run.made_by(row) for row in (PLAIN, FINAL)]
    return run.hash_of({function.__name__, "lesson"}, rows, (*run.CODE, "exchange.py"))


def file_of(experiment):
    """Return where an experiment's results are saved."""
    return RESULTS / f"{experiment.__name__}.jsonl"


def load(experiment=exchange):
    """Return what today's code has found, a case a line."""
    path = file_of(experiment)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    found = [json.loads(line) for line in lines]
    return [one for one in found if one["code"] == made_by(experiment)]


def go_on():
    """Do what today's code has not done yet, and save what comes of it."""
    for experiment in (exchange, adjacent, lines):
        if load(experiment):
            continue
        made = {"code": made_by(experiment), "commit": run.commit()}
        written = []
        for one in experiment(lesson()):
            print(one, flush=True)
            written.append(json.dumps({**made, **one}, ensure_ascii=False) + "\n")
        file_of(experiment).write_text("".join(written), encoding="utf-8")
    slope, error = exact_slope()
    made = {"code": made_by(exact_slope), "commit": run.commit()}
    EXACT.write_text(json.dumps({**made, "slope": slope, "error": error}) + "\n")


if __name__ == "__main__":
    go_on()
