"""The implementations that are compared.

Each has `train(steps, every, report)`. Every so many steps it calls `report(steps, seconds, net)`
with the time spent on acting and learning alone and the network that plays greedily; training
ends with the budget, or where `report` returns True.
"""

import math
import random
import time
from collections import deque, namedtuple

import torch
from torch import nn

Step = namedtuple("Step", ("state", "action", "next_state", "reward"))


class StepByStep:
    """Training by a method `advance(n)` for a given number of steps at a time."""

    def train(self, steps, every, report):
        """Train for `steps` environment steps; report after every `every`."""
        seconds = 0.0
        for done in range(every, steps + 1, every):
            started = time.perf_counter()
            self.advance(every)
            seconds += time.perf_counter() - started
            if report(done, seconds, self.greedy_net):
                return


class Notebook(StepByStep):
    """The notebook's own code and settings, loaded from the notebook."""

    def __init__(self, lesson, seed, **changes):
        settings = lesson.change_settings(lesson.settings, SEED=seed, **changes)
        self.lesson, self.run = lesson, lesson.make_run(settings, torch.device("cpu"))
        agent = self.run.agent
        self.greedy_net = agent.target_net if settings.GREEDY_NET == "target" else agent.policy_net

    def advance(self, n):
        """Act and learn for `n` environment steps."""
        for _ in range(n):
            self.lesson.act_and_remember(self.run)
            self.lesson.learn(self.run)


class Original(StepByStep):
    """The well-known PyTorch tutorial's algorithm, data structures and settings.

    A deque of named tuples with a tensor per field, batches glued together with `cat`, a mask for
    the non-final states, AdamW with amsgrad, Huber loss, gradients clipped at 100, and a soft
    update through `state_dict`.
    """

    BATCH_SIZE, GAMMA, TAU, LR = 128, 0.99, 0.005, 1e-4
    EPS_START, EPS_END, EPS_DECAY, MEMORY_SIZE = 0.9, 0.05, 1000, 10_000

    def __init__(self, lesson, seed):
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.lesson, self.env, self.steps = lesson, lesson.make_env("CartPole-v1"), 0
        self.policy_net, self.target_net = self.network(), self.network()
        self.target_net.load_state_dict(self.policy_net.state_dict())
        self.optimizer = torch.optim.AdamW(self.policy_net.parameters(), lr=self.LR, amsgrad=True)
        self.memory = deque(maxlen=self.MEMORY_SIZE)
        self.state = self.to_state(lesson.reset_env(self.env, seed))
        self.greedy_net = self.policy_net

    @staticmethod
    def network():
        """Return the tutorial's network."""
        return nn.Sequential(
            nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    @staticmethod
    def to_state(observation):
        """Return an observation as the tensor (1, 4) that the tutorial stores."""
        return torch.tensor(observation, dtype=torch.float32).unsqueeze(0)

    def advance(self, n):
        """Act and learn for `n` environment steps."""
        for _ in range(n):
            self.act()
            if len(self.memory) >= self.BATCH_SIZE:
                self.learn()

    def act(self):
        """Take one epsilon-greedy step and remember it."""
        span = self.EPS_START - self.EPS_END
        epsilon = self.EPS_END + span * math.exp(-self.steps / self.EPS_DECAY)
        self.steps += 1
        if self.random.random() > epsilon:
            with torch.no_grad():
                action = self.policy_net(self.state).max(1).indices.view(1, 1)
        else:
            action = torch.tensor([[self.random.randrange(2)]])
        observation, reward, terminated, truncated = self.lesson.step_env(self.env, action.item())
        following = None if terminated else self.to_state(observation)
        self.memory.append(Step(self.state, action, following, torch.tensor([reward])))
        self.state = following
        if terminated or truncated:
            self.state = self.to_state(self.lesson.reset_env(self.env))

    def learn(self):
        """Take one optimisation step and one soft update."""
        batch = Step(*zip(*self.random.sample(self.memory, self.BATCH_SIZE), strict=True))
        going_on = torch.tensor([state is not None for state in batch.next_state])
        next_states = torch.cat([state for state in batch.next_state if state is not None])
        values = self.policy_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        next_values = torch.zeros(self.BATCH_SIZE)
        with torch.no_grad():
            next_values[going_on] = self.target_net(next_states).max(1).values
        targets = torch.cat(batch.reward) + self.GAMMA * next_values
        loss = nn.functional.smooth_l1_loss(values, targets.unsqueeze(1))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.policy_net.parameters(), 100)
        self.optimizer.step()
        slow, fast = self.target_net.state_dict(), self.policy_net.state_dict()
        for name in fast:
            slow[name] = fast[name] * self.TAU + slow[name] * (1 - self.TAU)
        self.target_net.load_state_dict(slow)


ZOO_SETTINGS = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}


class StableBaselines3:
    """Stable-Baselines3's DQN with the RL Zoo's tuned settings for CartPole-v1."""

    def __init__(self, lesson, seed):
        import gymnasium
        from stable_baselines3 import DQN

        env = gymnasium.make("CartPole-v1")
        self.model = DQN("MlpPolicy", env, seed=seed, device="cpu", **ZOO_SETTINGS)

    def train(self, steps, every, report):
        """Train for `steps` environment steps; report after every `every`."""
        clock = {"resumed": time.perf_counter(), "seconds": 0.0}

        def callback(local, _):
            if self.model.num_timesteps % every:
                return True
            clock["seconds"] += time.perf_counter() - clock["resumed"]
            stop = report(self.model.num_timesteps, clock["seconds"], self.model.q_net)
            clock["resumed"] = time.perf_counter()
            return not stop

        self.model.learn(steps, callback=callback)


CONTESTANTS = {"notebook": Notebook, "original": Original, "sb3": StableBaselines3}
