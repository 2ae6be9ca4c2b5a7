"""Compare the notebook's optimisation step with the same arithmetic written by hand.

The floor has the same shapes and does the same work (sample, targets, forward, backward, clipping,
AdamW, soft update) with `addmm` and without autograd, modules or hooks. Both take turns in one
process, and the ratio of the median times is what counts.

Usage: python benchmarks/floor.py [NAME_OF_RESULT_FILE]
"""

import copy
import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

import lesson as loader  # noqa: E402


class Floor:
    """One optimisation step without autograd, on its own copy of an agent's networks."""

    def __init__(self, agent):
        self.s, memory = agent.settings, agent.memory
        self.fields = [torch.from_numpy(field[: len(memory)].copy()) for field in memory.fields]
        self.weights = [p.detach().clone() for p in agent.policy_net.parameters()]
        self.slow = [p.detach().clone() for p in agent.target_net.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, lr=self.s.LR, amsgrad=True, fused=True)
        self.scale = agent.policy_net.observation_scale

    def forward(self, weights, x):
        """Return the hidden layers and the Q-values."""
        w1, b1, w2, b2, w3, b3 = weights
        h1 = torch.addmm(b1, x, w1.t()).relu_()
        h2 = torch.addmm(b2, h1, w2.t()).relu_()
        return h1, h2, torch.addmm(b3, h2, w3.t())

    @torch.no_grad()
    def step(self):
        """Sample, compute targets and gradients by hand, update weights and target weights."""
        s, size = self.s, self.s.BATCH_SIZE
        rows = torch.randint(len(self.fields[0]), (size,))
        state, action, following, reward, terminated = (field[rows] for field in self.fields)
        following = following / self.scale
        q = self.forward(self.slow, following)[2]
        chooser = self.forward(self.weights, following)[2] if s.DOUBLE_DQN else q
        best = q.gather(1, chooser.argmax(1, keepdim=True)).squeeze(1)
        value = (1 - s.TARGET_EPSILON) * best + s.TARGET_EPSILON * q.mean(1)
        target = reward + s.GAMMA * value * ~terminated
        x = state / self.scale
        h1, h2, q = self.forward(self.weights, x)
        error = (q.gather(1, action).squeeze(1) - target).clamp_(-1, 1).div_(size)
        dq = torch.zeros_like(q).scatter_(1, action, error.unsqueeze(1))
        _, _, w2, _, w3, _ = self.weights
        d2 = (dq @ w3).mul_(h2 > 0)
        d1 = (d2 @ w2).mul_(h1 > 0)
        gradients = [d1.t() @ x, d1.sum(0), d2.t() @ h1, d2.sum(0), dq.t() @ h2, dq.sum(0)]
        torch._foreach_clamp_min_(gradients, -100)
        torch._foreach_clamp_max_(gradients, 100)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()
        torch._foreach_lerp_(self.slow, self.weights, s.TAU)


def check(lesson, agent):
    """Assert that both do the same: one step from the same batch gives the same weights."""
    with torch.no_grad():
        agent.target_net.layer3.weight.neg_()  # so that it matters which network chooses
    floor = Floor(agent)
    everything = lesson.Transition(*(field for field in floor.fields))
    agent.memory.sample = lambda _: everything
    draw = torch.randint
    torch.randint = lambda high, size: torch.arange(high)
    size, floor.s.BATCH_SIZE = floor.s.BATCH_SIZE, len(floor.fields[0])
    lesson.optimize_model(agent)
    lesson.update_target(agent)
    floor.step()
    torch.randint, floor.s.BATCH_SIZE = draw, size
    del agent.memory.sample
    both = [*agent.policy_net.parameters(), *agent.target_net.parameters()]
    for ours, by_hand in zip(both, [*floor.weights, *floor.slow], strict=True):
        assert torch.allclose(ours, by_hand, atol=1e-5)


def main():
    """Time both in turns and write the ratio."""
    torch.set_num_threads(1)
    lesson = loader.load(DEVICE="cpu")
    run = lesson.make_run(lesson.settings, torch.device("cpu"))
    while len(run.agent.memory) < 5000:
        lesson.act_and_remember(run)
    check(lesson, copy.deepcopy(run.agent))
    floor, times = Floor(run.agent), {"notebook": [], "floor": []}

    def ours():
        lesson.optimize_model(run.agent)
        lesson.update_target(run.agent)

    for _ in range(40):
        for name, step in (("notebook", ours), ("floor", floor.step)):
            started = time.perf_counter()
            for _ in range(100):
                step()
            times[name].append((time.perf_counter() - started) * 1e4)
    ratios = np.array(times["notebook"]) / np.array(times["floor"])
    result = {
        "notebook_us": median(times["notebook"]),
        "floor_us": median(times["floor"]),
        "ratio": float(np.median(ratios)),
        "ratio_p10_p90": np.percentile(ratios, [10, 90]).tolist(),
    }
    print(json.dumps(result, indent=1))
    (HERE / "results").mkdir(exist_ok=True)
    name = sys.argv[1] if len(sys.argv) > 1 else "quick-floor"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
