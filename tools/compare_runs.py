"""Compare the settings in an MLflow experiment by their medians over seeds.

python -m tools.compare_runs EXPERIMENT

Prints a table, best settings first, by `validation_area`, the mean of all evaluations
during training. MLFLOW_TRACKING_URI says where the runs are.
"""

import statistics
import sys

import mlflow

METRIC = "validation_area"


def settings_of(run):
    """Return the notebook's parameters as a run has logged them, without the seed."""
    settings = {}
    for name, value in run.data.params.items():
        if name.isupper() and name != "SEED":  # Azure ML's own names are in lower case
            settings[name] = value
    return settings


def table(runs):
    """Return the lines of a Markdown table, with the parameters that differ."""
    groups = {}
    for run in runs:
        settings = tuple(sorted(settings_of(run).items()))
        groups.setdefault(settings, []).append(run.data.metrics[METRIC])

    values = {}
    for settings in groups:
        for name, value in settings:
            values.setdefault(name, set()).add(value)
    names = [name for name in values if len(values[name]) > 1]

    rows = []
    for settings, areas in groups.items():
        median = statistics.median(areas)
        chosen = [dict(settings).get(name, "") for name in names]
        numbers = [f"{median:.1f}", f"{min(areas):.1f}", str(len(areas))]
        rows.append((median, [*chosen, *numbers]))
    rows.sort(reverse=True)

    head = [*names, f"median {METRIC}", "worst seed", "runs"]
    lines = [head, ["---"] * len(head)] + [row for _, row in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    found = mlflow.search_runs(experiment_names=[sys.argv[1]], output_format="list")
    runs = []
    for run in found:
        # the run of a sweep as a whole has no seed
        if METRIC in run.data.metrics and "SEED" in run.data.params:
            runs.append(run)
    if not runs:
        sys.exit(f"No run of the experiment {sys.argv[1]} has logged {METRIC}.")
    print("\n".join(table(runs)))
