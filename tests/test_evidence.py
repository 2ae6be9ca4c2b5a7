"""Every measure and figure of the lesson, on made-up cases whose answers are known.

A cell that is no definition is run with made-up names.
"""

import io
import json
import math
import re
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image, ImageColor

from tools import load_definitions as loader


def made_up(lesson, *means, net=None, durations=(), **changes):
    """A run with evaluations at steps 100, 200, … of a budget of as many steps.

    Training took a hundredth of a second a step until an evaluation, and an hour.
    """
    steps = [100 * i for i in range(1, len(means) + 1)]
    evaluations = []
    for step, mean in zip(steps, means, strict=True):
        evaluations.append(lesson.Evaluation(step, mean, mean - 10, step / 100))
    ends = np.cumsum(durations, dtype=int).tolist()
    run = SimpleNamespace(
        settings=replace(lesson.settings, MAX_STEPS=steps[-1]),
        policy_net=net,
        threshold=475,
        durations=list(zip(ends, durations, strict=True)),
        evaluations=evaluations,
        losses=[0.0] * 7,
        steps=steps[-1],
        seconds=3_600.0,
        finished=True,
    )
    return SimpleNamespace(**{**vars(run), **changes})


class Leaning(torch.nn.Module):
    """Stands for a network: Q(right) − Q(left) is x minus a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, states):
        x = states[..., 0] + 10 * states[..., 1:].sum(dim=-1)  # at rest and upright: x
        return torch.stack([torch.full_like(x, 7.0), 7 + x - self.threshold], dim=-1)


def cell_with(text):
    """The source of the one code cell that has a text."""
    cells = [cell for cell in loader.cells() if cell["cell_type"] == "code"]
    (source,) = [cell["source"] for cell in cells if text in cell["source"]]
    return source


@pytest.fixture
def cell(lesson, capsys):
    """A function that runs the cell that has a text, with some names replaced.

    It returns all names, what was printed (`printed`), and what was shown: the rows of
    tables by their first entry (`rows`) and the figures (`figures`).
    """

    def run(text, **changes):
        rows, figures = {}, []

        def table(header, lines):
            lines = [[str(value) for value in line] for line in lines]
            assert all(len(line) == len(header) for line in lines)
            rows.update({name: rest for name, *rest in lines})

        def picture(figure, alt):
            figures.append(figure)
            return SimpleNamespace(data=b"", alt=alt)

        own = {"table": table, "picture": picture, "display": lambda _: None}
        names = {**lesson.train.__globals__, **own, **changes}
        capsys.readouterr()
        exec(cell_with(text), names)
        names.update(printed=capsys.readouterr().out, rows=rows, figures=figures)
        return SimpleNamespace(**names)

    return run


def numbers(text):
    """All numbers in a text."""
    found = re.findall(r"-?\d[\d,]*\.?\d*", text)
    return [float(number.rstrip(",.").replace(",", "")) for number in found]


# Measures of a run.


@pytest.mark.parametrize(
    "means, share",
    [
        ([500, 500, 0, 0], 0),
        ([0, 0, 500, 475], 1),
        ([500, 500, 474.9, 480], 0.5),
        ([0, 0, 500], 0.5),
    ],
)
def test_the_share_of_passes_is_that_of_the_second_half(lesson, means, share):
    assert lesson.share_of_passes(made_up(lesson, *means)) == share
    lower = made_up(lesson, *[mean - 400 for mean in means], threshold=75)
    assert lesson.share_of_passes(lower) == share, "the threshold is the task's"


def test_the_first_pass_and_the_verdict(lesson):
    never = made_up(lesson, 0, 474, 0)
    stays = made_up(lesson, 0, 475, 500)
    falls = made_up(lesson, 500, 480, 20, 500)
    last = made_up(lesson, 0, 0, 480)
    assert lesson.first_pass(never) is None
    assert lesson.first_pass(stays) == (200, 475, 465, 2.0)
    assert lesson.first_pass(made_up(lesson, 70, 80, threshold=75)).step == 200
    assert set(numbers(lesson.verdict(never))) == {475, 300}
    assert numbers(lesson.verdict(stays)) == [200, 2, 0, 1]
    assert numbers(lesson.verdict(falls)) == [100, 1, 1, 3]
    assert numbers(lesson.verdict(last)) == [300, 3]
    low = made_up(lesson, 70, 80, 60, 90, threshold=75)
    assert numbers(lesson.verdict(low)) == [200, 2, 1, 2], "the task's threshold"


def test_an_interval_has_the_middle_95_percent_of_means(lesson):
    scores = np.random.default_rng(1).normal(3_000, 500, 400)
    half = 1.96 * scores.std() / 20  # 49; it would be 41 for 90 %
    low, high = [float(end) for end in lesson.interval(scores).split(" to ")]
    assert [low, high] == pytest.approx(
        [scores.mean() - half, scores.mean() + half], abs=2.5
    )
    assert set(lesson.interval(np.full(100, 500.0)).split(" to ")) == {"500.0"}


# The action gap.


def test_the_action_gap_along_the_track(lesson):
    assert np.allclose(lesson.PLACES, np.arange(-20, 21) / 10)
    gaps = lesson.action_gaps(Leaning(0.35))
    assert np.allclose(gaps, lesson.PLACES - 0.35, atol=1e-5), "right minus left"
    q_values = lesson.q_along_track(Leaning(0.35))
    assert np.allclose(q_values[:, 0], 7)
    assert np.allclose(q_values[:, 1], 7 + gaps, atol=1e-5)


def test_places_agree_where_all_evaluations_prefer_the_same_push(lesson):
    gaps = [
        [1.0, -0.1, 0.2, -5.0, -1.0],
        [0.1, -9.0, -0.1, -5.0, 1.0],  # differs at the third and the last place
        [9.0, -0.1, 0.2, 5.0, 1.0],  # at the last two
    ]
    assert lesson.places_agreed(np.array(gaps)) == 2
    assert lesson.places_agreed(np.array(gaps[:2])) == 3
    assert lesson.places_agreed(np.array(gaps[:1])) == 5


def test_the_second_half_has_the_gaps_of_its_own_networks(lesson):
    networks = [Leaning(threshold) for threshold in (1.0, 2.0, 3.0, 4.0)]
    run = made_up(lesson, 500, 0, 74, 75, threshold=75)
    gaps, passes = lesson.second_half(networks, run)
    expected = [lesson.PLACES - 3, lesson.PLACES - 4]
    assert np.allclose(gaps, expected, atol=1e-5) and passes.tolist() == [False, True]


def test_the_cell_of_the_gaps_says_what_they_are(lesson, cell):
    plain = made_up(lesson, 0, 0, 500, 0, 500, 0)
    careful = made_up(lesson, 0, 0, 0, 500, 500, 500)
    found = cell(
        "= places_agreed(",
        plain_run=plain,
        careful_run=careful,
        plain_networks=[Leaning(x) for x in (9.0, 9.0, 9.0, 0.05, 1.05, -1.05)],
        careful_networks=[Leaning(x) for x in (9.0, 9.0, 9.0, 5.0, 5.0, 6.0)],
    )
    # Between -1 and 1 there are 21 places; on the others all three agree.
    sizes = []
    for thresholds in ((0.05, 1.05, -1.05), (5, 5, 6)):
        sizes.append(np.mean([abs(lesson.PLACES - x) for x in thresholds]).round(2))
    assert numbers(found.printed) == [3, 20, sizes[0], 3, 41, sizes[1]]
    left, right = found.figures[0].axes
    assert len(gap_lines(left)) == len(gap_lines(right)) == 3
    assert np.allclose(gap_lines(right)[2].get_ydata(), lesson.PLACES - 6, atol=1e-5)


def look(line):
    """The colour and the style of a line."""
    return to_hex(line.get_color()), line.get_linestyle()


def gap_lines(ax):
    """The lines that have a value for each place."""
    return [line for line in ax.lines if len(line.get_xdata()) == 41]


def test_the_figure_of_the_gaps_has_a_line_for_each_evaluation(lesson):
    gaps = np.array([lesson.PLACES, 2 * lesson.PLACES, -lesson.PLACES])
    passes = np.array([True, False, True])
    panels = {
        "one": (gaps, passes),
        "two": (gaps + 1, ~passes),
        "three": (gaps, passes),
    }
    figure = lesson.plot_gaps(panels)
    assert [ax.get_title() for ax in figure.axes] == list(panels)
    for ax, (gaps, passes) in zip(figure.axes, panels.values(), strict=True):
        lines = gap_lines(ax)
        assert np.allclose([line.get_xdata() for line in lines], lesson.PLACES)
        assert np.allclose([line.get_ydata() for line in lines], gaps)
        legend = ax.get_legend()
        words = [text.get_text() for text in legend.get_texts()]
        looks = [look(line) for line in legend.get_lines()]
        meaning = dict(zip(looks, words, strict=True))
        assert len(meaning) == 2
        for line, passed in zip(lines, passes, strict=True):
            assert ("pass" in meaning[look(line)]) is bool(passed)
            assert ("fail" in meaning[look(line)]) is not bool(passed)


# Learning curves.


@pytest.mark.parametrize("episodes", [0, 1, 30, 130])
def test_the_learning_curve_shows_what_happened(lesson, episodes):
    durations = np.random.default_rng(0).integers(10, 60, episodes).tolist()
    run = made_up(lesson, 20.0, 480.0, 300.0, durations=durations, threshold=123)
    left, right = lesson.plot_durations(run, show_result=True).axes
    lines = [line.get_xydata().tolist() for line in left.lines]
    assert [[100, 20], [200, 480], [300, 300]] in lines
    assert any(set(line.get_ydata()) == {123} for line in left.lines)
    each, mean = right.lines
    assert each.get_ydata().tolist() == durations
    means = [np.mean(durations[max(0, n - 100) : n]) for n in range(1, episodes + 1)]
    assert np.allclose(mean.get_ydata(), means)


def test_the_live_curve_keeps_its_axis_and_says_how_far_it_is(lesson):
    limits = []
    for means in ([10.0], [10.0, 20.0], [10.0, 20.0, 30.0]):
        run = made_up(lesson, *means)
        run.settings = replace(lesson.settings, MAX_STEPS=5_000)
        figure = lesson.plot_durations(run)
        assert numbers(figure.get_suptitle()) == [100 * len(means), 5_000]
        limits.append(figure.axes[0].get_xlim())
    assert len(set(limits)) == 1 and limits[0][1] >= 5_000
    shown = lesson.plot_durations(run, show_result=True)
    assert 300 <= shown.axes[0].get_xlim()[1] < 400, "a result fills its figure"


def test_the_live_plot_is_redrawn_in_place_and_at_the_end(lesson, patch):
    calls, clock, copies = [], [0.0], []
    patch("display", lambda image: calls.append(image.alt))
    patch("clear_output", lambda wait: calls.append(f"clear, wait={wait}"))
    patch("time", SimpleNamespace(perf_counter=lambda: clock[0]))
    run = made_up(lesson, 9.0, net=Leaning(0.0), durations=[40, 50])
    show = lesson.live_plot(copies)
    moments = [(100, False, 1), (100.1, False, 1), (110, False, 2), (110.1, True, 3)]
    for seconds, finished, pictures in moments:
        clock[0], run.finished, run.policy_net.threshold = seconds, finished, seconds
        show(run)
        assert len(calls) == 2 * pictures
    assert calls[::2] == ["clear, wait=True"] * 3, "without a flicker"
    assert [net.threshold for net in copies] == [100, 100.1, 110, 110.1]


def test_a_plot_that_fails_does_not_stop_the_training(lesson, patch, capsys):
    def fails(*_, **__):
        raise OSError("no room for a font")

    patch("plot_durations", fails)
    s = replace(lesson.settings, MAX_STEPS=30, EVAL_EVERY=10)
    assert lesson.train(s, show=lesson.live_plot()).finished
    assert "no room for a font" in capsys.readouterr().out


def curves(ax):
    """Label → (steps and means, colour) of the curves in a panel."""
    found = {}
    for line in ax.lines:
        if line.get_label() and not line.get_label().startswith("_"):
            points = np.asarray(line.get_xydata()).tolist()
            found[line.get_label()] = points, to_hex(line.get_color())
    return found


def points(run):
    return [[e.step, e.mean] for e in run.evaluations]


def test_evaluations_stand_in_the_panel_of_their_title(lesson):
    one, two, three = [made_up(lesson, mean, 2 * mean) for mean in (11, 22, 33)]
    panels = {
        "first": {"one": (one, "#aa0000", "o-"), "two": (two, "#00aa00", "s-")},
        "second": {"three": (three, "#0000aa", "-")},
        "third": {},
    }
    figure = lesson.plot_evaluations(panels, threshold=123)
    assert [ax.get_title() for ax in figure.axes] == list(panels)
    first, second, third = figure.axes
    expected = {"one": (points(one), "#aa0000"), "two": (points(two), "#00aa00")}
    assert curves(first) == expected
    assert curves(second) == {"three": (points(three), "#0000aa")}
    assert curves(third) == {}
    for ax in figure.axes:
        assert any(set(line.get_ydata()) == {123} for line in ax.lines)


def test_the_curve_that_is_called_plain_is_that_of_the_plain_run(lesson, cell):
    plain, careful = made_up(lesson, 9, 500, 30), made_up(lesson, 9, 400, 500)
    found = cell("collapse_and_cure = ", plain_run=plain, careful_run=careful)
    (ax,) = found.figures[0].axes
    drawn = curves(ax)
    of_label = {}
    for label, (shown, color) in drawn.items():
        of_label["plain" if "lain" in label else "careful"] = shown, color
    assert of_label["plain"] == (points(plain), lesson.ORANGE.lower())
    assert of_label["careful"] == (points(careful), lesson.BLUE.lower())
    legend = ax.get_legend()
    words = [text.get_text() for text in legend.get_texts()]
    looks = [to_hex(line.get_color()) for line in legend.get_lines()]
    shown = {label: color for label, (_, color) in drawn.items()}
    assert dict(zip(words, looks, strict=True)) == shown
    alt = found.collapse_and_cure.alt
    order = alt.index(lesson.verdict(plain)), alt.index(lesson.verdict(careful))
    assert order[0] < order[1]


def test_the_slider_has_each_network_with_its_own_evaluation(lesson):
    run = made_up(lesson, 9.0, 80.4, 74.4, 500.0, threshold=75)
    pairs = lesson.labelled(["a", "b", "c", "d"], run)
    assert [net for _, net in pairs] == ["a", "b", "c", "d"]
    found = [numbers(label) for label, _ in pairs]
    assert found == [[100, 9], [200, 80], [300, 74], [400, 500]]
    passes = ["pass" in label for label, _ in pairs]
    assert passes == [False, True, False, True]
    assert ["fail" in label for label, _ in pairs] == [not p for p in passes]
    means = [*range(33), 500, *range(34, 60)]
    pairs = lesson.labelled(means, made_up(lesson, *means))
    assert len(pairs) <= 20 and {0, 500, 59} <= {net for _, net in pairs}
    assert all(numbers(label)[1] == net for label, net in pairs)


# Films and pictures.


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


@pytest.mark.parametrize("x, angle", [(-2.0, -0.2), (0.0, 0.0), (1.3, 0.1)])
def test_the_cart_is_drawn_where_the_state_says(lesson, x, angle):
    picture = lesson.draw_cart(np.array([x, 9.0, angle, 9.0]), "")
    assert cart_of(lesson, picture) == pytest.approx(x, abs=0.08)
    columns, rows = pixels(lesson, picture, lesson.ORANGE, bottom=115)
    metres = 2.4 / (picture.width / 2 - 36) * (rows.max() - rows.min())
    low, high = [columns[rows == row].mean() for row in (rows.max(), rows.min() + 4)]
    assert math.atan2(high - low, metres) == pytest.approx(angle, abs=0.06)


@pytest.mark.parametrize("every", [1, 4])
def test_a_film_shows_every_nth_state_of_the_episode(lesson, every):
    played = lesson.play(lambda states: [1] * len(states), 4)
    film = lesson.film(played, "pushes right", every)
    image = Image.open(io.BytesIO(film.data))
    shown = played[::every]
    assert image.n_frames == len(shown)
    for i, state in enumerate(shown):
        image.seek(i)
        assert cart_of(lesson, image) == pytest.approx(state[0], abs=0.08)
        assert image.info["duration"] > 0
    assert "pushes right" in film.alt and numbers(film.alt) == [len(played) - 1]


def test_a_picture_is_white_whatever_the_style_of_the_reader(lesson):
    matplotlib.style.use("dark_background")
    fresh = loader.load(OUTPUT_DIR=str(lesson.OUTPUT), DEVICE="cpu")
    figure = fresh.plot_durations(made_up(fresh, 10.0, 20.0))
    shown = fresh.picture(figure, "a curve")
    image = np.asarray(Image.open(io.BytesIO(shown.data)).convert("L"))
    assert np.median(image) == 255 and image.min() < 100 and shown.alt == "a curve"


# Scores, comparisons and the numbers of a run.


def scores_of(values):
    """A stand-in for `evaluate`: the scores of a policy, and who was asked for them."""
    asked = []

    def evaluate(policy, starts, env_id="CartPole-v1", max_steps=None):
        asked.append((policy, starts, max_steps))
        return np.array(values[policy], float)

    return evaluate, asked


def test_rules_are_scored_on_the_held_out_starts(lesson, cell):
    def random_pushes(states): ...

    def push_where_it_leans(states): ...

    def push_where_it_falls(states): ...

    rules = (random_pushes, push_where_it_leans, push_where_it_falls)
    values = [[10, 20], [30, 50], [500, 450]]
    evaluate, asked = scores_of(dict(zip(rules, values, strict=True)))
    names = {rule.__name__: rule for rule in rules}
    found = cell("in (random_pushes, ", evaluate=evaluate, **names)
    assert asked == [(rule, lesson.HELD_OUT_STARTS, None) for rule in rules]
    assert found.rows == {
        "random pushes": ["15.0", "10"],
        "push where it leans": ["40.0", "30"],
        "push where it falls": ["475.0", "450"],
    }


def test_each_agent_is_trained_as_the_lesson_says(lesson, cell, patch):
    """Plain, with a careful target, and with the mirror if it is on."""
    asked = []

    def train(settings, **options):
        asked.append((settings, options))
        return made_up(lesson, 0, 500, net=Says(3.5, 9.5))

    patch("TARGET_EPSILON", 0.4)
    never = made_up(lesson, 0, 0)
    names = {"train": train, "plain_run": never, "careful_run": never}
    found = cell("first = train(", **names)
    assert numbers(found.printed)[-1] == 9.5, "the better value"
    found = cell("plain_run = train(", **names)
    assert numbers(found.printed)[-1] == 1
    found = cell("careful_run = train(", **names)
    assert numbers(found.printed)[-2:] == [0, 1], "plain and careful"
    careful = found.careful
    for mirror in (True, False):
        found = cell("final = train(", careful=careful, MIRROR=mirror, **names)
        assert numbers(found.printed)[-1] == 1
    (first, plain, with_target, mirrored, unmirrored) = asked
    assert replace(first[0], EVAL_EVERY=250) == lesson.settings
    assert first[1]["stop_at_first_pass"]
    for settings, options in (plain, with_target, mirrored, unmirrored):
        assert settings == lesson.settings and not options.get("stop_at_first_pass")
    usual = lesson.td_targets, lesson.remember
    found = []
    for _, options in asked:
        targets = options.get("targets", lesson.td_targets)
        found.append((targets, options.get("remember", lesson.remember)))
    assert found[0] == found[1] == usual
    for targets, _ in found[2:]:
        assert targets.func == lesson.careful_targets
        assert targets.keywords == {"epsilon": 0.4}
    kinds = [remember for _, remember in found[2:]]
    assert kinds == [lesson.remember, lesson.remember_mirrored, lesson.remember]


def test_agents_are_scored_on_the_held_out_starts(lesson, cell):
    values = {"plain": [20, 40], "careful": [450, 480], "last": [500, 499]}
    evaluate, asked = scores_of(values)
    found = cell(
        "agents = {",
        plain_run=made_up(lesson, 0, net="plain"),
        careful_run=made_up(lesson, 0, net="careful"),
        final=made_up(lesson, 0, net="last"),
        greedy=lambda net: net,
        evaluate=evaluate,
        scores={"a rule": np.array([100.0, 300.0])},
    )
    assert asked == [(net, lesson.HELD_OUT_STARTS, None) for net in values]
    ends = [(row[0], row[-1]) for row in found.rows.values()]
    assert ends == [
        ("200.0", "100"),
        ("30.0", "20"),
        ("465.0", "450"),
        ("499.5", "499"),
    ]
    names = list(found.rows)
    assert "plain" in names[1] and "careful" in names[2] and "final" in names[3]
    assert found.rows[names[3]][1] == "499.0 to 500.0"
    carts = []
    cell(" in agents.items()])", agents=found.agents, live_cart=carts.append)
    (pairs,) = carts
    assert [net for _, net in pairs] == ["plain", "careful", "last"]
    for (label, _), name in zip(pairs, names[1:], strict=True):
        assert name in label


@pytest.fixture
def numbers_of_a_run(lesson, cell, tmp_path):
    """Run the cell that writes the results; return metrics.json and its folder."""

    def write(final, held_out):
        other = made_up(lesson, 500, 500, 500, 500, 500, durations=[1])
        image = SimpleNamespace(data=b"a film")
        cell(
            "metrics = {",
            settings=final.settings,
            final=final,
            plain_run=other,
            careful_run=other,
            first=other,
            scores={
                "plain DQN": np.array([77.0]),
                "careful target": np.array([88.0]),
                "final agent": np.array(held_out),
                "push where it falls": np.array([99.0]),
            },
            agent_film=image,
            collapse_and_cure=SimpleNamespace(data=b"both curves"),
            picture=lambda figure, alt: SimpleNamespace(data=b"a curve"),
            OUTPUT=tmp_path,
            TARGET_EPSILON=0.25,
            MIRROR=False,
        )
        text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
        return json.loads(text, parse_constant=pytest.fail), tmp_path

    return write


def test_metrics_are_those_of_the_final_agent(lesson, numbers_of_a_run):
    final = made_up(lesson, 10.0, 480.0, 470.0, 500.0, durations=[40, 360])
    final.settings = replace(final.settings, SEED=17)
    metrics, folder = numbers_of_a_run(final, [500.0, 460.0, 480.0])
    expected = {
        "seed": 17,
        "target_epsilon": 0.25,
        "mirror": False,
        "solved": True,
        "solved_at_step": 200,
        "solved_at_seconds": 2.0,
        "steadiness": 0.5,
        "validation_area": 365.0,
        "greedy_mean": 480.0,
        "greedy_min": 460.0,
        "greedy_episodes": 3,
        "episodes": 2,
        "env_steps": 400,
        "gradient_steps": 7,
        "train_seconds": 3_600.0,
        "device": "cpu",
        "gym_version": lesson.gym.__version__,
        "numpy_version": np.__version__,
        "torch_version": str(torch.__version__),
    }
    assert metrics == expected
    durations = (folder / "durations.csv").read_text(encoding="utf-8")
    assert durations == "episode,steps,duration\n1,40,40\n2,400,360\n"
    evaluations = (folder / "evaluations.csv").read_text(encoding="utf-8")
    assert evaluations.splitlines()[:3] == [
        "steps,mean,worst",
        "100,10.0,0.0",
        "200,480.0,470.0",
    ]
    files = {"agent.png": b"a film", "collapse_and_cure.png": b"both curves"}
    for name, content in {**files, "learning_curve.png": b"a curve"}.items():
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize(
    "means, held_out, solved",
    [
        ([100, 0], [74.0], False),
        ([0, 74], [100.0], False),
        ([0, 75], [75.0], True),
        ([100, 100], [100.0, 40.0], False),
    ],
)
def test_solved_needs_a_pass_and_the_held_out_starts(
    lesson, numbers_of_a_run, means, held_out, solved
):
    metrics, _ = numbers_of_a_run(made_up(lesson, *means, threshold=75), held_out)
    assert metrics["solved"] is solved
    if max(means) < 75:
        assert metrics["solved_at_step"] is metrics["solved_at_seconds"] is None


def test_a_row_of_seeds_has_a_number_for_each_run(lesson):
    runs = [
        made_up(lesson, 500, 30, 480, 20),
        made_up(lesson, 20, 30, 474, 470),
        made_up(lesson, 20, 475, 400, 500),
        made_up(lesson, 20, 20, 20, 500),
    ]
    name, *cells = lesson.row_of_seeds("some agent", runs)
    firsts, lowest, shares = [text.split("; ") for text in cells]
    assert name == "some agent"
    assert firsts[0] == "100" and firsts[2:] == ["200", "400"]
    assert lowest[0] == "20" and lowest[2] == "400", "after the first pass"
    assert not numbers(firsts[1] + lowest[1] + lowest[3]), "never, and nothing later"
    assert [float(share) for share in shares] == [0.5, 0, 0.5, 0.5]


def test_a_figure_of_seeds_has_a_panel_for_each_agent_and_a_line_for_each_run(lesson):
    by_agent = {
        "plain DQN": [made_up(lesson, 1, 2), made_up(lesson, 3, 4)],
        "careful": [made_up(lesson, 5, 6), made_up(lesson, 7, 8)],
        "careful, mirror": [made_up(lesson, 9, 10), made_up(lesson, 11, 12)],
        "one more": [made_up(lesson, 13, 14), made_up(lesson, 15, 16)],
    }
    figure = lesson.plot_seeds(by_agent)
    assert [ax.get_title() for ax in figure.axes] == list(by_agent)
    for ax, (name, runs) in zip(figure.axes, by_agent.items(), strict=True):
        drawn = list(curves(ax).values())
        assert [shown for shown, _ in drawn] == [points(run) for run in runs]
        plain = name == "plain DQN"
        color = lesson.ORANGE if plain else lesson.BLUE
        assert {shown for _, shown in drawn} == {color.lower()}


def test_each_variant_is_trained_with_each_seed(lesson, patch, capsys):
    patch("clear_output", lambda wait: None)
    patch("train", lambda settings, **options: (settings, options))
    fast, slow = replace(lesson.settings, LR=0.5), replace(lesson.settings, LR=0.1)
    variants = {"fast": (fast, {}), "slow": (slow, {"targets": 1, "remember": 2})}
    found = lesson.train_all(variants, [7, 8, 9])
    assert found == {
        "fast": [(replace(fast, SEED=seed), {}) for seed in (7, 8, 9)],
        "slow": [
            (replace(slow, SEED=seed), {"targets": 1, "remember": 2})
            for seed in (7, 8, 9)
        ],
    }
    lines = capsys.readouterr().out.splitlines()
    assert [numbers(line)[:2] for line in lines] == [[i, 6] for i in range(1, 7)]
    assert all("fast" in line for line in lines[:3])
    assert all("slow" in line for line in lines[3:])


@pytest.fixture(scope="module")
def comparison(lesson):
    """The cells of section 14 that train, with two seeds and a few steps."""
    small = {"SEED": 999_999_999, "MAX_STEPS": 50, "EVAL_EVERY": 10, "BATCH_SIZE": 8}
    names = dict(lesson.train.__globals__)
    names["settings"] = replace(lesson.settings, **small, MEMORY_SIZE=1_000)
    names["careful"] = partial(lesson.careful_targets, epsilon=0.7)
    names["COMPARE_SEEDS"] = 2
    exec(cell_with("by_agent = train_all("), names)
    exec(cell_with("by_part = train_all("), names)
    return SimpleNamespace(**names)


def test_seeds_of_a_comparison_differ_and_agents_share_them(comparison, lesson):
    assert len(comparison.by_agent) == 3 and len(comparison.by_part) == 2
    for results in {**comparison.by_agent, **comparison.by_part}.values():
        assert [r.settings.SEED for r in results] == [999_999_999, 0]
        curves_of_seeds = [r.durations for r in results]
        assert curves_of_seeds[0] != curves_of_seeds[1]
        row = lesson.row_of_seeds("", results)
        assert all(len(text.split("; ")) == 2 for text in row[1:])


def test_the_comparison_has_the_agents_of_the_lesson(comparison, lesson):
    careful = {"targets": comparison.careful}
    mirrored = {**careful, "remember": lesson.remember_mirrored}
    options = [{}, careful, mirrored]
    for results, given in zip(comparison.by_agent.values(), options, strict=True):
        again = lesson.train(results[1].settings, **given)
        assert results[1].losses == again.losses


def test_the_ablation_takes_away_what_it_says(comparison, lesson):
    plain = comparison.by_agent["plain DQN"]
    for results in comparison.by_part.values():
        for one, whole in zip(results, plain, strict=True):
            assert one.losses != whole.losses
            again = lesson.train(one.settings)
            assert again.losses == one.losses, "plain DQN but for its settings"
    (tiny,) = [r for n, r in comparison.by_part.items() if "memory" in n]
    (alone,) = [r for n, r in comparison.by_part.items() if "target" in n]
    for run, whole in zip(tiny, plain, strict=True):
        assert run.memory.capacity == 16 < len(whole.memory) == 50
        assert replace(run.settings, MEMORY_SIZE=1_000) == whole.settings
    for run, whole in zip(alone, plain, strict=True):
        assert replace(run.settings, TAU=lesson.TAU) == whole.settings
        pairs = zip(
            run.policy_net.parameters(), run.target_net.parameters(), strict=True
        )
        assert all(torch.equal(policy, target) for policy, target in pairs)


class Says(torch.nn.Module):
    """Stands for a network: the same Q-values for each state."""

    def __init__(self, *values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, states):
        return self.values.expand(*states.shape[:-1], len(self.values))


def test_the_table_of_the_ablation_has_best_last_and_value(lesson, cell):
    plain = [made_up(lesson, 7, 500, 100, net=Says(90.0, 80.0))]
    tiny = [made_up(lesson, 9, 8, 300, net=Says(1.0, 2.0))]
    alone = [made_up(lesson, 40, 10, 9, net=Says(-3e6, -2e6))]
    found = cell(
        "**by_part}.items()",
        by_agent={"plain DQN": plain, "careful": tiny},
        by_part={"tiny memory": tiny, "no target network": alone},
        seeds=[0],
        first_start=torch.zeros(4),
    )
    assert found.rows == {
        "plain DQN": ["500", "100", "90"],
        "tiny memory": ["300", "300", "2"],
        "no target network": ["40", "9", "-2,000,000"],
    }


# What the values mean.


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_stumbling_player_is_greedy_first_and_then_stumbles(lesson, share):
    net, states = lesson.DQN(4, 2, lesson.SCALE), np.zeros((4_000, 4), np.float32)
    best = lesson.greedy(net)(states[:1])[0]
    policy = lesson.stumbling(net, share, np.random.default_rng(0))
    assert set(policy(states)) == {best}
    for _ in range(2):
        assert np.mean(policy(states) != best) == pytest.approx(share / 2, abs=0.03)


def test_promised_and_received(lesson, cell):
    """Half of 300 episodes last two steps and half three, with γ = 1/2."""
    evaluate_asked = []

    def evaluate(policy, starts):
        evaluate_asked.append((policy, list(starts)))
        return np.array([2.0, 3.0] * 150)

    net = Leaning(-1.0)  # says [7, 8 and a little more, which depends on the start]
    found = cell(
        "return_of_length = ",
        settings=replace(lesson.settings, GAMMA=0.5),
        careful_run=made_up(lesson, 0, net=net),
        stumbling=lambda net, share, rng: (net, share),
        TARGET_EPSILON=0.3,
        evaluate=evaluate,
    )
    # 1 + 1/2 and 1 + 1/2 + 1/4, which lie 1/8 to both sides of 1.625
    assert np.mean(found.received) == 1.625
    assert found.error == pytest.approx(2 * 0.125 / math.sqrt(300))
    (((player, share), starts),) = evaluate_asked
    assert player is net and share == 0.3 and len(starts) == 300
    env = lesson.make_env("CartPole-v1")
    states = np.array([lesson.reset_env(env, start) for start in starts])
    values = 8 + states[:, 0] + 10 * states[:, 1:].sum(axis=1)
    assert found.promised == pytest.approx(values.clip(min=7).mean(), abs=1e-4)
    seen = {*lesson.VALIDATION_STARTS, *lesson.HELD_OUT_STARTS}
    assert not seen & set(starts)


def test_beyond_the_clock(lesson, cell):
    def evaluate(policy, starts, max_steps):
        assert starts == lesson.HELD_OUT_STARTS and max_steps == 5_000
        lasting = 30 if policy == "last weights" else 100
        return np.array([5_000.0] * lasting + [4_999.0] * (100 - lasting))

    found = cell(
        '{"max_steps": 5_000}',
        final=made_up(lesson, 0, net="last weights"),
        greedy=lambda net: net,
        evaluate=evaluate,
    )
    shares = [line for line in found.printed.splitlines() if "%" in line]
    assert [numbers(line)[0] for line in shares] == [30, 100]
    assert "agent" in shares[0] and "rule" in shares[1]
    states = np.array([[0, 0, 0.1, 0], [0, 0, -0.1, 0], [2, 0, 0, 0.01]])
    assert found.rule_by_hand(states).tolist() == [True, False, True]


def test_q_map_has_angles_along_and_velocities_up(lesson):
    net = lesson.DQN(4, 2, lesson.SCALE)
    q = lesson.q_map(net, 1.5)
    for i, j in ((0, 0), (0, 60), (60, 30), (60, 0)):
        state = torch.tensor([[1.5, 0.0, -0.2 + 0.4 * j / 60, -2.0 + 4 * i / 60]])
        assert np.allclose(q[i, j], net(state)[0].detach().numpy(), atol=1e-4)


def test_maps_show_the_better_value_and_where_the_push_changes(lesson):
    angle, velocity = np.meshgrid(np.linspace(-0.2, 0.2, 61), np.linspace(-2, 2, 61))
    low = np.full_like(angle, 3.0)
    one = np.stack([low, 3 + 10 * (angle - 0.1)], axis=-1)  # changes at angle 0.1
    two = np.stack([low, 3 + velocity + 1], axis=-1)  # at velocity -1
    three = np.stack([low + velocity, low - velocity], axis=-1)
    maps = {"one": (one, -np.inf), "two": (two, 4.0), "three": (three, 0.0)}
    figure = lesson.plot_maps(maps)
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == list(maps)
    for ax, (q, lowest) in zip(panels, maps.values(), strict=True):
        (image,) = ax.images
        best = np.maximum(q[..., 0], q[..., 1])
        assert np.array_equal(np.ma.getmaskarray(image.get_array()), best < lowest)
        assert np.array_equal(
            image.get_array().filled(0), np.where(best < lowest, 0, best)
        )
        assert tuple(image.get_extent()) == (-0.2, 0.2, -2, 2)
        assert image.origin == "lower"
    lines = [ax.collections[0].get_paths()[0].vertices for ax in panels]
    assert np.allclose(lines[0][:, 0], 0.1, atol=0.01)
    assert np.allclose(lines[1][:, 1], -1, atol=0.1)
    assert np.allclose(lines[2][:, 1], 0, atol=0.1)


def test_the_maps_of_the_lesson_are_of_the_final_agent(lesson, cell):
    asked = []

    def q_map(net, position):
        asked.append((net, position))
        return np.zeros((2, 2, 2))

    final = made_up(lesson, 0, net=Leaning(0.0))
    found = cell(
        "untrained = make_networks(",
        final=final,
        q_map=q_map,
        plot_maps=lambda maps: maps,
    )
    (untrained, middle), *others = asked
    assert middle == 0 and isinstance(untrained, lesson.DQN)
    assert others == [(final.policy_net, 0.0), (final.policy_net, 2.0)]
    assert len(found.figures[0]) == 3


# Small tasks with an answer that is known.


def test_the_table_of_four_places(cell):
    """Worth 0.9 to the power of the steps to the goal that remain."""
    found = cell("q_table = ")
    best = [[0.9**3, 0.9**2], [0.9**3, 0.9], [0.9**2, 1.0]]
    assert np.allclose(found.q_table, best, atol=0.01)


def test_what_is_broken_on_purpose_gives_what_it_must(cell):
    (right, wrong) = cell("sgd = ").printed.splitlines()
    assert numbers(right.partition("learned")[2]) == pytest.approx([0, 10], abs=0.01)
    assert numbers(wrong.partition("learned")[2]) == pytest.approx([5, 5], abs=0.01)
    (right, wrong) = cell("amax(dim=0)").printed.splitlines()
    assert numbers(right) == [20, 90, 50] and numbers(wrong) == [90, 50]
    (right, wrong) = cell("clock_stops = ").printed.splitlines()
    assert numbers(right) == [100]
    assert 30 <= numbers(wrong)[0] <= 37, "1 / (1 - 0.99 * 49 / 50) on average"


def test_a_table_has_all_rows_and_columns(lesson):
    lines = lesson.table(["a", "b"], [["x", 1], ["y", 2.5]]).data.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["a", "b"] and cells[2:] == [["x", "1"], ["y", "2.5"]]
    assert set("".join(cells[1])) <= {"-", ":"}


# Files.


def test_a_full_disk_leaves_the_old_file(lesson, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "some.bin"
    lesson.write(path, b"old" * 10)
    assert path.read_bytes() == b"old" * 10 and list(tmp_path.iterdir()) == [path]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            lesson.write(path, b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" * 10
    lesson.write(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def made_with(lesson):
    """What is saved with an agent."""
    settings = replace(lesson.settings, SEED=5, LR=0.125)
    return {**asdict(settings), "TARGET_EPSILON": 0.25, "MIRROR": False}


def test_an_agent_is_the_same_after_saving_and_loading(lesson, made_with, tmp_path):
    net = lesson.DQN(6, 3, [1, 1, 1, 1, 6, 12])
    lesson.save_agent(tmp_path / "model.pt", net, made_with)
    loaded, found = lesson.load_agent(tmp_path / "model.pt")
    assert found == made_with
    states = torch.randn(50, 6)
    assert torch.equal(net(states), loaded(states))
    assert torch.equal(net.scale, loaded.scale)


def test_a_file_that_lacks_a_setting_is_refused(lesson, made_with, tmp_path):
    net = lesson.DQN(4, 2, lesson.SCALE)
    for name in made_with:
        others = {key: value for key, value in made_with.items() if key != name}
        lesson.save_agent(tmp_path / "model.pt", net, others)
        with pytest.raises(ValueError, match=rf"model\.pt.*{name}"):
            lesson.load_agent(tmp_path / "model.pt")


def test_an_agent_saved_on_a_gpu_can_be_loaded_without_one(
    lesson, made_with, tmp_path, monkeypatch
):
    net = lesson.DQN(4, 2, lesson.SCALE)
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        lesson.save_agent(tmp_path / "model.pt", net, made_with)
    loaded, _ = lesson.load_agent(tmp_path / "model.pt")
    assert {value.device.type for value in loaded.state_dict().values()} == {"cpu"}
    assert torch.equal(net.layer1.weight, loaded.layer1.weight)


class Evil:
    """Would write a file when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_code_is_refused(lesson, made_with, tmp_path):
    content = {"weights": Evil(tmp_path / "harm"), "made_with": made_with}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(Exception, match="[Ww]eights"):
        lesson.load_agent(tmp_path / "model.pt")
    assert not (tmp_path / "harm").exists()


def test_the_loaded_agent_is_played_again(lesson, cell, made_with, tmp_path):
    """The cell of section 13 fails if the file holds another agent."""
    lesson.save_agent(tmp_path / "model.pt", lesson.DQN(4, 2, lesson.SCALE), made_with)
    played = np.arange(100.0)
    names = {"OUTPUT": tmp_path, "evaluate": lambda policy, starts: played}
    cell("= load_agent(", scores={"final agent": np.arange(100.0)}, **names)
    with pytest.raises(AssertionError):
        cell("= load_agent(", scores={"final agent": played + 1}, **names)
