"""Files and pictures: whole or not there, the same after loading, true to the run."""

import io
import math
import multiprocessing
import os
import pickle
import resource
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor


def test_a_file_is_replaced_and_stays_whole_on_a_full_disk(lesson, tmp_path):
    path = tmp_path / "some.bin"
    for content in (b"first", b"old" * 100):
        assert lesson.write(path, content) == path
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            lesson.write(path, b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" * 100
    assert list(tmp_path.iterdir()) == [path], "nothing unfinished is left"


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


def test_two_runs_in_one_folder_lose_no_file(lesson, tmp_path):
    """Each writes the same name again and again; none of the writes may fail."""
    path = tmp_path / "model.pt"

    def write_often(letter):
        for _ in range(300):
            lesson.write(path, letter * 100_000)

    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(c,)) for c in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_bytes() in (b"a" * 100_000, b"b" * 100_000)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def saved(lesson, tmp_path):
    """A network, its settings and the file that keeps them."""
    net = lesson.DQN(6, 3, [1, 1, 1, 1, 6, 12])
    settings = replace(lesson.settings, SEED=np.int64(5), LR=np.float64(0.125))
    return net, settings, lesson.save_agent(tmp_path / "model.pt", net, settings)


def test_an_agent_is_the_same_after_saving_and_loading(lesson, saved):
    net, settings, path = saved
    loaded, loaded_settings = lesson.load_agent(path)
    assert loaded_settings == settings and loaded_settings.SEED == 5
    weights, states = loaded.state_dict(), torch.randn(50, 6)
    for name, mine in net.state_dict().items():
        assert torch.equal(weights[name], mine)
    assert torch.equal(net(states), loaded(states))


class Evil:
    """Would write a file if a careless reader unpickled it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "what", ["empty", "text", "malicious", "another network", "no settings"]
)
def test_files_that_are_no_agent_are_refused(lesson, saved, tmp_path, what):
    path = saved[2]
    good = torch.load(path)
    if what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_bytes(b"hello, I am not a model")
    elif what == "malicious":
        path.write_bytes(pickle.dumps(Evil(tmp_path / "harm"), 2))
    elif what == "another network":
        torch.save({**good, "weights": {"w": torch.zeros(2)}}, path)
    else:
        torch.save({**good, "settings": None}, path)
    with pytest.raises(ValueError) as refused:
        lesson.load_agent(path)
    assert "model.pt" in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.__suppress_context__, "one error, not two"
    assert not (tmp_path / "harm").exists()


def pixels(lesson, picture, colour, top=0, bottom=170):
    """Columns and rows of the pixels of a colour between two rows.

    Columns are in metres from the middle of the track.
    """
    image = np.asarray(picture.convert("RGB"))
    orange = np.all(image == ImageColor.getrgb(lesson.ORANGE), axis=-1)
    ends = np.flatnonzero(orange[-12:].any(0))
    where = np.all(image == ImageColor.getrgb(colour), axis=-1)
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


def rightward(states):
    """Push right, as NumPy booleans."""
    return np.ones(len(states), bool)


@pytest.mark.parametrize("every", [1, 4])
def test_a_film_shows_every_nth_state_of_the_episode(lesson, every):
    env, over = lesson.make_env("CartPole-v1"), False
    states = [lesson.reset_env(env, 4)]
    while not over:
        state, _, over, *_ = env.step(1)
        states.append(state)
    played = lesson.play(rightward, 4)
    assert np.array_equal(played, states)
    film = lesson.film(played, "pushes right", every)
    image = Image.open(io.BytesIO(film.data))
    shown = states[::every]
    assert image.n_frames == len(shown)
    for i, state in enumerate(shown):
        image.seek(i)
        assert cart_of(lesson, image) == pytest.approx(state[0], abs=0.08)
        assert image.info["duration"] > 0
    alt = film._repr_mimebundle_()[1]["image/png"]["alt"]
    assert "pushes right" in alt and str(len(states) - 1) in alt


@pytest.mark.parametrize(
    "rule",
    [lambda states: [1] * len(states), rightward, lambda states: states[:, 0] > 9],
)
def test_play_and_evaluate_take_the_same_policies(lesson, rule):
    states = lesson.play(rule, 3)
    assert lesson.evaluate(rule, [3]).tolist() == [len(states) - 1]
    assert lesson.how_it_ends(states) == "the pole falls"


def run_with(lesson, durations, means):
    """A result with these durations, and evaluations every 250 steps."""
    steps = range(250, 250 * len(means) + 1, 250)
    result = SimpleNamespace(threshold=475, steps=steps[-1], finished=False)
    ends = np.cumsum(durations, dtype=int)
    result.durations = list(zip(ends, durations, strict=True))
    result.evaluations = [
        lesson.Evaluation(n, mean, 0.0, 1.0)
        for n, mean in zip(steps, means, strict=True)
    ]
    return result


@pytest.mark.parametrize("episodes", [0, 30, 130])
def test_the_learning_curve_shows_what_happened(lesson, patch, episodes):
    durations = np.random.default_rng(0).integers(10, 60, episodes).tolist()
    result = run_with(lesson, durations, [20.0, 480.0, 300.0])
    figures, picture = [], lesson.picture
    patch("picture", lambda figure, alt: figures.append(figure) or picture(figure, alt))
    shown = lesson.plot_durations(result, show_result=True)
    left, right = figures[0].axes
    dots, means = (line.get_ydata() for line in left.lines)
    assert list(dots) == durations
    by_hand = [np.mean(durations[max(0, n - 100) : n]) for n in range(1, episodes + 1)]
    assert np.allclose(means, by_hand)
    evaluations, threshold = right.lines
    expected = [[250.0, 20.0], [500.0, 480.0], [750.0, 300.0]]
    assert evaluations.get_xydata().tolist() == expected
    assert set(threshold.get_ydata()) == {475}
    assert right.get_xlim()[1] >= 750
    alt = shown._repr_mimebundle_()[1]["image/png"]["alt"]
    assert "750" in alt and lesson.verdict(result) in alt
    assert Image.open(io.BytesIO(shown.data)).width <= 820


def test_the_live_plot_is_redrawn_in_place_and_fails_alone(lesson, patch, capsys):
    events, clock = [], [0.0]
    patch("display", events.append)
    patch("clear_output", lambda wait: events.append("clear") if wait else None)
    patch("time", SimpleNamespace(perf_counter=lambda: clock[0]))
    show, result = lesson.live_plot(), run_with(lesson, [100, 120], [9.0])
    moments = ((100, False, 1), (100.1, False, 1), (110, False, 2), (110.1, True, 3))
    for clock[0], result.finished, pictures in moments:
        show(result)
        assert events[::2] == ["clear"] * pictures and len(events) == 2 * pictures
    assert events[1]._repr_mimebundle_()[1]["image/png"]["alt"]

    def fails(*_, **__):
        raise OSError("no room for a font")

    patch("plot_durations", fails)
    show(result)
    assert "no room for a font" in capsys.readouterr().out
    assert len(events) == 6


def test_copies_of_the_network_are_kept_at_each_evaluation(lesson):
    networks, shown = [], []
    s = replace(lesson.settings, MAX_STEPS=300, EVAL_EVERY=100, BATCH_SIZE=16)
    s = replace(s, TARGET_EPSILON=0.0, MIRROR=False)
    result = lesson.train(s, show=lesson.keep_copies(networks, shown.append))
    assert len(networks) == len(shown) == 3 and shown[0] is result
    last = result.policy_net.layer1.weight
    assert torch.equal(networks[2].layer1.weight, last)
    assert not torch.equal(networks[1].layer1.weight, last)
    _, passes = lesson.second_half(networks, result)
    assert len(passes) == 2, "steps 200 and 300 of 300"
