"""Interrupted, killed, rerun, misused: the lesson stays whole and says what is wrong."""

import json
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel import Kernel

import lesson as loader

CPU = torch.device("cpu")
TINY = {"MAX_STEPS": 400, "EVAL_EVERY": 200, "MEMORY_SIZE": 1000, "SEED": 77}
SKIP = {"COMPARE_SEEDS": 0, "ABLATION_SEEDS": 0, "DEVICE": "cpu", "TRACKING": "off"}


def counts(quick, full):
    """Two cases of a test: a quick one, and the full count for the slow suite."""
    return [quick, pytest.param(full, marks=pytest.mark.slow)]


def tiny_run(lesson):
    return lesson.make_run(lesson.change_settings(lesson.settings, **TINY), CPU)


# --- interrupts ----------------------------------------------------------------------------


@pytest.mark.parametrize("moments", counts(5, 50))
def test_interrupted_at_random_moments_training_ends_as_if_it_had_not_been(lesson, moments):
    whole, generator, interrupted = lesson.train(tiny_run(lesson)), random.Random(moments), 0
    for _ in range(moments):
        run = tiny_run(lesson)
        while not run.finished:
            delay = generator.uniform(0.0, 0.3)
            bell = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
            try:
                bell.start()
                lesson.train(run)
            except KeyboardInterrupt:  # ours, or one that came before training began
                interrupted += 1
            finally:
                bell.cancel()
                bell.join()
        assert run.durations == whole.durations
        assert run.evaluations == whole.evaluations
        for name, tensor in whole.agent.policy_net.state_dict().items():
            assert torch.equal(tensor, run.agent.policy_net.state_dict()[name])
    assert interrupted >= moments / 2


@pytest.mark.run
def test_the_kernels_interrupt_stops_training_and_running_again_goes_on(tmp_path):
    with Kernel(tmp_path, MAX_STEPS=3000, **SKIP) as kernel:
        train = kernel.find("train(run, live_plot, tracker)")
        make = kernel.find("# of an earlier run")
        for index in kernel.code:
            if index < train:
                assert kernel.cell(index).error is None
        message = kernel.start(kernel.cells[train]["source"])
        time.sleep(1)
        kernel.manager.interrupt_kernel()
        found = kernel.finish(message)
        assert found.error.startswith("Interrupted: Interrupted after step")
        assert "To go on, run this cell again" in found.error
        assert len(found.traceback) == 1 and found.pictures >= 1
        steps = int(kernel.execute("print(run.steps)").text)
        assert 0 < steps < 3000
        assert kernel.cell(train).error is None
        assert kernel.execute("print(run.steps)").text.strip() == "3000"
        again = "print(run.durations == train(make_run(run.settings, device)).durations)"
        assert kernel.execute(again).text.strip() == "True"
        assert kernel.cell(make).error is None
        assert kernel.execute("print(run.steps)").text.strip() == "0"


# --- killed --------------------------------------------------------------------------------

SAVING = """
import sys; sys.path.insert(0, {tools!r})
import lesson as loader
lesson = loader.load(OUTPUT_DIR={folder!r}, DEVICE="cpu", MAX_STEPS=150, EVAL_EVERY=150)
run = lesson.train(lesson.make_run(lesson.settings, lesson.device))
run.held_out = lesson.evaluate(lesson.best_policy(run), range(3), "CartPole-v1")
print("ready", flush=True)
while True:
    lesson.save_results(run, {{}}, lesson.output_dir)
"""


@pytest.mark.run
@pytest.mark.parametrize("moments", counts(3, 50))
def test_killed_at_random_moments_no_file_is_half_written(lesson, tmp_path, moments):
    generator = random.Random(moments)
    script = SAVING.format(tools=str(loader.ROOT / "tools"), folder=str(tmp_path))
    for _ in range(moments):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout.readline() == b"ready\n"
                time.sleep(generator.uniform(0.05, 0.5))
            finally:
                process.kill()
        if (tmp_path / "metrics.json").exists():
            assert json.loads((tmp_path / "metrics.json").read_text())["env_steps"] == 150
        if (tmp_path / "model.pt").exists():
            lesson.load_agent(tmp_path / "model.pt", CPU)
        assert lesson.prepare_folder(str(tmp_path)) and not list(tmp_path.glob("*.part"))


# --- cells out of order --------------------------------------------------------------------


@pytest.mark.run
def test_every_cell_may_be_run_twice(tmp_path):
    with Kernel(tmp_path, MAX_STEPS=300, EVAL_EVERY=100, **SKIP) as kernel:
        for index in kernel.code:
            for _ in range(2):
                found = kernel.cell(index)
                assert found.error is None, f"{kernel.cells[index]['source'][:60]}: {found.error}"


PROBE = """
saved = json.loads((output_dir / "metrics.json").read_text())
fresh = train(make_run(change_settings(settings, SEED=saved["seed"]), device))
fresh.held_out = evaluate(best_policy(fresh), HELD_OUT_STARTS, settings.ENV_ID)
fresh_metrics = metrics_of(fresh)
stored = load_agent(output_dir / "model.pt", device)[0].state_dict()
same = [n for n in fresh_metrics if "seconds" not in n and fresh_metrics[n] != saved[n]]
lines = (output_dir / "durations.csv").read_text().split()[1:]
rows = [tuple(map(int, line.split(","))) for line in lines]
weights = all(torch.equal(stored[name], best) for name, best in fresh.best_weights.items())
print(same, rows == fresh.durations, weights)
"""


@pytest.mark.run
@pytest.mark.parametrize("orders", counts(6, 300))
def test_cells_in_random_orders_never_mix_old_and_new(tmp_path, orders):
    """After any order, what is saved is one whole run, or a message says what to run first."""
    generator, refused = random.Random(orders), 0
    with Kernel(tmp_path, MAX_STEPS=250, EVAL_EVERY=125, **SKIP) as kernel:
        kernel.run_to_the_end()
        settings_cell = kernel.find("settings = settings_now()\ndevice")
        first = kernel.find("# of an earlier run")
        last = kernel.find("fresh_net, fresh_settings = load_agent")
        for _ in range(orders):
            kernel.execute(f"SEED = {generator.randrange(3)}")
            some = [settings_cell, *[i for i in kernel.code if first <= i <= last]]
            for index in generator.choices(some, k=6):
                error = kernel.cell(index).error
                if error:
                    refused += 1
                    assert error.startswith("RuntimeError") and "run" in error, error
            order = [settings_cell, first, first + 2, *range(first + 3, last + 1)]
            skipped = generator.choice([None, *order[3:]])
            errors = [kernel.cell(i).error for i in order if i in kernel.code and i != skipped]
            assert skipped is not None or not any(errors)
            saved = kernel.execute(PROBE)
            assert saved.error is None, saved.error
            assert saved.text == "[] True True\n", saved.text
            assert all(error is None or "first" in error or "again" in error for error in errors)
    assert refused > 0, "some of these orders must be refused"


# --- bad input -----------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=2)), max_size=5),
    st.sampled_from(["auto", "off", "target", "policy", "cpu", 1e-4, 0.5, 1, 2, 100]),
)
PLAUSIBLE = {  # values that have a good chance to be accepted, by the type of a parameter
    bool: st.booleans(),
    int: st.integers(0, 1000),
    float: st.floats(0, 1),
    str: st.sampled_from(["auto", "off", "target", "policy", "my-model"]),
    list: st.lists(st.floats(0.001, 10), min_size=4, max_size=4),
}


@pytest.mark.parametrize("examples", counts(300, 5000))
def test_any_parameters_are_refused_clearly_or_run(lesson, examples):
    names = [name for name in lesson.RULES if name not in ("DEVICE", "ENV_ID", "OUTPUT_DIR")]
    two = {name: st.sampled_from([PLAUSIBLE[lesson.RULES[name][0]], ANYTHING]) for name in names}
    value = {name: kind.flatmap(lambda strategy: strategy) for name, kind in two.items()}
    some = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
    ran = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(some.flatmap(lambda some: st.fixed_dictionaries({n: value[n] for n in some})))
    def check(changes):
        try:
            s = lesson.change_settings(lesson.settings, **changes)
        except ValueError as error:
            name, rest = str(error).split(" = ", 1)
            assert name in changes or name in ("SEED", "EPS_END", "BATCH_SIZE"), error
            assert "is not valid: it must be " in rest
            return
        ran.append(s)
        s.BATCH_SIZE, s.MEMORY_SIZE = min(s.BATCH_SIZE, 4), min(s.MEMORY_SIZE, 1000)
        run = lesson.make_run(s, CPU)
        try:
            for _ in range(6):
                lesson.act_and_remember(run)
                lesson.learn(run)
        except FloatingPointError as error:
            assert "diverged" in str(error)
            return
        assert all(torch.isfinite(tensor).all() for tensor in run.agent.policy_net.parameters())

    check()
    assert examples / 5 < len(ran) < examples * 4 / 5


def test_a_diverging_run_is_stopped_with_an_explanation(lesson):
    run = tiny_run(lesson)
    run.agent.memory.fields.reward[:] = math.inf
    with pytest.raises(FloatingPointError, match="diverged.*Lower LR"):
        for _ in range(200):
            lesson.act_and_remember(run)
            run.agent.memory.fields.reward[:] = math.inf
            lesson.learn(run)
    assert all(torch.isfinite(tensor).all() for tensor in run.agent.policy_net.parameters())


def test_changed_parameters_are_noticed_before_anything_long_starts():
    other = loader.load(DEVICE="cpu", TRACKING="off")
    other.expect_current(other.settings)
    other.expect_current.__globals__["SEED"] = 5
    with pytest.raises(RuntimeError, match=r"SEED changed: first run the cell 'settings = "):
        other.expect_current(other.settings)


# --- files ---------------------------------------------------------------------------------


class Evil:
    """Would write a file when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def bad_files(lesson, folder):
    """Yield (what is wrong, content) of files that are no agent."""
    run = lesson.train(tiny_run(lesson))
    path = folder / "good.pt"
    assert lesson.save_agent(path, run.best_weights, run.settings)
    good = path.read_bytes()
    yield "empty", b""
    yield "truncated", good[: len(good) // 2]
    yield "text", b"hello, I am not a model"
    yield "malicious", pickle.dumps(Evil(folder / "harm"))

    def saved(content):
        torch.save(content, folder / "other.pt")
        return (folder / "other.pt").read_bytes()

    yield "malicious weights", saved({"weights": Evil(folder / "harm"), "settings": {}})
    yield "foreign", saved({"layer": torch.zeros(3)})
    yield "a list", saved([1, 2, 3])
    whole = {"weights": run.best_weights, "settings": vars(run.settings)}
    yield "bad settings", saved({**whole, "settings": {**vars(run.settings), "GAMMA": 7}})
    narrow = {**run.best_weights, "layer1.weight": torch.zeros(64, 4)}
    yield "other shapes", saved({**whole, "weights": narrow})
    broken = {**run.best_weights, "layer3.bias": torch.full((2,), math.nan)}
    yield "not numbers", saved({**whole, "weights": broken})
    three = {
        name: torch.zeros(3, *t.shape[1:]) for name, t in run.best_weights.items() if "3" in name
    }
    yield "three actions", saved({**whole, "weights": {**run.best_weights, **three}})


def test_files_that_are_no_agent_are_refused(lesson, tmp_path):
    for what, content in bad_files(lesson, tmp_path):
        path = tmp_path / "model.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pt"):
            lesson.load_agent(path, CPU)
            raise AssertionError(what)
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_costs_no_result(lesson, tmp_path, capsys):
    run = lesson.train(tiny_run(lesson))
    run.held_out = lesson.evaluate(lesson.best_policy(run), range(3), "CartPole-v1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        lesson.save_results(run, {}, tmp_path)
        worked = lesson.save_agent(tmp_path / "model.pt", run.best_weights, run.settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().out
    assert not worked
    assert "model.pt could not be written" in said and "learning_curve.png could not" in said
    assert json.loads((tmp_path / "metrics.json").read_text())["env_steps"] == 400
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "durations.csv"}
    assert run.files == {"metrics.json", "durations.csv"}


SPOIL = {  # what happens to the output folder while the agent trains
    "full": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, -1))",
    "replaced by a file": "import shutil; shutil.rmtree(output_dir); output_dir.write_text('')",
}


@pytest.mark.run
@pytest.mark.parametrize("what", SPOIL)
def test_a_folder_that_goes_bad_costs_nothing_that_is_on_the_screen(tmp_path, what):
    with Kernel(tmp_path, MAX_STEPS=300, EVAL_EVERY=100, **SKIP) as kernel:
        said, shown = "", set()
        train = kernel.find("train(run, live_plot, tracker)")
        for index in kernel.code:
            found = kernel.cell(index)
            assert found.error is None, f"{kernel.cells[index]['source'][:60]}: {found.error}"
            said += found.text
            if found.pictures:
                shown.add(index)
            if index == train:
                assert kernel.execute(SPOIL[what]).error is None
        for name in ("model.pt", "learning_curve.png", "evaluation.png"):
            assert f"{name} could not be written" in said
        assert '"greedy_mean"' in said
        assert shown >= {
            kernel.find(f'run.pictures["{name}"] = ') for name in ("evaluation", "agent")
        }
        state = "print(run.held_out.size, len(run.durations) > 0, 'model.pt' in run.files)"
        assert kernel.execute(state).text == "100 True False\n"


def test_a_deleted_folder_is_made_again(lesson, tmp_path):
    assert lesson.write_file(tmp_path / "gone" / "outputs" / "note.txt", "complete")
    assert (tmp_path / "gone" / "outputs" / "note.txt").read_text() == "complete"


# --- reproducible --------------------------------------------------------------------------

CURVE = """
import sys; sys.path.insert(0, {tools!r})
import torch, lesson as loader
lesson = loader.load(OUTPUT_DIR="o", DEVICE="cpu", MAX_STEPS=1000, SEED=5)
torch.set_num_threads({threads})
run = lesson.train(lesson.make_run(lesson.settings, lesson.device))
print(run.durations, run.evaluations)
"""


@pytest.mark.run
def test_threads_hash_seed_folder_and_locale_do_not_change_the_curve(tmp_path):
    curves = set()
    for i, (threads, changes) in enumerate(
        [(1, {}), (2, {"PYTHONHASHSEED": "7"}), (1, {"LC_ALL": "C", "PYTHONHASHSEED": "8"})]
    ):
        folder = tmp_path / f"some folder {i} ä"
        folder.mkdir()
        script = CURVE.format(tools=str(loader.ROOT / "tools"), threads=threads)
        environment = {**os.environ, **changes}
        command = [sys.executable, "-c", script]
        curves.add(subprocess.check_output(command, cwd=folder, env=environment))
    assert len(curves) == 1 and len(curves.pop()) > 200
