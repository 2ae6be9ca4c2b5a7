"""The agents that are compared: the lesson's, and those of others.

Each is a function (lesson, row, seed) that trains and returns a result, as the lesson's
`train` does.
"""

import contextlib
import copy
import itertools
import math
import random
import time
from collections import deque, namedtuple
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SCHEDULE = 50_000  # steps over which the zoo's settings let exploration end
Step = namedtuple("Step", ("state", "action", "next_state", "reward"))


def settings_of(lesson, row, seed):
    """Return the lesson's settings with the changes of a row."""
    steps = {"MAX_STEPS": row.steps, "EVAL_EVERY": row.every}
    return replace(lesson.settings, SEED=seed, **row.settings, **steps)


def train_with(lesson, row, seed, targets, remember):
    """Train the lesson's agent with some functions; a run that diverges ends early."""
    results = []
    with contextlib.suppress(FloatingPointError):
        lesson.train(
            settings_of(lesson, row, seed),
            targets,
            remember,
            loss_function=getattr(F, row.loss),
            env_id=row.env_id,
            scale=row.scale,
            show=results.append,
        )
    return results[-1]


def lesson_agent(lesson, row, seed):
    """Train the lesson's agent."""
    functions = getattr(lesson, row.targets), getattr(lesson, row.remember)
    return train_with(lesson, row, seed, *functions)


def n_step_agent(lesson, row, seed):
    """Train with n-step returns: a window of n steps is remembered as one step."""
    n, inner = row.options["n"], getattr(lesson, row.targets)
    remember_one = getattr(lesson, row.remember)

    def remember_windows(memory, episode, settings):
        for size in complete_windows(episode, n):
            window = joined(episode[-size:], settings.GAMMA)
            remember_one(memory, [window], settings)

    def n_step_targets(batch, policy_net, target_net, settings):
        ahead = replace(settings, GAMMA=settings.GAMMA**n)
        return inner(batch, policy_net, target_net, ahead)

    return train_with(lesson, row, seed, n_step_targets, remember_windows)


def complete_windows(episode, n):
    """Return the lengths of the windows that the latest step of an episode completes.

    Nothing follows a terminal step: windows that are shorter are complete, too.
    """
    lengths = [n] if len(episode) >= n else []
    if episode[-1].terminated:
        lengths += range(min(n - 1, len(episode)), 0, -1)
    return lengths


def joined(steps, gamma):
    """Return several steps as one: from the first state to the last next state."""
    reward = sum(gamma**i * step.reward for i, step in enumerate(steps))
    last = steps[-1]
    return steps[0]._replace(
        reward=reward, next_state=last.next_state, terminated=last.terminated
    )


def double_dqn(lesson, row, seed):
    """Train with the targets of Double DQN."""
    remember = getattr(lesson, row.remember)
    return train_with(lesson, row, seed, double_targets, remember)


def double_targets(batch, policy_net, target_net, settings):
    """Let the policy network choose and the target network value (van Hasselt)."""
    with torch.no_grad():
        chosen = policy_net(batch.next_state).argmax(dim=1, keepdim=True)
        next_value = target_net(batch.next_state).gather(1, chosen).squeeze(1)
        return batch.reward + settings.GAMMA * next_value * ~batch.terminated


class Watch:
    """Evaluates others' agents as the lesson's, and counts seconds of training."""

    def __init__(self, lesson, row, network):
        self.lesson = lesson
        self.row = row
        self.result = SimpleNamespace(
            env_id=row.env_id,
            threshold=lesson.make_env(row.env_id).spec.reward_threshold,
            policy_net=network,
            evaluations=[],
            seconds=0.0,
        )
        self.started = time.perf_counter()

    def ends(self, step):
        """Evaluate if it is time; return whether the run is over."""
        if step % self.row.every == 0:
            self.result.seconds += time.perf_counter() - self.started
            self.lesson.record_evaluation(self.result, step)
            self.started = time.perf_counter()
        return step >= self.row.steps


def rule_by_hand(lesson, row, seed):
    """Push right where pole and cart, taken together, move or lean to the right."""
    network = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [0.05, 0.1, 1, 1]]))
    watch = Watch(lesson, row, network)
    watch.ends(row.steps)
    return watch.result


def layers(*widths):
    """Return linear layers with ReLU between them."""
    parts = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def tutorial(lesson, row, seed):
    """Train the PyTorch tutorial's algorithm, with its deque and its named tuples.

    With `epsilon` among the row's options its targets are careful ones.
    """
    lr, eps_end = row.options["lr"], row.options["eps_end"]
    eps_decay = row.options["eps_decay"]
    careful = row.options.get("epsilon", 0.0)
    batch_size, gamma, tau, eps_start = 128, 0.99, 0.005, 0.9
    torch.manual_seed(seed)
    rng = random.Random(seed)
    env = lesson.make_env("CartPole-v1")
    memory = deque(maxlen=10_000)
    policy_net = layers(4, 128, 128, 2)
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.AdamW(policy_net.parameters(), lr=lr, amsgrad=True)
    watch = Watch(lesson, row, policy_net)
    state = torch.tensor(lesson.reset_env(env, seed)).unsqueeze(0)
    step = 0
    while not (step and watch.ends(step)):
        epsilon = eps_end + (eps_start - eps_end) * math.exp(-step / eps_decay)
        step += 1
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
        loss = F.smooth_l1_loss(values, targets.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        slow, fast = target_net.state_dict(), policy_net.state_dict()
        blend = {name: fast[name] * tau + slow[name] * (1 - tau) for name in fast}
        target_net.load_state_dict(blend)
    return watch.result


def cleanrl(lesson, row, seed):
    """Train with the network, the optimiser and the constants of CleanRL's dqn.py.

    The lines and the replay memory are ours; its logging is left out. With `epsilon`
    among the row's options its targets are careful ones.
    """
    careful = row.options.get("epsilon", 0.0)
    batch_size, gamma, starts, train_every, copy_every = 128, 0.99, 10_000, 10, 500
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    env = lesson.make_env("CartPole-v1")
    memory = lesson.ReplayMemory(10_000, 4, rng)
    policy_net = layers(4, 120, 84, 2)
    target_net = copy.deepcopy(policy_net)
    optimizer = torch.optim.Adam(policy_net.parameters(), lr=2.5e-4)
    watch = Watch(lesson, row, policy_net)
    state = lesson.reset_env(env, seed)
    step = 0
    while not (step and watch.ends(step)):
        epsilon = max(0.05, 1 - 0.95 * step / 250_000)
        step += 1
        if rng.random() < epsilon:
            action = int(rng.integers(2))
        else:
            with torch.no_grad():
                action = int(policy_net(torch.as_tensor(state)).argmax())
        following, reward, terminated, truncated, _ = env.step(action)
        memory.push(lesson.Transition(state, action, reward, following, terminated))
        state = lesson.reset_env(env) if terminated or truncated else following
        if step > starts and step % train_every == 0:
            batch = memory.sample(batch_size)
            with torch.no_grad():
                next_q = target_net(batch.next_state)
                next_values = next_q.amax(dim=1).lerp(next_q.mean(dim=1), careful)
            targets = batch.reward + gamma * next_values * ~batch.terminated
            values = policy_net(batch.state).gather(1, batch.action).squeeze(1)
            loss = F.mse_loss(values, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step > starts and step % copy_every == 0:
            target_net.load_state_dict(policy_net.state_dict())
    return watch.result


def learn(model, watch, network_now):
    """Train a model of Stable-Baselines3 or SBX until the run is over."""

    def callback(*_):
        if model.num_timesteps % watch.row.every == 0:
            watch.result.policy_net = network_now()
        return not watch.ends(model.num_timesteps)

    watch.started = time.perf_counter()
    model.learn(SCHEDULE, callback=callback)
    return watch.result


def make_careful(model, epsilon):
    """Give a model of Stable-Baselines3 careful targets.

    The largest of the values that its target network then gives is the careful
    target's value.
    """

    def stumble(net, states, q_values):
        return q_values.lerp(q_values.mean(dim=1, keepdim=True), epsilon)

    model.q_net_target.register_forward_hook(stumble)


def sb3(lesson, row, seed):
    """Train Stable-Baselines3's DQN with the zoo's settings.

    With `epsilon` among the row's options its targets are careful ones.
    """
    from stable_baselines3 import DQN

    options = dict(row.options)
    epsilon = options.pop("epsilon", 0.0)
    model = DQN("MlpPolicy", "CartPole-v1", seed=seed, device="cpu", **options)
    if epsilon:
        make_careful(model, epsilon)
    return learn(model, Watch(lesson, row, model.q_net), lambda: model.q_net)


def sb3_same(lesson, row, seed):
    """Train Stable-Baselines3's DQN with the notebook's constants, its inputs scaled.

    Epsilon falls along a straight line there; as many steps are random as here.
    Gradients are clipped to a norm of 10. The target is that of plain DQN, or the
    careful one with `epsilon` among the row's options, or with `n_steps` its own n-step
    returns.
    """
    import gymnasium
    from stable_baselines3 import DQN

    here = settings_of(lesson, row, seed)
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
        n_steps=row.options.get("n_steps", 1),
        seed=seed,
        device="cpu",
    )
    if "epsilon" in row.options:
        make_careful(model, row.options["epsilon"])
    network = lesson.DQN(4, 2, lesson.SCALE)
    watch = Watch(lesson, row, network)
    return learn(model, watch, lambda: filled(network, model.q_net.parameters()))


def filled(network, weights):
    """Put weights into a network, and return it."""
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), weights, strict=True):
            mine.copy_(theirs)
    return network


def sbx(lesson, row, seed):
    """Train SBX's DQN (JAX), anew after a short training that compiles it."""
    from sbx import DQN

    model = DQN("MlpPolicy", "CartPole-v1", seed=seed, **row.options)
    untrained = model.policy.qf_state
    model.learn(1_280)
    model.policy.qf_state = untrained
    model._n_calls = model._n_updates = 0
    model.replay_buffer.reset()
    model.set_random_seed(seed)
    network = layers(4, 256, 256, 2)

    def network_now():
        parameters = model.policy.qf_state.params["params"]
        weights = []
        for i in range(3):
            layer = parameters[f"Dense_{i}"]
            weights += [torch.tensor(np.array(layer["kernel"])).T]
            weights += [torch.tensor(np.array(layer["bias"]))]
        return filled(network, weights)

    return learn(model, Watch(lesson, row, network), network_now)


AGENTS = {
    "lesson": lesson_agent,
    "n_step": n_step_agent,
    "double": double_dqn,
    "rule": rule_by_hand,
    "tutorial": tutorial,
    "cleanrl": cleanrl,
    "sb3": sb3,
    "sb3_same": sb3_same,
    "sbx": sbx,
}
