"""Format the benchmarks' results as the rows that the README and the notebook quote."""

import json

import numpy as np

from lesson import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "notebook": "this notebook",
    "original": "original tutorial, its own settings",
    "sb3": "Stable-Baselines3, the zoo's settings",
}


def read(name):
    """Return one of the result files."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


COMPARISON_HEAD = [
    "| | solved | steps to solved: median (worst) | seconds to solved: median "
    "| steadiness: median |",
    "|---|---|---|---|---|",
]


def comparison_rows(summary=None):
    """Return one table row per implementation, by default of the tracked results."""
    rows = []
    for name, s in (summary or read("latest")["summary"]).items():
        if not s["solved"]:
            rows.append(f"| {NAMES[name]} | 0 of {s['seeds']} seeds | never | – | – |")
            continue
        _, median, _, worst = s["steps_p10_p50_p90_max"]
        steady = "–" if s["steadiness_median"] is None else f"{s['steadiness_median']:.2f}"
        seconds = s["seconds_p10_p50_p90_max"][1]
        cells = [NAMES[name], f"{s['solved']} of {s['seeds']} seeds"]
        cells += [f"{median:,.0f} ({worst:,.0f})", f"{seconds:.1f}", steady]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def ablation_row(name, found):
    """Return the table row of one variant of the settings."""
    steps = [np.inf if step is None else step for step in found["solved_at_step"]]
    worst = "never" if max(steps) == np.inf else f"{max(steps):,.0f}"
    median = "never" if np.median(steps) == np.inf else f"{np.median(steps):,.0f}"
    steady = found["steadiness"]
    cells = [name, f"{np.isfinite(steps).sum()} of {len(steps)}", f"{median} ({worst})"]
    cells.append(f"{np.median(steady):.2f} ({min(steady):.2f})")
    return "| " + " | ".join(cells) + " |"


def ablation_rows():
    """Return one table row per variant of the settings."""
    return [ablation_row(*variant) for variant in read("ablation")["variants"].items()]


def scaling_rows():
    """Return one table row per setting whose cost was measured."""
    rows = []
    for found in read("scaling")["cases"]:
        name = ", ".join(f"{key} {value:,}" for key, value in found["case"].items())
        name = name.replace("threads 0", f"PyTorch's own number of threads ({found['threads']})")
        name = name or "default: batch 128, width 128, memory 100,000, threads 1"
        rows.append(f"| {name} | {found['steps_per_second']:,.0f} | {found['peak_mb']:.0f} |")
    return rows


if __name__ == "__main__":
    print("\n".join([*comparison_rows(), "", *ablation_rows()]))
