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
    """Return a table to display; the rows hold anything that can be printed."""
    from IPython.display import Markdown

    lines = []
    for row in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(str(value) for value in row) + " |")
    return Markdown("\n".join(lines) + "\n")


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
        threshold = f"{result.threshold:.0f}"
        return f"No evaluation reaches {threshold} within {result.steps:,} steps."
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


def plot_evaluations(panels):
    """Return a picture of evaluations by step.

    panels: title → {label → (result, colour, style)}, a panel for each title.
    """
    figure = new_figure(max(8, 3 * len(panels)), 3.2)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    texts = []
    for ax, (title, runs) in zip(axes, panels.items(), strict=True):
        for label, (result, color, style) in runs.items():
            steps = [e.step for e in result.evaluations]
            means = [e.mean for e in result.evaluations]
            ax.plot(steps, means, style, color=color, markersize=4, label=label)
            ax.axhline(result.threshold, color=GREY, linestyle="--", linewidth=1)
            texts.append(f"{title}, {label}: {verdict(result)}")
        ax.set(title=title, xlabel="step", xlim=0, ylim=(0, 520))
    axes[0].set_ylabel("evaluation (steps)")
    if len(panels) == 1:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3}
        axes[0].legend(frameon=False, **place)
    return picture(figure, "Evaluations by step. " + " ".join(texts))


def plot_endings(steps, counts):
    """Return a picture of how games end, a bar for each evaluation.

    counts: for each evaluation the games in which the cart is lost on the left, on the
    right, the pole falls, and the clock is reached.
    """
    kinds = {
        "cart lost on the left": (ORANGE, "\\\\\\"),
        "cart lost on the right": (PURPLE, "///"),
        "pole fallen": (GREY, ""),
        "clock reached": ("#FFFFFF", ""),
    }
    figure = new_figure(9, 3)
    ax = figure.subplots()
    width = 0.9 * (min(b - a for a, b in zip(steps, steps[1:])) if steps[1:] else 1)
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


def plot_answers(leans, panels):
    """Return a picture of the action gap against the lean of the pole, in degrees.

    panels: title → (gaps, passes); a line of gaps for each evaluation, and whether it
    passes.
    """
    figure = new_figure(9, 3.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = {
        True: {"color": "black", "linestyle": "-", "label": "evaluation passes"},
        False: {"color": PURPLE, "linestyle": "--", "label": "evaluation fails"},
    }
    texts = []
    for ax, (title, (gaps, passes)) in zip(axes, panels.items(), strict=True):
        for gap, passed in zip(gaps, passes, strict=True):
            ax.plot(leans, gap, linewidth=0.9, **{**styles[bool(passed)], "label": None})
        for style in styles.values():  # the legend
            ax.plot([], [], **style)
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
