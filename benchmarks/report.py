"""Write the tables of README.md from the saved runs: python -m benchmarks.report

A table stands between two markers in README.md; what is between them is replaced. The
sentences around them are written by hand.
"""

import json
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from . import gaps, run
from .rows import CONTEST, DOSE, EPSILONS, OWN_LENGTH, PLAIN, TABLES, all_rows

README = run.HERE / "README.md"
COMPARED = run.RESULTS / "contest.json"
MARKED = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
ORANGE, BLUE = "#D55E00", "#0072B2"  # Okabe and Ito


def share(value):
    """Return a share as text."""
    return f"{value:.2f}"


def count(value):
    """Return a number of steps as text; infinity is "never"."""
    return "never" if np.isinf(value) else f"{value:,.0f}"


def rounded(value):
    """Return a number as text: 0.41, 4.1, 41, 412."""
    decimals = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:,.{decimals}f}"


def known(runs, name):
    """Return a figure of runs, without those in which it was not measured."""
    return [v for one in runs if (v := getattr(one, name)) is not None]


def line(cells):
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def table(header, rows):
    """Return a Markdown table."""
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])


def interval(values):
    """Return the 95 % bootstrap interval of a mean over seeds."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, size=(10_000, len(values))).mean(axis=1)
    return np.percentile(draws, [2.5, 97.5])


def pairs(runs):
    """Return the figures of a row's runs as text: a middle and, in brackets, the worst.

    The middle is the mean for shares of passes and the median for the others.
    """
    found = {}
    shares = known(runs, "share")
    if shares:
        found["share"] = f"{share(np.mean(shares))} ({share(min(shares))})"
        first = known(runs, "first_pass")
        found["first_pass"] = f"{count(np.median(first))} ({count(max(first))})"
    for name in ("far", "wide", "best_far"):
        values = known(runs, name)
        if values:
            found[name] = f"{share(np.median(values))} ({share(min(values))})"
    for name in ("held_out", "best"):
        values = known(runs, name)
        if values:
            found[name] = f"{np.median(values):.0f} ({min(values):.0f})"
    return found


def cell(runs, name):
    """Return a figure of runs; it says if it is known of some of the seeds only."""
    found = pairs(runs).get(name, "–")
    seeds = len(known(runs, name))
    return found if seeds in (0, len(runs)) else f"{found}, {seeds} seeds"


def of_rows(rows, runs):
    """Return the table of some rows."""
    header = [
        "",
        "seeds",
        "share of passes: mean (worst)",
        "95 %",
        "first pass, step: median (worst)",
        "far: median (worst)",
        "wide: median (worst)",
    ]
    lines = []
    for row in rows:
        mine = run.valid(runs, row)
        if not mine:
            lines.append([row.label, "0", *["–"] * 5])
            continue
        low, high = interval(known(mine, "share"))
        seeds = f"{len(mine)}"
        if len(mine) < len(row.seeds):
            seeds += f" of {len(row.seeds)}"
        figures = [cell(mine, name) for name in ("first_pass", "far", "wide")]
        spread = f"{share(low)} to {share(high)}"
        lines.append([row.label, seeds, pairs(mine)["share"], spread, *figures])
    return table(header, lines)


def checkpoints(rows, runs):
    """Return the table of the last weights and of the best checkpoint."""
    header = [
        "",
        "seeds",
        "last weights, held-out mean: median (worst)",
        "best checkpoint, held-out mean",
        "last weights, far: median (worst)",
        "best checkpoint, far",
        "last weights, wide",
    ]
    lines = []
    for row in rows:
        mine = run.valid(runs, row)
        names = ("held_out", "best", "far", "best_far", "wide")
        figures = [pairs(mine).get(name, "–") for name in names]
        lines.append([row.label, str(len(mine)), *figures])
    return table(header, lines)


def summary(row, runs):
    """Return what the comparison says of one contestant."""
    solved = known(runs, "solved")
    seconds = [one.seconds or np.inf for one in runs]
    return {
        "seeds": len(runs),
        "shares": known(runs, "share"),
        "solved": int(np.isfinite(solved).sum()),
        "steps": [np.median(solved), max(solved)],
        "seconds": [np.median(seconds), max(seconds)],
        "us_per_step": np.median(known(runs, "us_per_step")),
    }
