"""Measure what each change to plain DQN is worth: the notebook's settings, less one at a time.

Usage: python benchmarks/ablation.py [--seeds 10] [--steps 10000]
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

from report import ablation_row  # noqa: E402

import lesson as loader  # noqa: E402

VARIANTS = {
    "the notebook's settings": {},
    "plain target: TARGET_EPSILON = 0": {"TARGET_EPSILON": 0.0},
    "no mirrored steps: MIRROR = False": {"MIRROR": False},
    "unscaled observations: OBSERVATION_SCALE = [1, 1, 1, 1]": {"OBSERVATION_SCALE": [1.0] * 4},
    "start at zero: INITIAL_VALUE = 0": {"INITIAL_VALUE": 0.0},
    'play by the policy network: GREEDY_NET = "policy"': {"GREEDY_NET": "policy"},
    "Double DQN: DOUBLE_DQN = True": {"DOUBLE_DQN": True},
    "slower learning: LR = 0.0001": {"LR": 1e-4},
    "rewards of 1: REWARD_SCALE = 1": {"REWARD_SCALE": 1.0, "INITIAL_VALUE": 100.0},
}


def main():
    """Train every variant with every seed and write steps to solved and steadiness."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    lesson = loader.load(DEVICE="cpu", MAX_STEPS=arguments.steps)
    results = {}
    print("| variant | solved | at step: median (worst) | steadiness: median (worst) |")
    print("|---|---|---|---|")
    for name, changes in VARIANTS.items():
        settings = [
            lesson.change_settings(lesson.settings, SEED=seed, **changes)
            for seed in range(arguments.seeds)
        ]
        runs = lesson.train_many(settings, lesson.device)
        results[name] = {
            "solved_at_step": [run.solved_at_step for run in runs],
            "steadiness": [lesson.steadiness(r.evaluations, r.settings.SOLVED_AT) for r in runs],
        }
        print(ablation_row(name, results[name]), flush=True)
    details = {"seeds": arguments.seeds, "steps": arguments.steps, "variants": results}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "ablation.json").write_text(json.dumps(details, indent=1) + "\n")


if __name__ == "__main__":
    main()
