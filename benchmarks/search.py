"""Search hyperparameters for plain DQN: python -m benchmarks.search

Random trials on four tuning seeds each, then the best four on four more. A trial ranks
by its mean share of passes over 10,000 steps, then by its mean first pass. The best
one is printed; it goes into rows.SEARCHED by hand. Started again, this goes on.
"""

from dataclasses import replace

import numpy as np

from . import run
from .bench import missing, work_through
from .rows import plain, with_settings

SAVED = run.RESULTS / "search.jsonl"
TRIALS, FINALISTS = 36, 4
FEW, MANY = range(1_000, 1_004), range(1_000, 1_008)  # no row has these seeds
CHOICES = {
    "LR": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    "TAU": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    "BATCH_SIZE": (64, 128, 256),
    "GAMMA": (0.95, 0.98, 0.99, 0.995),
    "EPS_END": (0.01, 0.05, 0.1),
    "EPS_DECAY": (300, 1_000, 2_500),
    "MEMORY_SIZE": (2_000, 5_000, 100_000),
}


def trials():
    """Return the rows that are tried; the first has the notebook's hyperparameters."""
    rng = np.random.default_rng(0)
    rows = [replace(plain("trial 0", FEW), far=1)]
    for i in range(1, TRIALS):
        settings = {}
        for name, values in CHOICES.items():
            settings[name] = values[rng.integers(len(values))]
        row = plain(f"trial {i}", FEW, update_every=int(rng.choice([1, 2, 4])))
        rows.append(replace(with_settings(row, **settings), far=1))
    return rows


def rank(runs):
    """Return what a trial is ranked by: the smallest is the best."""
    first = [min(one.first_pass, 20_000) for one in runs]  # never: twice the budget
    return -np.mean([one.share for one in runs]), np.mean(first)


def best_of(rows):
    """Return the rows with what they are ranked by, best first; do what is missing."""
    work_through(missing(rows, run.load(SAVED)), SAVED, at_a_time=2, timed=False)
    runs = run.load(SAVED)
    ranked = [(rank(run.valid(runs, row)), i) for i, row in enumerate(rows)]
    return [(found, rows[i]) for found, i in sorted(ranked)]


def main():
    """Search, and print what is found."""
    few = best_of(trials())[:FINALISTS]
    for found, row in best_of([replace(row, seeds=MANY) for _, row in few]):
        print(found, row.settings, row.loop)


if __name__ == "__main__":
    main()
