"""What Azure ML gets, and what it cannot spoil: the real client against a local stand-in."""

import ast
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from conftest import AzureStandin
from joblib.externals.loky import ProcessPoolExecutor

import load_definitions as loader

multiprocessing.set_forkserver_preload(["torch", "joblib", "matplotlib.figure", "IPython"])
PROCESSES = multiprocessing.get_context("forkserver")
FILES = {"model.pt": b"some weights", "metrics.json": b"{}", "agent.png": b"a picture"}
SERVICES = ("metrics", "artifacts", "history", "blob")
NUMBERS = {"greedy_mean": 490.5, "greedy_min": 310.0, "steadiness": 0.75}


class Patient(ProcessPoolExecutor):
    """Does not give up early, so that a busy machine changes nothing."""

    def submit(self, *work):
        future = super().submit(*work)
        return SimpleNamespace(result=lambda timeout: future.result(timeout + 180))


def send(environment, folder, answer, patient):
    """Send a small run, in a process of its own; report the line that the notebook prints."""
    os.environ.update(environment)
    os.chdir(folder)
    lesson = loader.load(DEVICE="cpu", SEED=7)
    if patient:
        lesson.send_to_azure.__globals__["ProcessPoolExecutor"] = Patient
    files = [lesson.write(name, content) for name, content in FILES.items()]
    evaluations = [(250, 20.0, 9.0, 1.0), (500, 480.0, 400.0, 2.0)]
    result = SimpleNamespace(settings=lesson.settings, evaluations=evaluations)
    answer.send(lesson.send_to_azure(result, NUMBERS, files))


def sent(place, folder, **faults):
    """What the notebook says after sending at a place with these faults, and the stand-in."""
    pytest.importorskip("azureml.core", reason="azureml-core does not exist for this Python")
    folder.mkdir()
    with AzureStandin(folder) as azure:
        azure.faults.update(faults)
        receive, answer = PROCESSES.Pipe(duplex=False)
        patient = "hang" not in faults.values()
        arguments = getattr(azure, place)(folder), folder, answer, patient
        process = PROCESSES.Process(target=send, args=arguments)
        process.start()
        answer.close()
        assert receive.poll(250), "it must give up"
        line = receive.recv()
        process.join(60)
        assert process.exitcode == 0, "nothing may keep the kernel from ending"
    assert azure.unknown == []
    return line, azure


@pytest.fixture(scope="module")
def well(tmp_path_factory):
    """What is said on a compute instance when all goes well, and the stand-in."""
    return sent("instance", tmp_path_factory.mktemp("well") / "instance")


def test_an_instance_gets_a_new_run_with_everything_that_is_completed(well, lesson):
    _, azure = well
    curve = {"validation_mean": [(250, 20.0), (500, 480.0)], "validation_area": [(None, 250.0)]}
    assert azure.metrics == {**curve, **{n: [(None, value)] for n, value in NUMBERS.items()}}
    assert set(azure.tags) >= set(vars(lesson.settings))
    assert azure.tags["SEED"] == "7" and azure.tags["GAMMA"] == "0.99"
    assert azure.status == ["Start", "Completed"] and azure.experiments == ["dqn-cartpole"]
    assert azure.artifacts == {f"outputs/{name}": content for name, content in FILES.items()}


FEW = [("job", "metrics", "hang"), ("instance", "artifacts", "500")]
FEW += [("job", "history", "drop"), ("instance", "blob", "hang")]
PLACES = [("instance", s) for s in SERVICES] + [("job", "metrics"), ("job", "history")]
ALL = [(*place, kind) for place in PLACES for kind in ("drop", "500", "hang")]


@pytest.mark.timeout(550)
@pytest.mark.parametrize("cases", [FEW, pytest.param(ALL, marks=pytest.mark.full)], ids=len)
def test_a_fault_costs_a_line_and_not_what_other_services_keep(well, tmp_path, cases):
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda c: sent(c[0], tmp_path / "-".join(c), **{c[1]: c[2]}), cases)
        for case, (line, azure) in zip(cases, found, strict=True):
            place, service, kind = case
            assert line and line != well[0] and "\n" not in line, case
            if service == "history":
                assert "everything" in line and azure.metrics == {}, case
            elif kind != "hang":  # what comes after it may be lost, and is named
                assert ("metrics" if service == "metrics" else "files") in line, (case, line)
                assert bool(azure.metrics) is (service != "metrics"), case
                status = ["Start", "Completed"] if place == "instance" else []
                least = 1 if service == "metrics" else 2  # without them it is up to the client
                assert azure.status in (status, status[:least]), case


def decision(names):
    """Run what follows the definition of `send_to_azure` in its cell; return what was sent."""
    (source,) = [c["source"] for c in loader.cells() if "def send_to_azure(" in c["source"]]
    statements = [s for s in ast.parse(source).body if not isinstance(s, ast.FunctionDef)]
    calls = []
    names = {**vars(names), "final": 1, "numbers": 2, "files": 3}
    names["send_to_azure"] = lambda *args: calls.append(args) or "some words"
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    assert calls in ([], [(1, 2, 3)])
    return bool(calls)


SENT = ["config instance", "config azureml", "job", "job azureml"]  # where, what TRACKING says
KEPT = ["", "config", "instance", "job config instance off"]
REFUSED = ["instance azureml"]


@pytest.mark.parametrize("place", [*SENT, *KEPT, *REFUSED])
def test_place_and_setting_decide_what_is_sent(tmp_path, monkeypatch, capsys, place):
    inside, config = tmp_path / "home" / "notebooks", tmp_path / ".azureml" / "config.json"
    inside.mkdir(parents=True), config.parent.mkdir()
    monkeypatch.chdir(inside)
    for name, mark in (("AZUREML_RUN_ID", "job"), ("MSI_ENDPOINT", "instance")):
        monkeypatch.setenv(name, "something")
        if mark not in place.split():
            monkeypatch.delenv(name)
    if "config" in place.split():
        config.write_text("{}")
    tracking = (place.split() or [""])[-1]
    parameters = {"TRACKING": tracking if tracking in ("off", "azureml") else "auto"}
    parameters |= {"DEVICE": "cpu", "OUTPUT_DIR": "some-folder"}
    if place in REFUSED:
        with pytest.raises(ValueError, match="TRACKING.*azureml"):
            loader.load(**parameters)
    else:
        assert decision(loader.load(**parameters)) is (place in SENT)
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "some-folder" in said
        assert ("some words" in said) is (place in SENT)
