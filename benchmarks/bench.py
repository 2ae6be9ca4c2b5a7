"""Measure all that benchmarks/README.md shows: python -m benchmarks.bench

Every finished run is saved at once in NAME.jsonl; started again, this goes on from
there. The step against its floor is measured alone. All other runs have one thread
each, --jobs of them at a time. They are ordered by seed, so that an interruption leaves
something of each row. A run that fails is reported, and the script ends with code 1.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import joblib

from . import report
from .common import HERE, RESULTS, SETTINGS, add_line, dumps, lesson, read_lines
from .runs import do
from .summary import processor, results_of

PARTS = ("floor", "comparison", "seeds", "added", "dose", "removed", "acrobot")
TIMED = ("floor", "comparison")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
NOT_IN_A_JOB = ("title", "tuned", "seeds", "times", "every")
NOT_CONSTANTS = ("SEED", "MAX_STEPS", "EVAL_EVERY")


def key_of(job):
    """Return a job as text."""
    return json.dumps(job, sort_keys=True)


def job_of(spec, seed, steps):
    """Return a job: what settings.json says, a seed and a number of steps."""
    kept = {name: value for name, value in spec.items() if name not in NOT_IN_A_JOB}
    return {**kept, "seed": seed, "steps": steps}


def contestant_job(spec, seed, size):
    """Return the job of a contestant and a seed."""
    job = job_of(spec, seed, size["budget"])
    if "longest" in job:
        job["longest"] = max(size["budget"], min(job["longest"], size["longest"]))
    return job


def variant_job(variant, seed, size):
    """Return the job of a variant and a seed."""
    times = variant.get("times", 1)
    job = job_of(variant, seed, size["steps"] * times)
    return {**job, "every": variant.get("every", 250 * times)}


def available(spec):
    """Return whether what a contestant needs is installed."""
    return spec["code"] != "sbx" or importlib.util.find_spec("sbx") is not None


def plan(size):
    """Return the jobs of each part: part → row → jobs, a job for each seed."""
    jobs = {"floor": {"floor": [{"blocks": size["blocks"]}]}, "comparison": {}}
    for name, spec in SETTINGS["contestants"].items():
        seeds = range(min(spec.get("seeds", 10), size["contestant_seeds"]))
        made = [contestant_job(spec, seed, size) for seed in seeds]
        jobs["comparison"][name] = made if available(spec) else []
    own = SETTINGS["contestants"]["notebook"]
    others = range(size["contestant_seeds"], size["all_seeds"])
    made = [job_of(own, seed, size["steps"]) for seed in others]
    jobs["seeds"] = {"notebook": made}
    for part, variants in SETTINGS["variants"].items():
        jobs[part] = {}
        for label, variant in variants.items():
            seeds = range(min(variant.get("seeds", 10), size["variant_seeds"]))
            made = [variant_job(variant, seed, size) for seed in seeds]
            jobs[part][label] = made
    return jobs


def in_turn(rows):
    """Return the jobs of some rows in the order of their seeds, none of them twice."""
    jobs = {}
    longest = max(len(made) for made in rows.values())
    for i in range(longest):
        for made in rows.values():
            for job in made[i : i + 1]:
                jobs[key_of(job)] = job
    return jobs


def attempt(job, apart):
    """Do a job, in a process of its own if `apart`; return (job, outcome, error)."""
    started = time.perf_counter()
    try:
        outcome = do_apart(job) if apart else do(job)
    except Exception:
        return job, None, traceback.format_exc()
    return job, {**outcome, "took": time.perf_counter() - started}, None


def do_apart(job):
    """Do a job in a process of its own and return what came of it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", "--one", json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ONE_THREAD,
        cwd=HERE.parent,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return json.loads(done.stdout.splitlines()[-1])


def saved(path, constants):
    """Return the runs in a file that were made with these constants, by job."""
    runs = {}
    for run in read_lines(path):
        if run["constants"] == constants:
            runs[key_of(run["job"])] = run
    return runs


def work_through(part, jobs, runs, path, constants, at_a_time):
    """Do the jobs of a part that are missing; return how many failed."""
    apart = part in TIMED
    todo = [job for key, job in jobs.items() if key not in runs]
    print(f"{part}: {len(todo)} of {len(jobs)} runs to do", flush=True)
    pool = joblib.Parallel(
        1 if part == "floor" else at_a_time,
        return_as="generator_unordered",
        prefer="threads" if apart else "processes",
    )
    failed = 0
    started = time.perf_counter()
    for job, outcome, error in pool(
        joblib.delayed(attempt)(job, apart) for job in todo
    ):
        if error:
            failed += 1
            print(f"{key_of(job)} failed:\n{error}", file=sys.stderr, flush=True)
            continue
        run = {"job": job, "constants": constants, "machine": processor(), **outcome}
        runs[key_of(job)] = run
        add_line(path, run)
        print(
            time.strftime("%H:%M:%S"), f"{run['took']:.0f} s", key_of(job), flush=True
        )
    minutes = (time.perf_counter() - started) / 60
    print(f"{part}: {minutes:.1f} minutes, {failed} failed", flush=True)
    return failed


def arguments_of(words=None):
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--part", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    add("--jobs", type=int, default=2, help="runs at a time, default 2")
    add("--size", choices=SETTINGS["sizes"], default="full", help="default: full")
    add(
        "--quick",
        action="store_const",
        const="quick",
        dest="size",
        help="a few minutes",
    )
    add("--results", type=Path, default=RESULTS, help="folder for what is measured")
    add("--one", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main():
    """Measure what is missing, then write the results and the report."""
    arguments = arguments_of()
    if arguments.one:
        print(json.dumps(do(arguments.one)))
        return 0
    size = SETTINGS["sizes"][arguments.size]
    name = "latest" if arguments.size == "full" else arguments.size
    path = arguments.results / f"{name}.jsonl"
    jobs = plan(size)
    constants = asdict(lesson().settings)
    for unused in NOT_CONSTANTS:
        del constants[unused]
    runs = saved(path, constants)
    failed = 0
    try:
        for part in arguments.part:
            todo = in_turn(jobs[part])
            failed += work_through(part, todo, runs, path, constants, arguments.jobs)
    finally:  # what there is, if it is interrupted too
        keys = {
            part: {row: [key_of(job) for job in made] for row, made in rows.items()}
            for part, rows in jobs.items()
        }
        wanted = {
            key for rows in keys.values() for made in rows.values() for key in made
        }
        kept = {key: run for key, run in runs.items() if key in wanted}
        results = {"constants": constants, "at_a_time": arguments.jobs}
        results |= results_of(kept, keys, size)
        path.with_suffix(".json").write_text(dumps(results), encoding="utf-8")
        report.write(name, arguments.results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
