"""The learning curve of a run, and what is said of it."""

import time

from IPython.display import clear_output, display

from .figures import GREY, picture


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
    sentence = f"The first pass comes at step {passed.step:,}"
    later = [e for e in result.evaluations if e.step > passed.step]
    if not later:
        return sentence + "."
    below = sum(e.mean < result.threshold for e in later)
    return f"{sentence}; {below} of the {len(later)} later evaluations fail."


def running_mean(durations):
    """Return, for each episode, the mean of the last 100 (of all, until then)."""
    means = []
    for end in range(1, len(durations) + 1):
        last = durations[max(0, end - 100) : end]
        means.append(sum(last) / len(last))
    return means


def draw_evaluations(ax, result, **look):
    """Draw the evaluations of a run by step, and the threshold."""
    steps = [e.step for e in result.evaluations]
    ax.plot(steps, [e.mean for e in result.evaluations], **look)
    ax.axhline(result.threshold, color=GREY, linestyle="--", linewidth=1)
    ax.set(xlabel="step", xlim=0, ylabel="evaluation (mean steps)")


def draw_episodes(ax, result, **look):
    """Draw how long each training episode lasts, and the mean of the last 100."""
    durations = [duration for _, duration in result.durations]
    ax.plot(durations, ".", color=GREY)
    ax.plot(running_mean(durations), **look)
    ax.set(xlabel="training episode", ylabel="duration and mean of 100")


class LivePlot:
    """Draws the learning curve of a run while it trains, in place of the last one.

    draw: function of a run, and of whether it has finished, that returns a figure.
    A call draws at most every other second, and always when the run has finished.
    """

    def __init__(self, draw):
        self.draw = draw
        self.drawn_at = 0.0  # seconds

    def __call__(self, result):
        if not result.finished and time.time() < self.drawn_at + 2:
            return
        self.drawn_at = time.time()
        try:
            figure = self.draw(result, result.finished)
            curve = picture(figure, f"Learning curve. {verdict(result)}")
            clear_output(wait=True)
            display(curve)
        except Exception as error:  # training goes on without a picture
            print(f"The plot failed: {error!r}")
