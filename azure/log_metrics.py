"""Log the results of a job with MLflow: python azure/log_metrics.py FOLDER

In an Azure ML job, MLflow is set up to write to the job. The numbers in metrics.json
and the learning curve in evaluations.csv become metrics of the job, and a sweep ranks
its trials by them.
"""

import csv
import json
import os
import sys
from pathlib import Path

# By default MLflow tries for many minutes to reach a service that does not answer.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import mlflow  # it reads the environment

folder = Path(sys.argv[1])
metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}
with (folder / "evaluations.csv").open(encoding="utf-8", newline="") as file:
    evaluations = list(csv.DictReader(file))

try:
    mlflow.log_metrics(numbers)
    for row in evaluations:
        step = int(row["steps"])
        mlflow.log_metric("validation_mean", float(row["mean"]), step=step)
except Exception as error:  # whatever MLflow or the network raises
    sys.exit(f"The metrics were not logged. All files are in {folder}. {error}")
print(f"Logged {len(numbers)} numbers and a curve of {len(evaluations)} evaluations.")
