"""Measure all that benchmarks/README.md shows: python benchmarks/bench.py [--quick] [--jobs 2]

Every finished run is saved at once in results/NAME.jsonl; started again, this goes on from there.
First the step against its floor, alone; then all runs, --jobs at a time with one thread each, the
implementations in turn, so that a machine that slows down hits all alike.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import joblib
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import floor  # noqa: E402
import report  # noqa: E402
from contestants import CONTESTANTS, EVERY, use_double_dqn  # noqa: E402

from load_definitions import load  # noqa: E402

CONSTANTS = ("BATCH_SIZE", "GAMMA", "EPS_START", "EPS_END", "EPS_DECAY", "TAU", "LR", "MEMORY_SIZE")
PACKAGES = {"torch", "numpy", "gym", "gymnasium", "stable_baselines3", "sbx-rl", "jax"}
THREADS = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def compare(lesson, name, seed, steps):
    """Train one contestant; return its figures and evaluations (step, seconds, mean, worst)."""
    curve, found = [], {"solved": False, "steps": None, "seconds": None}

    def play(policy, starts):
        durations = lesson.evaluate(policy, starts)
        return float(durations.mean()), float(durations.min())

    def judge(step, seconds, policy, outcome=None):
        outcome = outcome or play(policy, lesson.VALIDATION_STARTS)
        curve.append([step, round(seconds, 5), *map(float, outcome)])
        if outcome[0] >= 475 and not found["solved"]:
            held_out = play(policy, lesson.HELD_OUT_STARTS)
            if held_out[0] >= 475:
                found.update(solved=True, steps=step, seconds=seconds, worst_at_solved=held_out[1])
        if step == steps:
            found["end_mean"], found["end_worst"] = play(policy, lesson.HELD_OUT_STARTS)
        return step >= steps and (found["solved"] or not name.startswith("tutorial"))

    found["compile_seconds"] = CONTESTANTS[name](lesson, seed, steps, judge)
    found["us_per_step"] = 1e6 * curve[-1][1] / curve[-1][0]
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found["peak_mb"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return {**found, "curve": curve}


def vary(lesson, changes, seed, steps):
    """Train the notebook's agent with some settings changed; return what came of it."""
    if changes.get("double"):
        use_double_dqn(lesson)
    options = {key: changes[key] for key in ("scale", "env_id") if key in changes}
    changes = {key: value for key, value in changes.items() if key.isupper()}
    seen, changes = [], changes | {"SEED": seed, "MAX_STEPS": steps, "EVAL_EVERY": EVERY}
    with contextlib.suppress(FloatingPointError):  # diverged: from there on it doesn't pass
        lesson.train(lesson.changed(lesson.settings, **changes), show=seen.append, **options)
    run, (gaps, errors) = seen[-1], lesson.gap_and_error(seen[-1])
    held = sum(float(e[1] >= run.threshold) for e in run.evaluations if e[0] > steps / 2)
    found = {"first_pass": (lesson.first_pass(run) or [None])[0], "held": 2 * EVERY * held / steps}
    found |= {"gap": float(np.median(gaps)), "error": float(np.sqrt(np.mean(np.square(errors))))}
    return {**found, "undecided": float(np.mean(errors > gaps)), "end": run.evaluations[-1][1]}


def do(job):
    """Do one job in this process; return the job and what came of it."""
    torch.set_num_threads(1)
    function = vary if "changes" in job else compare if "name" in job else floor.measure
    return job, function(load(DEVICE="cpu"), **job)


def do_apart(job):
    """Do one job in a process of its own; return the job and what came of it, None if it fails."""
    command, threads = [sys.executable, __file__, "--one", json.dumps(job)], os.environ | THREADS
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=threads)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    return job, print(f"{job} failed:\n{done.stderr[-1500:]}", file=sys.stderr)


def plan(quick):
    """Return the jobs, in the order in which they are done, with the budgets of both kinds."""
    seeds, budget, steps, blocks = (2, 3_000, 2_000, 60) if quick else (10, 50_000, 10_000, 400)
    variants = [v for part in report.SETTINGS["variants"].values() for v in part.values()]
    jobs = [{"blocks": blocks}]
    for seed in range(seeds):
        jobs += [{"name": name, "seed": seed, "steps": budget} for name in CONTESTANTS]
        for changes in () if quick and seed else variants:
            many = 2 * steps if "env_id" in changes else steps
            jobs.append({"changes": changes, "seed": seed, "steps": many})
        others = () if quick else range(seeds + seed, 100, seeds)
        jobs += [{"name": "notebook", "seed": other, "steps": steps} for other in others]
    return {json.dumps(job): job for job in jobs}, budget, steps


def saved(path, jobs, constants):
    """Return the runs of these jobs that a file has, made with the same constants, by job."""
    runs = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # cut off in the middle
            run = json.loads(line)
            if run["constants"] == constants and json.dumps(run["job"]) in jobs:
                runs[json.dumps(run["job"])] = run
    return runs


def summarise(runs):
    """Return the summary of one implementation."""
    budget = max(run["job"]["steps"] for run in runs)
    whole = [run for run in runs if run["job"]["steps"] == budget]
    passing = np.array([[row[2] >= 475 for row in r["curve"] if row[0] <= budget] for r in whole])
    held = passing[:, passing.shape[1] // 2 :].mean(axis=1)
    solved = [run for run in runs if run["solved"]]
    summary = {"seeds": len(runs), "solved": len(solved), "steadiness_seeds": len(whole)}
    for name in ("steps", "seconds") if solved else ():
        quantiles = np.percentile([run[name] for run in solved], [10, 50, 90, 100])
        summary[f"{name}_p10_p50_p90_max"] = quantiles.tolist()
    summary["us_per_step"] = float(np.median([run["us_per_step"] for run in whole]))
    for name in ("worst_at_solved", "end_mean", "end_worst"):
        summary[f"lowest_{name}"] = min((run[name] for run in runs if name in run), default=None)
    summary |= {"steadiness_mean": float(held.mean()), "steadiness_worst": float(held.min())}
    return summary | {name: whole[0][name] for name in ("compile_seconds", "peak_mb")}


def ratio_of_medians(slow, fast):
    """Return the ratio of median seconds to solved (else to the end), its bootstrap interval."""
    both = [np.array([r["seconds"] or r["curve"][-1][1] for r in runs]) for runs in (slow, fast)]
    rng = np.random.default_rng(0)
    draws = [np.median(rng.choice(s, (10_000, len(s))), axis=1) for s in both]
    low, high = np.percentile(draws[0] / draws[1], [2.5, 97.5]).tolist()
    return {"ratio": float(np.median(both[0]) / np.median(both[1])), "low": low, "high": high}


def results_of(runs, constants):
    """Return all results of some runs as the results file has them."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name\t: ")[2]
    machine = {"processor": info.partition("\n")[0], "cores": os.cpu_count()}
    machine |= {d.name: d.version for d in distributions() if d.name in PACKAGES}
    machine["python"] = sys.version.split()[0]
    floors = [run for run in runs if "blocks" in run["job"]]
    results = {"machine": machine, "constants": constants, "floor": (floors or [None])[0]}
    named = {name: [r for r in runs if r["job"].get("name") == name] for name in CONTESTANTS}
    named = {name: mine for name, mine in named.items() if mine}
    results["summary"] = {name: summarise(mine) for name, mine in named.items()}
    own = named.pop("notebook", [])
    results["time_ratios"] = {n: ratio_of_medians(mine, own) for n, mine in named.items() if own}
    for part, many in report.SETTINGS["variants"].items():
        results[part] = {label: {} for label in many}
        for label, changes in many.items():
            mine = [run for run in runs if run["job"].get("changes") == changes]
            for name in ("first_pass", "held", "end", "gap", "error", "undecided"):
                results[part][label][name] = [run.get(name) for run in mine]
    return results


def main():
    """Measure what is missing, then write the results and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few seeds and steps; not tracked")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(do(arguments.one)))
        return
    name = "quick" if arguments.quick else "latest"
    jobs, budget, variant_steps = plan(arguments.quick)
    settings = load(DEVICE="cpu").settings
    constants = {key: getattr(settings, key) for key in CONSTANTS}
    path = HERE / "results" / f"{name}.jsonl"
    runs = saved(path, jobs, constants)
    todo = [job for text, job in jobs.items() if text not in runs]
    try:
        for group in (todo[:1], todo[1:]):  # the floor is the first, and nothing runs beside it
            pool = joblib.Parallel(arguments.jobs, return_as="generator_unordered")
            calls = (joblib.delayed(do if "changes" in job else do_apart)(job) for job in group)
            for job, found in pool(calls):
                if found:
                    run = runs[json.dumps(job)] = {"job": job, "constants": constants, **found}
                    with path.open("a", encoding="utf-8") as file:
                        file.write("\n" + json.dumps(run))
                    found.pop("curve", None)
                    print(time.strftime("%H:%M:%S"), *job.values(), found, flush=True)
    finally:  # what there is, if it is interrupted too
        results = {"budget": budget, "variant_steps": variant_steps, "at_a_time": arguments.jobs}
        results |= results_of(list(runs.values()), constants)
        path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        report.write(name)


if __name__ == "__main__":
    main()
