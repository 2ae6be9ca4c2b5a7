"""Search the notebook's hyperparameters with Optuna, on tuning seeds only.

Each trial trains the notebook's own agent with several seeds, four at a time, and is given up
early when it is clearly worse than the best. The score is the mean steadiness (see the notebook)
less a small price for late success, so that one seed that forgets costs more than a slow start.

Usage: python benchmarks/search.py --minutes 40
Seeds from 1000 on are for tuning; results are only ever reported on seeds below 1000.
"""

import argparse
import csv
import logging
import sys
import time
from pathlib import Path
from statistics import mean

import optuna

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import lesson as loader

TUNING_SEEDS = range(1000, 1016)
GROUP = 4
SEARCHED = ("GAMMA", "TARGET_EPSILON", "DOUBLE_DQN", "MIRROR", "LR", "TAU", "EPS_END")
CHANGES = [  # the notebook's settings with one change; what the search proposes comes after these
    {},
    {"MIRROR": False},
    {"TARGET_EPSILON": 0.5},
    {"DOUBLE_DQN": True},
    {"DOUBLE_DQN": False},
    {"position_scale": 1.0},
]
RESULTS = Path(__file__).parent / "results" / "search.csv"


def suggest(trial):
    """Return the notebook parameters of one trial."""
    gamma = trial.suggest_categorical("GAMMA", [0.98, 0.99, 0.995])
    position = trial.suggest_categorical("position_scale", [0.6, 1.0, 2.4])
    return {
        "GAMMA": gamma,
        "REWARD_SCALE": 1 - gamma,
        "OBSERVATION_SCALE": [position, 2.5, 0.21, 2.5],
        "TARGET_EPSILON": trial.suggest_float("TARGET_EPSILON", 0.0, 0.9, step=0.1),
        "DOUBLE_DQN": trial.suggest_categorical("DOUBLE_DQN", [False, True]),
        "MIRROR": trial.suggest_categorical("MIRROR", [True, False]),
        "LR": trial.suggest_float("LR", 5e-4, 4e-3, log=True),
        "TAU": trial.suggest_float("TAU", 0.005, 0.05, log=True),
        "EPS_END": trial.suggest_categorical("EPS_END", [0.02, 0.05, 0.1, 0.2, 0.3]),
    }


def score(run, lesson):
    """Return the score of one run: its steadiness less 0.02 per 1,000 steps until solved."""
    steps = run.solved_at_step or run.settings.MAX_STEPS
    return lesson.steadiness(run.evaluations, run.settings.SOLVED_AT) - 0.02 * steps / 1000


def evaluate_trial(trial, lesson, base, best):
    """Train the trial's agents group by group; return (score, runs so far)."""
    changes, runs = suggest(trial), []
    for start in range(0, len(TUNING_SEEDS), GROUP):
        group = TUNING_SEEDS[start : start + GROUP]
        settings = [lesson.change_settings(base, SEED=seed, **changes) for seed in group]
        runs += lesson.train_many(settings, lesson.device)
        if mean(score(run, lesson) for run in runs) < best - 0.1:
            break
    return mean(score(run, lesson) for run in runs), runs


def main():
    """Search for the given time and write one row per trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--steps", type=int, default=8000, help="budget of one run")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(logging.WARNING)
    lesson = loader.load(DEVICE="cpu")
    base = lesson.change_settings(
        lesson.settings, MAX_STEPS=arguments.steps, STOP_WHEN_SOLVED=False
    )
    sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=10, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    present = {name: getattr(base, name) for name in SEARCHED}
    present["position_scale"] = base.OBSERVATION_SCALE[0]
    for change in CHANGES:
        study.enqueue_trial({**present, **change}, skip_if_exists=True)
    end, best = time.monotonic() + 60 * arguments.minutes, -1.0
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = None
        while time.monotonic() < end:
            trial = study.ask()
            value, runs = evaluate_trial(trial, lesson, base, best)
            study.tell(trial, value)
            if len(runs) == len(TUNING_SEEDS):
                best = max(best, value)
            row = {
                "trial": trial.number,
                "score": round(value, 4),
                "seeds": len(runs),
                "solved_at": " ".join(str(run.solved_at_step) for run in runs),
                "steadiness": " ".join(
                    f"{lesson.steadiness(run.evaluations, run.settings.SOLVED_AT):.2f}"
                    for run in runs
                ),
                **trial.params,
            }
            writer = writer or csv.DictWriter(file, row, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(row, flush=True)


if __name__ == "__main__":
    main()
