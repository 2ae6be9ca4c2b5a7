"""Compare the notebook's DQN with the original tutorial and with Stable-Baselines3.

Usage: python benchmarks/bench.py [--seeds 3] [--notebook-seeds 5] [--jobs 2] [--name quick]

Every (implementation, seed) runs in a process of its own with one torch thread, the implementations
in turn, so that a machine that slows down hits all alike. All are evaluated in the same way: every
500 steps the greedy policy plays the notebook's 20 validation starts, and 20 of its held-out starts
that decide nothing. A run counts as solved at the first average of 475 on the validation starts,
and only if the network of that moment also averages 475 on 100 held-out starts. Evaluation is not
part of the times. The original tutorial's runs end when they are solved; the others go on to the
end of their budget, which shows how steady they are.
"""

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

import report  # noqa: E402

import lesson as loader  # noqa: E402

BUDGET = {"notebook": 20_000, "original": 100_000, "sb3": 50_000}
EVERY, SOLVED_AT = 500, 475.0


def run_one(name, seed, steps, to_the_end):
    """Train one contestant with one seed; return its figures as a dictionary."""
    from contestants import CONTESTANTS

    torch.set_num_threads(1)
    lesson = loader.load(DEVICE="cpu")
    cpu, curve = torch.device("cpu"), []
    found = {"solved": False, "steps_to_solved": None, "seconds_to_solved": None}

    def judge(done, seconds, net):
        policy = lesson.greedy_policy(net, cpu)
        validation = lesson.evaluate(policy, lesson.VALIDATION_STARTS, "CartPole-v1").mean()
        unseen = lesson.evaluate(policy, lesson.HELD_OUT_STARTS[:20], "CartPole-v1").mean()
        curve.append([done, seconds, float(validation), float(unseen)])
        if validation >= SOLVED_AT and not found["solved"]:
            held_out = lesson.evaluate(policy, lesson.HELD_OUT_STARTS, "CartPole-v1").mean()
            if held_out >= SOLVED_AT:
                found.update(solved=True, steps_to_solved=done, seconds_to_solved=seconds)
                found["held_out_mean"] = float(held_out)
        return found["solved"] and not to_the_end

    CONTESTANTS[name](lesson, seed).train(steps, EVERY, judge)
    after = [row[3] >= SOLVED_AT for row in curve if row[0] >= (found["steps_to_solved"] or 1e9)]
    return {
        "implementation": name,
        "seed": seed,
        **found,
        "steadiness": float(np.mean(after)) if after and to_the_end else None,
        "us_per_step": 1e6 * curve[-1][1] / curve[-1][0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "curve": curve,
    }


def in_process(name, seed, to_the_end):
    """Run `run_one` in a fresh process and return what it found."""
    command = [sys.executable, __file__, "--one", name, "--seed", str(seed)]
    command += ["--to-the-end"] if to_the_end else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{name}, seed {seed} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def ratio_of_medians(slow, fast, rng, draws=10_000):
    """Return the ratio of medians and its bootstrap 95 % interval."""
    slow, fast = np.array(slow), np.array(fast)
    picks = [np.median(rng.choice(values, (draws, len(values))), axis=1) for values in (slow, fast)]
    low, high = np.percentile(picks[0] / picks[1], [2.5, 97.5])
    ratio = float(np.median(slow) / np.median(fast))
    return {"ratio": ratio, "low": float(low), "high": float(high)}


def machine():
    """Return what the figures depend on."""
    info = Path("/proc/cpuinfo")
    models = [line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line]
    packages = ("torch", "gym", "gymnasium", "numpy", "stable-baselines3")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def quantiles(runs, key):
    """Return the 10th, 50th, 90th and 100th percentile of one figure over runs."""
    return np.percentile([run[key] for run in runs], [10, 50, 90, 100]).tolist() if runs else None


def summarise(runs):
    """Return the summary per implementation and the ratios of times."""
    rng, summary, seconds = np.random.default_rng(0), {}, {}
    for name in report.NAMES:
        mine = [run for run in runs if run["implementation"] == name]
        solved = [run for run in mine if run["solved"]]
        steady = [run["steadiness"] for run in solved if run["steadiness"] is not None]
        seconds[name] = [run["seconds_to_solved"] for run in solved]
        summary[name] = {
            "seeds": len(mine),
            "solved": len(solved),
            "steps_p10_p50_p90_max": quantiles(solved, "steps_to_solved"),
            "seconds_p10_p50_p90_max": quantiles(solved, "seconds_to_solved"),
            "steadiness_median": float(np.median(steady)) if steady else None,
            "steadiness_min": min(steady) if steady else None,
            "us_per_step": float(np.median([run["us_per_step"] for run in mine])),
            "peak_mb": float(np.median([run["peak_mb"] for run in mine])),
        }
    ratios = {
        name: ratio_of_medians(seconds[name], seconds["notebook"], rng)
        for name in ("original", "sb3")
    }
    return summary, ratios


def print_table(summary, ratios):
    """Print the comparison as the README shows it, and the ratios of times."""
    print("\n".join(["", *report.COMPARISON_HEAD, *report.comparison_rows(summary)]))
    for name, r in ratios.items():
        print(f"Time to solved, {report.NAMES[name]} / this notebook: {r['ratio']:.0f}", end=" ")
        print(f"(95 % interval {r['low']:.0f} to {r['high']:.0f})")


def plot(runs, path):
    """Draw median and band of the validation curves over steps and over seconds."""
    lesson = loader.load(DEVICE="cpu")
    figure, axes = lesson.new_figure(height=3.6, columns=2)
    for name, color in zip(report.NAMES, (lesson.ORANGE, lesson.BLUE, lesson.GREEN), strict=True):
        curves = [np.array(run["curve"]) for run in runs if run["implementation"] == name]
        for ax, column in zip(axes, (0, 1), strict=True):
            end = max(curve[-1, column] for curve in curves)
            grid = np.geomspace(500 if column == 0 else 0.3, end, 200)
            held = [np.interp(grid, c[:, column], c[:, 2]) for c in curves]
            low, middle, high = np.percentile(held, [10, 50, 90], axis=0)
            ax.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
            ax.plot(grid, middle, color=color, linewidth=2, label=report.NAMES[name])
    axes[0].set(xscale="log", xlabel="environment steps", ylabel="greedy duration (steps)")
    axes[1].set(xscale="log", xlabel="seconds of training")
    figure.subplots_adjust(bottom=0.28)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.savefig(path)


def main():
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of the other implementations")
    parser.add_argument("--notebook-seeds", type=int, default=5, help="of the notebook")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--name", default="quick", help="of the result files; latest is tracked")
    parser.add_argument("--one", choices=list(BUDGET), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--to-the-end", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        found = run_one(arguments.one, arguments.seed, BUDGET[arguments.one], arguments.to_the_end)
        print(json.dumps(found))
        return
    counts = {name: arguments.seeds for name in BUDGET} | {"notebook": arguments.notebook_seeds}
    todo = [
        (name, seed, name != "original")
        for seed in range(max(counts.values()))
        for name in BUDGET
        if seed < counts[name]
    ]
    runs, started = [], time.monotonic()
    parallel = joblib.Parallel(n_jobs=arguments.jobs, backend="threading", return_as="generator")
    for run in parallel(joblib.delayed(in_process)(*job) for job in todo):
        runs.append(run)
        print(
            f"{time.monotonic() - started:5.0f} s  {run['implementation']:9s} seed {run['seed']:2d}"
            f"  solved at step {run['steps_to_solved']}  steadiness {run['steadiness']}",
            flush=True,
        )
    summary, ratios = summarise(runs)
    print_table(summary, ratios)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    details = {
        "machine": machine(),
        "jobs": arguments.jobs,
        "summary": summary,
        "time_ratios": ratios,
        "runs": runs,
    }
    (results / f"{arguments.name}.json").write_text(json.dumps(details, indent=1) + "\n")
    with (results / f"{arguments.name}.csv").open("w", newline="") as file:
        fields = [key for key in runs[0] if key not in ("curve", "held_out_mean")]
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)
    plot(runs, results / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
