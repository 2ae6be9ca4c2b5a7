"""Pictures with alternative texts, tables, and plots of plain numbers."""

import base64
import io
import math

BLUE = "#0072B2"  # colour-blind readers can tell these four apart
ORANGE = "#D55E00"
PURPLE = "#AA3377"
GREY = "#767676"


class Picture:
    """A picture with an alternative text, which older releases of IPython lack."""

    def __init__(self, data, alt):
        self.data = data  # the bytes of a PNG file
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        png = base64.b64encode(self.data).decode()
        data = {"image/png": png, "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def new_figure(width, height):
    """Return an empty figure, sizes in inches, in Matplotlib's own style."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # a style that you have set does not change the pictures
    return Figure(figsize=(width, height), layout="constrained")


def picture(figure, alt):
    """Return a figure as a picture with an alternative text."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, facecolor="white")
    small = io.BytesIO()  # fewer colours make the notebook's file smaller
    Image.open(file).convert("RGB").quantize(128).save(small, format="png")
    return Picture(small.getvalue(), alt)


def table(header, rows):
    """Return a table to display; fractions have two digits, other numbers one."""
    from IPython.display import Markdown

    lines = []
    for row in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(map(shown, row)) + " |")
    return Markdown("\n".join(lines) + "\n")


def shown(value):
    """Return a cell of a table as text."""
    if isinstance(value, float):
        return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"
    return str(value)


def first_pass(evaluations, threshold):
    """Return the first evaluation that passes, or None."""
    for evaluation in evaluations:
        if evaluation.mean >= threshold:
            return evaluation
    return None


def verdict(result):
    """Return in a sentence when a run first passes and whether it stays there."""
    passed = first_pass(result.evaluations, result.threshold)
    if passed is None:
        steps = result.evaluations[-1].step
        return f"No evaluation reaches {result.threshold:.0f} within {steps:,} steps."
    sentence = (
        f"The first pass comes at step {passed.step:,}, "
        f"after {passed.seconds:.1f} seconds of training"
    )
    later = [e for e in result.evaluations if e.step > passed.step]
    if not later:
        return sentence + "."
    below = sum(e.mean < result.threshold for e in later)
    return f"{sentence}; {below} of the {len(later)} later evaluations fail."


def mean_of_last_100(durations):
    """Return, for each episode, the mean of the last 100 (of all, until then)."""
    means = []
    for end in range(1, len(durations) + 1):
        last = durations[max(0, end - 100) : end]
        means.append(sum(last) / len(last))
    return means


def draw_evaluations(ax, result, look):
    """Draw the evaluations of a run by step, and the threshold."""
    steps = [e.step for e in result.evaluations]
    ax.plot(steps, [e.mean for e in result.evaluations], **look)
    ax.axhline(result.threshold, color=GREY, linestyle="--", linewidth=1)
    ax.set(xlabel="step", xlim=0, ylim=(0, 520))


def plot_evaluations(runs):
    """Return a picture of the evaluations of two runs, by their names."""
    figure = new_figure(8, 3.4)
    ax = figure.subplots()
    for (name, result), color, marker in zip(
        runs.items(), (ORANGE, BLUE), "os", strict=True
    ):
        look = {"color": color, "marker": marker, "markersize": 4, "label": name}
        draw_evaluations(ax, result, look)
    ax.set_ylabel("evaluation (steps)")
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
    ax.legend(frameon=False, **place)
    texts = [f"{name}: {verdict(result)}" for name, result in runs.items()]
    return picture(figure, f"Evaluations of the same seed. {' '.join(texts)}")


def plot_seeds(by_agent):
    """Return a picture with a panel for each agent and a line for each of its runs."""
    figure = new_figure(9, 3.2)
    axes = figure.subplots(1, len(by_agent), sharey=True, squeeze=False)[0]
    for ax, (name, results) in zip(axes, by_agent.items(), strict=True):
        color = ORANGE if name.startswith("plain") else BLUE
        for result in results:
            draw_evaluations(ax, result, {"color": color})
        ax.set_title(name)
    axes[0].set_ylabel("evaluation (steps)")
    return picture(figure, f"Evaluations, a line for each seed: {', '.join(by_agent)}.")


def endings(last_states):
    """Return in how many games the cart is lost left, right, the pole falls, or none.

    last_states: the last observations of some games, (N, 4).
    """
    counts = [0, 0, 0, 0]
    for x, _, angle, _ in last_states:
        if abs(x) > 2.4:
            counts[int(x > 0)] += 1
        else:
            counts[2 if abs(angle) > math.radians(12) else 3] += 1
    return counts


def plot_endings(evaluations):
    """Return a picture of how the games end, a bar for each evaluation."""
    steps = [e.step for e in evaluations]
    counts = [endings(e.last_states) for e in evaluations]
    kinds = {
        "cart lost on the left": (ORANGE, "\\\\\\"),
        "cart lost on the right": (PURPLE, "///"),
        "pole fallen": (GREY, ""),
        "clock reached": ("#FFFFFF", ""),
    }
    figure = new_figure(9, 3)
    ax = figure.subplots()
    width = 0.9 * steps[0]
    bottom = [0] * len(steps)
    sums = []
    for kind, (label, (color, hatch)) in enumerate(kinds.items()):
        heights = [count[kind] for count in counts]
        look = {"color": color, "hatch": hatch, "edgecolor": "black", "linewidth": 0.5}
        ax.bar(steps, heights, width, bottom, label=label, **look)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        sums.append(f"{label} {sum(heights)}")
    ax.set(xlabel="step of the evaluation", ylabel="games", xlim=0)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "ncols": 4}
    ax.legend(frameon=False, **place)
    return picture(figure, f"How the games of all evaluations end: {', '.join(sums)}.")


def plot_answers(leans, panels, threshold=475):
    """Return a picture of the action gap against the lean of the pole, in degrees.

    panels: title → (gaps, evaluations); a line of gaps for each evaluation.
    """
    figure = new_figure(9, 3.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = {
        True: {"color": "black", "linestyle": "-", "label": "evaluation passes"},
        False: {"color": PURPLE, "linestyle": "--", "label": "evaluation fails"},
    }
    texts = []
    for ax, (title, (gaps, evaluations)) in zip(axes, panels.items(), strict=True):
        for style in styles.values():  # the legend
            ax.plot([], [], **style)
        for gap, evaluation in zip(gaps, evaluations, strict=True):
            look = {**styles[evaluation.mean >= threshold], "label": None}
            ax.plot(leans, gap, linewidth=0.9, **look)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set(title=title, xlabel="lean of the pole (degrees, right is positive)")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        ends = [gap[-1] for gap in gaps]
        texts.append(f"{title}: from {min(ends):.1f} to {max(ends):.1f}")
    axes[0].set_ylabel("Q(right) − Q(left)")
    largest = f"At the largest lean to the right, {'; '.join(texts)}."
    return picture(figure, f"Action gap against the lean of the pole. {largest}")


def plot_maps(maps):
    """Return a picture of better Q-values over the pole's angle and its velocity.

    maps: title → (Q-values (61, 61, 2), lowest value shown).
    """
    figure = new_figure(8, 3.2)
    axes = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    box = {"extent": (-0.2, 0.2, -2, 2), "origin": "lower"}
    texts = []
    for ax, (title, (q, lowest)) in zip(axes, maps.items(), strict=True):
        best = q.max(axis=-1)
        texts.append(f"{title}: {best.min():.0f} to {best.max():.0f}")
        best[best < lowest] = math.nan  # left white
        shown = ax.imshow(best, aspect="auto", **box)
        ax.contour(q[..., 1] - q[..., 0], [0.0], colors="black", **box)
        ax.set(title=title, xticks=[-0.2, 0, 0.2], xlabel="angle (rad)")
        figure.colorbar(shown, ax=ax, location="bottom", label="better Q-value")
    axes[0].set_ylabel("angular velocity (rad/s)")
    return picture(figure, f"Maps of the better Q-value. {'; '.join(texts)}.")
