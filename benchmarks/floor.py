"""One step of the notebook's training loop against the same arithmetic written by hand.

The floor has the notebook's environment and memory, and no autograd, modules or hooks: `addmm`,
gradients by hand, all weights in one vector with AdamW as a single call. Both act, remember and
learn in one process, in turns of a few dozen steps.
"""

import copy
import cProfile
import pstats
import time

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector

BLOCK, LEFT_OUT = 50, 10
PARTS = ("select_action", "remember", "sample", "td_targets", "backward", "zero_grad", "AdamW")
PARTS += ("update_target",)


class Floor:
    """DQN on CartPole without autograd; starts from the networks and the memory of a run."""

    def __init__(self, lesson, run):
        self.lesson, self.settings, self.scale = lesson, run.settings, run.policy_net.scale
        shapes = [p.shape for p in run.policy_net.parameters()]
        self.flat = parameters_to_vector(run.policy_net.parameters()).detach()
        self.slow_flat = parameters_to_vector(run.target_net.parameters()).detach()
        self.gradient, *self.moments = (torch.zeros_like(self.flat) for _ in range(4))
        self.count, sizes = torch.zeros(()), list(map(torch.Size.numel, shapes))
        self.weights, self.slow, self.gradients = (
            [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
            for flat in (self.flat, self.slow_flat, self.gradient)
        )
        self.memory, self.env = copy.deepcopy(run.memory), lesson.make_env("CartPole-v1")
        self.rng, self.steps = self.memory.rng, run.evaluations[-1][0]
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
        following, reward, terminated, truncated = self.env.step(action)[:4]
        step = self.lesson.Transition(self.state, action, following, reward, terminated)
        self.lesson.remember(self.memory, step, self.settings)
        over = terminated or truncated
        self.state = self.lesson.reset_env(self.env) if over else following

    def learn(self):
        """Sample, compute targets and gradients by hand, update weights and target weights."""
        s = self.settings
        x, action, following, reward, terminated = self.memory.sample(s.BATCH_SIZE)
        q = self.forward(self.slow, following.div_(self.scale))[2]
        best = q.amax(1).mul_(1 - s.TARGET_EPSILON).add_(q.mean(1), alpha=s.TARGET_EPSILON)
        target = best.mul_(s.GAMMA).masked_fill_(terminated, 0).add_(reward).unsqueeze_(1)
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
    nets, settings = (run.policy_net, run.target_net), run.settings
    optimizer = torch.optim.AdamW(run.policy_net.parameters(), lr=settings.LR, amsgrad=True)
    for _ in range(updates):
        lesson.optimize_model(*nets, optimizer, run.memory, settings)
        lesson.update_target(*nets[::-1], settings.TAU)
        with torch.no_grad():
            floor.learn()
    for net, by_hand in zip(nets, (floor.flat, floor.slow_flat), strict=True):
        assert torch.allclose(parameters_to_vector(net.parameters()), by_hand, atol=1e-5)


def profile(lesson):
    """Return the shares of the loop's time that its functions take, as cProfile sees them."""
    profiler = cProfile.Profile(builtins=False)
    profiler.runcall(lesson.train, lesson.changed(lesson.settings, MAX_STEPS=5_000))
    spent = {}
    for (file, _, name), (*_, seconds, _) in pstats.Stats(profiler).stats.items():
        spent["AdamW" if name == "wrapper" and "optim" in file else name] = seconds
    return {name: spent[name] / spent["train"] for name in PARTS}


def measure(lesson, blocks):
    """Return µs per step of both, the ratio with its bootstrap 95 % interval, and a profile."""
    steps, floors, times = BLOCK * (blocks + LEFT_OUT), [], []

    def show(run):
        if run.evaluations[-1][0] == BLOCK * LEFT_OUT:
            check(lesson, run)
            floors.append(Floor(lesson, run))
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(BLOCK * len(floors)):
                floors[0].act()
                floors[0].learn()
        times.append((run.evaluations[-1][3], time.perf_counter() - started))

    lesson.train.__globals__["evaluate"] = lambda *_: np.zeros(1)  # nobody looks at the returns
    lesson.train(lesson.changed(lesson.settings, MAX_STEPS=steps, EVAL_EVERY=BLOCK), show=show)
    clock, by_hand = np.array(times).T
    pairs = np.array([np.diff(clock), by_hand[1:]])[:, LEFT_OUT:] * 1e6 / BLOCK
    ratios, medians = pairs[0] / pairs[1], np.median(pairs, axis=1)
    draws = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    keys = ("notebook_us", "floor_us", "ratio", "low", "high")
    found = dict(zip(keys, map(float, (*medians, np.median(ratios), low, high)), strict=True))
    return {**found, "profile": profile(lesson)}
