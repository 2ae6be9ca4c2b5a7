"""Write the tables of README.md from the saved runs: python -m benchmarks.report

A table stands between two markers in README.md; what is between them is replaced. The
sentences around them are written by hand.
"""

import json
import re

import numpy as np
from matplotlib.figure import Figure

from . import gaps, run
from .rows import (
    CAREFUL,
    CONTEST,
    DOSE,
    ELSEWHERE,
    FINAL,
    MASTER,
    OWN_LENGTH,
    PLAIN,
    TABLES,
    TOGETHER,
    UNSCALED,
    shortened,
)

README = run.HERE / "README.md"
COMPARED = run.RESULTS / "contest.json"
MARKED = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
GAP_ROWS = (PLAIN, CAREFUL, FINAL, UNSCALED)
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
    values = [getattr(one, name) for one in runs]
    return [value for value in values if value is not None]


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
    if first:
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
    """Return the table of last weights and best checkpoints, where both are known."""
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
        mine = [one for one in run.valid(runs, row) if one.best is not None]
        names = ("held_out", "best", "far", "best_far", "wide")
        figures = [cell(mine, name) for name in names]
        if mine:
            lines.append([row.label, str(len(mine)), *figures])
    return table(header, lines)


def in_steps(runs):
    """Return shares of passes, and how many runs have a confirmed pass and when."""
    solved = known(runs, "solved")
    return {
        "seeds": len(runs),
        "shares": known(runs, "share"),
        "solved": int(np.isfinite(solved).sum()),
        "steps": [float(np.median(solved)), max(solved)],
    }


def summary(row, runs, own):
    """Return what the comparison says of one contestant; `own` are the notebook's."""
    mine = seconds_of(runs)
    ratio = np.median(mine) / np.median(own)
    rng = np.random.default_rng(0)
    slow = np.median(rng.choice(mine, size=(10_000, len(mine))), axis=1)
    fast = np.median(rng.choice(own, size=(10_000, len(own))), axis=1)
    # a value that occurs, because infinity and a number have no middle
    limits = np.percentile(slow / fast, [2.5, 97.5], method="inverted_cdf")
    return {
        **in_steps(runs),
        "seconds": float(np.median(mine)),
        "ratio": [float(ratio), *limits.tolist()],
        "us_per_step": float(np.median(known(runs, "us_per_step"))),
    }


def seconds_of(runs):
    """Return the seconds to a confirmed pass; infinity where there is none."""
    return [np.inf if one.seconds is None else one.seconds for one in runs]


def comparison(runs):
    """Return the summary of each contestant.

    It is made from the runs if all of them are there with their times. Otherwise it is
    that of an earlier measurement, which contest.json keeps.
    """
    found = {}
    own = seconds_of(run.valid(runs, CONTEST[0]))
    for row in CONTEST:
        mine = run.valid(runs, row)
        timed = known(mine, "us_per_step")
        if len(timed) < len(row.seeds):
            return json.loads(COMPARED.read_text(encoding="utf-8"))
        found[row.label] = summary(row, mine, own)
    return found


def compared(one):
    """Return the figures of a contestant's summary as text."""
    shares, (steps, last) = one["shares"], one["steps"]
    ratio, low, high = one["ratio"]
    return {
        "share": f"{share(np.mean(shares))} ({share(min(shares))})",
        "steps": f"{count(steps)} ({count(last)})",
        "ratio": f"{rounded(ratio)} [{rounded(low)}, {rounded(high)}]",
    }


def at_own_length(row, runs):
    """Return the summary of a row with more steps than the others, or the saved one."""
    mine = run.valid(runs, row)
    if len(mine) < len(row.seeds):
        return json.loads(COMPARED.read_text(encoding="utf-8"))[row.label]
    return in_steps(mine)


def own_length(runs):
    """Return the table of those that have a length of their own."""
    header = ["", "steps", "share of passes, each seed", "confirmed"]
    header.append("steps to a confirmed pass: median (worst)")
    lines = []
    for row in OWN_LENGTH:
        one = at_own_length(row, runs)
        shares = ", ".join(map(share, sorted(one["shares"])))
        solved = f"{one['solved']} of {one['seeds']}"
        steps = f"{count(one['steps'][0])} ({count(one['steps'][1])})"
        lines.append([row.label, count(row.steps), shares, solved, steps])
    return table(header, lines)


def contest(runs):
    """Return the table of the comparison."""
    header = [
        "",
        "share of passes: mean (worst)",
        "confirmed",
        "steps to a confirmed pass: median (worst)",
        "steps, times the notebook's",
        "seconds to it: median",
        "seconds, times the notebook's [95 %]",
        "µs a step",
    ]
    found = comparison(runs)
    own = found[CONTEST[0].label]
    lines = []
    for row in CONTEST:
        one = found[row.label]
        figures = compared(one)
        lines.append(
            [
                row.label,
                figures["share"],
                f"{one['solved']} of {one['seeds']}",
                figures["steps"],
                rounded(one["steps"][0] / own["steps"][0]),
                rounded(one["seconds"]),
                figures["ratio"],
                f"{one['us_per_step']:.0f}",
            ]
        )
    return table(header, lines)


def rank_correlation(one, other):
    """Return Spearman's rank correlation; what is equal shares its mean rank."""
    ranks = []
    for values in (np.array(one), np.array(other)):
        below = (values[None] < values[:, None]).sum(axis=1)
        equal = (values[None] == values[:, None]).sum(axis=1)
        ranks.append(below + (equal - 1) / 2)
    return float(np.corrcoef(ranks)[0, 1])


def gap_sizes(runs):
    """Return the table of the action gap at rest beside the share of passes."""
    header = [
        "",
        "seeds",
        "share of passes: mean (worst)",
        "agreement: median",
        "size ÷ spread: median",
        "rank correlation of share and agreement",
        "of share and size ÷ spread",
    ]
    lines = []
    for row in GAP_ROWS:
        mine = [one for one in run.valid(runs, row) if one.ratio is not None]
        shares = known(mine, "share")
        cells = [row.label, str(len(mine)), pairs(mine).get("share", "–")]
        for name in ("agreement", "ratio"):
            values = known(mine, name)
            cells.append(rounded(np.median(values)) if values else "–")
        for name in ("agreement", "ratio"):
            varies = len(set(shares)) > 2
            found = rank_correlation(shares, known(mine, name)) if varies else None
            cells.append(f"{found:.2f}" if varies else "–")
        lines.append(cells)
    return table(header, lines)


def exchanged(found):
    """Return the table of the exchange of gaps."""
    header = ["", "networks", "pass before", "with the other's gap"]
    header += ["score before: median", "with the other's gap"]
    lines = []
    for name, label in (("plain", PLAIN.label), ("final", FINAL.label)):
        scores = [[one[name], one[f"{name}_given"]] for one in found]
        passes = (np.array(scores) >= 475).sum(axis=0)
        middles = np.median(scores, axis=0)
        cells = [str(len(found)), *map(str, passes), *(f"{m:.0f}" for m in middles)]
        lines.append([label, *cells])
    return table(header, lines)


def all_tables(runs, found):
    """Return the text of each table by its name; `found` are exchanged gaps."""
    names = ("elsewhere", "single", "together", "dose", "taken", "acrobot", "rule")
    texts = {name: of_rows(TABLES[name], runs) for name in names}
    texts["contest"] = contest(runs)
    texts["own length"] = own_length(runs)
    texts["checkpoints"] = checkpoints(
        [PLAIN, CAREFUL, FINAL, MASTER, *CONTEST, *OWN_LENGTH, *ELSEWHERE], runs
    )
    texts["gap sizes"] = gap_sizes(runs)
    texts["gaps exchanged"] = exchanged(found)
    return texts


def filled(text, texts):
    """Return the report with its tables; each table that it names has to exist."""

    def put(match):
        return f"{match[1]}{texts[match[2]]}\n{match[3]}"

    return MARKED.sub(put, text)


def draw_dose(runs, path):
    """Save a figure of the share of passes against ε′, a dot for each seed."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    rng = np.random.default_rng(0)
    looks = {False: (ORANGE, "o", "without mirror"), True: (BLUE, "^", "with mirror")}
    for mirror, (color, marker, label) in looks.items():
        means = {}
        for row in DOSE:
            shares = known(run.valid(runs, row), "share")
            if row.mirror == mirror and shares:
                epsilon = row.targets.get("epsilon", 0.0)
                x = epsilon + rng.uniform(-0.015, 0.015, len(shares))
                ax.scatter(x, shares, color=color, marker=marker, alpha=0.4)
                means[epsilon] = np.mean(shares)
        ax.plot(list(means), list(means.values()), color=color, label=label)
    ax.set(xlabel="ε′", ylabel="share of passes")
    ax.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, metadata={"Software": None})


def draw_beyond(runs, path):
    """Save a figure of the starts survived beyond the clock, a dot for each seed."""
    rows = []
    for row in (PLAIN, *TOGETHER):
        if known(run.valid(runs, row), "far"):
            rows.append(row)
    figure = Figure(figsize=(10, 1.2 + 0.4 * len(rows)), layout="constrained")
    rng = np.random.default_rng(0)
    titles = {"far": "far, share of starts", "wide": "wide, share of starts"}
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for place, row in enumerate(rows):
            values = known(run.valid(runs, row), name)
            y = place + rng.uniform(-0.2, 0.2, len(values))
            ax.scatter(values, y, color=BLUE, alpha=0.5, s=16)
            ax.plot(np.median(values), place, "|", color=ORANGE, markersize=18)
        ax.set(xlim=(-0.05, 1.05), xlabel=title)
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path, metadata={"Software": None})


def write(saved=run.SAVED, quick=False):
    """Write README.md from the tracked runs, or the tables alone of other ones."""
    runs = run.load(saved)
    if saved != run.SAVED:
        lines = []
        for name, rows in TABLES.items():
            shown = [shortened(row) for row in rows] if quick else rows
            lines += [f"## {name}", of_rows(shown, runs)]
        path = saved.with_suffix(".md")
        path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
        return path
    texts = all_tables(runs, gaps.counted(gaps.load()))
    text = README.read_text(encoding="utf-8")
    README.write_text(filled(text, texts), encoding="utf-8")
    draw_dose(runs, run.RESULTS / "dose.png")
    draw_beyond(runs, run.RESULTS / "beyond.png")
    return README


if __name__ == "__main__":
    print(write())
