"""Measure what each part is worth: the notebook's variants, with more seeds and steps than there.

Usage: python benchmarks/ablation.py [--seeds 10] [--steps 5000]
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

from report import ablation_row  # noqa: E402

import lesson as loader  # noqa: E402

MORE = {  # on top of the notebook's own variants
    "played by the policy network": {"GREEDY_NET": "policy"},
    "slower learning, LR 0.0001": {"LR": 1e-4},
    "rewards of 1": {"REWARD_SCALE": 1.0, "INITIAL_VALUE": 100.0},
}


def main():
    """Train every variant with every seed and write steps to solved and steadiness."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5_000)
    arguments = parser.parse_args()
    lesson = loader.load(DEVICE="cpu", MAX_STEPS=arguments.steps)
    results = {}
    print("| variant | solved | at step: median (worst) | steadiness: median (worst) |")
    print("|---|---|---|---|")
    for name, changes in {**lesson.VARIANTS, **MORE}.items():
        settings = [
            lesson.change_settings(lesson.settings, **{**changes, "SEED": seed})
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
