"""Runs in MLflow."""

import os

from .files import made_with

EXPERIMENT = "dqn-cartpole"


def connect_to_mlflow():
    """Find MLflow's address; return whether this is a job, which has a run already."""
    # By default, MLflow waits for many minutes for a server that does not answer.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(address_of_workspace())
        if mlflow.get_tracking_uri().startswith("azureml"):
            import azureml.mlflow  # noqa: F401, MLflow's part for Azure ML

            # MLflow's own links lead to no page there; `log_run` prints Studio's.
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    except ImportError as error:
        raise ImportError(
            f"{error}. Run %pip install mlflow-skinny azureml-mlflow azureml-core, or "
            "set MLFLOW_TRACKING_URI, for example to sqlite:///mlflow.db"
        ) from error
    print("MLflow writes to", mlflow.get_tracking_uri())
    return "MLFLOW_RUN_ID" in os.environ


def address_of_workspace():
    """Return the address of the MLflow of the workspace that config.json names."""
    from azureml.core import Workspace

    try:
        return Workspace.from_config().get_mlflow_tracking_uri()
    except Exception as error:
        raise RuntimeError(
            "MLFLOW_TRACKING_URI is not set. Set it, for example to "
            f"sqlite:///mlflow.db; or give azureml-core what it asks for: {error}"
        ) from error


def log_to_mlflow(runs, in_job):
    """Send runs to MLflow; runs: agent → (result, metrics).

    A job has one run, which gets the last agent. If sending fails, a job fails;
    elsewhere it is one line, and the lesson goes on.
    """
    agents = list(runs)[-1:] if in_job else list(runs)
    try:
        for agent in agents:
            log_run(agent, *runs[agent], in_job)
    except Exception as error:
        reason = " ".join(str(error).split())
        message = "Not everything was sent to MLflow. All files are on the disk."
        if in_job:  # a job without its numbers is worth nothing
            raise RuntimeError(f"{message} {reason}") from error
        print(f"{message} {type(error).__name__}: {reason}")


def log_run(agent, result, metrics, in_job):
    """Send the parameters, the numbers and the curve of one run."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient()
    name = f"{agent}, seed {result.settings.SEED}"
    began = int(1_000 * result.began)  # MLflow counts milliseconds
    curve = []
    for e in result.evaluations:
        curve.append(Metric("validation_mean", e.mean, int(1_000 * e.time), e.step))
    ended = curve[-1].timestamp
    if in_job:
        run_id = os.environ["MLFLOW_RUN_ID"]
    else:
        experiment = mlflow.set_experiment(EXPERIMENT)
        run = client.create_run(experiment.experiment_id, began, run_name=name)
        run_id = run.info.run_id

    params, tags, numbers = [], [], []
    for key, value in made_with(result).items():
        params.append(Param(key, str(value)))
    for key, value in metrics.items():
        if isinstance(value, str):  # versions and the device
            tags.append(RunTag(key, value))
        elif value is not None:  # MLflow 2 takes no True
            numbers.append(Metric(key, float(value), ended, 0))
    client.log_batch(run_id, params=params, tags=tags)
    points = numbers + curve
    for i in range(0, len(points), 200):  # Azure ML takes 200 points a call
        client.log_batch(run_id, metrics=points[i : i + 200])
    if not in_job:  # a job's run ends with the job
        client.set_terminated(run_id, end_time=ended)  # prints a server's link
    print("Sent to MLflow:", name, studio_link(mlflow.get_tracking_uri(), run_id))


def studio_link(address, run_id):
    """Return the address of a run's page in Azure ML Studio; "" for another MLflow."""
    if not address.startswith("azureml"):
        return ""
    workspace = address[address.index("/subscriptions/") :].partition("?")[0]
    return f"https://ml.azure.com/runs/{run_id}?wsid={workspace}"
