"""The kinds of runs: a contestant, a variant of the notebook's agent, the floor."""

import contextlib

import numpy as np
import psutil
import torch

from . import floor
from .common import PASS, lesson
from .contestants import CODE
from .loop import train_variant


def do(job):
    """Do one job in this process and return what came of it."""
    torch.set_num_threads(1)
    if "blocks" in job:
        return floor.measure(lesson(), job["blocks"])
    if "code" in job:
        return compare(lesson(), job)
    return vary(lesson(), job)


def compare(lesson, job):
    """Train a contestant; return its figures and its evaluations.

    Solved is the first evaluation whose mean passes on the validation starts and, with
    the same weights, on the held-out starts.
    """
    curve = []
    found = {"steps": None, "updates": None, "seconds": None}
    process = psutil.Process()
    peak = 0

    def play(policy, starts):
        returns = lesson.evaluate(policy, starts)
        return float(returns.mean()), float(returns.min())

    def judge(step, seconds, updates, policy, outcome=None):
        nonlocal peak
        peak = max(peak, process.memory_info().rss)
        mean, worst = outcome or play(policy, lesson.VALIDATION_STARTS)
        curve.append([step, round(seconds, 4), updates, float(mean), float(worst)])
        if mean >= PASS and found["steps"] is None:
            held_out_mean, held_out_worst = play(policy, lesson.HELD_OUT_STARTS)
            if held_out_mean >= PASS:
                found.update(steps=step, updates=updates, seconds=seconds)
                found["worst_at_solved"] = held_out_worst
        if step == job["steps"]:
            found["us_per_step"] = 1e6 * seconds / step
            ended = play(policy, lesson.HELD_OUT_STARTS)
            found["end_mean"], found["end_worst"] = ended
        enough = job["code"] == "tutorial" and found["steps"] is not None
        return step >= job["steps"] and (enough or step >= job.get("longest", 0))

    found["compile_seconds"] = CODE[job["code"]](lesson, job, judge)
    return {**found, "peak_mb": peak / 2**20, "curve": curve}


def vary(lesson, job):
    """Train a variant; return its figures and what it prefers along the track.

    An evaluation after the run has diverged counts as one that does not pass.
    """
    steps, every = job["steps"], job["every"]
    history, leads = [], []

    def show(result):
        history.append(result)
        if "env_id" not in job and result.evaluations[-1].step > steps / 2:
            leads.append(lesson.lead_along_track(result.policy_net))

    with contextlib.suppress(FloatingPointError):
        train_variant(lesson, job, job["seed"], steps, every, show)
    if not history:
        return {"first_pass": None, "held": 0.0, "end": None}
    result = history[-1]
    first = lesson.first_pass(result)
    half = [e for e in result.evaluations if e.step > steps / 2]
    passes = [bool(e.mean >= result.threshold) for e in half]
    planned = sum(step > steps / 2 for step in range(every, steps + 1, every))
    found = {
        "first_pass": first.step if first else None,
        "held": sum(passes) / planned,
        "end": float(result.evaluations[-1].mean),
        "passes": passes,
    }
    if len(leads) == planned:
        found |= along_track(lesson, np.array(leads))
    return found


def along_track(lesson, leads):
    """Return figures of leads (evaluations, places).

    agreement: share of the places at which all evaluations prefer the same push.
    flips: share of the places that change their push, from each to the next.
    ratio: size of the mean lead over its standard deviation, at the median place.
    outward: for each, the share of the places at which it pushes outward.
    """
    movement = np.maximum(leads.std(axis=0), 1e-9)
    return {
        "agreement": float(lesson.agreement(leads)),
        "flips": lesson.flips(leads).round(3).tolist(),
        "ratio": float(np.median(np.abs(leads.mean(axis=0)) / movement)),
        "outward": lesson.outward_share(leads).round(3).tolist(),
    }
