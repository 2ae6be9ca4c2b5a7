"""The recording that opens the notebook and the README, and its pictures.

It is made from the data of a live cart with two curves: plain DQN and one line changed.
"""

import base64
import copy
import math

import numpy as np

from notebooks.dqn_helpers import cart

NETWORKS = 6  # about how many of each curve are kept
TITLES = ("plain DQN", "one line changed")
LINES = (
    "next_value = next_q.amax(dim=1)",
    "next_value = next_q.amax(dim=1).lerp(next_q.mean(dim=1), 0.7)",
)
ALT = (
    "A cart balances a pole, driven by plain DQN at the peak of its learning curve. "
    "Then a later network of the same training takes over, and the game ends."
)
NOTE = "Recorded with seed {}; in section 10 you make your own."


def recording_of(data, seed):
    """Return what recorded.json holds, from the data of a live cart."""
    data = copy.deepcopy(data)
    dots = dots_of(data["curves"][0])
    places = cart.chosen([dot["mean"] for dot in dots], NETWORKS)
    steps = [dots[place]["step"] for place in places]
    for run, title in zip(data["curves"], TITLES, strict=True):
        run["title"] = title
        for dot in dots_of(run):
            if dot["step"] not in steps:
                del dot["network"]
    data |= {"mode": "preview", "lines": LINES, "speed": 0.5, "note": NOTE.format(seed)}
    return {"cart": data, "alt": ALT, "still": cart.png(opening(data))}


def dots_of(run):
    """Return the points of a curve that have a network."""
    return [dot for dot in run["points"] if "network" in dot]


def peak_of(dots):
    """Return the place of the best point."""
    means = [dot["mean"] for dot in dots]
    return means.index(max(means))


# ---------- a game ----------


def decoded(tensors):
    """Return a network's arrays."""
    arrays = {}
    for name, tensor in tensors.items():
        integers = np.frombuffer(base64.b64decode(tensor["values"]), "<i2")
        arrays[name] = integers * np.float32(tensor["scale"])
    for name in ("layer1", "layer2", "layer3"):
        width = len(arrays[f"{name}.bias"])
        arrays[f"{name}.weight"] = arrays[f"{name}.weight"].reshape(width, -1)
    return arrays


def side_of(arrays, state):
    """Return where a network pushes: 1 is right, −1 is left."""
    values = state / arrays["scale"]
    for name in ("layer1", "layer2", "layer3"):
        values = arrays[f"{name}.weight"] @ values + arrays[f"{name}.bias"]
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


def played(dots, speed, pushed_at=None):
    """Return a game's states, one for each frame, driven by that frame's network."""
    state, states = np.array([0.0, 0.0, 0.03, 0.0]), []
    for frame, dot in enumerate(dots):
        if frame == pushed_at:
            state = state + np.array([0.0, 0.25, 0.0, 0.0])
        arrays = decoded(dot["network"])
        for _ in range(speed * cart.FRAME // 20):  # the game has 50 steps a second
            if not is_over(state):
                state = moved(state, side_of(arrays, state))
        states.append(state)
    return states


# ---------- pictures ----------


def opening(data):
    """Return frames: a cart at the peak of the first curve, then in its valley."""
    dots = dots_of(data["curves"][0])
    peak = peak_of(dots)
    valley = min(range(peak, len(dots)), key=lambda place: dots[place]["mean"])
    driving = [dots[peak]] * 18
    for dot in dots[peak + 1 : valley]:
        driving += [dot] * 2
    driving += [dots[valley]] * (cart.MOST_FRAMES - len(driving))
    frames = []
    for dot, state in zip(driving, played(driving, speed=1), strict=True):
        caption = f"{TITLES[0]} after {dot['step']:,} steps of training"
        marker = dot["step"], dot["mean"]
        frames.append(cart.opening_frame(data, caption, state, marker, shown=1))
    return frames


PUSHED_AT = 8  # the frame of the README's film in which the second cart is pushed


def lose_and_keep(data):
    """Return two games: plain DQN loses the skill; with one line changed it stays.

    Plain DQN plays at its peak, and then as it is one evaluation later. The other agent
    has trained for as many steps as plain DQN at its peak; its cart is pushed.
    """
    plain, changed = (dots_of(run) for run in data["curves"])
    peak = peak_of(plain)
    other = min(changed, key=lambda dot: abs(dot["step"] - plain[peak]["step"]))
    first = [plain[peak]] * 15 + [plain[peak + 1]] * (cart.MOST_FRAMES - 15)
    second = [other] * cart.MOST_FRAMES
    return [
        (first, played(first, speed=2)),
        (second, played(second, speed=2, pushed_at=PUSHED_AT)),
    ]


def side_by_side(data):
    """Return frames of the README's two games."""
    games = lose_and_keep(data)
    frames = []
    for frame in range(cart.MOST_FRAMES):
        picture, draw = cart.blank(840, 220)
        for place, (driving, states) in enumerate(games):
            middle = (212, 628)[place]
            cart.draw_cart(draw, states[frame], middle, floor=172, metre=80)
            cart.write(draw, middle, 6, TITLES[place], 20, anchor="ma")
            first, now = driving[0]["step"], driving[frame]["step"]
            text = f"after {first:,} steps of training"
            if now > first:
                text = f"{now - first:,} steps of training later"
            cart.write(draw, middle, 192, text, 16, anchor="ma")
        if PUSHED_AT <= frame < PUSHED_AT + 12:
            cart.write(draw, 444, 120, "a push →", 18)
        frames.append(picture.reduce(cart.BIG))
    return frames


def two_curves(data):
    """Return a picture of both learning curves."""
    picture, draw = cart.blank(840, 300)
    plot = cart.Plot(draw, data, (56, 76, 816, 268))
    plot.axes()
    for number, (title, x) in enumerate(zip(TITLES, (56, 240), strict=True)):
        plot.curve(number, every_dot=True)
        color = (cart.ORANGE, cart.BLUE)[number]
        cart.write(draw, x, 6, f"{'●■'[number]} {title}", 20, color)
    return picture.reduce(cart.BIG)
