"""The recording that opens the notebook and the README, and its pictures.

It is made from the data of a live cart with two curves: plain DQN and one line changed.
"""

import base64
import copy
import io
import math
import sys

import numpy as np

from tools.load_definitions import ROOT

sys.path.append(str(ROOT / "notebooks"))
from dqn_helpers import cart  # noqa: E402

NETWORKS = (7, 5)  # how many of each curve are kept
TITLES = ("plain DQN", "one line changed")
LINES = (
    "next_value = next_q.amax(dim=1)",
    "next_value = next_q.amax(dim=1).lerp(next_q.mean(dim=1), 0.7)",
)
NOTE = "Recorded with seed {}; in section 10 you make your own."


def recording_of(data, seed):
    """Return what recorded.json holds, from the data of a live cart."""
    data = copy.deepcopy(data)
    for run, title, most in zip(data["curves"], TITLES, NETWORKS, strict=True):
        run["title"] = title
        dots = dots_of(run)
        kept = cart.chosen([dot["mean"] for dot in dots], most)
        for place, dot in enumerate(dots):
            if place not in kept:
                del dot["network"]
    data |= {"mode": "preview", "lines": LINES, "speed": 0.5, "note": NOTE.format(seed)}
    alt = (
        "A cart balances a pole, driven by plain DQN at the peak of its learning curve."
    )
    alt += " Then a later network of the same training takes over, and the game ends."
    return {"cart": data, "alt": alt, "still": cart.png(opening(data))}


def dots_of(run):
    """Return the points of a curve that have a network."""
    return [dot for dot in run["points"] if "network" in dot]


# ---------- a game ----------


def decoded(tensors):
    """Return a network's arrays."""
    arrays = {}
    for name, tensor in tensors.items():
        integers = np.frombuffer(base64.b64decode(tensor["values"]), "<i2")
        arrays[name] = integers * tensor["scale"]
    return arrays


def side_of(arrays, state):
    """Return where a network pushes: 1 is right, −1 is left."""
    values = state / arrays["scale"]
    for name in ("layer1", "layer2", "layer3"):
        weight = arrays[f"{name}.weight"].reshape(-1, len(values))
        values = weight @ values + arrays[f"{name}.bias"]
        if name != "layer3":
            values = values.clip(min=0)
    return 1 if values[1] > values[0] else -1


def moved(state, side):
    """Return the state of CartPole-v1 after one push."""
    _, velocity, angle, turning = state
    sin, cos = math.sin(angle), math.cos(angle)
    push = (10 * side + 0.05 * turning**2 * sin) / 1.1
    pole = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    rates = np.array([velocity, push - 0.05 * pole * cos / 1.1, turning, pole])
    return state + 0.02 * rates


def is_over(state):
    """Return whether the cart has left the track or the pole has fallen."""
    return abs(state[0]) > 2.4 or abs(state[2]) > math.pi / 15


STEPS = cart.FRAME // 20  # of the game in one frame, at real speed


def played(state, dot):
    """Return the state one frame later, driven by a point's network."""
    arrays = decoded(dot["network"])
    for _ in range(STEPS):
        if not is_over(state):
            state = moved(state, side_of(arrays, state))
    return state


# ---------- pictures ----------

START = np.array([0.0, 0.0, 0.03, 0.0])


def name_of(title, dot):
    """Return who drives."""
    return f"{title} after {dot['step']:,} steps of training"


def opening(data):
    """Return frames: a cart at the peak of the first curve, then in its valley."""
    (run, _), frames, state = data["curves"], [], START
    dots = dots_of(run)
    best = dots.index(cart.best_dot(run))
    lowest = min(range(best, len(dots)), key=lambda place: dots[place]["mean"])
    places = [best] * 18
    for place in range(best + 1, lowest):
        places += [place] * 2
    places += [lowest] * (cart.MOST_FRAMES - len(places))
    for place in places:
        dot = dots[place]
        state = played(state, dot)
        caption = name_of(TITLES[0], dot)
        marker = dot["step"], dot["mean"]
        frames.append(cart.opening_frame(data, caption, state, marker, shown=1))
    return frames


def lose_and_keep(data):
    """Return frames: plain DQN loses the skill, and the other brings the cart back."""
    plain, changed = (dots_of(run) for run in data["curves"])
    peak = plain.index(cart.best_dot(data["curves"][0]))
    left = right = START
    frames = []
    for count in range(cart.MOST_FRAMES):
        dot = plain[peak if count < 15 else peak + 1]
        if count == 12:
            right = right + [0, 0.25, 0, 0]
        left, right = played(left, dot), played(right, changed[-1])
        picture, draw = cart.blank(840, 230)
        for middle, state, title, driver in (
            (210, left, TITLES[0], dot),
            (630, right, TITLES[1], changed[-1]),
        ):
            cart.draw_cart(draw, state, middle, floor=180, metre=80)
            cart.write(draw, middle, 8, title, 20, anchor="ma")
            text = f"after {driver['step']:,} steps of training"
            cart.write(draw, middle, 204, text, 16, anchor="ma")
        if 12 <= count < 22:
            cart.write(draw, 440, 130, "push →", 18, cart.BLUE)
        frames.append(picture.reduce(cart.BIG))
    return frames


def two_curves(data):
    """Return a picture of both learning curves."""
    picture, draw = cart.blank(840, 300)
    plot = cart.Plot(draw, data, (56, 60, 816, 268))
    cart.write(draw, 56, 8, "steps that the pole stays up, mean of 20 games", 15)
    plot.axes()
    for number, title in enumerate(TITLES):
        plot.curve(number)
        color = (cart.ORANGE, cart.BLUE)[number]
        cart.write(draw, 440 + 150 * number, 8, f"{'●■'[number]} {title}", 15, color)
    return picture.reduce(cart.BIG)


def written(frames):
    """Return pictures as a PNG file."""
    return base64.b64decode(cart.png(frames))
