"""The implementations that are compared.

Each is a function (lesson, row, seed, judge). Every `row.every` steps it calls
`judge(step, seconds, policy)` with the time spent on acting and learning alone and the
policy that plays greedily, until the judge returns True.
"""

import copy
import math
import random
import time
from collections import deque, namedtuple

import numpy as np
import torch
from torch import nn

SCHEDULE = 50_000  # steps over which the zoo's settings let exploration end
Step = namedtuple("Step", ("state", "action", "next_state", "reward"))


def tutorial(lesson, row, seed, judge):
    """Train the PyTorch tutorial's algorithm, with its deque and its named tuples.

    With `epsilon` in the row's settings its targets are careful ones.
    """
    lr, eps_end = row.settings["lr"], row.settings["eps_end"]
    eps_decay = row.settings["eps_decay"]
    careful = row.settings.get("epsilon", 0.0)
    batch_size, gamma, tau, eps_start = 128, 0.99, 0.005, 0.9
    torch.manual_seed(seed)
    rng = random.Random(seed)
    env = lesson.make_env("CartPole-v1")
    memory = deque(maxlen=10_000)
    policy_net = nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.AdamW(policy_net.parameters(), lr=lr, amsgrad=True)
    seconds = 0.0
    state = torch.tensor(lesson.reset_env(env, seed)).unsqueeze(0)
    started = time.perf_counter()
    for step in range(row.steps + 1):
        if step and step % row.every == 0:
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
            next_q = target_net(torch.cat(next_states))
            best = next_q.max(1).values
            next_values[going_on] = best.lerp(next_q.mean(1), careful)
        targets = torch.cat(batch.reward) + gamma * next_values
        loss = nn.functional.smooth_l1_loss(values, targets.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        slow, fast = target_net.state_dict(), policy_net.state_dict()
        blend = {name: fast[name] * tau + slow[name] * (1 - tau) for name in fast}
        target_net.load_state_dict(blend)


def cleanrl(lesson, row, seed, judge):
    """Train with the network, the optimiser and the constants of CleanRL's dqn.py.

    The lines and the replay memory are ours; its logging is left out.
    """
    batch_size, gamma, starts, train_every, copy_every = 128, 0.99, 10_000, 10, 500
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    env = lesson.make_env("CartPole-v1")
    memory = lesson.ReplayMemory(10_000, 4, rng)
    policy_net = nn.Sequential(
        nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)
    )
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.Adam(policy_net.parameters(), lr=2.5e-4)
    seconds = 0.0
    state = lesson.reset_env(env, seed)
    started = time.perf_counter()
    for step in range(row.steps + 1):
        if step and step % row.every == 0:
            seconds += time.perf_counter() - started
            if judge(step, seconds, lesson.greedy(policy_net)):
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
        if step > starts and step % copy_every == 0:
            target_net.load_state_dict(policy_net.state_dict())


def learn(model, policy, row, judge):
    """Train a model of Stable-Baselines3 or SBX until the judge ends it."""
    resumed = time.perf_counter()
    seconds = 0.0

    def callback(*_):
        nonlocal resumed, seconds
        if model.num_timesteps % row.every:
            return True
        seconds += time.perf_counter() - resumed
        ended = judge(model.num_timesteps, seconds, policy)
        resumed = time.perf_counter()
        return not ended

    model.learn(SCHEDULE, callback=callback)


def make_careful(model, epsilon):
    """Give a model of Stable-Baselines3 careful targets.

    The largest of the values that its target network then gives is the careful
    target's value.
    """

    def stumble(net, states, q_values):
        return q_values.lerp(q_values.mean(dim=1, keepdim=True), epsilon)

    model.q_net_target.register_forward_hook(stumble)


def sb3(lesson, row, seed, judge):
    """Train Stable-Baselines3's DQN with the zoo's settings.

    With `epsilon` in the row's settings its targets are careful ones.
    """
    from stable_baselines3 import DQN

    options = dict(row.settings)
    epsilon = options.pop("epsilon", 0.0)
    model = DQN("MlpPolicy", "CartPole-v1", seed=seed, device="cpu", **options)
    if epsilon:
        make_careful(model, epsilon)
    learn(model, lesson.greedy(model.q_net), row, judge)


def sb3_same(lesson, row, seed, judge):
    """Train Stable-Baselines3's DQN with the notebook's constants, its inputs scaled.

    Epsilon falls along a straight line there; as many steps are random as here.
    Gradients are clipped to a norm of 10. The target is that of plain DQN, or the
    careful one with `epsilon` in the row's settings.
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
            "net_arch": [lesson.HIDDEN, lesson.HIDDEN],
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"amsgrad": True, "weight_decay": 0.01},
        },
        seed=seed,
        device="cpu",
    )
    if "epsilon" in row.settings:
        make_careful(model, row.settings["epsilon"])
    play = lesson.greedy(model.q_net)
    learn(model, lambda states: play(states / scale), row, judge)


def sbx(lesson, row, seed, judge):
    """Train SBX's DQN (JAX), anew after a short training that compiles it."""
    from sbx import DQN

    model = DQN("MlpPolicy", "CartPole-v1", seed=seed, **row.settings)
    untrained = model.policy.qf_state
    model.learn(1_280)
    model.policy.qf_state = untrained
    model._n_calls = model._n_updates = 0
    model.replay_buffer.reset()
    model.set_random_seed(seed)

    def policy(x):
        layers = model.policy.qf_state.params["params"]
        for i in range(3):
            layer = layers[f"Dense_{i}"]
            kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
            x = (np.maximum(x, 0) if i else x) @ kernel + bias
        return x.argmax(axis=1).tolist()

    learn(model, policy, row, judge)


CONTESTANTS = {
    "tutorial": tutorial,
    "cleanrl": cleanrl,
    "sb3": sb3,
    "sb3_same": sb3_same,
    "sbx": sbx,
}
