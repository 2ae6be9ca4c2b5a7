"""Files of a run, and MLflow."""

import os
import tempfile
from pathlib import Path


def results_folder(path):
    """Make the folder for the results, and return it; OSError if it is read-only."""
    folder = Path(str(path)).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    if (folder / "metrics.json").exists():
        print("The folder has results of an earlier run; section 13 replaces them.")
    return folder


def connect_to_mlflow():
    """Find MLflow's address; return whether this is a job, which has a run already."""
    in_job = "MLFLOW_RUN_ID" in os.environ
    return in_job
