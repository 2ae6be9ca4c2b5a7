"""Files and pictures: whole or not there, and showing what they should."""

import io
import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from tools import load_definitions as loader


def test_a_file_is_replaced_and_nothing_else_is_left(lesson, tmp_path):
    for content in (b"first", b"old" * 100):
        path = lesson.write(str(tmp_path / "some.bin"), content)
        assert path == tmp_path / "some.bin"
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new(lesson, tmp_path):
    resource = pytest.importorskip("resource")
    path = lesson.write(tmp_path / "some.bin", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            lesson.write(path, b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file_even_of_a_killed_writer(lesson, tmp_path):
    contents = [letter * 5_000_000 for letter in (b"a", b"b")]
    path = lesson.write(tmp_path / "some.bin", contents[0])
    writer = os.fork()
    if not writer:
        while True:
            for content in contents:
                lesson.write(path, content)
    try:
        seen = [contents[0]]
        while len(seen) < 20:
            found = path.read_bytes()
            assert found in contents
            if found != seen[-1]:
                seen.append(found)
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    assert path.read_bytes() in contents


SAVE_AND_LOAD = """
import sys
from pathlib import Path
from tools.load_definitions import load
lesson = load(DEVICE="cpu")
path = Path(sys.argv[1]) / "model.pt"
settings = lesson.replace(lesson.settings, SEED=int(sys.argv[2]))
net = lesson.make_networks(4, 2, lesson.SCALE, settings)[0]
nets = {}
for seed in (1, 2):
    changed = lesson.replace(lesson.settings, SEED=seed)
    nets[seed] = lesson.make_networks(4, 2, lesson.SCALE, changed)[0]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(150):
    lesson.save_agent(path, net, settings)
    loaded, found = lesson.load_agent(path)
    right = nets[found.SEED].layer1.weight
    assert lesson.torch.equal(loaded.layer1.weight, right), "another agent's settings"
"""


def test_two_runs_in_one_folder_lose_no_file_and_mix_none(tmp_path):
    """Each finds an agent that is whole, even if it is the other's."""
    runs = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", SAVE_AND_LOAD, str(tmp_path), seed]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        pipes["stderr"] = subprocess.PIPE
        run = subprocess.Popen(command, cwd=loader.ROOT, encoding="utf-8", **pipes)
        runs.append(run)
    try:
        for run in runs:
            assert run.stdout.readline() == "ready\n", run.communicate(timeout=100)
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        for run in runs:
            _, err = run.communicate(timeout=100)
            assert run.returncode == 0, err
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.fixture
def saved(lesson, tmp_path):
    """A network, its settings and the file that keeps them."""
    net = lesson.DQN(6, 3, [1, 1, 1, 1, 6, 12])
    settings = lesson.replace(
        lesson.settings, SEED=np.int64(5), LR=np.float64(0.125), MIRROR=np.bool_(False)
    )
    return net, settings, lesson.save_agent(tmp_path / "model.pt", net, settings)


def test_an_agent_is_the_same_after_saving_and_loading(lesson, saved):
    net, settings, path = saved
    loaded, loaded_settings = lesson.load_agent(path)
    assert loaded_settings == settings
    weights, states = loaded.state_dict(), torch.randn(50, 6)
    for name, mine in net.state_dict().items():
        assert torch.equal(weights[name], mine)
    assert torch.equal(net(states), loaded(states))


class Evil:
    """Would write a file when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


FOREIGN = {  # from the content of a good file and an evil object
    "empty": lambda saved, evil: b"",
    "text": lambda saved, evil: b"hello, I am not a model",
    "malicious": lambda saved, evil: {"weights": evil, "settings": {}},
    "another network": lambda saved, evil: {**saved, "weights": {"w": torch.zeros(2)}},
    "no settings": lambda saved, evil: {"weights": saved["weights"]},
    "settings out of range": lambda saved, evil: {**saved, "settings": {"SEED": -1}},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_files_that_are_no_agent_are_refused(lesson, saved, tmp_path, what):
    path = saved[2]
    content = FOREIGN[what](torch.load(path), Evil(tmp_path / "harm"))
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"model\.pt") as refused:
        lesson.load_agent(path)
    assert "\n" not in str(refused.value)
    assert refused.value.__suppress_context__, "one error, not two"
    assert not (tmp_path / "harm").exists()


def pixels(lesson, picture, colour, top=0, bottom=170):
    """Columns and rows of the pixels of a colour between two rows.

    Columns are in metres from the middle of the track, which ends at ±2.4.
    """
    image = np.asarray(picture.convert("RGB"))
    orange = ImageColor.getrgb(lesson.ORANGE)
    ends = np.flatnonzero(np.all(image[-12:] == orange, axis=-1).any(0))
    middle, half = (ends.min() + ends.max()) / 2, (ends.max() - ends.min()) / 2
    where = np.all(image == ImageColor.getrgb(colour), axis=-1)
    rows, columns = np.nonzero(where[top:bottom])
    return (columns - middle) / half * 2.4, rows + top


def cart_of(lesson, picture):
    """The position of the cart in a picture."""
    return pixels(lesson, picture, lesson.BLUE)[0].mean()


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.3])
@pytest.mark.parametrize("angle", [-0.2, 0.0, 0.1])
def test_the_cart_is_drawn_where_the_state_says(lesson, x, angle):
    picture = lesson.draw_cart(np.array([x, 9.0, angle, 9.0]), "")
    assert cart_of(lesson, picture) == pytest.approx(x, abs=0.08)
    columns, rows = pixels(lesson, picture, lesson.ORANGE, bottom=115)
    metres = 2.4 / (picture.width / 2 - 36) * (rows.max() - rows.min())
    low, high = (columns[rows == row].mean() for row in (rows.max(), rows.min() + 4))
    assert math.atan2(high - low, metres) == pytest.approx(angle, abs=0.06)


def alt_of(picture):
    return picture._repr_mimebundle_()[1]["image/png"]["alt"]


@pytest.mark.parametrize("answer", [1, np.True_, True])
@pytest.mark.parametrize("every", [1, 4])
def test_a_film_shows_every_nth_state_of_the_episode(lesson, every, answer):
    env, over = lesson.make_env("CartPole-v1"), False
    states = [lesson.reset_env(env, 4)]
    while not over:
        state, _, over, *_ = env.step(1)
        states.append(state)
    played = lesson.play(lambda states: [answer] * len(states), 4)
    assert np.array_equal(played, states)
    film = lesson.film(played, "pushes right", every)
    image = Image.open(io.BytesIO(film.data))
    shown = states[::every]
    assert image.n_frames == len(shown)
    for i, state in enumerate(shown):
        image.seek(i)
        assert cart_of(lesson, image) == pytest.approx(state[0], abs=0.08)
        assert image.info["duration"] > 0
    assert "pushes right" in alt_of(film) and str(len(states) - 1) in alt_of(film)


def run_with(lesson, durations, means):
    """A result with these durations, and evaluations every 250 steps."""
    ends = np.cumsum(durations, dtype=int).tolist()
    evaluations = []
    for i, mean in enumerate(means, start=1):
        evaluations.append(lesson.Evaluation(250 * i, mean, 0.0, 1.0))
    return SimpleNamespace(
        threshold=475,
        steps=250 * len(means),
        finished=False,
        durations=list(zip(ends, durations, strict=True)),
        evaluations=evaluations,
    )


@pytest.mark.parametrize("episodes", [0, 1, 30, 130])
def test_the_learning_curve_shows_what_happened(lesson, patch, episodes):
    durations = np.random.default_rng(0).integers(10, 60, episodes).tolist()
    result = run_with(lesson, durations, [20.0, 480.0, 300.0])
    figures, picture = [], lesson.picture

    def kept(figure, alt):
        figures.append(figure)
        return picture(figure, alt)

    patch("picture", kept)
    shown = lesson.plot_durations(result, show_result=True)
    lines = []
    for ax in figures[0].axes:
        lines += [np.asarray(line.get_xydata(), float).tolist() for line in ax.lines]
    numbers = list(range(1, episodes + 1))
    assert [[n, durations[n - 1]] for n in numbers] in lines
    assert [[250, 20], [500, 480], [750, 300]] in lines
    means = [[n, np.mean(durations[max(0, n - 100) : n])] for n in numbers]
    alike = [line for line in lines if len(line) == episodes]
    assert any(np.allclose(line, means) for line in alike)
    assert "750" in alt_of(shown) and lesson.verdict(result) in alt_of(shown)
    assert Image.open(io.BytesIO(shown.data)).width <= 820


def test_the_live_plot_is_redrawn_in_place_and_at_the_end(lesson, patch):
    calls, clock = [], [0.0]
    patch("display", lambda picture: calls.append(alt_of(picture)))
    patch("clear_output", lambda wait: calls.append(f"clear, wait={wait}"))
    patch("time", SimpleNamespace(perf_counter=lambda: clock[0]))
    show, result = lesson.live_plot(), run_with(lesson, [100, 120], [9.0])
    moments = [(100, False, 1), (100.1, False, 1), (110, False, 2), (110.1, True, 3)]
    for seconds, finished, pictures in moments:
        clock[0], result.finished = seconds, finished
        show(result)
        assert len(calls) == 2 * pictures
    assert calls[::2] == ["clear, wait=True"] * 3, "without a flicker"
    assert all("250 steps" in alt for alt in calls[1::2])


def test_a_plot_that_fails_does_not_stop_the_training(lesson, patch, capsys):
    def fails(*_, **__):
        raise OSError("no room for a font")

    patch("plot_durations", fails)
    s = lesson.replace(lesson.settings, MAX_STEPS=30, EVAL_EVERY=10)
    assert lesson.train(s, show=lesson.live_plot()).finished
    assert "no room for a font" in capsys.readouterr().out


WAYS = {
    (2.5, 0.0): "the cart leaves the track",
    (-2.5, 0.3): "the cart leaves the track",
    (0.0, -0.3): "the pole falls",
    (2.3, 0.2): "it lasts 500 steps",
}


@pytest.mark.parametrize("x, angle", WAYS)
def test_how_an_episode_ends(lesson, x, angle):
    observations = np.array([[0.0, 0, 0, 0], [x, 1, angle, 1]])
    assert lesson.how_it_ends(observations) == WAYS[x, angle]
