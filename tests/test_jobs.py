"""The files in jobs/ bring the notebook to Azure ML: they are valid, agree, and really run."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from azure_standin import AzureStandin, token
from conftest import execute
from papermill.cli import _resolve_type
from submit_standin import SubmitStandin

import lesson as loader

JOBS = loader.ROOT / "jobs"
sys.path.insert(0, str(JOBS))

import submit  # noqa: E402

AZURE_AI_ML = "azure-ai-ml==1.35.2"  # what the Azure CLI's extension `ml` checks files with
FILES = {
    "job": "Command",
    "sweep": "SweepJob",
    "cluster": "AmlCompute",
    "compute-instance": "ComputeInstance",
    "workspace": "Workspace",
}


def read(name):
    """Return one of the files in jobs/ as a dictionary."""
    return yaml.safe_load((JOBS / f"{name}.yml").read_text(encoding="utf-8"))


JOB, SWEEP, CLUSTER = read("job"), read("sweep"), read("cluster")
COMMANDS = {"job": JOB["command"], "sweep": SWEEP["trial"]["command"]}


def filled(command, **values):
    """Return a command with its ${{...}} replaced, as Azure ML does."""
    return re.sub(r"\$\{\{\w+\.(\w+)\}\}", lambda match: str(values[match[1]]), command)


def parameters(command):
    """Return the notebook parameters that a command sets, in the types that papermill makes."""
    words = shlex.split(command.split("papermill", 1)[1])
    places = [i for i, word in enumerate(words) if word == "-p"]
    assert len({words[i + 1] for i in places}) == len(places), "a parameter is set twice"
    return {words[i + 1]: _resolve_type(words[i + 2]) for i in places}


def trials():
    """Return the parameters of every trial of the sweep."""
    space = SWEEP["search_space"]
    for values in itertools.product(*(choice["values"] for choice in space.values())):
        yield parameters(filled(COMMANDS["sweep"], **dict(zip(space, values, strict=True))))


# --- the files agree -----------------------------------------------------------------------


@pytest.mark.parametrize("name,defined", [("job", JOB["inputs"]), ("sweep", SWEEP["search_space"])])
def test_what_a_command_uses_is_defined_and_the_other_way_round(name, defined):
    kind = "inputs" if name == "job" else "search_space"
    used = re.findall(r"\$\{\{([^}]*)\}\}", COMMANDS[name])
    assert sorted(used) == sorted(f"{kind}.{key}" for key in defined)


def test_the_notebook_accepts_every_parameter_of_every_job(lesson):
    jobs = [parameters(filled(COMMANDS["job"], **JOB["inputs"])), *trials()]
    for values in jobs:
        settings = lesson.change_settings(lesson.settings, **values)
        assert settings.COMPARE_SEEDS == settings.ABLATION_SEEDS == 0
    assert len(jobs) == 1 + SWEEP["limits"]["max_total_trials"]


def test_the_job_without_changes_is_the_notebook_without_changes(lesson):
    values = parameters(filled(COMMANDS["job"], **JOB["inputs"]))
    differences = {name for name in values if values[name] != getattr(lesson.settings, name)}
    assert differences == {"COMPARE_SEEDS", "ABLATION_SEEDS"}


def test_the_sweep_has_the_default_among_its_trials_and_only_tuning_seeds(lesson):
    defaults = [(t["LR"], t["TAU"]) for t in trials()].count(
        (lesson.settings.LR, lesson.settings.TAU)
    )
    seeds = SWEEP["search_space"]["seed"]["values"]
    assert defaults == len(seeds) >= 3
    assert min(seeds) >= 1000, "the reported results are from seeds below 1000"


def test_the_limits_of_the_sweep_fit_together():
    limits, policy = SWEEP["limits"], SWEEP["early_termination"]
    assert limits["max_concurrent_trials"] == CLUSTER["max_instances"]
    rounds = -(-limits["max_total_trials"] // limits["max_concurrent_trials"])
    assert rounds * 300 < limits["timeout"], "five minutes for each trial"
    assert limits["trial_timeout"] < limits["timeout"]
    assert policy["delay_evaluation"] < 40 and policy["slack_factor"] > 0


def test_the_sweep_would_tell_our_own_runs_apart_and_end_none_of_them():
    """The areas under the reported runs' validation curves, at every interval of the policy."""
    results = json.loads((loader.ROOT / "benchmarks" / "results" / "latest.json").read_text())
    runs = [run for run in results["runs"] if run["implementation"] == "notebook"]
    means = [[point[2] for point in run["curve"]] for run in runs]
    policy = SWEEP["early_termination"]
    for count in range(policy["delay_evaluation"], 41, policy["evaluation_interval"]):
        areas = [sum(run[:count]) for run in means]
        assert max(areas) < (1 + policy["slack_factor"]) * min(areas), count
    assert len(set(areas)) > 0.9 * len(runs) > len({max(run) for run in means})


def test_the_primary_metric_is_one_that_the_notebook_logs(committed):
    code = "\n".join("".join(c["source"]) for c in committed["cells"] if c["cell_type"] == "code")
    metric = SWEEP["objective"]["primary_metric"]
    assert re.search(rf"""["']{metric}["']""", code)
    assert SWEEP["objective"]["goal"] == "maximize"


def test_code_packages_image_and_compute_are_the_same_everywhere():
    environments = [JOB["environment"], SWEEP["trial"]["environment"]]
    for environment, code in zip(environments, [JOB["code"], SWEEP["trial"]["code"]], strict=True):
        assert environment["image"] == submit.IMAGE
        assert (JOBS / environment["conda_file"]).resolve() == loader.ROOT / "environment.yml"
        assert (JOBS / code).resolve() == loader.ROOT
    assert JOB["compute"] == SWEEP["compute"] == f"azureml:{CLUSTER['name']}"
    assert submit.parse_arguments([]).compute == CLUSTER["name"]


def test_nothing_runs_unless_it_is_used():
    assert CLUSTER["min_instances"] == 0 and CLUSTER["idle_time_before_scale_down"] <= 600
    assert 15 <= read("compute-instance")["idle_time_before_shutdown_minutes"] <= 60


# --- the files are valid -------------------------------------------------------------------

CHECK = """
import json, sys
from azure.ai.ml import load_compute, load_job, load_workspace
from azure.ai.ml._utils._asset_utils import get_ignore_file, get_upload_files_from_folder

result = {}
for path in sys.argv[2:]:
    load = load_workspace if "workspace" in path else load_job
    if "cluster" in path or "instance" in path:
        load = load_compute
    try:
        result[path] = type(load(path)).__name__
    except Exception as error:
        result[path] = f"error: {error}"
ignore = get_ignore_file(sys.argv[1])
files = get_upload_files_from_folder(sys.argv[1], prefix="", ignore_file=ignore)
result["uploaded"] = [target for _, target in files]
changed = load_job("jobs/job.yml", params_override=[{"inputs.seed": 7}])
result["inputs"] = changed._to_dict()["inputs"]
print(json.dumps(result))
"""
DAMAGES = {  # what is right, what is wrong, and a word of the complaint
    "job": ["limits:", "limitz:", "limitz"],
    "sweep": ["type: choice", "type: choise", "choise"],
    "cluster": ["max_instances: 4", "max_instances: many", "max_instances"],
    "compute-instance": ["idle_time_before_shutdown_minutes", "idle_shutdown", "idle_shutdown"],
    "workspace": ["display_name", "shown_name", "shown_name"],
}


@pytest.fixture(scope="module")
def azure_ai_ml():
    """Make (once) an environment with azure-ai-ml, which does not go well with azureml-core."""
    folder = loader.ROOT / ".matrix" / AZURE_AI_ML
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, AZURE_AI_ML, "-c", loader.ROOT / "constraints.txt"], check=True)
        (folder / "ready").touch()
    return python


PRIVATE = """
.venv/bin/python .matrix/x/ready .git/config outputs/metrics.json config.json .azureml/config.json
notes.txt notebooks/outputs/model.pt notebooks/config.json notebooks/.azureml/config.json
notebooks/executed.ipynb notebooks/.ipynb_checkpoints/dqn_cartpole.ipynb
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository as somebody has it who works in it, with much that is private."""
    root = tmp_path_factory.mktemp("tree")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=loader.ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (loader.ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(loader.ROOT / name, root / name)
    for name in PRIVATE.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("private")
    return root


@pytest.fixture(scope="module")
def checked(azure_ai_ml, tree):
    """What azure-ai-ml says about our files, about damaged ones, and what it would upload."""
    for name, (right, wrong, _) in DAMAGES.items():
        text = (tree / "jobs" / f"{name}.yml").read_text()
        assert right in text
        (tree / "jobs" / f"damaged-{name}.yml").write_text(text.replace(right, wrong))
    files = [f"jobs/{kind}{name}.yml" for name in FILES for kind in ("", "damaged-")]
    command = [azure_ai_ml, "-c", CHECK, tree, *files]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.run
@pytest.mark.parametrize("name", FILES)
def test_azure_ai_ml_accepts_our_file_and_refuses_a_damaged_one(checked, name):
    assert checked[f"jobs/{name}.yml"] == FILES[name]
    complaint = checked[f"jobs/damaged-{name}.yml"]
    assert complaint.startswith("error:") and DAMAGES[name][2] in complaint


@pytest.mark.run
def test_inputs_can_be_set_on_the_command_line(checked):
    """`az ml job create --set inputs.seed=7` does this."""
    assert str(checked["inputs"]["seed"]) == "7"
    assert str(checked["inputs"]["max_steps"]) == str(JOB["inputs"]["max_steps"])


@pytest.mark.run
def test_only_the_notebook_is_uploaded(checked):
    assert checked["uploaded"] == ["notebooks/dqn_cartpole.ipynb"]


# --- the files run -------------------------------------------------------------------------

PROGRAMS = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])


def logged_as_the_sweep_needs_it(azure, count):
    """Check that the sweep's metric arrived so many times and that its last value is its best."""
    values = [value for _, value in azure.metrics[SWEEP["objective"]["primary_metric"]]]
    assert len(values) == count and 0 < values[0] < 500
    assert values == sorted(values)


@pytest.mark.run
@pytest.mark.slow
def test_a_trial_of_the_sweep_runs(checked, tree, tmp_path):
    for name in checked["uploaded"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / name, tmp_path / name)
    values = {"seed": 1001, "lr": 0.005, "tau": 0.05}
    command = filled(COMMANDS["sweep"], **values) + " -p MAX_STEPS 1500"
    with AzureStandin(tmp_path) as azure:
        result = execute(["bash", "-c", command], tmp_path, PATH=PROGRAMS, **azure.job(tmp_path))
    assert result.code == 0, result.text[-3000:]
    metrics = json.loads((tmp_path / "outputs" / "metrics.json").read_text())
    executed = (tmp_path / "outputs" / "executed.ipynb").read_text()
    assert metrics["seed"] == 1001 and "LR = 0.005" in executed and "TAU = 0.05" in executed
    logged_as_the_sweep_needs_it(azure, 3)


# --- submit.py: the command line -----------------------------------------------------------


@pytest.mark.parametrize(
    "text,seeds",
    [("0-4", [0, 1, 2, 3, 4]), ("0,3,7", [0, 3, 7]), (" 2 , 1-2", [2, 1]), ("5-5", [5])],
)
def test_seeds(text, seeds):
    assert submit.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "1.5", "0-100", "0,,1", "1234567890", "²"])
def test_bad_seeds_are_refused_with_one_line(text, capsys):
    with pytest.raises(SystemExit) as ended:
        submit.main([f"--seeds={text}", "--dry-run"])
    assert ended.value.code == 2
    assert "argument --seeds: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "options,complaint",
    [
        (["-p", "LR", "5"], "LR = 5 (int) is not valid"),
        (["-p", "SPEED", "5"], "unknown parameters: ['SPEED']"),
        (["-p", "MAX_STEPS", "many"], "MAX_STEPS = 'many' (str) is not valid"),
    ],
)
def test_what_the_notebook_would_refuse_is_refused_at_once(options, complaint, capsys):
    assert submit.main(["--dry-run", *options]) == 2
    out, error = capsys.readouterr()
    assert complaint in error and error.count("\n") == 1 and out == ""


@pytest.mark.parametrize("options", [["-p", "SEED", "1"], ["--max-nodes", "0"], ["-p", "LR"]])
def test_wrong_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as ended:
        submit.main(options)
    assert ended.value.code == 2
    assert "submit.py: error: " in capsys.readouterr().err.splitlines()[-1]


def test_submit_and_job_yml_run_the_same_command():
    command = filled(COMMANDS["job"], seed=7, max_steps=5000)
    assert submit.make_command(7, {"MAX_STEPS": "5000"}) == command


def test_parameters_cannot_break_out_of_the_command():
    command = submit.make_command(0, {"OUTPUT_DIR": "a b; touch $HOME"})
    assert parameters(command)["OUTPUT_DIR"] == "a b; touch $HOME"
    assert command.endswith("""-p OUTPUT_DIR 'a b; touch $HOME'""")


def test_the_summary_has_median_and_range_of_what_there_is():
    rows = [
        {"seed": 0, "status": "Completed", "greedy_mean": 480.0, "solved_at_step": 1000},
        {"seed": 1, "status": "Failed"},
        {"seed": 2, "status": "Completed", "greedy_mean": 500.0, "solved_at_step": None},
        {"seed": 3, "status": "Completed", "greedy_mean": 200.5, "solved_at_step": 2500},
    ]
    *table, last = submit.summarise(rows).splitlines()
    assert last == "greedy_mean of 3 seeds: median 480.00, from 200.50 to 500.00"
    assert table[0].split() == submit.COLUMNS and table[2].split()[:2] == ["1", "Failed"]
    assert len({len(line) for line in table}) == 1


# --- submit.py: against a stand-in of Azure, with the real client --------------------------


def az(folder, signed_in=True):
    """Put an Azure CLI into a folder that is signed in or not; return the PATH with it."""
    program = folder / "programs" / "az"
    program.parent.mkdir()
    answer = f"echo {token()}" if signed_in else "echo 'Please run az login' >&2; exit 1"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return os.pathsep.join([str(program.parent), PROGRAMS])


def run_submit(folder, *options, **environment):
    """Run submit.py in a folder of its own."""
    working = folder / "working"
    working.mkdir(exist_ok=True)
    return execute([sys.executable, JOBS / "submit.py", *options], working, **environment)


def on_instance(azure, folder):
    """Return the environment of a compute instance with a workspace."""
    (folder / "working").mkdir()
    return azure.compute_instance(folder, folder / "working")


def assert_one_line(result, text):
    """A clear error: exit code 2, one line that says `text`, no traceback."""
    assert result.code == 2, result.text
    (line,) = [line for line in result.text.splitlines() if "error" in line.lower()]
    assert line.startswith("submit.py: error: ") and text in line
    assert "Traceback" not in result.text


@pytest.mark.run
def test_what_is_submitted_is_what_runs(tmp_path):
    """Two seeds, from the command line to the table; the first run is executed for real."""

    def work(run):
        if "-p SEED 3 " in run.config["command"]:
            azure.execute(run)
        else:
            run.outputs["outputs/metrics.json"] = b'{"seed": 11, "greedy_mean": 9.25}'
            run.outputs["outputs/durations.csv"] = b"episode,steps,duration\n1,9,9\n"
            run.status = "Completed"

    with SubmitStandin(tmp_path, work=work) as azure:
        on_instance(azure, tmp_path)  # writes config.json; but we sign in with the Azure CLI
        path = az(tmp_path)
        options = ["--seeds", "3,11", "-p", "MAX_STEPS", "1000", "--experiment", "two", "--wait"]
        result = run_submit(tmp_path, *options, PATH=path, **azure.offline(tmp_path))
    runs = list(azure.submitted.values())
    assert result.code == 0, (result.text + runs[0].log)[-3000:]
    assert not azure.unknown and not azure.made

    conda = yaml.safe_load((loader.ROOT / "environment.yml").read_text())
    for run, seed in zip(runs, (3, 11), strict=True):
        assert run.config["command"] == filled(COMMANDS["job"], seed=seed, max_steps=1000)
        assert run.config["environment"]["python"]["condaDependencies"] == conda
        assert run.config["environment"]["docker"]["baseImage"] == submit.IMAGE
        assert run.config["docker"]["useDocker"] is True
        assert run.config["target"] == "cpu-cluster"
        assert run.config["maxRunDurationSeconds"] == JOB["limits"]["timeout"]
        assert (run.experiment, run.tags["seed"]) == ("two", str(seed))
        assert f"seed {seed}: {azure.url}/runs/{run.id}?" in result.text
    assert azure.uploaded == {"notebooks/dqn_cartpole.ipynb": loader.NOTEBOOK.read_bytes()}

    output = tmp_path / "working" / "outputs" / "jobs"
    first, second = json.loads((output / "summary.json").read_text())
    assert (first["seed"], first["env_steps"], first["status"]) == (3, 1000, "Completed")
    assert second == {"seed": 11, "greedy_mean": 9.25, "status": "Completed"}
    assert f"from 9.25 to {first['greedy_mean']:.2f}" in result.text
    assert (output / "summary.txt").read_text() in result.text
    assert (output / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    curve = (output / "seed-3" / "durations.csv").read_bytes()
    assert curve == runs[0].outputs["outputs/durations.csv"] and len(curve) > 100
    assert b"cells" in runs[0].outputs["outputs/executed.ipynb"]
    logged_as_the_sweep_needs_it(azure, 2)


@pytest.mark.run
def test_a_cluster_is_made_on_demand_and_runs_without_results_are_told(tmp_path):
    def work(run):
        run.status = "Failed" if "-p SEED 0 " in run.config["command"] else "Completed"

    with SubmitStandin(tmp_path, computes=["other"], work=work) as azure:
        options = ["--seeds", "0-1", "--vm-size", "Standard_F4s_v2", "--max-nodes", "3", "--wait"]
        environment = on_instance(azure, tmp_path)
        result = run_submit(tmp_path, *options, "--output", "here", **environment)
    assert result.code == 1, result.text
    (cluster,) = azure.made
    assert (cluster["name"], cluster["vmSize"]) == ("cpu-cluster", "Standard_F4s_v2")
    scale = cluster["scaleSettings"]
    assert (scale["minNodeCount"], scale["maxNodeCount"]) == (0, 3)
    assert [run.tags["seed"] for run in azure.submitted.values()] == ["0", "1"]
    rows = json.loads((tmp_path / "working" / "here" / "summary.json").read_text())
    assert rows == [{"seed": 0, "status": "Failed"}, {"seed": 1, "status": "no results"}]
    assert not (tmp_path / "working" / "here" / "learning_curves.png").exists()
    assert "seed 1: no results, " in result.text and "Traceback" not in result.text
    assert not azure.unknown


@pytest.mark.run
def test_a_dry_run_sends_nothing_and_needs_no_workspace(tmp_path):
    with SubmitStandin(tmp_path) as azure:
        options = ["--seeds", "1-2", "--vm-size", "Standard_D2s_v3", "--dry-run", "--wait"]
        result = run_submit(tmp_path, *options, **azure.offline(tmp_path))
    assert result.code == 0, result.text
    for seed in (1, 2):
        assert submit.make_command(seed, {}) in result.text
    assert not azure.requests and not azure.unknown
    assert not any((tmp_path / "working").iterdir())


@pytest.mark.run
def test_an_unknown_compute_is_named_with_those_there_are(tmp_path):
    with SubmitStandin(tmp_path, computes=["small", "large"]) as azure:
        result = run_submit(tmp_path, "--compute", "tiny", **on_instance(azure, tmp_path))
    assert_one_line(result, "no compute named 'tiny' in workspace standin (there: large, small)")
    assert not azure.made and not azure.submitted


@pytest.mark.run
def test_a_cluster_that_cannot_be_made_is_explained(tmp_path):
    with SubmitStandin(tmp_path, computes=[], provisioning="Failed") as azure:
        options = ["--vm-size", "Standard_D2s_v3"]
        result = run_submit(tmp_path, *options, **on_instance(azure, tmp_path))
    assert_one_line(result, "no cores left")
    assert not azure.submitted


@pytest.mark.run
def test_a_refused_run_is_explained_and_earlier_ones_stay_listed(tmp_path):
    with SubmitStandin(tmp_path, work=lambda run: None) as azure:
        start = azure.start_run

        def only_one(request):
            refusal = {"error": {"code": "UserError", "message": "the cluster is being deleted"}}
            return (400, refusal) if azure.submitted else start(request)

        azure.route("POST", r"/execution/.*/experiments/(?P<name>[^/]+)/snapshotrun", only_one)
        result = run_submit(tmp_path, "--seeds", "4,5", **on_instance(azure, tmp_path))
    assert_one_line(result, "seed 5 was not submitted: the cluster is being deleted")
    assert f"seed 4: {azure.url}/runs/run-0?" in result.text


@pytest.mark.run
def test_without_a_workspace_or_a_sign_in_it_says_what_to_do(tmp_path):
    with SubmitStandin(tmp_path) as azure:
        here = azure.offline(tmp_path)
        path = az(tmp_path, signed_in=False)
        assert_one_line(run_submit(tmp_path, PATH=path, **here), "no config.json here or above")
        azure.compute_instance(tmp_path, tmp_path / "working")  # writes config.json
        assert_one_line(run_submit(tmp_path, PATH=path, **here), "not signed in: run `az login`")
        nowhere = run_submit(tmp_path, PATH=str(tmp_path), **here)
        assert_one_line(nowhere, "the Azure CLI is not installed")
    assert not azure.submitted
