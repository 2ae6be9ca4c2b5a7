"""The implementations that are compared.

Each is a function (lesson, job, judge). At certain steps it calls `judge(step, seconds,
updates, policy)` with the time spent on acting and learning alone and the policy that
plays greedily; it may stop when the judge returns True.
"""

import copy
import math
import random
import time
from collections import deque, namedtuple

import numpy as np
import torch
from torch import nn

from .loop import train_variant

EVERY = 250  # steps from one evaluation to the next
COARSE = 2_500  # the same, after the common budget
SCHEDULE = 50_000  # steps over which the zoo's settings let exploration end
Step = namedtuple("Step", ("state", "action", "next_state", "reward"))


def is_evaluated(step, budget):
    """Return whether the rule asks for an evaluation at this step."""
    return step % (EVERY if step <= budget else COARSE) == 0


def variant(lesson, job, judge):
    """Train the notebook's agent, or a variant of it."""

    def show(result):
        last = result.evaluations[-1]
        policy = lesson.greedy(result.policy_net)
        updates = len(result.losses)
        judge(last.step, last.seconds, updates, policy, (last.mean, last.worst))

    train_variant(lesson, job, job["seed"], job["steps"], EVERY, show)


def tutorial(lesson, job, judge):
    """Train the PyTorch tutorial's algorithm, with its deque and its named tuples."""
    lr, eps_end, eps_decay = (job[name] for name in ("lr", "eps_end", "eps_decay"))
    batch_size, gamma, tau, eps_start = 128, 0.99, 0.005, 0.9
    torch.manual_seed(job["seed"])
    rng = random.Random(job["seed"])
    env = lesson.make_env("CartPole-v1")
    memory = deque(maxlen=10_000)
    policy_net = nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.AdamW(policy_net.parameters(), lr=lr, amsgrad=True)
    updates, seconds = 0, 0.0
    state = torch.tensor(lesson.reset_env(env, job["seed"])).unsqueeze(0)
    started = time.perf_counter()
    for step in range(job["longest"] + 1):
        if step and is_evaluated(step, job["steps"]):
            seconds += time.perf_counter() - started
            if judge(step, seconds, updates, lesson.greedy(policy_net)):
                return
            started = time.perf_counter()
        epsilon = eps_end + (eps_start - eps_end) * math.exp(-step / eps_decay)
        if rng.random() > epsilon:
            with torch.no_grad():
                action = policy_net(state).max(1).indices.view(1, 1)
        else:
            action = torch.tensor([[rng.randrange(2)]])
        observation, reward, terminated, truncated, _ = env.step(action.item())
        following = None if terminated else torch.tensor(observation).unsqueeze(0)
        memory.append(Step(state, action, following, torch.tensor([reward])))
        state = following
        if terminated or truncated:
            state = torch.tensor(lesson.reset_env(env)).unsqueeze(0)
        if len(memory) < batch_size:
            continue
        batch = Step(*zip(*rng.sample(memory, batch_size), strict=True))
        going_on = torch.tensor([after is not None for after in batch.next_state])
        next_states = [after for after in batch.next_state if after is not None]
        values = policy_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        next_values = torch.zeros(batch_size)
        with torch.no_grad():
            next_values[going_on] = target_net(torch.cat(next_states)).max(1).values
        targets = torch.cat(batch.reward) + gamma * next_values
        loss = nn.functional.smooth_l1_loss(values, targets.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        slow, fast = target_net.state_dict(), policy_net.state_dict()
        blend = {name: fast[name] * tau + slow[name] * (1 - tau) for name in fast}
        target_net.load_state_dict(blend)
        updates += 1


def cleanrl(lesson, job, judge):
    """Train with the network, the optimiser and the constants of CleanRL's dqn.py.

    The lines and the replay memory are ours; its logging is left out.
    """
    batch_size, gamma, starts, train_every, copy_every = 128, 0.99, 10_000, 10, 500
    torch.manual_seed(job["seed"])
    rng = np.random.default_rng(job["seed"])
    env = lesson.make_env("CartPole-v1")
    memory = lesson.ReplayMemory(10_000, 4, rng)
    policy_net = nn.Sequential(
        nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)
    )
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.Adam(policy_net.parameters(), lr=2.5e-4)
    updates, seconds = 0, 0.0
    state = lesson.reset_env(env, job["seed"])
    started = time.perf_counter()
    for step in range(job["longest"] + 1):
        if step and is_evaluated(step, job["steps"]):
            seconds += time.perf_counter() - started
            if judge(step, seconds, updates, lesson.greedy(policy_net)):
                return
            started = time.perf_counter()
        if rng.random() < max(0.05, 1 - 0.95 * step / 250_000):
            action = int(rng.integers(2))
        else:
            with torch.no_grad():
                action = int(policy_net(torch.as_tensor(state)).argmax())
        following, reward, terminated, truncated, _ = env.step(action)
        memory.push(lesson.Transition(state, action, following, reward, terminated))
        state = lesson.reset_env(env) if terminated or truncated else following
        if step > starts and step % train_every == 0:
            batch = memory.sample(batch_size)
            with torch.no_grad():
                next_values = target_net(batch.next_state).amax(dim=1)
            targets = batch.reward + gamma * next_values * ~batch.terminated
            values = policy_net(batch.state).gather(1, batch.action).squeeze(1)
            loss = nn.functional.mse_loss(values, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
        if step > starts and step % copy_every == 0:
            target_net.load_state_dict(policy_net.state_dict())


def learn(model, policy, job, judge):
    """Train a model of Stable-Baselines3 or SBX for the budget."""
    resumed = time.perf_counter()
    seconds = 0.0

    def callback(*_):
        nonlocal resumed, seconds
        if is_evaluated(model.num_timesteps, job["steps"]):
            seconds += time.perf_counter() - resumed
            judge(model.num_timesteps, seconds, model._n_updates, policy)
            resumed = time.perf_counter()
        return model.num_timesteps < job["steps"]

    model.learn(SCHEDULE, callback=callback)


def sb3(lesson, job, judge):
    """Train Stable-Baselines3's DQN with the zoo's settings."""
    from stable_baselines3 import DQN

    options = {"seed": job["seed"], "device": "cpu", **job["options"]}
    model = DQN("MlpPolicy", "CartPole-v1", **options)
    learn(model, lesson.greedy(model.q_net), job, judge)


def sb3_same(lesson, job, judge):
    """Train Stable-Baselines3's DQN with the notebook's constants, its inputs scaled.

    Epsilon falls along a straight line there; as many steps are random as here. The
    target is that of plain DQN, and gradients are clipped to a norm of 10.
    """
    import gymnasium
    from stable_baselines3 import DQN

    here = lesson.settings
    scale = np.array(lesson.SCALE, np.float32)

    class Scaled(gymnasium.ObservationWrapper):
        def observation(self, observation):
            return observation / scale

    model = DQN(
        "MlpPolicy",
        Scaled(gymnasium.make("CartPole-v1")),
        learning_rate=here.LR,
        buffer_size=here.MEMORY_SIZE,
        learning_starts=here.BATCH_SIZE,
        batch_size=here.BATCH_SIZE,
        tau=here.TAU,
        gamma=here.GAMMA,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=1,
        exploration_initial_eps=here.EPS_START,
        exploration_final_eps=here.EPS_END,
        exploration_fraction=min(1.0, 2 * here.EPS_DECAY / SCHEDULE),
        policy_kwargs={
            "net_arch": [128, 128],
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"amsgrad": True, "weight_decay": 0.01},
        },
        seed=job["seed"],
        device="cpu",
    )
    play = lesson.greedy(model.q_net)
    learn(model, lambda states: play(states / scale), job, judge)


def sbx(lesson, job, judge):
    """Train SBX's DQN (JAX), anew after it is compiled; return the seconds of that."""
    from sbx import DQN

    model = DQN("MlpPolicy", "CartPole-v1", seed=job["seed"], **job["options"])
    untrained = model.policy.qf_state
    took = []
    for _ in range(2):
        started = time.perf_counter()
        model.learn(1_280)
        took.append(time.perf_counter() - started)
    model.policy.qf_state = untrained
    model._n_calls = model._n_updates = 0
    model.replay_buffer.reset()
    model.set_random_seed(job["seed"])

    def policy(x):
        layers = model.policy.qf_state.params["params"]
        for i in range(3):
            layer = layers[f"Dense_{i}"]
            kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
            x = (np.maximum(x, 0) if i else x) @ kernel + bias
        return x.argmax(axis=1).tolist()

    learn(model, policy, job, judge)
    return took[0] - took[1]


CODE = {
    "variant": variant,
    "tutorial": tutorial,
    "cleanrl": cleanrl,
    "sb3": sb3,
    "sb3_same": sb3_same,
    "sbx": sbx,
}
