"""The pictures and tables of the helpers, on made-up runs whose answers are known."""

import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from dqn_helpers import curves, drawings, figures, plots
from tests.helpers import made_up, numbers, points, table_of


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The pictures stay figures."""

    def picture(figure, alt):
        return SimpleNamespace(figure=figure, axes=figure.axes, alt=alt)

    monkeypatch.setattr(plots, "picture", picture)
    monkeypatch.setattr(drawings, "picture", picture)


def test_a_picture_is_white_whatever_the_style_of_the_reader():
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.color": "white"}):
        figure = figures.new_figure(4, 3)
        figure.subplots().plot([1, 2])
        shown = figures.picture(figure, "a curve")
    image = np.asarray(Image.open(io.BytesIO(shown.data)).convert("L"))
    assert image.shape == (270, 360)
    assert np.median(image) == 255 and image.min() < 100
    data, metadata = shown._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == "a curve"


def test_a_table_has_all_rows_and_columns():
    rows = [["x", 1, 0.256, True], ["y", 2, -39.25, None]]
    found = table_of(figures.table(["a", "b", "c", "d"], rows).data)
    assert found == {"x": ["1", "0.26", "True"], "y": ["2", "-39.2", "None"]}


def test_the_verdict_names_the_first_pass_and_what_came_after():
    """The threshold is that of the task."""
    never = made_up(0, 74, 0, threshold=75)
    stays = made_up(0, 75, 75, threshold=75)
    falls = made_up(100, 80, 20, 100, threshold=75)
    last = made_up(0, 0, 80, threshold=75)
    assert set(numbers(curves.verdict(never))) == {75, 300}
    assert numbers(curves.verdict(stays)) == [200, 0, 1]
    assert numbers(curves.verdict(falls)) == [100, 1, 3]
    assert numbers(curves.verdict(last)) == [300]


def test_the_mean_of_the_last_100():
    durations = np.random.default_rng(0).integers(10, 60, 130).tolist()
    means = [np.mean(durations[max(0, n - 100) : n]) for n in range(1, 131)]
    assert np.allclose(curves.running_mean(durations), means)


@pytest.mark.parametrize(
    ("seconds", "finished", "is_drawn"),
    [(1.9, False, False), (2.1, False, True), (0.1, True, True)],
)
def test_the_live_plot_is_redrawn_in_place(monkeypatch, seconds, finished, is_drawn):
    """At most every other second, and always at the end."""
    calls, clock = [], [100.0]
    monkeypatch.setattr(curves, "picture", lambda figure, alt: (figure, alt))
    monkeypatch.setattr(curves, "display", calls.append)
    monkeypatch.setattr(curves, "clear_output", lambda wait: calls.append(wait))
    monkeypatch.setattr(curves, "time", SimpleNamespace(time=lambda: clock[0]))
    run = made_up(9.0)
    show = curves.LivePlot(lambda result, is_result: (result, is_result))
    alt = f"Learning curve. {curves.verdict(run)}"
    expected = [True, ((run, False), alt)]  # without a flicker
    run.finished = False
    show(run)
    clock[0] += seconds
    run.finished = finished
    show(run)
    assert calls == expected + [True, ((run, finished), alt)] * is_drawn


# Curves.


def test_two_curves_are_told_apart_and_keep_their_names():
    runs = {"one": made_up(9, 500, 30), "other": made_up(9, 400, 500)}
    shown = plots.plot_curves(runs)
    (ax,) = shown.axes
    first, line, second, _ = ax.lines
    for curve, (name, run) in zip((first, second), runs.items(), strict=True):
        assert curve.get_label() == name
        assert curve.get_xydata().tolist() == points(run)
        assert f"{name}: {curves.verdict(run)}" in shown.alt
    assert to_hex(first.get_color()) != to_hex(second.get_color())
    assert first.get_marker() != second.get_marker()
    assert ax.get_legend() is not None and set(line.get_ydata()) == {475}


def test_seeds_have_a_panel_for_each_agent_and_a_line_for_each_run():
    by_agent = {
        "plain DQN": [made_up(1, 2), made_up(3, 4)],
        "careful": [made_up(5, 6, threshold=123)],
        "one more": [made_up(13, 14), made_up(15, 16)],
    }
    axes = plots.plot_curves(by_agent).axes
    assert [ax.get_title() for ax in axes] == list(by_agent)
    colors = []
    for ax, runs in zip(axes, by_agent.values(), strict=True):
        drawn = [line for line in ax.lines if line.get_linestyle() != "--"]
        assert [line.get_xydata().tolist() for line in drawn] == list(map(points, runs))
        colors.append({to_hex(line.get_color()) for line in drawn})
    plain, *others = colors
    assert len(plain) == 1 and others == 2 * [others[0]] and plain != others[0]
    assert set(axes[1].lines[1].get_ydata()) == {123}


# How games end, and answers to a lean.


def test_endings_are_counted():
    """Cart left, cart right, pole (both ways), clock; the cart may fall as well."""
    states = [[-2.5, 0, 0, 0], [2.5, 0, 0.3, 0], [2.3, 9, 0.22, 0], [0, 9, -0.22, 9]]
    assert plots.endings([*states, [2.3, 9, 0.2, 9]]) == [1, 1, 2, 1]


def test_a_bar_shows_how_the_games_of_an_evaluation_end():
    left, right, fallen, upright = [-3, 0], [3, 0], [0, 1], [0, 0]
    games = [[left, right, right, upright], [fallen, left, left, left]]
    evaluations = []
    for step, ends in ((100, games[0]), (200, games[1])):
        states = [[x, 0, angle, 0] for x, angle in ends]
        evaluations.append(SimpleNamespace(step=step, last_states=states))
    (ax,) = plots.plot_endings(evaluations).axes
    kinds = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert kinds == [[1, 3], [2, 0], [0, 1], [1, 0]]
    for i, step in enumerate((100, 200)):
        bars = [bars[i] for bars in ax.containers]
        ends = np.cumsum([0] + [bar.get_height() for bar in bars])
        assert [bar.get_y() for bar in bars] == ends[:-1].tolist(), "stacked"
        assert {bar.get_x() + bar.get_width() / 2 for bar in bars} == {step}
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    for label, word in zip(labels, ("left", "right", "pole", "clock"), strict=True):
        assert word in label
    looks = {(bars[0].get_facecolor(), bars[0].get_hatch()) for bars in ax.containers}
    assert len(looks) == 4


def test_answers_of_passing_and_failing_networks_look_different():
    leans = np.array([-1.0, 0.0, 1.0])
    gaps = {"one": [leans, 2 * leans], "other": [3 * leans, -leans]}
    passing = {"one": [True, False], "other": [False, True]}
    panels = {}
    for name, lines in gaps.items():
        means = [500.0 if passes else 474.0 for passes in passing[name]]
        panels[name] = lines, made_up(*means).evaluations
    axes = plots.plot_answers(leans, panels).axes
    assert [ax.get_title() for ax in axes] == list(panels)
    assert axes[0].get_ylim() == axes[1].get_ylim(), "the same axis"
    for ax, name in zip(axes, panels, strict=True):
        lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
        assert [line.get_xdata().tolist() for line in lines] == 2 * [leans.tolist()]
        assert np.array_equal([line.get_ydata() for line in lines], gaps[name])
        meaning = {}
        legend = ax.get_legend()
        for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True):
            meaning[line.get_color(), line.get_linestyle()] = text.get_text()
        assert len(meaning) == 2
        for line, passes in zip(lines, passing[name], strict=True):
            text = meaning[line.get_color(), line.get_linestyle()]
            assert ("pass" in text) is passes


# The map.


def test_a_map_has_angles_along_velocities_up_and_a_line_where_the_push_changes():
    def changes_at_an_angle(states):
        """Where it is 0.1; the values say where the cart is, too."""
        right = 3 + 10 * (states[..., 2] - 0.1)
        return np.stack([np.full_like(right, 3.0), right], axis=-1) + states[..., :1]

    def changes_at_a_velocity(states):
        right = 12 + states[..., 3] + 1  # where it is -1
        return np.stack([np.full_like(right, 9.0), right - 3], axis=-1)

    maps = {"angle": (changes_at_an_angle, 2.0), "turn": (changes_at_a_velocity, 0.0)}
    axes = plots.plot_maps(maps).axes
    panels = [ax for ax in axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == list(maps)
    for ax in panels:
        (image,) = ax.images
        assert tuple(image.get_extent()) == (-0.2, 0.2, -2, 2)
        assert image.origin == "lower" and image.get_array().shape == (61, 61)
        assert "velocity" not in ax.get_xlabel() and "angle" in ax.get_xlabel()
    assert "velocity" in panels[0].get_ylabel()
    one, two = [ax.images[0].get_array().filled(np.nan) for ax in panels]
    angles, velocities = np.linspace(-0.2, 0.2, 61), np.linspace(-2, 2, 61)
    better = np.maximum(3, 3 + 10 * (angles - 0.1)) + 2
    assert np.allclose(one, better), "nothing is above 10, so all is shown"
    better = np.maximum(9, 10 + velocities)
    assert np.allclose(two[better >= 10].T, better[better >= 10])
    assert np.isnan(two[better < 10]).all(), "left white"
    first, second = [ax.collections[0].get_paths()[0].vertices for ax in panels]
    assert np.allclose(first[:, 0], 0.1, atol=0.01)
    assert np.allclose(second[:, 1], -1, atol=0.1)


# Drawings.

ARROWS = {
    "draw_cart_and_agent": {("agent", "environment"), ("environment", "agent")},
    "draw_algorithm": {
        ("policy network", "environment"),
        ("environment", "policy network"),
        ("environment", "replay memory"),
        ("replay memory", "random batch"),
        ("random batch", "policy network"),
        ("random batch", "target network"),
        ("policy network", "loss"),
        ("target network", "loss"),
        ("loss", "policy network"),
        ("policy network", "target network"),
    },
}


@pytest.mark.parametrize("name", ARROWS)
def test_a_drawing_has_its_arrows_and_nothing_overlaps(name, monkeypatch):
    arrows, connect = [], drawings.connect

    def noted(ax, start, end, *others, **options):
        names = [box.get_text().partition("\n")[0] for box in (start, end)]
        arrows.append(tuple(names))
        connect(ax, start, end, *others, **options)

    monkeypatch.setattr(drawings, "connect", noted)
    shown = getattr(drawings, name)()
    assert set(arrows) == ARROWS[name] and len(arrows) == len(ARROWS[name])
    shown.figure.draw_without_rendering()
    (ax,) = shown.axes
    texts = [text for text in ax.texts if text.get_text()]
    places = [(text.get_bbox_patch() or text).get_window_extent() for text in texts]
    for i, place in enumerate(places):
        for j in range(i):
            assert not place.overlaps(places[j]), (texts[i], texts[j])


def test_an_arrow_goes_from_the_edge_of_a_box_to_the_edge_of_another():
    figure = Figure(figsize=(6, 2))
    ax = figure.subplots()
    ax.set(xlim=(0, 6), ylim=(0, 2))
    boxes = [drawings.draw_box(ax, x, 1, text) for x, text in ((1, "one"), (5, "two"))]
    drawings.connect(ax, *boxes)
    figure.draw_without_rendering()
    frames = [box.get_bbox_patch().get_window_extent() for box in boxes]
    arrow = ax.texts[-1].arrow_patch.get_window_extent()
    assert (arrow.x0, arrow.x1) == pytest.approx((frames[0].x1, frames[1].x0), abs=5)
