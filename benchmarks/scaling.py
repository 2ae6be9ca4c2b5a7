"""Measure how cost grows: with batch size, width, memory, threads, and several seeds at once.

Usage: python benchmarks/scaling.py
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

import torch  # noqa: E402
from torch import nn  # noqa: E402

import lesson as loader  # noqa: E402

STEPS = 2000
CASES = [
    {},
    {"batch": 32},
    {"batch": 512},
    {"width": 64},
    {"width": 512},
    {"memory": 10_000},
    {"memory": 1_000_000},
    {"threads": 0},  # PyTorch's own choice
]


def measure(batch=128, width=128, memory=100_000, threads=1):
    """Train for STEPS steps; return steps per second and peak memory."""
    if threads:
        torch.set_num_threads(threads)
    default_threads = torch.get_num_threads()
    lesson = loader.load(DEVICE="cpu", BATCH_SIZE=batch, MEMORY_SIZE=memory)
    torch.set_num_threads(default_threads)  # the notebook asks for one
    run = lesson.make_run(lesson.settings, torch.device("cpu"))
    if width != 128:
        for net in (run.agent.policy_net, run.agent.target_net):
            net.layer1, net.layer2 = nn.Linear(4, width), nn.Linear(width, width)
            net.layer3 = nn.Linear(width, 2)
        run.agent.optimizer = torch.optim.AdamW(
            run.agent.policy_net.parameters(), lr=1e-4, amsgrad=True, fused=True
        )
        run.agent.target_net.requires_grad_(False)
    while run.steps < STEPS:
        started = time.perf_counter()
        lesson.act_and_remember(run)
        lesson.learn(run)
        run.train_seconds += time.perf_counter() - started
    return {
        "steps_per_second": STEPS / run.train_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
    }


def throughput(jobs, seeds=4, steps=3000):
    """Return environment steps per second of several runs, `jobs` at a time."""
    lesson = loader.load(DEVICE="cpu", MAX_STEPS=steps, EVAL_EVERY=steps)
    settings = [lesson.change_settings(lesson.settings, SEED=seed) for seed in range(seeds)]
    lesson.train_many(settings[:2], lesson.device, jobs)  # start the processes
    started = time.perf_counter()
    lesson.train_many(settings, lesson.device, jobs)
    return seeds * steps / (time.perf_counter() - started)


def main():
    """Run every case in a process of its own, then one core against two."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
        return
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, json.dumps(case)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append({"case": case, **json.loads(found.splitlines()[-1])})
        print(rows[-1], flush=True)
    rates = {jobs: [] for jobs in (1, 2)}
    for _ in range(3):
        for jobs, found in rates.items():
            found.append(throughput(jobs))
    ratios = sorted(two / one for one, two in zip(rates[1], rates[2], strict=True))
    parallel = {"steps_per_second": rates, "two_over_one": ratios}
    print(parallel)
    details = {"cases": rows, "parallel": parallel}
    (HERE / "results" / "scaling.json").write_text(json.dumps(details, indent=1) + "\n")


if __name__ == "__main__":
    main()
