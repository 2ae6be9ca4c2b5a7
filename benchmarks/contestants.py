"""The implementations that are compared.

Every 250 steps each calls `judge(step, seconds, policy)` with the time spent on acting and learning
alone and the policy (observations to actions) that plays greedily; it may stop on True.
"""

import copy
import functools
import itertools
import math
import random
import time
from collections import deque, namedtuple

import numpy as np
import torch
from report import SETTINGS
from torch import nn

EVERY = 250
Step = namedtuple("Step", ("state", "action", "next_state", "reward"))


def notebook(lesson, seed, steps, judge, **changes):
    """Train the notebook's own agent, with some settings changed."""
    changes |= {"SEED": seed, "MAX_STEPS": steps, "EVAL_EVERY": EVERY}

    def show(result):
        step, mean, worst, seconds = result.evaluations[-1]
        judge(step, seconds, lesson.greedy(result.policy_net), (mean, worst))

    lesson.train(lesson.changed(lesson.settings, **changes), show=show)


def every_second(lesson, seed, steps, judge):
    """Train the notebook's agent with an update every second step, of twice the size."""

    def halved(function):
        calls = itertools.count(1)
        return lambda *arguments: function(*arguments) if next(calls) % 2 == 0 else 0.0

    names = lesson.train.__globals__
    names.update({name: halved(names[name]) for name in ("optimize_model", "update_target")})
    notebook(lesson, seed, steps, judge, LR=4e-3, TAU=0.04)


def use_double_dqn(lesson):
    """Replace the lesson's targets: the policy network chooses, the target network values."""
    names = lesson.train.__globals__
    optimize_model, policy_nets = names["optimize_model"], []

    def optimize(*arguments):
        policy_nets[:] = arguments[:1]
        return optimize_model(*arguments)

    @torch.no_grad()
    def td_targets(batch, target_net, settings):
        chosen = policy_nets[0](batch.next_state).argmax(dim=1, keepdim=True)
        value = target_net(batch.next_state).gather(1, chosen).squeeze(1)
        return batch.reward + settings.GAMMA * value * ~batch.terminated

    names.update(optimize_model=optimize, td_targets=td_targets)


def tutorial(lesson, seed, steps, judge, lr=1e-4, eps_end=0.05, eps_decay=1_000):
    """Train the PyTorch tutorial's algorithm, older settings; where needed for twice the budget."""
    batch_size, gamma, tau, eps_start, seconds = 128, 0.99, 0.005, 0.9, 0.0
    torch.manual_seed(seed)
    rng, env, memory = random.Random(seed), lesson.make_env("CartPole-v1"), deque(maxlen=10_000)
    layers = nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    policy_net = nn.Sequential(*layers)
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.AdamW(policy_net.parameters(), lr=lr, amsgrad=True)
    state, started = torch.tensor(lesson.reset_env(env, seed)).unsqueeze(0), time.perf_counter()
    for step in range(2 * steps + 1):
        if step and step % EVERY == 0:
            seconds += time.perf_counter() - started
            if judge(step, seconds, lesson.greedy(policy_net)):
                return
            started = time.perf_counter()
        epsilon = eps_end + (eps_start - eps_end) * math.exp(-step / eps_decay)
        if rng.random() > epsilon:
            with torch.no_grad():
                action = policy_net(state).max(1).indices.view(1, 1)
        else:
            action = torch.tensor([[rng.randrange(2)]])
        observation, reward, terminated, truncated = env.step(action.item())[:4]
        following = None if terminated else torch.tensor(observation).unsqueeze(0)
        memory.append(Step(state, action, following, torch.tensor([reward])))
        state = following
        if terminated or truncated:
            state = torch.tensor(lesson.reset_env(env)).unsqueeze(0)
        if len(memory) < batch_size:
            continue
        batch = Step(*zip(*rng.sample(memory, batch_size), strict=True))
        going_on = torch.tensor([state is not None for state in batch.next_state])
        next_states = torch.cat([state for state in batch.next_state if state is not None])
        values = policy_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        next_values = torch.zeros(batch_size)
        with torch.no_grad():
            next_values[going_on] = target_net(next_states).max(1).values
        targets = torch.cat(batch.reward) + gamma * next_values
        loss = nn.functional.smooth_l1_loss(values, targets.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        slow, fast = target_net.state_dict(), policy_net.state_dict()
        blend = {name: fast[name] * tau + slow[name] * (1 - tau) for name in fast}
        target_net.load_state_dict(blend)


def learn(model, policy, judge):
    """Train a model for the zoo's 50,000 steps, or until the judge has seen enough."""
    clock = {"resumed": time.perf_counter(), "seconds": 0.0}

    def callback(*_):
        if model.num_timesteps % EVERY:
            return True
        clock["seconds"] += time.perf_counter() - clock["resumed"]
        stop = judge(model.num_timesteps, clock["seconds"], policy)
        clock["resumed"] = time.perf_counter()
        return not stop

    model.learn(50_000, callback=callback)


def sb3(lesson, seed, steps, judge):
    """Train Stable-Baselines3's DQN."""
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", "CartPole-v1", seed=seed, device="cpu", **SETTINGS["zoo"])
    learn(model, lesson.greedy(model.q_net), judge)


def sbx(lesson, seed, steps, judge):
    """Train SBX's DQN (JAX), anew after 1,280 steps; return the seconds that compiling took."""
    from sbx import DQN

    model, took = DQN("MlpPolicy", "CartPole-v1", seed=seed, **SETTINGS["zoo"]), []
    untrained = model.policy.qf_state
    for _ in range(2):
        started = time.perf_counter()
        model.learn(1_280)
        took.append(time.perf_counter() - started)
    model.policy.qf_state, model._n_calls = untrained, 0
    model.replay_buffer.reset()
    model.set_random_seed(seed)

    def policy(x):
        layers = model.policy.qf_state.params["params"]
        for i in range(3):
            layer = {key: np.asarray(value) for key, value in layers[f"Dense_{i}"].items()}
            x = (np.maximum(x, 0) if i else x) @ layer["kernel"] + layer["bias"]
        return x.argmax(axis=1).tolist()

    learn(model, policy, judge)
    return took[0] - took[1]


CONTESTANTS = {
    "notebook": notebook,
    "plain": functools.partial(notebook, TARGET_EPSILON=0.0, MIRROR=False),
    "every_second": every_second,
    "tutorial": tutorial,
    "tutorial_today": functools.partial(tutorial, lr=3e-4, eps_end=0.01, eps_decay=2_500),
    "sb3": sb3,
    "sbx": sbx,
}
