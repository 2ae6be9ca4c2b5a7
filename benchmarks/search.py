"""Search constants for plain DQN: python -m benchmarks.search

Random trials on tuning seeds, two seeds each; then the best few on more seeds. A trial
ranks by the mean share held over 10,000 steps, then by the mean step of its first pass.
The constants of the best one go into settings.json, for the contestant plain_tuned.
Every run is saved at once in search.jsonl; started again, this goes on from there.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np

from .common import RESULTS, SETTINGS_FILE, add_line, dumps, read_lines
from .runs import do

FIRST_SEED = 1_000  # tuning seeds begin here; those of the report are below
CHOICES = {
    "LR": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    "TAU": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    "BATCH_SIZE": (64, 128, 256),
    "GAMMA": (0.95, 0.98, 0.99, 0.995),
    "EPS_END": (0.01, 0.05, 0.1),
    "EPS_DECAY": (300, 1_000, 2_500),
    "MEMORY_SIZE": (2_000, 5_000, 100_000),
}
UPDATE_EVERY = (1, 2, 4)
PLAIN = {"TARGET_EPSILON": 0.0, "MIRROR": False}


def drawn(trials):
    """Return the variants that are tried; the first has the notebook's constants."""
    rng = np.random.default_rng(0)
    variants = [{"settings": PLAIN, "loop": {"update_every": 1}}]
    while len(variants) < trials:
        settings = {}
        for name, values in CHOICES.items():
            settings[name] = values[rng.integers(len(values))]
        interval = UPDATE_EVERY[rng.integers(len(UPDATE_EVERY))]
        variant = {"settings": {**PLAIN, **settings}}
        variants.append({**variant, "loop": {"update_every": interval}})
    return variants


def run(job):
    """Train one variant with one seed."""
    started = time.perf_counter()
    return job, {**do(job), "took": time.perf_counter() - started}


def measured(variants, seeds, steps, path, at_a_time):
    """Return the outcomes of each variant, seed by seed; do what is missing."""
    size = {"steps": steps, "every": 250}
    jobs = [[{**v, "seed": seed, **size} for seed in seeds] for v in variants]
    done = {}
    for record in read_lines(path):
        done[json.dumps(record["job"], sort_keys=True)] = record
    keys = {json.dumps(job, sort_keys=True): job for mine in jobs for job in mine}
    todo = [job for key, job in keys.items() if key not in done]
    print(f"{len(todo)} of {len(keys)} runs to do", flush=True)
    pool = joblib.Parallel(at_a_time, return_as="generator_unordered")
    for job, outcome in pool(joblib.delayed(run)(job) for job in todo):
        record = {"job": job, **outcome}
        done[json.dumps(job, sort_keys=True)] = record
        add_line(path, record)
        words = (f"{outcome['took']:.0f} s", outcome["held"], outcome["first_pass"])
        print(*words, json.dumps(job), flush=True)
    return [[done[json.dumps(job, sort_keys=True)] for job in mine] for mine in jobs]


def rank(outcomes, steps):
    """Return what a variant is ranked by: the smallest is the best."""
    held = np.mean([outcome["held"] for outcome in outcomes])
    first = np.mean([outcome["first_pass"] or 2 * steps for outcome in outcomes])
    return -held, first


def best_of(variants, seeds, steps, path, at_a_time):
    """Return the variants, best first, each with what it is ranked by."""
    outcomes = measured(variants, seeds, steps, path, at_a_time)
    ranks = [rank(mine, steps) for mine in outcomes]
    return sorted(zip(ranks, variants, strict=True), key=lambda pair: pair[0])


def main():
    """Search, and write what is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trials", type=int, default=36)
    add("--finalists", type=int, default=4, help="trials that get more seeds")
    add("--seeds", type=int, default=8, help="seeds of a finalist")
    add("--steps", type=int, default=10_000)
    add("--jobs", type=int, default=2, help="runs at a time")
    add("--results", type=Path, default=RESULTS, help="folder of search.jsonl")
    add("--settings", type=Path, default=SETTINGS_FILE, help="file to write to")
    arguments = parser.parse_args()
    path = arguments.results / "search.jsonl"
    common = (arguments.steps, path, arguments.jobs)
    few = range(FIRST_SEED, FIRST_SEED + 2)
    many = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    ranked = best_of(drawn(arguments.trials), few, *common)
    finalists = [variant for _, variant in ranked[: arguments.finalists]]
    (minus_held, first), best = best_of(finalists, many, *common)[0]
    settings = json.loads(arguments.settings.read_text(encoding="utf-8"))
    settings["contestants"]["plain_tuned"] |= best
    settings["search"] = {
        "trials": arguments.trials,
        "finalists": arguments.finalists,
        "seeds": arguments.seeds,
        "held": round(-minus_held, 3),
        "first_pass": round(first),
    }
    arguments.settings.write_text(dumps(settings), encoding="utf-8")
    print("best:", json.dumps(best), settings["search"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
