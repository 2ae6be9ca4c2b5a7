"""Run the notebook as Azure ML jobs, one for each seed.

This does with azureml-core (SDK v1) what jobs/job.yml does with the Azure CLI. Every seed becomes a
run of its own; Azure ML queues the runs, starts machines for them and stops those again. A list of
seeds needs no search, so HyperDrive and its package azureml-train-core are left out; jobs/sweep.yml
is the place for searching.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

NOTEBOOK = "notebooks/dqn_cartpole.ipynb"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
IDLE_SECONDS = 300  # after this time without work a cluster's machines stop
TIME_LIMIT = 1800  # seconds for one run
MANY_SEEDS = 100
FINAL = {"Completed", "Failed", "Canceled"}
COLUMNS = ["seed", "status", "solved", "greedy_mean", "solved_at_step", "steadiness"]


class UserError(Exception):
    """Something that the user can repair; the text says how."""


def reason(error):
    """Return in one line what an exception says; some of azureml-core's fail to say anything."""
    try:
        text = " ".join(str(getattr(error, "message", None) or error).split())
    except TypeError:
        text = ""
    message = re.search(r'"message": ?"([^"]+)"', text)  # what the service itself said
    return (message[1] if message else text)[:400] or type(error).__name__


@contextlib.contextmanager
def explained(what):
    """Turn any failure inside into a UserError that says what was being done."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {reason(error)}") from error


# --- what to run ---------------------------------------------------------------------------


def parse_seeds(text):
    """Return the seeds that a text such as "0-4" or "0,3,7" names, without doubles."""
    seeds = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds like 0-4 or 0,3,7")
        if last - first >= MANY_SEEDS or len(seeds) >= MANY_SEEDS:
            raise argparse.ArgumentTypeError(f"{text!r} has more than {MANY_SEEDS} seeds")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def check_parameters(seeds, parameters):
    """Refuse now, and not in a job that costs money, what the notebook would refuse."""
    if not parameters:
        return  # every seed that parse_seeds lets through is valid
    from papermill.cli import _resolve_type  # what papermill makes of the text after -p

    import lesson as loader

    with tempfile.TemporaryDirectory() as folder:
        lesson = loader.load(OUTPUT_DIR=folder, DEVICE="cpu")
    values = {name: _resolve_type(text) for name, text in parameters.items()}
    for seed in seeds:
        try:
            lesson.change_settings(lesson.settings, **{**values, "SEED": seed})
        except ValueError as error:
            raise UserError(error) from None


def make_command(seed, parameters):
    """Return one run's shell command. The comparison of seeds is what several runs are for."""
    given = {"SEED": str(seed), "COMPARE_SEEDS": "0", "ABLATION_SEEDS": "0", **parameters}
    words = ["papermill", "--no-progress-bar", "--log-output", NOTEBOOK, "outputs/executed.ipynb"]
    for name, text in given.items():
        words += ["-p", name, text]
    return "mkdir -p outputs && " + shlex.join(words)


def make_configs(seeds, parameters, compute):
    """Return what is submitted, a ScriptRunConfig for each seed."""
    from azureml.core import Environment, ScriptRunConfig
    from azureml.core.runconfig import DockerConfiguration

    environment = Environment.from_conda_specification("dqn-cartpole", ROOT / "environment.yml")
    environment.docker.base_image = IMAGE
    return {
        seed: ScriptRunConfig(
            source_directory=str(ROOT),  # what of it is uploaded is decided by .amlignore
            command=make_command(seed, parameters),
            compute_target=compute,
            environment=environment,
            docker_runtime_config=DockerConfiguration(use_docker=True),
            max_run_duration_seconds=TIME_LIMIT,
        )
        for seed in seeds
    }


# --- where to run --------------------------------------------------------------------------


class AzureCliToken:
    """Tokens of the sign-in with `az login`; never asks for anything.

    azureml-core's AzureCliAuthentication needs the package azure-cli in this very environment. This
    asks the command `az`, wherever it is installed, and keeps each token for a few minutes.
    """

    def __init__(self):
        self.tokens = {}

    def __call__(self, audience):
        made, token = self.tokens.get(audience, (-1e9, None))
        if time.monotonic() - made > 300:
            token = self.ask(audience)
            self.tokens[audience] = time.monotonic(), token
        return token

    @staticmethod
    def ask(audience):
        """Return a fresh token from the Azure CLI."""
        program = shutil.which("az")
        if not program:
            raise UserError(
                "no way to sign in: this is no compute instance and the Azure CLI is not installed."
                " Install it and run `az login`, or add --interactive-login"
            )
        command = [program, "account", "get-access-token", "--resource", audience]
        try:
            answer = subprocess.run(
                [*command, "--query", "accessToken", "--output", "tsv"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            raise UserError("the Azure CLI gave no token within a minute: try `az login`") from None
        if answer.returncode or not answer.stdout.strip():
            raise UserError("the Azure CLI is not signed in: run `az login`")
        return answer.stdout.strip()


def sign_in(interactive):
    """Return the authentication for this machine: asked for, managed identity, or Azure CLI."""
    from azureml.core import authentication

    if interactive:
        return authentication.InteractiveLoginAuthentication()
    if "MSI_ENDPOINT" in os.environ or Path("/mnt/azmnt/.nbvm").exists():  # a compute instance
        return authentication.MsiAuthentication()
    return authentication.TokenAuthentication(AzureCliToken())


def find_workspace(interactive):
    """Return the workspace that config.json names."""
    from azureml.core import Workspace
    from azureml.exceptions import UserErrorException

    try:
        return Workspace.from_config(auth=sign_in(interactive))
    except UserErrorException as error:
        if "config.json" not in reason(error):
            raise UserError(f"cannot open the workspace: {reason(error)}") from error
        raise UserError(
            "no config.json here or above: download it in Azure ML Studio (the workspace's name at"
            " the top right), or start on a compute instance, which has one"
        ) from None


def find_compute(workspace, name, vm_size, max_nodes):
    """Make the cluster `name` where it is missing and a size was given."""
    from azureml.core.compute import AmlCompute, ComputeTarget

    present = workspace.compute_targets
    if name in present:
        print(f"Compute {name} is there.")
        return
    if vm_size is None:
        names = ", ".join(sorted(present)) or "none"
        raise UserError(
            f"no compute named {name!r} in workspace {workspace.name} (there: {names})."
            " Add --vm-size Standard_D2s_v3 to have such a cluster made"
        )
    print(f"Making cluster {name}: 0 to {max_nodes} x {vm_size} ...", flush=True)
    wish = AmlCompute.provisioning_configuration(
        vm_size=vm_size,
        min_nodes=0,  # nothing runs, and nothing costs, while no job waits
        max_nodes=max_nodes,
        idle_seconds_before_scaledown=IDLE_SECONDS,
    )
    cluster = ComputeTarget.create(workspace, name, wish)
    cluster.wait_for_completion(show_output=False)  # raises where it cannot be made


# --- results -------------------------------------------------------------------------------


def wait_for(runs):
    """Wait until all runs have ended and say how they are doing; return each seed's last status."""
    statuses, pause = {}, 1
    while True:
        for seed, run in runs.items():
            if statuses.get(seed) in FINAL:
                continue
            with explained(f"lost sight of seed {seed} (its run goes on)"):
                status = run.get_status()
            if status != statuses.get(seed):
                print(f"seed {seed}: {status}", flush=True)
            statuses[seed] = status
        if all(status in FINAL for status in statuses.values()):
            return statuses
        time.sleep(pause)
        pause = min(2 * pause, 5)


def fetch(run, folder):
    """Download a run's results; return its metrics and its episodes as (step, duration)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "durations.csv"):
        run.download_file(f"outputs/{name}", str(folder / name))
    with open(folder / "durations.csv", newline="") as lines:
        episodes = [(int(row["steps"]), int(row["duration"])) for row in csv.DictReader(lines)]
    return json.loads((folder / "metrics.json").read_text()), episodes


def make_plot(curves, path):
    """Draw each seed's mean duration of the last 5 episodes over steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    ax = figure.subplots()
    for seed, episodes in curves.items():
        steps = [step for step, _ in episodes]
        durations = [duration for _, duration in episodes]
        means = [statistics.fmean(durations[max(0, i - 4) : i + 1]) for i in range(len(steps))]
        ax.plot(steps, means, label=f"seed {seed}")
    ax.set(
        xlabel="environment steps",
        ylabel="episode duration, mean of the last 5",
        title="Training episodes, random actions included",
        ylim=(0, 525),
    )
    ax.legend(fontsize="small", ncols=2)
    figure.savefig(path)


def cell(value):
    """Return a value as text for the table."""
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def summarise(rows):
    """Return the table of all runs, with greedy_mean's median and range below it."""
    table = [COLUMNS, *([cell(row.get(name)) for name in COLUMNS] for row in rows)]
    lines = ["".join(f"{text:>16}" for text in line) for line in table]
    means = [row["greedy_mean"] for row in rows if "greedy_mean" in row]
    if means:
        lines.append(
            f"greedy_mean of {len(means)} seeds: median {statistics.median(means):.2f},"
            f" from {min(means):.2f} to {max(means):.2f}"
        )
    return "\n".join(lines) + "\n"


def collect(runs, output):
    """Wait for all runs, leave a table and a plot in `output`; return whether all have results."""
    rows, curves = [], {}
    for seed, status in wait_for(runs).items():
        metrics = {}
        if status == "Completed":
            try:
                metrics, curves[seed] = fetch(runs[seed], output / f"seed-{seed}")
            except Exception as error:  # the other seeds' results are still worth having
                print(f"seed {seed}: no results, {reason(error)}", file=sys.stderr)
                status = "no results"
        rows.append({**metrics, "seed": seed, "status": status})
    output.mkdir(parents=True, exist_ok=True)
    table = summarise(rows)
    (output / "summary.txt").write_text(table)
    (output / "summary.json").write_text(json.dumps(rows, indent=2) + "\n")
    if curves:
        make_plot(curves, output / "learning_curves.png")
    print(f"\n{table}\nResults are in {output}")
    return len(curves) == len(runs)


# --- the command line ----------------------------------------------------------------------


def positive(text):
    """Return a whole number above 0."""
    if not re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 9999")
    return int(text)


def parse_arguments(arguments):
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="submit.py",
        description="Run the notebook as Azure ML jobs, one for each seed.",
        epilog="Example: python jobs/submit.py --seeds 0-4 -p MAX_STEPS 10000 --wait",
    )
    add = parser.add_argument
    add("--seeds", type=parse_seeds, default="0-4", help="such as 0-4 or 0,3,7 (default 0-4)")
    add("--compute", default="cpu-cluster", help="a compute's name (default cpu-cluster)")
    add("--vm-size", help="make the cluster with machines of this size if it is missing")
    add("--max-nodes", type=positive, default=4, help="most machines of a new cluster (default 4)")
    add("--experiment", default="dqn-cartpole", help="name in Studio (default dqn-cartpole)")
    add(
        *("-p", "--parameter"),
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="another parameter of the notebook, as for papermill; may be repeated",
    )
    add("--wait", action="store_true", help="wait, then fetch results, a table and a plot")
    add(
        "--output",
        type=Path,
        default=Path("outputs") / "jobs",
        help="folder for what --wait fetches (default outputs/jobs)",
    )
    add("--dry-run", action="store_true", help="show what would be submitted, send nothing")
    add("--interactive-login", action="store_true", help="sign in with a browser")
    options = parser.parse_args(arguments)
    options.parameters = dict(options.parameter)
    if "SEED" in options.parameters:
        parser.error("argument -p: SEED is set with --seeds")
    return options


def submit(options):
    """Submit one run per seed and print their links; return the exit code."""
    check_parameters(options.seeds, options.parameters)
    configs = make_configs(options.seeds, options.parameters, options.compute)
    if options.dry_run:
        print(f"Would submit to experiment {options.experiment}, on compute {options.compute},")
        print(f"in the image {IMAGE} with environment.yml:")
        for config in configs.values():
            print(f"  {config.command}")
        return 0

    from azureml.core import Experiment

    with explained("cannot open the workspace"):
        workspace = find_workspace(options.interactive_login)
    print(f"Workspace {workspace.name}, experiment {options.experiment}")
    with explained(f"cannot use compute {options.compute}"):
        find_compute(workspace, options.compute, options.vm_size, options.max_nodes)
    runs = {}
    for seed, config in configs.items():
        with explained(f"seed {seed} was not submitted"):
            experiment = Experiment(workspace, options.experiment)
            runs[seed] = experiment.submit(config, tags={"seed": str(seed)})
        print(f"seed {seed}: {runs[seed].get_portal_url()}", flush=True)
    if not options.wait:
        return 0
    print("Waiting; Ctrl-C ends the waiting, not the runs.", flush=True)
    return 0 if collect(runs, options.output) else 1


def main(arguments=None):
    """Run the command; 2 means that the user has to change something."""
    options = parse_arguments(arguments)
    try:
        return submit(options)
    except UserError as problem:
        print(f"submit.py: error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Runs that were submitted go on; stop them in Studio.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
