"""Pictures with alternative texts, and tables."""

import base64
import io

BLUE = "#0072B2"  # colour-blind readers can tell these four apart
ORANGE = "#D55E00"
PURPLE = "#AA3377"
GREY = "#767676"


class Picture:
    """A picture with an alternative text, which older releases of IPython lack."""

    def __init__(self, data, alt):
        self.data = data  # the bytes of a PNG file
        self.alt = alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        png = base64.b64encode(self.data).decode()
        data = {"image/png": png, "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def new_figure(width, height):
    """Return an empty figure, sizes in inches, in Matplotlib's own style."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # a style that you have set does not change the pictures
    return Figure(figsize=(width, height), layout="constrained")


def picture(figure, alt):
    """Return a figure as a picture with an alternative text."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, facecolor="white")
    small = io.BytesIO()  # fewer colours make the notebook's file smaller
    Image.open(file).convert("RGB").quantize(128).save(small, format="png")
    return Picture(small.getvalue(), alt)


def table(header, rows):
    """Return a table to display; fractions have two digits, other numbers one."""
    from IPython.display import Markdown

    lines = []
    for row in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(map(shown, row)) + " |")
    return Markdown("\n".join(lines) + "\n")


def shown(value):
    """Return a cell of a table as text."""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) <= 1 else f"{value:.1f}"
    return str(value)
