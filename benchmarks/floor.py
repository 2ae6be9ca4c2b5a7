"""One step of the notebook's training loop against the same arithmetic by hand.

The floor has the notebook's environment and memory, and no autograd, modules or hooks:
`addmm`, gradients by hand, all weights in one vector with AdamW as a single call. Both
act, remember and learn in one process, in turns of a few hundred steps.
"""

import copy
import cProfile
import pstats
import time
from dataclasses import replace

import numpy as np
import torch
from scipy import stats
from torch.nn.utils import parameters_to_vector

BLOCK = 250  # steps that one takes before it is the other's turn
LEFT_OUT = 2  # blocks before the measurement
PARTS = (
    "select_action",
    "remember_mirrored",
    "sample",
    "careful_targets",
    "backward",
    "zero_grad",
    "AdamW",
    "update_target",
)


class Floor:
    """DQN on CartPole without autograd, from the networks and the memory of a run."""

    def __init__(self, lesson, run):
        self.lesson = lesson
        self.settings = run.settings
        self.scale = run.policy_net.scale
        shapes = [weight.shape for weight in run.policy_net.parameters()]
        sizes = [shape.numel() for shape in shapes]

        def views(flat):
            parts = zip(flat.split(sizes), shapes, strict=True)
            return [part.view(shape) for part, shape in parts]

        self.flat = parameters_to_vector(run.policy_net.parameters()).detach()
        self.slow_flat = parameters_to_vector(run.target_net.parameters()).detach()
        self.gradient = torch.zeros_like(self.flat)
        self.moments = [torch.zeros_like(self.flat) for _ in range(3)]
        self.count = torch.zeros(())
        self.weights, self.slow = views(self.flat), views(self.slow_flat)
        self.gradients = views(self.gradient)
        self.memory = copy.deepcopy(run.memory)
        self.env = lesson.make_env("CartPole-v1")
        self.rng = self.memory.rng
        self.steps = run.evaluations[-1].step
        self.state = lesson.reset_env(self.env, self.settings.SEED)

    @staticmethod
    def forward(weights, x):
        """Return the hidden layers and the Q-values."""
        w1, b1, w2, b2, w3, b3 = weights
        h1 = torch.addmm(b1, x, w1.t()).relu_()
        h2 = torch.addmm(b2, h1, w2.t()).relu_()
        return h1, h2, torch.addmm(b3, h2, w3.t())

    def act(self):
        """Take one epsilon-greedy step and remember it."""
        self.steps += 1
        if self.rng.random() < self.lesson.epsilon_at(self.steps, self.settings):
            action = int(self.rng.integers(2))
        else:
            x = torch.from_numpy(self.state).div(self.scale).unsqueeze_(0)
            action = self.forward(self.weights, x)[2].argmax().item()
        following, reward, terminated, truncated, _ = self.env.step(action)
        parts = (self.state, action, following, reward, terminated)
        step = self.lesson.Transition(*parts)
        self.lesson.remember_mirrored(self.memory, step, self.settings)
        over = terminated or truncated
        self.state = self.lesson.reset_env(self.env) if over else following

    def learn(self):
        """Sample, compute targets and gradients by hand, update both networks."""
        s = self.settings
        x, action, following, reward, terminated = self.memory.sample(s.BATCH_SIZE)
        q = self.forward(self.slow, following.div_(self.scale))[2]
        best = q.amax(1).mul_(1 - s.TARGET_EPSILON)
        value = best.add_(q.mean(1), alpha=s.TARGET_EPSILON).mul_(s.GAMMA)
        target = value.masked_fill_(terminated, 0).add_(reward).unsqueeze_(1)
        h1, h2, q = self.forward(self.weights, x.div_(self.scale))
        error = q.gather(1, action).sub_(target).clamp_(-1, 1).div_(s.BATCH_SIZE)
        delta, gradients = q.zero_().scatter_(1, action, error), self.gradients
        for layer, inputs in ((4, h2), (2, h1), (0, x)):
            torch.mm(delta.t(), inputs, out=gradients[layer])
            torch.sum(delta, 0, out=gradients[layer + 1])
            if layer:
                delta = torch.mm(delta, self.weights[layer]).mul_(inputs > 0)
        tensors = (self.flat, self.gradient, *self.moments, self.count.add_(1))
        options = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "eps": 1e-8}
        options |= {"lr": s.LR, "amsgrad": True, "maximize": False}
        torch._fused_adamw_(*([tensor] for tensor in tensors), **options)
        self.slow_flat.lerp_(self.flat, s.TAU)


def check(lesson, run, updates=20):
    """Assert that both arrive at the same weights from the same networks and memory."""
    run, floor = copy.deepcopy(run), Floor(lesson, run)
    policy_net, target_net, settings = run.policy_net, run.target_net, run.settings
    weights = policy_net.parameters()
    optimizer = torch.optim.AdamW(weights, lr=settings.LR, amsgrad=True)
    for _ in range(updates):
        batch = run.memory.sample(settings.BATCH_SIZE)
        targets = lesson.careful_targets(batch, policy_net, target_net, settings)
        lesson.optimize_model(policy_net, optimizer, batch, targets)
        lesson.update_target(target_net, policy_net, settings.TAU)
        with torch.no_grad():
            floor.learn()
    for net, by_hand in ((policy_net, floor.flat), (target_net, floor.slow_flat)):
        assert torch.allclose(
            parameters_to_vector(net.parameters()), by_hand, atol=1e-5
        )


def train(lesson, steps, every, show=None):
    """Train the notebook's agent for some steps."""
    settings = replace(lesson.settings, MAX_STEPS=steps, EVAL_EVERY=every)
    functions = (lesson.careful_targets, lesson.remember_mirrored)
    return lesson.train(settings, *functions, show=show)


def profile(lesson, steps):
    """Return the shares of the loop's time that its functions take, by cProfile."""
    profiler = cProfile.Profile(builtins=False)
    profiler.runcall(train, lesson, steps, every=steps)
    spent = {}
    for (file, _, name), (*_, seconds, _) in pstats.Stats(profiler).stats.items():
        name = "AdamW" if name == "wrapper" and "optim" in file else name
        spent[name] = max(seconds, spent.get(name, 0.0))
    loop = spent["train"] - spent["evaluate"]
    return {name: spent[name] / loop for name in PARTS}


def measure(lesson, blocks):
    """Return µs per step of both, the ratio with its bootstrap interval, a profile."""
    floors, times = [], []

    def show(run):
        if len(run.evaluations) == LEFT_OUT:
            check(lesson, run)
            floors.append(Floor(lesson, run))
        started = time.perf_counter()
        with torch.no_grad():
            for floor in floors:
                for _ in range(BLOCK):
                    floor.act()
                    floor.learn()
        times.append((run.seconds, time.perf_counter() - started))

    train(lesson, BLOCK * (blocks + LEFT_OUT), BLOCK, show)
    clock, by_hand = np.array(times).T
    here = np.diff(clock)[LEFT_OUT - 1 :] * 1e6 / BLOCK
    floor = by_hand[LEFT_OUT:] * 1e6 / BLOCK
    ratios = here / floor
    drawn = stats.bootstrap((ratios,), np.median, method="percentile", rng=0)
    return {
        "notebook_us": float(np.median(here)),
        "floor_us": float(np.median(floor)),
        "ratio": float(np.median(ratios)),
        "low": float(drawn.confidence_interval.low),
        "high": float(drawn.confidence_interval.high),
        "profile": profile(lesson, BLOCK * (blocks // 4 + 2)),
    }
