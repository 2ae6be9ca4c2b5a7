"""Results of all runs, as results/latest.json has them."""

import os
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from scipy import stats

from .common import PASS, SETTINGS

PACKAGES = {
    "torch",
    "numpy",
    "gym",
    "gymnasium",
    "stable_baselines3",
    "sbx-rl",
    "jax",
    "scipy",
}
NEVER = 1e18  # stands for "not within the budget" where numbers are sorted
EARLY = 10_000  # steps of the notebook's own budget
OUTWARD = ("less than half", "exactly half", "half to 85 %", "85 % or more")
ROW = ("first_pass", "held", "end", "agreement", "ratio")


def processor():
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name = text.partition("model name\t: ")[2].partition("\n")[0]
    return name or platform.processor() or platform.machine()


def machine():
    """Return this machine's processor, its cores and the versions that were used."""
    found = {"processor": processor(), "cores": os.cpu_count()}
    found["python"] = sys.version.split()[0]
    for package in distributions():
        if package.name in PACKAGES:
            found[package.name] = package.version
    return found


def iqm(values, axis=-1):
    """Return the interquartile mean."""
    return stats.trim_mean(values, 0.25, axis=axis)


def interval(statistic, *samples):
    """Return the statistic of samples and its bootstrap interval, 95 %.

    Each sample is drawn from by itself (stratified). One value has no interval.
    """
    value = float(statistic(*map(np.array, samples), axis=-1))
    if min(map(len, samples)) < 2:
        return [value, None, None]
    drawn = stats.bootstrap(
        samples, statistic, paired=False, vectorized=True, method="percentile", rng=0
    )
    low, high = drawn.confidence_interval
    return [value, float(low), float(high)]


def quantiles(values):
    """Return the 10 %, 50 %, 90 % quantile and the largest; None: not in the budget."""
    kept = [NEVER if value is None else value for value in values]
    found = np.percentile(kept, [10, 50, 90, 100]).tolist()
    return [None if value > NEVER / 1e6 else value for value in found]


def held(curve, budget):
    """Return the share of evaluations in the second half of a budget that pass."""
    means = [row[3] for row in curve if budget / 2 < row[0] <= budget]
    return float(np.mean(np.array(means) >= PASS)) if means else None


def held_early(curve, budget):
    """Return the same for the notebook's own budget, or for a shorter run."""
    return held(curve, min(EARLY, budget, curve[-1][0]))


def solved_at(run, name, budget):
    """Return the steps, updates or seconds to solved; None: not within the budget."""
    within = run["steps"] is not None and run["steps"] <= budget
    return run[name] if within else None


def at_most(run, name, budget):
    """Return the same, but the whole budget's where it is not solved within it."""
    solved = solved_at(run, name, budget)
    if solved is not None:
        return solved
    last = [row for row in run["curve"] if row[0] <= budget][-1]
    return last[("steps", "seconds", "updates").index(name)]


def summarise(runs, others, budget, planned):
    """Return the summary of a contestant.

    `others` are runs of other seeds with a smaller budget: they count in what is said
    about all seeds, not in times, and not in what is held.
    """
    every = runs + others
    shares = [held(run["curve"], budget) for run in runs]
    found = {
        "seeds": len(every),
        "solved": sum(solved_at(run, "steps", budget) is not None for run in every),
        "steadiness_seeds": len(runs),
        "planned_seeds": planned,
        "held": shares,
        "held_early": [held_early(run["curve"], budget) for run in every],
        "held_iqm": interval(iqm, shares),
        "steadiness_mean": float(np.mean(shares)),
        "steadiness_worst": min(shares),
    }
    for name in ("steps", "updates", "seconds"):
        solved = [solved_at(run, name, budget) for run in runs]
        found[f"{name}_p10_p50_p90_max"] = quantiles(solved)
        capped = [at_most(run, name, budget) for run in runs]
        found[f"{name}_iqm"] = interval(iqm, capped)
    for name in ("us_per_step", "peak_mb"):
        found[name] = float(np.median([run[name] for run in runs]))
    found["compile_seconds"] = runs[0]["compile_seconds"]
    for name in ("worst_at_solved", "end_mean", "end_worst"):
        values = [run[name] for run in every if name in run]
        found[f"lowest_{name}"] = min(values, default=None)
    found["curve"] = band([run["curve"] for run in runs], budget)
    longest = runs[0]["job"].get("longest", 0)
    if longest > budget:
        found["own"] = at_own_length(runs, longest)
    return found


def band(curves, budget):
    """Return the interquartile mean of curves and the middle half of the seeds."""
    rows = [[row for row in curve if row[0] <= budget] for curve in curves]
    steps = [row[0] for row in rows[0]]
    means = np.array([[row[3] for row in one] for one in rows])
    low, high = np.percentile(means, [25, 75], axis=0)
    updates = np.median([[row[2] for row in one] for one in rows], axis=0)
    return {
        "steps": steps,
        "updates": updates.astype(int).tolist(),
        "iqm": iqm(means, axis=0).round(1).tolist(),
        "low": low.round(1).tolist(),
        "high": high.round(1).tolist(),
    }


def at_own_length(runs, longest):
    """Return what came of runs with a longer budget of their own."""
    solved = [solved_at(run, "steps", longest) for run in runs]
    whole = [run["curve"] for run in runs if run["curve"][-1][0] == longest]
    return {
        "steps": longest,
        "seeds": len(runs),
        "solved": sum(step is not None for step in solved),
        "steps_p10_p50_p90_max": quantiles(solved),
        "held": [held(curve, longest) for curve in whole],
        "last_means": [curve[-1][3] for curve in whole],
    }


def ratio_of_medians(slow, fast, budget):
    """Return the ratio of the median seconds to solved, with its interval."""

    def ratio(slow, fast, axis):
        return np.median(slow, axis=axis) / np.median(fast, axis=axis)

    samples = [[at_most(r, "seconds", budget) for r in runs] for runs in (slow, fast)]
    value, low, high = interval(ratio, *samples)
    unsolved = sum(solved_at(run, "seconds", budget) is None for run in slow)
    return {
        "ratio": value,
        "low": low,
        "high": high,
        "at_least": bool(2 * unsolved >= len(slow)),
    }


def row_of(runs, variant, size):
    """Return the figures of one variant, a list over seeds for each."""
    row = {name: [run.get(name) for run in runs] for name in ROW}
    row["held_iqm"] = interval(iqm, row["held"]) if runs else None
    row["flips"] = [np.mean(run["flips"]).round(3) for run in runs if "flips" in run]
    row["planned_seeds"] = min(variant.get("seeds", 10), size["variant_seeds"])
    row["steps"] = size["steps"] * variant.get("times", 1)
    return row


def outward_label(share):
    """Return in words on how much of the track the push is outward."""
    if share < 0.5:
        return OUTWARD[0]
    if share == 0.5:
        return OUTWARD[1]
    if share < 0.85:
        return OUTWARD[2]
    return OUTWARD[3]


def is_larger(values, chosen):
    """Return whether the chosen values have the larger mean, in a list.

    The list is empty where none or all are chosen.
    """
    if chosen.all() or not chosen.any():
        return []
    return [bool(values[chosen].mean() > values[~chosen].mean())]


def moments(runs):
    """Count evaluations and passes by the share of the track with an outward push.

    Also the share of places that change their push, where the verdict changes from one
    evaluation to the next and where it does not. `outward_within` and `flips_within`
    say in how many single runs, of how many, the same holds.
    """
    counts = {label: [0, 0] for label in OUTWARD}
    flips = {"same verdict": [], "other verdict": []}
    outward_within, flips_within = [], []
    for run in runs:
        if "outward" not in run:
            continue
        passes = run["passes"]
        for share, passed in zip(run["outward"], passes, strict=True):
            count = counts[outward_label(share)]
            count[0] += passed
            count[1] += 1
        passed = np.array(passes)
        outward = np.array(run["outward"])
        outward_within += is_larger(outward, passed)
        changes = passed[1:] != passed[:-1]
        moved = np.array(run["flips"])
        flips["other verdict"] += moved[changes].tolist()
        flips["same verdict"] += moved[~changes].tolist()
        flips_within += is_larger(moved, changes)
    shares = {name: float(np.mean(s)) if s else None for name, s in flips.items()}
    return {
        "passed_of": counts,
        "flips": shares,
        "outward_within": [sum(outward_within), len(outward_within)],
        "flips_within": [sum(flips_within), len(flips_within)],
    }


def results_of(runs, plan, size):
    """Return all results; `plan` has the keys of each part's jobs, by row."""
    budget = size["budget"]
    results = {
        "budget": budget,
        "variant_steps": size["steps"],
        "all_seeds": size["all_seeds"],
        "machines": sorted({run["machine"] for run in runs.values()}),
        "machine": machine(),
        "search": SETTINGS["search"],
    }
    floors = [run for run in runs.values() if "blocks" in run["job"]]
    results["floor"] = floors[0] if floors else None
    named = {}
    results["summary"] = {}
    for name, spec in SETTINGS["contestants"].items():
        mine = [runs[key] for key in plan["comparison"].get(name, ()) if key in runs]
        others = [runs[key] for key in plan["seeds"].get(name, ()) if key in runs]
        planned = min(spec.get("seeds", 10), size["contestant_seeds"])
        if mine:
            named[name] = mine
            results["summary"][name] = summarise(mine, others, budget, planned)
    own = named.pop("notebook", None)
    results["time_ratios"] = {
        name: ratio_of_medians(mine, own, budget) for name, mine in named.items() if own
    }
    for part, variants in SETTINGS["variants"].items():
        results[part] = {}
        for label, variant in variants.items():
            mine = [runs[key] for key in plan[part].get(label, ()) if key in runs]
            results[part][label] = row_of(mine, variant, size)
    results["moments"] = {}
    for label in ("0.0", "0.7"):
        mine = [runs[key] for key in plan["dose"].get(label, ()) if key in runs]
        results["moments"][label] = moments(mine)
    results["seconds_by_part"] = {}
    counted = set()
    for part, rows in plan.items():
        keys = {key for made in rows.values() for key in made if key in runs}
        took = sum(runs[key]["took"] for key in keys - counted)
        results["seconds_by_part"][part] = round(took)
        counted |= keys
    return results
