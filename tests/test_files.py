"""Files and pictures: whole or not there, the same after loading, showing what they should."""

import io
import math
import os
import pickle
import resource
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor


def test_a_file_is_replaced_and_stays_whole_on_a_full_disk(lesson, patch, tmp_path):
    patch("OUTPUT_DIR", str(tmp_path / "not" / "yet there"))
    for content in (b"first", b"old" * 100):
        path = lesson.write("some.bin", content)
        assert path == tmp_path / "not" / "yet there" / "some.bin"
        assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            lesson.write("some.bin", b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" * 100


def test_a_reader_never_sees_half_a_file_even_of_a_killed_writer(lesson, patch, tmp_path):
    patch("OUTPUT_DIR", str(tmp_path))
    contents = [letter * 5_000_000 for letter in (b"a", b"b")]
    path = lesson.write("some.bin", contents[0])
    writer = os.fork()
    if not writer:
        while True:
            for content in contents:
                lesson.write("some.bin", content)
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


@pytest.fixture
def saved(lesson, patch, tmp_path):
    """A network, its settings and the file that keeps them."""
    patch("OUTPUT_DIR", str(tmp_path))
    net = lesson.DQN(6, 3, [1, 1, 1, 1, 6, 12])
    settings = lesson.changed(lesson.settings, SEED=5, LR=0.125)
    return net, settings, lesson.save_agent("model.pt", net, settings)


def test_an_agent_is_the_same_after_saving_and_loading(lesson, saved):
    net, settings, path = saved
    loaded, loaded_settings = lesson.load_agent(path)
    assert vars(loaded_settings) == vars(settings)
    weights, states = loaded.state_dict(), torch.randn(50, 6)
    assert all(torch.equal(weights[name], mine) for name, mine in net.state_dict().items())
    assert torch.equal(net(states), loaded(states))


class Evil:
    """Would write a file when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


FOREIGN = {  # from the bytes and the content of a good file, and an evil object
    "empty": lambda good, saved, evil: b"",
    "cut off": lambda good, saved, evil: good[: len(good) // 2],
    "text": lambda good, saved, evil: b"hello, I am not a model",
    "a pickle": lambda good, saved, evil: pickle.dumps(evil, 2),
    "malicious": lambda good, saved, evil: {"weights": evil, "settings": {}},
    "malicious settings": lambda good, saved, evil: {**saved, "settings": {"SEED": evil}},
    "weights alone": lambda good, saved, evil: saved["weights"],
    "a list": lambda good, saved, evil: [1, 2, 3],
    "another network": lambda good, saved, evil: {**saved, "weights": {"w": torch.zeros(2)}},
    "no settings": lambda good, saved, evil: {**saved, "settings": None},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_files_that_are_no_agent_are_refused(lesson, saved, tmp_path, what):
    path = saved[2]
    content = FOREIGN[what](path.read_bytes(), torch.load(path), Evil(tmp_path / "harm"))
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError) as refused:
        lesson.load_agent(path)
    assert "model.pt" in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.__suppress_context__, "one error, not two"
    assert not (tmp_path / "harm").exists()


def pixels(lesson, picture, colour, top=0, bottom=170):
    """Columns and rows of the pixels of a colour between two rows, relative to the track.

    Columns are in metres from its middle.
    """
    image = np.asarray(picture.convert("RGB"))
    where = np.all(image == ImageColor.getrgb(colour), axis=-1)
    ends = np.flatnonzero(np.all(image[-12:] == ImageColor.getrgb(lesson.ORANGE), axis=-1).any(0))
    rows, columns = np.nonzero(where[top:bottom])
    middle, half = (ends.min() + ends.max()) / 2, (ends.max() - ends.min()) / 2
    return (columns - middle) / half * 2.4, rows + top


def cart_of(lesson, picture):
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


@pytest.mark.parametrize("every", [1, 4])
def test_a_film_shows_every_nth_state_of_the_episode(lesson, every):
    env, over = lesson.make_env("CartPole-v1"), False
    states = [lesson.reset_env(env, 4)]
    while not over:
        state, _, over, *_ = env.step(1)
        states.append(state)
    steps, film = lesson.film(lambda states: [1] * len(states), 4, "pushes right", every)
    assert steps == len(states) - 1
    image = Image.open(io.BytesIO(film.data))
    shown = states[::every]
    assert image.n_frames == len(shown)
    for i, state in enumerate(shown):
        image.seek(i)
        assert cart_of(lesson, image) == pytest.approx(state[0], abs=0.08)
        assert image.info["duration"] > 0
    alt = film._repr_mimebundle_()[1]["image/png"]["alt"]
    assert "pushes right" in alt and str(steps) in alt


def run_with(durations, means):
    """A result with these durations of episodes, and evaluations every 250 steps."""
    steps = range(250, 250 * len(means) + 1, 250)
    result = SimpleNamespace(threshold=475, steps=steps[-1], finished=False)
    result.durations = list(zip(np.cumsum(durations, dtype=int), durations, strict=True))
    result.evaluations = [(n, mean, 0.0, 1.0) for n, mean in zip(steps, means, strict=True)]
    return result


@pytest.mark.parametrize("episodes,window", [(0, 10), (30, 10), (130, 100)])
def test_the_learning_curve_shows_what_happened(lesson, patch, episodes, window):
    durations = np.random.default_rng(0).integers(10, 60, episodes).tolist()
    result = run_with(durations, [20.0, 480.0, 300.0])
    figures, picture = [], lesson.picture
    patch("picture", lambda figure, alt: figures.append(figure) or picture(figure, alt))
    shown = lesson.plot_durations(result, show_result=True)
    axes = figures[0].axes[0]
    lines = [np.asarray(line.get_xydata(), float).tolist() for line in axes.lines]
    assert [list(map(float, pair)) for pair in result.durations] in lines
    assert [[250.0, 20.0], [500.0, 480.0], [750.0, 300.0]] in lines
    means = [np.mean(durations[max(0, n - window) : n]) for n in range(1, episodes + 1)]
    assert any(len(line) == episodes and np.allclose([m for _, m in line], means) for line in lines)
    assert axes.get_ylim()[1] >= 500 and axes.get_xlim()[1] >= 750
    alt = shown._repr_mimebundle_()[1]["image/png"]["alt"]
    assert "750" in alt and lesson.verdict(result) in alt
    assert Image.open(io.BytesIO(shown.data)).width <= 800


def test_the_live_plot_is_redrawn_in_place_and_at_the_end_and_fails_alone(lesson, patch, capsys):
    shown, clock = [], [0.0]
    handle = SimpleNamespace(update=shown.append)
    patch("display", lambda *_, display_id: handle if display_id else None)
    patch("time", SimpleNamespace(perf_counter=lambda: clock[0]))
    show, result = lesson.live_plot(), run_with([100, 120], [9.0])
    for clock[0], finished, pictures in ((100, 0, 1), (100.1, 0, 1), (110, 0, 2), (110.1, 1, 3)):
        result.finished = bool(finished)
        show(result)
        assert len(shown) == pictures
    assert shown[0]._repr_mimebundle_()[1]["image/png"]["alt"]

    def fails(*_, **__):
        raise OSError("no room for a font")

    patch("plot_durations", fails)
    show(result)
    assert "no room for a font" in capsys.readouterr().out
