"""Write the tables of README.md from the saved runs: python -m benchmarks.report

A table stands between two markers in README.md; what is between them is replaced. The
sentences around them are written by hand.
"""

import math
import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import exchange, run
from .exchange import PASS
from .rows import (
    CAREFUL,
    CLEANRL,
    CONTEST,
    FINAL,
    HERE,
    N_STEPS,
    OURS,
    PLAIN,
    RESULTS,
    SAME,
    TABLES,
    TUTORIAL,
    ZOO,
    all_rows,
    shortened,
)

README = HERE / "README.md"
MARKED = re.compile(r"(<!-- table: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
ORANGE, BLUE, GREY = "#D55E00", "#0072B2", "#666666"  # Okabe and Ito
TIMED = RESULTS / "seconds.jsonl"  # one run at a time, on one machine
TIMED_BY = (
    "python -m benchmarks.bench --tables agents others --seeds 1 --jobs 1 "
    "--saved benchmarks/results/seconds.jsonl"
)
PAIRS = []  # of labels: with one change, without it
for pair in (
    ("careful target", "plain DQN"),
    ("final agent", "careful target"),
    ("careful target, inputs not scaled", "plain DQN, inputs not scaled"),
    ("Acrobot, ε′ = 0.7", "Acrobot, ε′ = 0.0"),
    (f"{TUTORIAL}, ε′ = 0.7", TUTORIAL),
    (f"{SAME}, ε′ = 0.7", SAME),
    (f"{ZOO}, ε′ = 0.7", ZOO),
    (f"{CLEANRL.label}, ε′ = 0.7", CLEANRL.label),
    (N_STEPS.label, SAME),
):
    PAIRS.append([all_rows()[label] for label in pair])


def frame_of(runs, row):
    """Return the valid runs of a row, a line a seed."""
    frame = pd.DataFrame(run.valid(runs, row))
    if "slopes" in frame:
        frame["slope"] = [pd.Series(one).median() for one in frame.slopes]
        frame["churn"] = [pd.Series(one, dtype=float).mean() for one in frame.churns]
    if "share_after" in frame:
        never = frame.first_pass == math.inf
        frame["share_after"] = frame.share_after.astype(float).mask(never, 0.0)
    if "means" in frame:
        frame["last_three"] = [pd.Series(one[-3:]).mean() for one in frame.means]
        late = [pd.Series(one[-(len(one) // 10) :]) for one in frame.means]
        frame["share_late"] = [(one >= PASS).mean() for one in late]
    return frame


# How the figures of a row's seeds become text.


def number(value):
    """Return a number as text: 0.41, 4.1, 41, 4,120; infinity is "never"."""
    if math.isinf(value):
        return "never"
    decimals = 2 if abs(value) < 2 else 1 if abs(value) < 20 else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def mean_worst(values):
    """Return mean and lowest of shares."""
    return f"{values.mean():.2f} ({values.min():.2f})"


def median_lowest(values):
    """Return median and lowest."""
    return f"{number(values.median())} ({number(values.min())})"


def median_latest(values):
    """Return median and highest of steps."""
    return f"{values.median():,.0f} ({values.max():,.0f})".replace("inf", "never")


def median_range(values):
    """Return median, lowest and highest."""
    low, high = number(values.min()), number(values.max())
    return f"{number(values.median())} ({low} to {high})"


def fine_range(values):
    """Return median, lowest and highest with three decimals."""
    return f"{values.median():.3f} ({values.min():.3f} to {values.max():.3f})"


def how_many(values):
    """Return how many are 1."""
    return f"{(values == 1).sum()} of {len(values)}"


COLUMNS = {  # title → name of a figure, how the figures become text
    "seeds": ("seed", len),
    "share of passes": ("share", mean_worst),
    "after the first": ("share_after", mean_worst),
    "last tenth": ("share_late", mean_worst),
    "first pass": ("first_pass", median_latest),
    "confirmed": ("solved", median_latest),
    "score": ("held_out", median_lowest),
    "best copy's score": ("best", median_lowest),
    "far": ("far", median_lowest),
    "survive": ("far", how_many),
    "best copies": ("best_far", how_many),
    "steps played": ("played", lambda values: f"{values.median():,.0f}"),
    "slope": ("slope", median_range),
    "churn": ("churn", fine_range),
    "value": ("value", median_range),
    "last three evaluations": ("last_three", median_range),
}


def table(header, lines):
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def cell(frame, title):
    """Return a figure of a row's runs as text."""
    name, as_text = COLUMNS[title]
    values = frame[name].dropna() if name in frame else []
    return as_text(values) if len(values) else "–"


def of_rows(rows, runs, *titles):
    """Return a table of figures, a line for each row that has been measured."""
    lines = []
    for row in rows:
        frame = frame_of(runs, row)
        if frame.empty:
            continue
        missing = len(row.seeds) - len(frame)
        label = row.label + (f" ({missing} seeds missing)" if missing else "")
        lines.append([label, *(cell(frame, title) for title in titles)])
    return table(["", *titles], lines)


# The tables.


def beside_plain(rows, runs, *titles):
    """Return a table of figures, beside plain DQN's share on the same seeds."""
    plain = frame_of(runs, PLAIN)
    lines = []
    for row in rows:
        frame = frame_of(runs, row)
        same = plain[plain.seed.isin(frame.get("seed", []))]
        cells = [cell(frame, title) for title in titles]
        lines.append([row.label, *cells, f"{same.share.mean():.2f}"])
    return table(["", *titles, "plain DQN, same seeds"], lines)


def correlation(runs):
    """Return rank correlations over the seeds of plain DQN and of the careful agent."""
    lines = []
    for row in (PLAIN, CAREFUL):
        frame = frame_of(runs, row)
        ranks = frame[["share", "slope", "churn"]].rank().corr().share
        lines.append([row.label, len(frame), number(ranks.slope), number(ranks.churn)])
    return table(["", "seeds", "share and slope", "share and churn"], lines)


def ends(runs):
    """Return how the episodes of plain DQN's failing evaluations end."""
    counts = pd.DataFrame(frame_of(runs, PLAIN).ends.tolist()).sum()
    shares = [f"{share:.0%}" for share in counts / counts.sum()]
    header = ["episodes", "left end", "right end", "pole", "clock reached"]
    return table(header, [[f"{counts.sum():,}", *shares]])


def lines_of_gaps(found):
    """Return the table of answers to a lean; `found`: a case for each network."""
    frame = pd.DataFrame(found)
    frame["other_side"] = frame.level * frame.lost_right < 0
    texts = []
    for row in OURS:
        for passes, name in ((True, "passes"), (False, "fails")):
            some = frame[(frame.row == row.label) & (frame.passes == passes)]
            if len(some):
                shares = [
                    f"{some[one].mean():.0%}" for one in ("one_sided", "other_side")
                ]
                level = number(some.level.abs().median())
                texts.append([f"{row.label}, {name}", len(some), level, *shares])
    return table(
        ["", "networks", "level", "one-sided", "lost on the other side"], texts
    )


def differences(runs):
    """Return mean differences of the share of passes by seed, with 95 % intervals."""
    rng = np.random.default_rng(0)
    texts = []
    for changed, unchanged in PAIRS:
        one, other = (frame_of(runs, row) for row in (changed, unchanged))
        if one.empty or other.empty:
            continue
        gains = (one.set_index("seed").share - other.set_index("seed").share).dropna()
        again = rng.choice(gains, (10_000, len(gains))).mean(axis=1)
        low, high = np.quantile(again, [0.025, 0.975])
        interval = f"{number(gains.mean())} [{number(low)}, {number(high)}]"
        texts.append([changed.label, unchanged.label, len(gains), interval])
    return table(["", "less", "seeds", "difference"], texts)


def seconds(timed):
    """Return seconds of training for each step, as multiples of plain DQN's.

    timed: runs that were measured one after the other.
    """
    (plain,) = run.valid(timed, PLAIN)[:1]
    lines = []
    for row in (PLAIN, *CONTEST, CLEANRL):
        for one in run.valid(timed, row)[:1]:
            ratio = one["seconds"] / row.steps / (plain["seconds"] / PLAIN.steps)
            lines.append([row.label, f"{row.steps:,}", number(ratio)])
    return table(["", "steps", "seconds for a step"], lines)


def exchanged(found):
    """Return the table of an exchange: how each policy scores, how many pass."""
    scores = pd.DataFrame([one["scores"] for one in found])
    lines = []
    for name, values in scores.items():
        passes = f"{(values >= PASS).sum()} of {len(values)}"
        lines.append([name, passes, number(values.median())])
    return table(["", "pass", "score"], lines)


def all_tables(runs, found):
    """Return the text of each table by its name; `found`: cases of the exchange."""
    learnt = ("seeds", "share of passes", "after the first", "first pass", "far")
    others = ("seeds", "share of passes", "last tenth", "confirmed")
    rescue = (
        "score",
        "best copy's score",
        "survive",
        "best copies",
        "steps played",
    )
    parts = ("seeds", "last three evaluations", "value")
    inside = ("slope", "churn")
    rescued = [*OURS, *CONTEST, CLEANRL]
    return {
        "agents": of_rows(TABLES["agents"], runs, *learnt, *inside),
        "rescue": of_rows(rescued, runs, *rescue),
        "lines": lines_of_gaps(exchange.load(exchange.lines)),
        "adjacent": exchanged(exchange.load(exchange.adjacent)),
        "differences": differences(runs),
        "exchange": exchanged(found),
        "correlation": correlation(runs),
        "ends": ends(runs),
        "variants": beside_plain(TABLES["variants"], runs, *learnt, "slope"),
        "acrobot": of_rows(TABLES["acrobot"], runs, *learnt[:4]),
        "seconds": seconds(run.load(TIMED)),
        "others": of_rows(TABLES["others"], runs, *others, *inside),
        "parts": of_rows(TABLES["parts"], runs, *parts),
    }


def filled(text, texts):
    """Return the report with its tables; each table that it names has to exist."""
    return MARKED.sub(lambda match: f"{match[1]}{texts[match[2]]}\n{match[3]}", text)


def draw(runs, found, path):
    """Save a figure: churn against slope, a dot a seed; scores after the exchange."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for row, color in ((PLAIN, ORANGE), (CAREFUL, GREY), (FINAL, BLUE)):
        frame = frame_of(runs, row)
        left.scatter(frame.slope, frame.churn, s=14, color=color, label=row.label)
    left.set(xlabel="slope, per degree of lean", ylabel="churn", yscale="log")
    left.legend(frameon=False)
    scores = pd.DataFrame([one["scores"] for one in found])
    for place, name in enumerate(DRAWN):
        spread = [place + 0.02 * (i % 15 - 7) for i in range(len(scores))]
        right.scatter(scores[name], spread, s=14, color=DRAWN[name])
    right.axvline(PASS, color=GREY, linewidth=0.8)
    right.set_yticks(range(len(DRAWN)), list(DRAWN))
    right.invert_yaxis()
    right.set(xlabel="score")
    figure.savefig(path, metadata={"Software": None})


DRAWN = {
    "plain": ORANGE,
    "plain, other's pole": ORANGE,
    "plain, final's cart": ORANGE,
    "plain, final's pole": ORANGE,
    "plain + 50 θ + 15 θ̇": ORANGE,
    "final, plain's cart": BLUE,
    "final, plain's pole": BLUE,
}


def quick_look(saved):
    """Write the tables of short runs beside their file."""
    runs = run.load(saved)
    parts = []
    for name, rows in TABLES.items():
        short = [shortened(row) for row in rows]
        text = of_rows(short, runs, "seeds", "share of passes", "first pass")
        parts += [f"## {name}", text]
    path = saved.with_suffix(".md")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def write():
    """Write README.md from the tracked runs, unless some of them do not count."""
    runs = run.load()
    notes = []
    timed = run.load(TIMED)
    for row in all_rows().values():
        notes += run.not_counted(runs, row)
        notes += run.not_counted(timed, row, again=TIMED_BY)
    if notes:
        raise SystemExit("\n".join(notes))
    found = exchange.load()
    text = README.read_text(encoding="utf-8")
    README.write_text(filled(text, all_tables(runs, found)), encoding="utf-8")
    draw(runs, found, RESULTS / "reason.png")
    return README


if __name__ == "__main__":
    print(write())
