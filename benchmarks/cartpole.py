"""CartPole for many episodes at once, bit for bit gym's."""

import math

import numpy as np

CARTPOLE = "CartPole-v1"
CLOCK = 500  # steps after which gym ends an episode
TRACK_END = 2.4
POLE_FALLEN = 12 * 2 * math.pi / 360


def moved(states, actions):
    """Return the states one step later, (N, 4), and which episodes have failed, (N,).

    The operations and their order are gym's, so that the last bit is the same, too:
    NumPy's cosine, sine and square of an array may differ from Python's in it.
    """
    x, velocity, angle, turning = states.T
    force = np.where(np.asarray(actions) == 1, 10.0, -10.0)
    cosines = [math.cos(one) for one in angle.tolist()]
    cos, cos_squared = np.array(cosines), np.array([one**2 for one in cosines])
    sin = np.array([math.sin(one) for one in angle.tolist()])
    turning_squared = np.array([one**2 for one in turning.tolist()])
    pushed = (force + 0.05 * turning_squared * sin) / 1.1
    turned = 9.8 * sin - cos * pushed
    turned /= 0.5 * (4.0 / 3.0 - 0.1 * cos_squared / 1.1)
    accelerated = pushed - 0.05 * turned * cos / 1.1
    later = [
        x + 0.02 * velocity,
        velocity + 0.02 * accelerated,
        angle + 0.02 * turning,
        turning + 0.02 * turned,
    ]
    states = np.stack(later, axis=1)
    failed = (np.abs(states[:, 0]) > TRACK_END) | (np.abs(states[:, 2]) > POLE_FALLEN)
    return states, failed


def play_from(policy, states, steps):
    """Play an episode of at most `steps` steps from each state, (N, 4), side by side.

    Return the scores, (N,), and the last states, (N, 4).
    """
    states = np.array(states, np.float64)
    scores = np.zeros(len(states))
    playing = np.arange(len(states))  # the episodes that are not over
    for _ in range(steps):
        if len(playing) == 0:
            break
        actions = policy(states[playing].astype(np.float32))
        states[playing], failed = moved(states[playing], actions)
        scores[playing] += 1
        playing = playing[~failed]
    return scores, states.astype(np.float32)


def first_states(lesson, starts):
    """Return the states in which gym begins the episodes of some starts, (N, 4)."""
    env = lesson.make_env(CARTPOLE)
    states = []
    for start in starts:
        lesson.reset_env(env, start)
        states.append(env.unwrapped.state)
    return np.array(states, np.float64)
