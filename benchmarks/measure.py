"""What is measured of a run: passes, solved, the last weights, beyond the clock."""

import functools
import platform
from pathlib import Path

import numpy as np

from tools.load_definitions import load

RESULTS = Path(__file__).resolve().parent / "results"
FAR = 5_000  # steps that count as surviving beyond the clock
WIDE = 500  # steps that count as surviving from a wide start
WIDE_STARTS = 300
WIDE_BOUNDS = (1.5, 0.5, 0.1, 0.5)  # position, velocity, angle, angular velocity


@functools.cache
def lesson():
    """Return the notebook's definitions, on the CPU; `outputs` is left alone."""
    return load(DEVICE="cpu", OUTPUT_DIR=str(RESULTS))


def processor():
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name = text.partition("model name\t: ")[2].partition("\n")[0]
    return name or platform.processor() or platform.machine()


def hand_rule(states):
    """Push right where pole and cart, taken together, move or lean to the right."""
    x, velocity, angle, angular_velocity = states.T
    return (angle + angular_velocity + 0.05 * x + 0.1 * velocity > 0).tolist()


def surviving(policy, envs, steps):
    """Return the share of CartPole environments in which no step fails.

    They are played from the states in which they are, and without gym's clock.
    """
    envs = [env.unwrapped for env in envs]
    states = np.array([env.state for env in envs], np.float32)
    playing = list(range(len(envs)))
    for _ in range(steps):
        if not playing:
            break
        going_on = []
        for i, action in zip(playing, policy(states[playing]), strict=True):
            states[i], _, failed, _, _ = envs[i].step(int(action))
            if not failed:
                going_on.append(i)
        playing = going_on
    return len(playing) / len(envs)


def far(lesson, policy, steps=FAR):
    """Return the share of the held-out starts from which `steps` steps are survived."""
    envs = []
    for seed in lesson.HELD_OUT_STARTS:
        envs.append(lesson.make_env("CartPole-v1"))
        lesson.reset_env(envs[-1], seed)
    return surviving(policy, envs, steps)


def wide_states():
    """Return the wide starts, (300, 4), always the same."""
    bounds = np.array(WIDE_BOUNDS)
    return np.random.default_rng(0).uniform(-bounds, bounds, size=(WIDE_STARTS, 4))


def wide(lesson, policy, steps=WIDE):
    """Return the share of the wide starts from which `steps` steps are survived."""
    envs = []
    for state in wide_states():
        envs.append(lesson.make_env("CartPole-v1"))
        lesson.reset_env(envs[-1], 0)
        envs[-1].unwrapped.state = state
    return surviving(policy, envs, steps)


class Judge:
    """Collects the evaluations of one run and what is measured at them.

    A run tells it of each evaluation, and it says whether the run may stop.
    """

    def __init__(self, lesson, row):
        self.lesson = lesson
        self.row = row
        self.threshold = lesson.make_env(row.env_id).spec.reward_threshold
        self.evaluations = []  # (step, mean)
        self.gaps = []  # along the track, of the evaluations in the second half
        self.solved = np.inf
        self.seconds = None  # of acting and learning, until it is solved
        self.best = None  # held-out mean of the checkpoint with the best evaluation
        self.best_far = None
        self.best_mean = -np.inf
        self.last = {}

    def __call__(self, step, seconds, policy, mean=None, gaps=None, net=None):
        """Take in an evaluation; return whether the run has reached its end."""
        row = self.row
        if mean is None:
            mean = self.play(policy, self.lesson.VALIDATION_STARTS).mean()
        self.evaluations.append((step, float(mean)))
        if gaps is not None and step > row.steps / 2:
            self.gaps.append(gaps)
        passes = mean >= self.threshold
        if mean > self.best_mean or (passes and self.solved == np.inf):
            held_out = self.play(policy, self.lesson.HELD_OUT_STARTS).mean()
            if passes and self.solved == np.inf and held_out >= self.threshold:
                self.solved = step
                self.seconds = seconds
            if mean > self.best_mean:
                self.best_mean = mean
                self.best = float(held_out)
                if row.env_id == "CartPole-v1" and passes:
                    self.best_far = far(self.lesson, policy, row.far)
        if step >= row.steps:
            self.judge_last(policy, step, seconds)
        return step >= row.steps

    def play(self, policy, starts):
        """Return the scores from some starts."""
        return self.lesson.evaluate(policy, starts, self.row.env_id)

    def judge_last(self, policy, step, seconds):
        """Measure the last weights."""
        scores = self.play(policy, self.lesson.HELD_OUT_STARTS)
        self.last["held_out"] = float(scores.mean())
        self.last["held_out_worst"] = float(scores.min())
        self.last["us_per_step"] = 1e6 * seconds / step
        if self.row.env_id == "CartPole-v1":
            self.last["far"] = far(self.lesson, policy, self.row.far)
            self.last["wide"] = wide(self.lesson, policy)

    def found(self):
        """Return all that was measured, by the names of a Run.

        A run that diverged counts its missing evaluations as ones that do not pass.
        """
        row = self.row
        means = {step: mean for step, mean in self.evaluations}
        passes = [step for step, mean in means.items() if mean >= self.threshold]
        found = {
            "first_pass": min(passes, default=np.inf),
            "solved": self.solved,
            "seconds": self.seconds,
            "share": share_of_passes(means, self.threshold, row.steps, row.every),
            "best": self.best,
            "best_far": self.best_far,
            **self.last,
        }
        if means:
            found["end"] = list(means.values())[-1]
        if self.gaps:
            found |= along_track(np.array(self.gaps))
        return found


def share_of_passes(means, threshold, steps, every):
    """Return the share of evaluations in the second half of `steps` that pass.

    `means`: step → mean. An evaluation that is missing does not pass.
    """
    planned = [step for step in range(every, steps + 1, every) if step > steps / 2]
    passed = [step for step in planned if means.get(step, -np.inf) >= threshold]
    return len(passed) / len(planned)


def along_track(gaps):
    """Return two figures of action gaps at rest, (evaluations, places).

    agreement: share of the places at which all evaluations prefer the same push.
    ratio: size of the mean gap over its standard deviation, at the median place.
    """
    rightward = gaps > 0
    agree = (rightward == rightward[0]).all(axis=0)
    movement = np.maximum(gaps.std(axis=0), 1e-9)
    ratio = np.abs(gaps.mean(axis=0)) / movement
    return {"agreement": float(agree.mean()), "ratio": float(np.median(ratio))}
