"""Plots of runs, from plain numbers."""

import math

from .curves import draw_evaluations, verdict
from .figures import BLUE, GREY, ORANGE, PURPLE, new_figure, picture


def plot_curves(by_name):
    """Return a picture of evaluations; by_name: name → a run, or a list of runs.

    Single runs share a panel, lists of runs have a panel each.
    """
    if any(isinstance(runs, list) for runs in by_name.values()):
        return plot_panels(by_name)
    figure = new_figure(8, 3.4)
    ax = figure.subplots()
    looks = zip((ORANGE, BLUE), "os", strict=True)
    for (name, run), (color, marker) in zip(by_name.items(), looks, strict=True):
        look = {"color": color, "marker": marker, "markersize": 4, "label": name}
        draw_evaluations(ax, run, **look)
    ax.set_ylim(0, 520)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
    ax.legend(frameon=False, **place)
    texts = [f"{name}: {verdict(run)}" for name, run in by_name.items()]
    return picture(figure, f"Evaluations of the same seed. {' '.join(texts)}")


def plot_panels(by_name):
    """Return a picture with a panel for each name and a line for each of its runs."""
    figure = new_figure(9, 3.2)
    axes = figure.subplots(1, len(by_name), sharey=True, squeeze=False)[0]
    for ax, (name, runs) in zip(axes, by_name.items(), strict=True):
        color = ORANGE if name.startswith("plain") else BLUE
        for run in runs:
            draw_evaluations(ax, run, color=color)
        ax.set_title(name)
        ax.label_outer()
    axes[0].set_ylim(0, 520)
    return picture(figure, f"Evaluations, a line for each seed: {', '.join(by_name)}.")


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


def states_of_map(position):
    """Return the states of a map, (61, 61, 4): a cart at rest at a position.

    The rows are angular velocities from −2 to 2, the columns angles from −0.2 to 0.2.
    """
    import numpy as np

    angle, velocity = np.meshgrid(np.linspace(-0.2, 0.2, 61), np.linspace(-2, 2, 61))
    zero = np.zeros_like(angle)
    return np.stack([zero + position, zero, angle, velocity], axis=-1)


def plot_maps(q_values_at, lowest=10):
    """Return a picture of better Q-values over the pole's angle and its velocity.

    q_values_at: title → (function from states to Q-values, position of the cart).
    Values below `lowest` are left white where there are higher ones.
    """
    figure = new_figure(8, 3.2)
    axes = figure.subplots(1, len(q_values_at), sharey=True, squeeze=False)[0]
    box = {"extent": (-0.2, 0.2, -2, 2), "origin": "lower"}
    texts = []
    for ax, (title, (values, position)) in zip(axes, q_values_at.items(), strict=True):
        q = values(states_of_map(position))
        best = q.max(axis=-1)
        texts.append(f"{title}: {best.min():.0f} to {best.max():.0f}")
        if best.max() > lowest:
            best[best < lowest] = math.nan
        shown = ax.imshow(best, aspect="auto", **box)
        ax.contour(q[..., 1] - q[..., 0], [0.0], colors="black", **box)
        ax.set(title=title, xticks=[-0.2, 0, 0.2], xlabel="angle (rad)")
        figure.colorbar(shown, ax=ax, location="bottom", label="better Q-value")
    axes[0].set_ylabel("angular velocity (rad/s)")
    return picture(figure, f"Maps of the better Q-value. {'; '.join(texts)}.")
