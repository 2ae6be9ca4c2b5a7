"""The files of a run."""

import json
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from .curves import first_pass


def results_folder(path):
    """Make the folder for the results, and return it; OSError if it is read-only."""
    folder = Path(str(path)).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    if (folder / "metrics.json").exists():
        print("The folder has results of an earlier run; section 14 replaces them.")
    return folder


def write(path, content):
    """Write bytes to a file; an unfinished file is named `….part`."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def csv(header, rows):
    """Return a table as the bytes of a CSV file."""
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    return ("\n".join(lines) + "\n").encode()


def made_with(result):
    """Return what made a run: its settings, and the names of its functions."""
    names = ("targets", "remember", "loss_function", "env_id", "scale")
    return {
        **asdict(result.settings),
        **{name: getattr(result, name) for name in names},
    }


def metrics_of(result, held_out, share):
    """Return the numbers of a run, for metrics.json.

    held_out: the scores of its last weights on the held-out starts. share: of passes,
    in the second half.
    """
    passed = first_pass(result.evaluations, result.threshold)
    return {
        "seed": result.settings.SEED,
        # an evaluation has passed, and the last weights pass on the held-out starts
        "solved": passed is not None and fmean(held_out) >= result.threshold,
        "first_pass_step": passed.step if passed else None,
        "first_pass_seconds": passed.seconds if passed else None,  # of training
        "share_of_passes": float(share),
        "validation_area": fmean(e.mean for e in result.evaluations),
        "greedy_mean": fmean(held_out),
        "greedy_min": float(min(held_out)),
        "greedy_episodes": len(held_out),
        "episodes": len(result.durations),  # of training
        "env_steps": result.evaluations[-1].step,
        "gradient_steps": len(result.losses),
        "train_seconds": result.seconds,
        "device": str(result.policy_net.scale.device),
        **{f"{name}_version": version(name) for name in ("gym", "numpy", "torch")},
    }


def save_run(folder, result, metrics, pictures):
    """Write and print the numbers of a run, write its curves and its pictures."""
    rows = [(i, *pair) for i, pair in enumerate(result.durations, start=1)]
    write(folder / "durations.csv", csv(["episode", "steps", "duration"], rows))
    rows = [(e.step, e.mean, e.worst) for e in result.evaluations]
    write(folder / "evaluations.csv", csv(["steps", "mean", "worst"], rows))
    for name, picture in pictures.items():
        write(folder / name, picture.data)
    write(folder / "metrics.json", json.dumps(metrics, indent=2).encode())
    for name in ("solved", "first_pass_step", "share_of_passes", "greedy_mean"):
        print(f"{name}: {metrics[name]}")
