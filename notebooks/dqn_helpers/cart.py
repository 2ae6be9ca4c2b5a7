"""The live cart and films: they play in a page, and elsewhere they leave a picture.

Each output holds HTML for front ends that run scripts, and a still with an alternative
text for all others. Only the stills need NumPy, Pillow and matplotlib.
"""

import base64
import io
import json
import math
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
RECORDING = FOLDER / "recorded.json"
SCRIPT = (FOLDER / "live_cart.js").read_text(encoding="utf-8")
STYLE = (FOLDER / "live_cart.css").read_text(encoding="utf-8")

ORANGE, BLUE = "#D55E00", "#0072B2"  # the first and the second curve
DARK, GREY = "#333333", "#767676"
FRAME = 80  # milliseconds that a picture of a film is seen
WHAT = "steps that the pole stays up, mean of 20 games"  # what a curve shows
MOST_FRAMES = 60  # so a film that plays by itself ends within five seconds


class LiveCart:
    """A cart in a page; `still` is its picture, a PNG file as base64 text."""

    def __init__(self, data, still, alt):
        self.data, self.still, self.alt = data, still, alt

    def html(self):
        """Return the still, which the script replaces by the cart."""
        data, alt = escape(json.dumps(self.data)), escape(self.alt)
        picture = f'<img src="data:image/png;base64,{self.still}" alt="{alt}">'
        return (
            f"<style>{STYLE}</style>"
            f'<div class="live-cart" data-cart="{data}">{picture}</div>'
            f"<script data-live-cart>{SCRIPT}</script>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"text/html": self.html(), "image/png": self.still}
        data["text/plain"] = self.alt
        return data, {"image/png": {"alt": self.alt}}


def preview():
    """Return the cart that networks of a recorded run drive."""
    recorded = json.loads(RECORDING.read_text(encoding="utf-8"))
    return LiveCart(recorded["cart"], recorded["still"], recorded["alt"])


def live_cart(drivers=None, curves=None, threshold=475, most=20):
    """Return a cart for the reader to drive, or driven by rules and networks.

    drivers: label → network, or four weights, a rule by hand: push right where the
    weighted sum of the state is positive.
    curves: title → run; the network of each evaluation can drive, and for long runs
    that of about `most` of them.
    """
    hint = "To play, run this cell, or open the page of `make run`."
    if curves:
        data = {"mode": "curves", **curves_data(curves, threshold, most)}
        still = png([opening_frame(data, caption="")])
        alt = f"A cart, and below it the learning curve of {' and of '.join(curves)}."
    elif drivers:
        agents = [driver(*pair) for pair in drivers.items()]
        data = {"mode": "drivers", "drivers": agents}
        still = png([film_frame([0, 0, 0.1, 0], "A cart to push")])
        alt = "A cart and a pole, with a choice of who drives."
    else:
        data = {"mode": "play"}
        still = png([film_frame([0, 0, 0.1, 0], "A cart to drive")])
        alt = "A cart and a pole, for you to drive."
    return LiveCart(data, still, f"{alt} {hint}")


def play(env, observation, policy):
    """Play an episode from its first observation on; return all of its observations.

    policy: function of rows of observations, (N, 4), that returns N actions.
    """
    import numpy as np

    observations, over = [observation], False
    while not over:
        (action,) = policy(np.array([observation]))
        observation, _, terminated, truncated, _ = env.step(int(action))
        observations.append(observation)
        over = terminated or truncated
    return observations


def film(states, caption, every=1):
    """Return a film of an episode's states, (N, 4).

    It shows every `every`-th of them. With 1 it runs at a quarter of real speed.
    """
    import numpy as np

    states = np.asarray(states, "<f4")
    steps = len(states) - 1
    data = {"mode": "film", "caption": caption, "speed": min(every / 4, 2)}
    data["states"] = base64.b64encode(states.tobytes()).decode()
    stride = max(every, math.ceil(len(states) / MOST_FRAMES))
    frames = []
    for step in range(0, len(states), stride):
        frames.append(film_frame(states[step].tolist(), f"{caption}, step {step}"))
    return LiveCart(data, png(frames), f"Animation: {caption}, {steps} steps.")


# ---------- networks as text ----------


def tensor(values):
    """Return an array as 16-bit integers, in base64, with the scale that they need."""
    scale = float(abs(values).max()) / 32767 or 1.0
    integers = (values / scale).round().astype("<i2")
    return {"scale": scale, "values": base64.b64encode(integers.tobytes()).decode()}


def network(net):
    """Return the weights of a network, by their names, as text."""
    weights = net.state_dict()
    return {name: tensor(values.cpu().numpy()) for name, values in weights.items()}


def driver(label, agent):
    """Return a network or a rule by hand with its label."""
    if hasattr(agent, "state_dict"):
        return {"title": label, "network": network(agent)}
    return {"title": label, "rule": [float(weight) for weight in agent]}


def chosen(means, most):
    """Return the places of the evaluations whose networks a curve keeps.

    The best one, the one after it, the lowest after it, and the best of the second half
    are among them.
    """
    last = len(means) - 1
    best = means.index(max(means))
    lowest = min(range(best, last + 1), key=means.__getitem__)
    late = max(range(last // 2, last + 1), key=means.__getitem__)
    places = {best, min(best + 1, last), lowest, late}
    others = max(2, most - len(places))  # the first and the last at least
    places |= {round(i * last / (others - 1)) for i in range(others)}
    return places


def curves_data(curves, threshold, most):
    """Return learning curves with some of their networks, of the same moments."""
    kept = set()  # steps
    for run in curves.values():
        for place in chosen([e.mean for e in run.evaluations], most):
            kept.add(run.evaluations[place].step)
    data = []
    for title, run in curves.items():
        dots = []
        for e in run.evaluations:
            dot = {"step": e.step, "mean": e.mean}
            if e.step in kept:
                dot["network"] = network(e.network)
            dots.append(dot)
        data.append({"title": title, "points": dots})
    return {"threshold": threshold, "curves": data}


# ---------- stills ----------

# Drawn at twice their size; shrinking them makes the edges smooth.
BIG = 2


def blank(width, height):
    """Return a large white picture and what draws on it."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (BIG * width, BIG * height), "white")
    return picture, ImageDraw.Draw(picture)


def font(size):
    """Return matplotlib's font; Pillow's own swallows spaces."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), BIG * size)


def write(draw, x, y, text, size=15, color="black", anchor="la"):
    """Write a line of text."""
    place = (BIG * x, BIG * y)
    draw.text(place, text, fill=color, font=font(size), anchor=anchor)


def draw_cart(draw, state, middle, floor, metre):
    """Draw the track with its middle at (middle, floor), and the cart on it."""
    middle, floor, metre = BIG * middle, BIG * floor, BIG * metre

    def line(start, end, width, color):
        width = round(width * metre)
        draw.line([start, end], fill=color, width=width)

    left, right = middle - 2.4 * metre, middle + 2.4 * metre
    line((left, floor), (right, floor), 0.03, GREY)
    for end in (left, right):
        line((end, floor - 0.15 * metre), (end, floor + 0.15 * metre), 0.05, GREY)
    x, top, radius = middle + state[0] * metre, floor - 0.26 * metre, 0.045 * metre
    foot = (x, top + radius)
    tip = (x + metre * math.sin(state[2]), top - metre * math.cos(state[2]))
    line(foot, tip, 0.09, ORANGE)
    for end_x, end_y in (foot, tip):  # round ends
        corners = (end_x - radius, end_y - radius, end_x + radius, end_y + radius)
        draw.ellipse(corners, fill=ORANGE)
    corners = (x - 0.26 * metre, top, x + 0.26 * metre, floor - 0.01 * metre)
    draw.rounded_rectangle(corners, 0.04 * metre, fill=DARK)


def film_frame(state, caption):
    """Return a picture of the cart with a caption."""
    picture, draw = blank(600, 190)
    draw_cart(draw, state, middle=300, floor=168, metre=110)
    write(draw, 10, 6, caption)
    return picture.reduce(BIG)


class Plot:
    """Learning curves in a box of a picture: (left, top, right, bottom)."""

    def __init__(self, draw, data, box):
        self.draw, self.curves, self.threshold = draw, data["curves"], data["threshold"]
        self.box = box
        self.last = max(dot["step"] for run in self.curves for dot in run["points"])

    def place(self, step, mean):
        """Return where a point of a curve lies."""
        left, top, right, bottom = self.box
        x = left + (right - left) * step / self.last
        return BIG * x, BIG * (bottom - (bottom - top) * mean / 500)

    def axes(self):
        """Draw the axis, the line at the threshold, and what they are."""
        left, top, right, bottom = self.box
        ends = [self.place(0, 0), self.place(self.last, 0)]
        self.draw.line(ends, fill=GREY, width=BIG)
        height = self.place(0, self.threshold)[1]
        for x in range(BIG * left, BIG * right, BIG * 9):
            self.draw.line([(x, height), (x + BIG * 5, height)], fill=GREY, width=BIG)
        for mean in (0, self.threshold):
            y = self.place(0, mean)[1] / BIG
            write(self.draw, left - 6, y, str(mean), 13, GREY, anchor="rm")
        write(self.draw, left, bottom + 5, "0", 13, GREY)
        text = f"{self.last:,} steps of training"
        write(self.draw, right, bottom + 5, text, 13, GREY, anchor="ra")
        write(self.draw, left, top - 12, WHAT, 13, GREY, anchor="ls")

    def curve(self, number, every_dot=False):
        """Draw a curve: orange with circles, or blue with squares.

        They mark the points that have a network, or every one.
        """
        color = (ORANGE, BLUE)[number]
        shape = (self.draw.ellipse, self.draw.rectangle)[number]
        points = self.curves[number]["points"]
        places = [self.place(dot["step"], dot["mean"]) for dot in points]
        self.draw.line(places, fill=color, width=round(2.5 * BIG), joint="curve")
        for (x, y), dot in zip(places, points, strict=True):
            if every_dot or "network" in dot:
                r = (4 if every_dot else 5) * BIG
                corners = (x - r, y - r, x + r, y + r)
                shape(corners, fill="white", outline=color, width=round(2.5 * BIG))

    def marker(self, number, step, mean):
        """Draw the ring around a point."""
        x, y = self.place(step, mean)
        top, bottom = self.place(0, 500)[1], self.place(0, 0)[1]
        self.draw.line([(x, top), (x, bottom)], fill="black", width=BIG)
        r, color = 10 * BIG, (ORANGE, BLUE)[number]
        corners = (x - r, y - r, x + r, y + r)
        self.draw.ellipse(corners, fill="white", outline=color, width=5 * BIG)


def best_dot(run):
    """Return the best point of a curve that has a network."""
    dots = [dot for dot in run["points"] if "network" in dot]
    return max(dots, key=lambda dot: dot["mean"])


def opening_frame(data, caption, state=(0, 0, 0.1, 0), marker=None, shown=None):
    """Return a picture of the cart, with learning curves and the marker below it."""
    picture, draw = blank(760, 490)
    draw_cart(draw, state, middle=380, floor=195, metre=140)
    write(draw, 24, 218, caption, 18)
    plot = Plot(draw, data, (56, 284, 736, 458))
    plot.axes()
    for number in range(shown or len(data["curves"])):
        plot.curve(number)
    dot = best_dot(data["curves"][0])
    plot.marker(0, *(marker or (dot["step"], dot["mean"])))
    return picture.reduce(BIG)


def png(frames):
    """Return pictures as a PNG file in base64; several play once."""
    from PIL import Image

    # Few colours, the same in each, make the file small.
    few = frames[0].quantize(64, Image.Quantize.FASTOCTREE)
    few.putpalette([255 if part > 250 else part for part in few.getpalette()])
    plain = Image.Dither.NONE
    frames = [frame.quantize(palette=few, dither=plain) for frame in frames]
    file = io.BytesIO()
    options = {}
    if len(frames) > 1:
        options = {"save_all": True, "append_images": frames[1:]}
        options |= {"duration": FRAME, "loop": 1}
    frames[0].save(file, format="png", **options)
    return base64.b64encode(file.getvalue()).decode()
