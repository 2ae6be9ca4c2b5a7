"""Write README.md and its figures from results/latest.json: python benchmarks/report.py

The prose is in template.md. A line whose figures are missing, or not yet measured, is left out.
"""

import contextlib
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
ORANGE, BLUE = "#D55E00", "#0072B2"  # Okabe and Ito


def comparison_row(name, s, ratio):
    """Return one implementation's row of the large table."""
    cells = [*SETTINGS["contestants"][name], f"{s['solved']} of {s['seeds']}", "–", "–"]
    if s["solved"]:
        _, steps, _, last = s["steps_p10_p50_p90_max"]
        low, seconds, high, worst = s["seconds_p10_p50_p90_max"]
        cells[-2] = f"{steps:,.0f} ({last:,.0f})"
        cells[-1] = f"{seconds:.2f} ({low:.2f} to {high:.2f}; {worst:.2f})"
    cells += ["–" if ratio is None else "{ratio:.3g} ({low:.3g} to {high:.3g})".format(**ratio)]
    cells += [f"{s['steadiness_mean']:.2f} ({s['steadiness_worst']:.2f})"]
    cells += [f"{s['us_per_step']:.0f}", f"{s['peak_mb']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def variant_row(label, v):
    """Return the row of one variant of the settings."""
    first, seeds = np.array([step or np.inf for step in v["first_pass"]]), len(v["held"])
    middle, last = (f"{x:,.0f}" if x < np.inf else "never" for x in (np.median(first), first.max()))
    cells = [label, f"{np.isfinite(first).sum()} of {seeds}", f"{middle} ({last})"]
    cells += [f"{np.mean(v['held']):.2f} ({min(v['held']):.2f})", f"{np.mean(v['end']):.0f}"]
    return "| " + " | ".join(cells) + " |"


def render(results, pictures="results/latest"):
    """Return the report as Markdown; `pictures` is how the paths of its figures begin."""
    ratios, runs, values = results["time_ratios"], results["dose"].values(), dict(results)
    rows = [comparison_row(name, s, ratios.get(name)) for name, s in results["summary"].items()]
    values |= {"pictures": pictures, "comparison": "\n".join(rows)}
    gap, error, held = (np.concatenate([v[key] for v in runs]) for key in ("gap", "error", "held"))
    for name, chosen in (("gap_holding", held == 1), ("gap_forgetting", held < 1)):
        values[name] = np.median((gap / error)[chosen]) if chosen.any() else None
    for part in ("dose", "added", "removed", "acrobot"):
        rows = [variant_row(label, v) for label, v in results[part].items() if v["held"]]
        values[f"{part}_table"] = "\n".join(rows)
    lines = []
    for line in (HERE / "template.md").read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(KeyError, IndexError, TypeError):
            lines.append(line.format_map(values))
    return "\n".join(lines) + "\n"


def draw(results, prefix):
    """Save the figures: dose and response, gap and error."""
    found = {name: Figure(figsize=(8, 4), layout="constrained") for name in ("dose", "gap")}
    dose, gap = (figure.subplots() for figure in found.values())
    rng, means = np.random.default_rng(0), {"without mirror": {}, "with mirror": {}}
    for label, v in results["dose"].items():
        x, mirror, count = float(label.split()[0]), "mirror" in label, len(v["held"])
        if count:
            style = {"color": (ORANGE, BLUE)[mirror], "marker": "o^"[mirror], "alpha": 0.6}
            dose.scatter(x + rng.uniform(-0.015, 0.015, count), v["held"], **style)
            gap.scatter(np.divide(v["gap"], v["error"]), v["held"], **style)
            list(means.values())[mirror][x] = np.mean(v["held"])
    for (label, line), color, marker in zip(means.items(), (ORANGE, BLUE), "o^", strict=True):
        dose.plot(list(line), list(line.values()), color=color, marker=marker, label=label)
        gap.scatter([], [], color=color, marker=marker, label=label)
    dose.set(xlabel="ε′, the part of the mean in the target")
    gap.set(xlabel="gap between the actions / error", xscale="log")
    for name, figure in found.items():
        figure.axes[0].set_ylabel("evaluations that pass, second half")
        figure.axes[0].legend(frameon=False, loc="lower right")
        figure.savefig(f"{prefix}-{name}.png", metadata={"Software": None})


def write(name):
    """Write the report of one results file: README.md for the tracked one."""
    results = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    draw(results, HERE / "results" / name)
    readme = name == "latest"
    path = HERE / "README.md" if readme else HERE / "results" / f"{name}.md"
    path.write_text(render(results, f"results/{name}" if readme else name), encoding="utf-8")


if __name__ == "__main__":
    write("latest")
