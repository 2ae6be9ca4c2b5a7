"""Measure all that benchmarks/README.md shows: python -m benchmarks.bench

Every finished run is saved at once in results/runs.jsonl; started again, this goes on
from there, on another machine as well. Runs that other code made are done again. They
are ordered by seed, so that an interruption leaves something of each row. A run that
fails is reported, and the script ends with code 1.
"""

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from . import exchange, report, run
from .rows import RESULTS, TABLES, all_rows, shortened

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def missing(rows, runs):
    """Return the rows and seeds without a valid run, in the order of the seeds."""
    jobs = []
    for row in rows:
        done = {one["seed"] for one in run.valid(runs, row)}
        jobs += [(row, seed) for seed in row.seeds if seed not in done]
    return sorted(jobs, key=lambda job: job[1])


def work_through(jobs, path, at_a_time):
    """Do runs, each in a process that does one at a time; return how many failed."""
    print(f"{len(jobs)} runs to do", flush=True)
    os.environ.update(ONE_THREAD)
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_a_time, mp_context=context) as pool:
        waiting = {pool.submit(run.do, *job): job for job in jobs}
        for future in as_completed(waiting):
            row, seed = waiting[future]
            try:
                found = future.result()
            except Exception:
                failed += 1
                print(f"{row.label}, seed {seed} failed:", file=sys.stderr)
                traceback.print_exc()
                continue
            run.add(found, path)
            figures = [found.get(name) for name in ("first_pass", "share", "far")]
            print(time.strftime("%H:%M:%S"), row.label, seed, *figures, flush=True)
    return failed


def arguments_of(words=None):
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="one short run of each row, in minutes")
    add("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    add(
        "--rows", nargs="+", choices=all_rows(), metavar="LABEL", help="these rows only"
    )
    add("--seeds", type=int, help="at most so many seeds of each row; default: all")
    add("--jobs", type=int, default=2, help="runs at a time, default 2")
    add("--saved", type=Path, default=run.SAVED, help="file of the runs")
    return parser.parse_args(words)


def chosen(arguments):
    """Return the rows that the command line asks for."""
    labels = {row.label for name in arguments.tables for row in TABLES[name]}
    if arguments.rows:
        labels = set(arguments.rows)
    rows = [row for label, row in all_rows().items() if label in labels]
    if arguments.quick:
        rows = [shortened(row) for row in rows]
    return [replace(row, seeds=row.seeds[: arguments.seeds]) for row in rows]


def main():
    """Measure what is missing, then write the report."""
    arguments = arguments_of()
    if arguments.quick and arguments.saved == run.SAVED:
        arguments.saved = RESULTS / "quick.jsonl"
    rows = chosen(arguments)
    jobs = missing(rows, run.load(arguments.saved))
    failed = work_through(jobs, arguments.saved, arguments.jobs)
    if arguments.quick:
        print(report.quick_look(arguments.saved))
    elif rows == list(all_rows().values()):
        exchange.go_on()
        print(report.write())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
