"""Write README.md and its figures from the results: python -m benchmarks.report

The prose is in template.md. A name that it uses and the results do not have is an
error. --quotes prints what README.md of the repository and the lesson quote.
"""

import argparse
import json
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from .common import HERE, RESULTS, SETTINGS

ORANGE, BLUE, GREY = "#D55E00", "#0072B2", "#767676"  # Okabe and Ito
HOLDS = (0.99, 0.9)  # mean and worst seed of what counts as holding
PARTS = ("added", "dose", "removed", "acrobot")


def count(value):
    """Return a whole number as text; None is "not solved"."""
    return "not solved" if value is None else f"{value:,.0f}"


def rounded(value):
    """Return a number as text: 0.41, 4.1, 41, 412."""
    decimals = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:,.{decimals}f}"


def seconds(value):
    """Return seconds as text; None is "not solved"."""
    return "not solved" if value is None else rounded(value)


def share(value):
    """Return a share as text."""
    return "–" if value is None else f"{value:.2f}"


def between(values, form):
    """Return a value with its interval as text."""
    value, low, high = values
    if low is None:
        return form(value)
    return f"{form(value)} [{form(low)}, {form(high)}]"


def ratio(found):
    """Return a ratio of times with its interval as text."""
    least = "at least " if found["at_least"] else ""
    numbers = [found[name] for name in ("ratio", "low", "high")]
    return least + between(numbers, rounded)


def marked(label, seeds, planned):
    """Return the label of a row; it says when not all planned seeds were run."""
    return label if seeds == planned else f"{label} (*{seeds} of {planned} seeds*)"


def line(cells):
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def title(name):
    """Return how the report calls a contestant."""
    return SETTINGS["contestants"][name]["title"]


def contestant_rows(results):
    """Return the rows of what the contestants reach."""
    rows = []
    for name, s in results["summary"].items():
        _, steps, _, last = s["steps_p10_p50_p90_max"]
        updates = s["updates_p10_p50_p90_max"][1]
        took = s["seconds_p10_p50_p90_max"][1]
        cells = [
            marked(title(name), s["steadiness_seeds"], s["planned_seeds"]),
            f"{share(s['steadiness_mean'])} ({share(s['steadiness_worst'])})",
            between(s["held_iqm"], share),
            f"{s['solved']} of {s['seeds']}",
            f"{count(steps)} ({count(last)})",
            between(s["steps_iqm"], count),
            count(updates),
            seconds(took),
            between(s["seconds_iqm"], seconds),
        ]
        rows.append(line(cells))
    return "\n".join(rows)


def code_rows(results):
    """Return the rows of what the contestants' code costs, and who tuned them."""
    rows = []
    for name, s in results["summary"].items():
        found = results["time_ratios"].get(name)
        cells = [
            title(name),
            SETTINGS["contestants"][name]["tuned"],
            ratio(found) if found else "1",
            f"{s['us_per_step']:.0f}",
            f"{s['peak_mb']:.0f}",
        ]
        rows.append(line(cells))
    return "\n".join(rows)


def own_rows(results):
    """Return the rows of those that have a longer budget of their own."""
    rows = []
    for name, s in results["summary"].items():
        if "own" not in s:
            continue
        own = s["own"]
        _, steps, _, last = own["steps_p10_p50_p90_max"]
        known = [value for value in own["held"] if value is not None]
        long = name == "cleanrl" and known
        cells = [
            title(name),
            count(own["steps"]),
            f"{own['solved']} of {own['seeds']}",
            f"{count(steps)} ({count(last)})",
            ", ".join(map(share, known)) if long else "–",
            ", ".join(f"{mean:.0f}" for mean in own["last_means"]) if long else "–",
        ]
        rows.append(line(cells))
    return "\n".join(rows)


def mean_and_worst(shares):
    """Return the mean of shares and the smallest as text."""
    return f"{share(np.mean(shares))} ({share(min(shares))})" if shares else "–"


def variant_row(label, v, along_track=False):
    """Return the row of one variant."""
    seeds = len(v["held"])
    cells = [marked(label, seeds, v["planned_seeds"])]
    if not seeds:
        return line(cells + ["–"] * (5 + along_track))
    first = [np.inf if step is None else step for step in v["first_pass"]]
    numbers = (np.median(first), max(first))
    middle, last = ("never" if x == np.inf else f"{x:,.0f}" for x in numbers)
    ends = [end for end in v["end"] if end is not None]
    cells += [
        mean_and_worst(v["held"]),
        between(v["held_iqm"], share),
        f"{np.isfinite(first).sum()} of {seeds}",
        f"{middle} ({last})",
        f"{np.mean(ends):.0f}" if ends else "–",
    ]
    if along_track:
        known = [value for value in v["agreement"] if value is not None]
        cells.append(share(np.median(known)) if known else "–")
    return line(cells)


def holding(results):
    """Return what holds as `HOLDS` asks within the notebook's own budget.

    A list of (label, mean, worst); rows with more steps are not among them.
    """
    found = []
    for name, s in results["summary"].items():
        found.append((title(name).strip("*"), s["held_early"]))
    for label, row in results["added"].items():
        if row["steps"] <= results["variant_steps"]:
            found.append((label, row["held"]))
    numbers = [(label, np.mean(held), min(held)) for label, held in found if held]
    mean, worst = HOLDS
    return [one for one in numbers if one[1] >= mean and one[2] >= worst]


def values_of(results):
    """Return what the template may use."""
    tables = {
        part: "\n".join(
            variant_row(label, v, along_track=part == "dose")
            for label, v in results[part].items()
        )
        for part in PARTS
    }
    took = {
        part: spent / (1 if part == "floor" else results["at_a_time"]) / 60
        for part, spent in results["seconds_by_part"].items()
    }
    return {
        **results,
        "compared": set(SETTINGS["contestants"]) - {"sbx"} <= set(results["summary"]),
        "tables": tables,
        "contestant_rows": contestant_rows(results),
        "code_rows": code_rows(results),
        "own_rows": own_rows(results),
        "holding": holding(results),
        "minutes": {part: round(minutes) for part, minutes in took.items()},
        "hours": sum(took.values()) / 60,
        "full": SETTINGS["sizes"]["full"],
    }


def fill(template, **values):
    """Return a template of this folder with its values."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(HERE),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": count, "secs": seconds, "share": share}
    environment.filters |= {"ratio": ratio, "held": mean_and_worst}
    return environment.get_template(template).render(values)


def render(results, pictures="results/latest"):
    """Return the report; `pictures` is how the paths of its figures begin."""
    return fill("template.md", pictures=pictures, **values_of(results))


def percent(value):
    """Return a share as text, in percent."""
    return f"{100 * value:.0f} %"


def median_and_range(values, form):
    """Return the median of values and their range as text."""
    return f"{form(np.median(values))} ({form(min(values))} to {form(max(values))})"


def lead_rows(results):
    """Return the rows of the lesson's table about the lead along the track."""
    shown = {
        "held": ("held", share),
        "all evaluations agree on this share of the track": ("agreement", percent),
        "places that change their push from one evaluation to the next": (
            "flips",
            percent,
        ),
        "size of the mean lead ÷ its spread, at the median place": (
            "ratio",
            "{:.1f}".format,
        ),
    }
    rows = []
    for label, (name, form) in shown.items():
        plain, careful = (results["dose"][dose][name] for dose in ("0.0", "0.7"))
        found = [median_and_range(values, form) for values in (plain, careful)]
        rows.append(line([label, *found]))
    return rows


def careful_seeds(results):
    """Return on how many seeds the careful target holds 1.00, and the other shares."""
    found = results["dose"]["0.7"]["held"]
    lower = sorted((value for value in found if value < 1), reverse=True)
    whole = len(found) - len(lower)
    listed = ", ".join(map(share, lower))
    return f"on {whole} of {len(found)} it holds 1.00, and on the others {listed}"


def sentences(results):
    """Return parts of sentences of the lesson that depend on the results."""
    plain = results["moments"]["0.0"]
    less, half, more, most = plain["passed_of"].values()
    other, same = plain["flips"]["other verdict"], plain["flips"]["same verdict"]
    search = results["search"]
    own = results["summary"]["cleanrl"]["own"]
    ours = results["summary"]["notebook"]
    return [
        f"Over {len(results['dose']['0.0']['held'])} seeds (medians",
        "exactly half of the track, {} of {} evaluations pass".format(*half),
        "less than half, {} of {} pass".format(*less),
        "from half to 85 %, {} of {}".format(*more),
        "from 85 % on, {} of {}".format(*most),
        "outward on 85 % or more, {} of {} pass".format(*most),
        "In {} of {} runs that have both".format(*plain["outward_within"]),
        f"{percent(other)} of the places change their push",
        f"two passes or two failures, {percent(same)} do",
        "Within single runs it is so in {} of {}".format(*plain["flips_within"]),
        f"the best of {search['trials']} sets held {share(search['held'])} on the "
        f"{search['seeds']} seeds",
        f"{own['seeds']} runs of {count(own['steps'])} steps",
        f"solved after a median of {count(own['steps_p10_p50_p90_max'][1])} steps",
        f"They hold {', '.join(map(share, sorted(own['held'])))} in",
        f"last evaluations are {', '.join(map(count, sorted(own['last_means'])))}",
        f"Over {ours['seeds']} seeds the final agent holds "
        f"{mean_and_worst(ours['held_early'])}",
        f"it is solved on {ours['solved']} of them",
        careful_seeds(results),
    ]


def quotes(results):
    """Return what others quote: README's paragraph, the lesson's rows and sentences.

    `rows` has what is held, by the label of the row.
    """
    rows = {}
    prefixes = {"added": "", "dose": "ε′ = ", "acrobot": "Acrobot, "}
    for part, prefix in prefixes.items():
        for label, v in results[part].items():
            rows[prefix + label] = mean_and_worst(v["held"])
    paragraph = fill("paragraph.md", **values_of(results)).strip()
    return {
        "paragraph": paragraph,
        "rows": rows,
        "lead_rows": lead_rows(results),
        "sentences": sentences(results),
    }


def draw_curves(results, path, axis):
    """Save the returns of all contestants against steps or updates."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = list(figure.subplots(3, 4, sharex=True, sharey=True).flat)
    for panel in panels:
        panel.set_visible(False)
    for panel, (name, s) in zip(panels, results["summary"].items(), strict=False):
        curve = s["curve"]
        x = np.array(curve[axis])
        shown = x > 0
        low, high = np.array(curve["low"]), np.array(curve["high"])
        panel.set_visible(True)
        band = {"color": BLUE, "alpha": 0.25, "linewidth": 0}
        panel.fill_between(x[shown], low[shown], high[shown], **band)
        panel.plot(x[shown], np.array(curve["iqm"])[shown], color=BLUE, linewidth=1)
        panel.axhline(475, color=GREY, linestyle="--", linewidth=0.8)
        panel.set_title(title(name).strip("*"), fontsize=7)
        panel.set_ylim(0, 520)
        panel.tick_params(labelbottom=True, labelsize=8)
        if axis == "updates":
            panel.set_xscale("log")
    figure.supxlabel("environment steps" if axis == "steps" else "updates")
    figure.supylabel("return, greedy")
    figure.savefig(path, metadata={"Software": None})


def draw_dose(results, path, agreement):
    """Save held against the dose, or the agreement along the track against held."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    rng = np.random.default_rng(0)
    kinds = {"without mirror": (ORANGE, "o"), "with mirror": (BLUE, "^")}
    for kind, (color, marker) in kinds.items():
        means = {}
        ax.scatter([], [], color=color, marker=marker, label=kind)
        for label, v in results["dose"].items():
            if ("mirror" in label) != (kind == "with mirror") or not v["held"]:
                continue
            dose, held = float(label.split()[0]), np.array(v["held"])
            x = dose + rng.uniform(-0.015, 0.015, len(held))
            if agreement:
                x = np.array(v["agreement"], dtype=float)
                held = held + rng.uniform(-0.01, 0.01, len(held))
            ax.scatter(x, held, color=color, marker=marker, alpha=0.5)
            means[dose] = np.mean(v["held"])
        if not agreement:
            ax.plot(list(means), list(means.values()), color=color)
    what = "share of the track on which all evaluations prefer the same push"
    ax.set_xlabel(what if agreement else "ε′, the part of the mean in the target")
    ax.set_ylabel("held")
    ax.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, metadata={"Software": None})


def draw(results, folder, name):
    """Save all figures."""
    for axis in ("steps", "updates"):
        draw_curves(results, folder / f"{name}-{axis}.png", axis)
    draw_dose(results, folder / f"{name}-dose.png", agreement=False)
    draw_dose(results, folder / f"{name}-agreement.png", agreement=True)


def write(name, folder=RESULTS):
    """Write the report of one results file: README.md for the tracked one."""
    text = (folder / f"{name}.json").read_text(encoding="utf-8")
    results = json.loads(text)
    draw(results, folder, name)
    tracked = name == "latest" and folder == RESULTS
    path = HERE / "README.md" if tracked else folder / f"{name}.md"
    pictures = f"results/{name}" if tracked else name
    path.write_text(render(results, pictures), encoding="utf-8")
    return path


def main():
    """Write the report of the tracked results, or print what is quoted from them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quotes", action="store_true", help="print what is quoted")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default="latest")
    arguments = parser.parse_args()
    if arguments.quotes:
        text = (arguments.results / f"{arguments.name}.json").read_text("utf-8")
        found = quotes(json.loads(text))
        rows = [line(row) for row in found["rows"].items()]
        print(found["paragraph"], "", *rows, "", *found["lead_rows"], sep="\n")
        print("", *found["sentences"], sep="\n")
    else:
        print(write(arguments.name, arguments.results))


if __name__ == "__main__":
    main()
