"""The drawings of the lesson."""

from .figures import BLUE, GREY, ORANGE, new_figure, picture


def canvas(width, height, right, top):
    """Return a figure without axes, and its coordinates from (0, 0) to (right, top)."""
    figure = new_figure(width, height)
    ax = figure.subplots()
    ax.set(xlim=(0, right), ylim=(0, top))
    ax.axis("off")
    return figure, ax


def draw_box(ax, x, y, text, color=BLUE):
    """Write text in a box around (x, y), and return the text."""
    box = {"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": color}
    box["linewidth"] = 2
    return ax.text(x, y, text, ha="center", va="center", bbox=box)


def draw_arrow(ax, start, end, color="black", bend=0.0):
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.5}
    ax.annotate("", end, start, arrowprops={**style, **curve(bend)})


def connect(ax, start, end, color="black", bend=0.0, shift=(0, 0)):
    """Draw an arrow from the edge of one box to the edge of another.

    shift: how far beside the middles of the boxes it runs.
    """
    ends = []
    for box in (start, end):
        x, y = box.get_position()
        ends.append((x + shift[0], y + shift[1]))
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.5}
    patches = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    touching = {**patches, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", ends[1], ends[0], arrowprops={**style, **touching, **curve(bend)})


def curve(bend):
    """Return how an arrow bends."""
    return {"connectionstyle": f"arc3,rad={bend}"}


def write(ax, x, y, text, color="black"):
    """Write text around (x, y)."""
    ax.text(x, y, text, ha="center", va="center", color=color)


def draw_cart_and_agent():
    """Return the picture of agent, environment and the four numbers."""
    figure, ax = canvas(9, 2.8, 11.5, 3.6)
    agent = draw_box(ax, 1.2, 1.7, "agent")
    environment = draw_box(ax, 4.6, 1.7, "environment")
    connect(ax, agent, environment, bend=-0.5)
    write(ax, 2.7, 2.95, "action")
    connect(ax, environment, agent, bend=-0.5)
    write(ax, 2.7, 0.45, "observation, reward")
    ax.plot([6.2, 10.6], [0.8, 0.8], color=GREY)  # the track
    ax.plot([9.0, 9.0], [0.55, 0.8], color=GREY)  # its middle
    ax.fill_between([7.4, 8.2], 0.8, 1.2, color=BLUE)
    ax.plot([7.8, 8.4], [1.2, 3.0], color=ORANGE, linewidth=5)
    ax.plot([7.8, 7.8], [1.2, 3.0], color=GREY, linestyle=":")
    write(ax, 8.1, 3.3, "angle $\\theta$")
    draw_arrow(ax, (8.55, 2.7), (9.1, 2.3), bend=-0.3)
    write(ax, 10.2, 2.65, "angular velocity $\\dot\\theta$")
    draw_arrow(ax, (8.3, 1.0), (9.1, 1.0))
    write(ax, 9.9, 1.15, "velocity $\\dot x$")
    draw_arrow(ax, (9.0, 0.35), (7.8, 0.35))
    write(ax, 9.9, 0.35, "position $x$")
    alt = (
        "The agent sends an action; the environment answers with an observation and a "
        "reward. Beside them the cart with position, velocity, angle, angular velocity."
    )
    return picture(figure, alt)


def draw_algorithm():
    """Return the picture of the whole algorithm."""
    figure, ax = canvas(9, 4.4, 12, 6.2)
    policy = draw_box(ax, 1.5, 3.4, "policy network\n$Q_w(s, a)$", ORANGE)
    environment = draw_box(ax, 5.4, 5.4, "environment")
    memory = draw_box(ax, 10.3, 5.4, "replay memory")
    batch = draw_box(
        ax, 10.3, 3.4, "random batch\n$(s, a, r, s', \\mathrm{terminated})$"
    )
    loss = draw_box(ax, 5.4, 2.0, "loss")
    target = draw_box(ax, 10.3, 0.8, "target network\n$Q_{w'}(s', a')$", GREY)
    connect(ax, policy, environment, bend=-0.25)
    write(ax, 2.4, 5.0, "action $a$")
    connect(ax, environment, policy, bend=-0.15)
    write(ax, 4.75, 4.3, "state $s$")
    connect(ax, environment, memory)
    write(ax, 7.8, 5.7, "$(s, a, r, s', \\mathrm{terminated})$")
    connect(ax, memory, batch)
    connect(ax, batch, policy)
    write(ax, 6.6, 3.65, "$s, a$")
    connect(ax, batch, target)
    write(ax, 9.3, 2.2, "$r, s'$, terminated")
    connect(ax, target, loss, bend=-0.1)
    write(ax, 7.2, 1.75, "target $y$")
    connect(ax, policy, loss, bend=-0.15)
    write(ax, 4.45, 2.95, "estimate")
    connect(ax, loss, policy, ORANGE, bend=-0.25)
    write(ax, 4.1, 1.65, "gradient", ORANGE)
    connect(ax, policy, target, GREY, bend=0.35)
    write(ax, 4.2, 0.5, "follows slowly", GREY)
    alt = (
        "Diagram: the policy network acts, the environment answers with the next "
        "state, the step goes into the replay memory. From a random batch come the "
        "policy network's estimate and the target network's target; together they give "
        "the loss. Its gradient changes the policy network alone, and the target "
        "network follows slowly."
    )
    return picture(figure, alt)
