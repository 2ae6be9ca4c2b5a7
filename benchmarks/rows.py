"""All rows that are measured, and the tables in which they stand."""

from dataclasses import dataclass, field, replace

TEN, TWENTY, HUNDRED = range(10), range(20), range(100)
FRESH = range(100, 120)  # for rows that were put together after seeing seeds 0 to 99
FRESHER = range(120, 140)  # for those that were put together after seeing these, too
FRESHEST = range(140, 160)  # and for those after these
BUDGET = 50_000  # steps of the comparison
ACROBOT = {
    "env_id": "Acrobot-v1",
    "scale": (1.0, 1.0, 1.0, 1.0, 6.0, 12.0),
    "steps": 20_000,
    "every": 1_000,
}
NOT_SCALED = (1.0, 1.0, 1.0, 1.0)
OLD_TUTORIAL = {"lr": 1e-4, "eps_end": 0.05, "eps_decay": 1_000}
NEW_TUTORIAL = {"lr": 3e-4, "eps_end": 0.01, "eps_decay": 2_500}
ZOO = {
    "learning_rate": 0.0023,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
SEARCHED = {
    "LR": 0.001,
    "TAU": 0.005,
    "GAMMA": 0.995,
    "EPS_END": 0.01,
    "MEMORY_SIZE": 2_000,
}


@dataclass(frozen=True)
class Row:
    """What is trained, on which seeds, and how long.

    agent: "lesson" for the notebook's agent and its variants, or a contestant's name.
    settings: hyperparameters that differ from the notebook's, or a contestant's own.
    targets: the name of a target and its constants. loop: options of our own loop;
    without them the notebook's `train` does it. far: steps beyond the clock.
    """

    label: str
    seeds: range = TEN
    agent: str = "lesson"
    settings: dict = field(default_factory=dict)
    targets: dict = field(default_factory=dict)
    mirror: bool = False
    loop: dict = field(default_factory=dict)
    env_id: str = "CartPole-v1"
    scale: tuple | None = None
    steps: int = 10_000
    every: int = 250
    far: int = 5_000


def plain(label, seeds=TEN, **loop):
    """Return plain DQN with options of the loop."""
    return Row(label, seeds, targets={"name": "plain"}, loop=loop)


def careful(label, epsilon, seeds=TEN, mirror=True, **loop):
    """Return an agent with the careful target and options of the loop."""
    targets = {"name": "careful", "epsilon": epsilon}
    return Row(label, seeds, targets=targets, mirror=mirror, loop=loop)


def with_targets(row, name, **constants):
    """Return the row with another target."""
    return replace(row, targets={"name": name, **constants})


def with_settings(row, **settings):
    """Return the row with other hyperparameters."""
    return replace(row, settings=settings)


# The rows to which all others are compared.
PLAIN = plain("plain DQN", HUNDRED)
CAREFUL = careful("careful target, ε′ = 0.7", 0.7, HUNDRED, mirror=False)
FINAL = careful("final agent", 0.7, HUNDRED)
UNSCALED = replace(careful("final agent, inputs not scaled", 0.7), scale=NOT_SCALED)

# One part added to plain DQN.
SLOW = {"steps": 100_000, "every": 2_500}
SINGLE = [
    PLAIN,
    plain("learning rate falling to 0", lr_falls=True),
    with_settings(plain("learning rate 0.0005, τ = 0.005"), LR=5e-4, TAU=0.005),
    plain("an average of the weights plays (0.002)", average=0.002),
    plain("5-step returns", n_steps=5),
    plain("10-step returns", n_steps=10),
    plain("layer normalisation", layer_norm=True),
    with_targets(plain("Double DQN"), "double"),
    plain("Averaged-DQN, five copies, one every 50 updates", copies=5, copy_every=50),
    with_targets(plain("advantage learning, α = 0.9"), "advantage", alpha=0.9),
    with_targets(
        plain("Munchausen, temperature 0.03"), "munchausen", alpha=0.9, temperature=0.03
    ),
    with_targets(
        plain("Munchausen, temperature 3"), "munchausen", alpha=0.9, temperature=3.0
    ),
    with_targets(
        plain("softmax-weighted values, temperature 5"), "softmax", temperature=5.0
    ),
    with_settings(plain("γ = 0.95"), GAMMA=0.95),
    with_settings(plain("γ = 0.995"), GAMMA=0.995),
    with_settings(plain("γ = 0.999"), GAMMA=0.999),
    plain("a copy every 50 updates", copy_every=50),
    plain("a copy every 500 updates", copy_every=500),
    replace(
        plain("an update every fourth step", update_every=4), steps=40_000, every=1_000
    ),
    replace(plain("an update every tenth step", update_every=10), **SLOW),
    replace(
        plain(
            "an update every tenth step, a copy every 50 updates",
            update_every=10,
            copy_every=50,
        ),
        **SLOW,
    ),
    plain("mean squared error", squared=True),
    with_settings(plain("batch 256"), BATCH_SIZE=256),
    with_settings(plain("batch 512"), BATCH_SIZE=512),
    with_settings(plain("memory of 1,000"), MEMORY_SIZE=1_000),
    with_settings(plain("ε down to 0.2"), EPS_END=0.2),
    with_settings(plain("searched hyperparameters", update_every=2), **SEARCHED),
    plain("a tenth of each batch failures", failures=0.1),
    plain("reward −1 at failure, 0 otherwise", punish=True),
    with_targets(plain("Expected Sarsa at its own ε", own_epsilon=True), "careful"),
    with_settings(
        with_targets(
            plain("Expected Sarsa at its own ε, down to 0.3", own_epsilon=True),
            "careful",
        ),
        EPS_END=0.3,
    ),
    replace(plain("mirror alone"), mirror=True),
    CAREFUL,
]

# ε′, without and with the mirror.
EPSILONS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DOSE = [PLAIN]
for value in EPSILONS:
    alone = careful(f"careful target, ε′ = {value}", value, TWENTY, mirror=False)
    DOSE.append(CAREFUL if value == 0.7 else alone)
DOSE.append(replace(plain("mirror alone"), mirror=True))
for value in EPSILONS:
    mirrored = careful(f"careful target, ε′ = {value}, mirror", value)
    DOSE.append(FINAL if value == 0.7 else mirrored)

# One part taken from the final agent, or put to it.
TAKEN = [
    FINAL,
    UNSCALED,
    with_settings(careful("final agent, memory of 256", 0.7), MEMORY_SIZE=256),
    with_settings(careful("final agent, no target network, τ = 1", 0.7), TAU=1.0),
    with_settings(
        careful("final agent, no exploration, ε = 0", 0.7), EPS_START=0.0, EPS_END=0.0
    ),
    CAREFUL,
    replace(plain("mirror alone"), mirror=True),
    careful("final agent, learning rate falling to 0", 0.7, lr_falls=True),
    careful("final agent, episodes of 5,000 steps", 0.7, clock=5_000),
]

# Several standard parts together.
ALL = {"n_steps": 5, "average": 0.002, "failures": 0.1}
MASTER = careful(
    "5-step, ε′ = 0.3, mirror, averaged weights, failures", 0.3, FRESH, **ALL
)


def without(name):
    """Return the options of the loop for the row above without one of them."""
    return {option: value for option, value in ALL.items() if option != name}


FIRST_TEN = FRESH[:10]
LONG = replace(
    MASTER,
    label=f"{MASTER.label}, episodes of 5,000 steps",
    seeds=FRESHER,
    loop={**ALL, "clock": 5_000},
)


def longer(what, **loop):
    """Return the row with long episodes and one thing more."""
    label = f"{LONG.label}, {what}"
    return replace(LONG, label=label, seeds=FRESHEST, loop={**LONG.loop, **loop})


TOGETHER = [
    FINAL,
    MASTER,
    careful("the same without 5-step", 0.3, FIRST_TEN, **without("n_steps")),
    replace(
        with_targets(MASTER, "plain"), label="the same without ε′", seeds=FIRST_TEN
    ),
    replace(MASTER, label="the same without mirror", seeds=FIRST_TEN, mirror=False),
    careful("the same without averaged weights", 0.3, FIRST_TEN, **without("average")),
    careful("the same without failures", 0.3, FIRST_TEN, **without("failures")),
    replace(
        with_targets(MASTER, "plain"),
        label="5-step, mirror, averaged weights, failures",
        seeds=FRESHER,
    ),
    LONG,
    longer("up to 12 random pushes", pushes=12),
    replace(
        with_targets(MASTER, "double"),
        label="5-step, Double DQN, mirror, averaged weights, failures",
    ),
    replace(
        with_targets(MASTER, "double"),
        label="5-step, Double DQN, mirror, averaged weights",
        loop=without("failures"),
    ),
    replace(
        with_targets(MASTER, "softmax", temperature=5.0),
        label="5-step, softmax values (5), mirror, averaged weights, failures",
        seeds=FIRST_TEN,
    ),
    careful(
        "5-step, ε′ = 0.3, mirror, learning rate to 0",
        0.3,
        FIRST_TEN,
        n_steps=5,
        lr_falls=True,
    ),
    careful(
        "5-step, ε′ = 0.3, learning rate to 0",
        0.3,
        FIRST_TEN,
        mirror=False,
        n_steps=5,
        lr_falls=True,
    ),
    with_targets(
        plain("5-step, softmax values (5)", FIRST_TEN, n_steps=5),
        "softmax",
        temperature=5.0,
    ),
    plain("5-step, failures", FIRST_TEN, n_steps=5, failures=0.1),
]

OTHERS = []
for value in (0.0, 0.1, 0.3, 0.7):
    targets = {"name": "careful", "epsilon": value}
    OTHERS.append(Row(f"Acrobot, ε′ = {value}", targets=targets, **ACROBOT))


# The comparison.
def contestant(label, row, **changes):
    """Return a row with the budget of the comparison."""
    return replace(row, label=label, seeds=TEN, steps=BUDGET, **changes)


def of_others(label, agent, **settings):
    """Return a row of somebody else's code or settings."""
    return Row(label, TEN, agent, settings, steps=BUDGET)


CONTEST = [
    contestant("this notebook", FINAL),
    contestant("its plain DQN, the same hyperparameters", PLAIN),
    contestant(
        "its plain DQN, searched hyperparameters",
        with_settings(PLAIN, **SEARCHED),
        loop={"update_every": 2},
    ),
    contestant("its plain DQN, inputs not scaled", PLAIN, scale=NOT_SCALED),
    contestant(
        "this notebook, an update every second step",
        with_settings(FINAL, LR=0.004, TAU=0.04),
        loop={"update_every": 2},
    ),
    of_others("PyTorch tutorial, older settings", "tutorial", **OLD_TUTORIAL),
    of_others("PyTorch tutorial, settings of today", "tutorial", **NEW_TUTORIAL),
    of_others("Stable-Baselines3, the zoo's settings", "sb3", **ZOO),
    of_others("Stable-Baselines3, this notebook's hyperparameters", "sb3_same"),
    of_others("SBX (JAX), the zoo's settings", "sbx", **ZOO),
]
OWN_LENGTH = [
    Row("CleanRL's settings", range(5), "cleanrl", steps=500_000, every=2_500)
]

# The careful target in the settings of others.
ELSEWHERE = [
    of_others(
        "PyTorch tutorial, older settings, ε′ = 0.7",
        "tutorial",
        epsilon=0.7,
        **OLD_TUTORIAL,
    ),
    of_others(
        "PyTorch tutorial, settings of today, ε′ = 0.7",
        "tutorial",
        epsilon=0.7,
        **NEW_TUTORIAL,
    ),
    of_others(
        "Stable-Baselines3, the zoo's settings, ε′ = 0.7", "sb3", epsilon=0.7, **ZOO
    ),
    of_others(
        "Stable-Baselines3, this notebook's hyperparameters, ε′ = 0.7",
        "sb3_same",
        epsilon=0.7,
    ),
]
RULE = [Row("a rule written by hand", range(1), "rule", steps=250)]

TABLES = {
    "contest": CONTEST,
    "own length": OWN_LENGTH,
    "elsewhere": ELSEWHERE,
    "single": SINGLE,
    "together": TOGETHER,
    "dose": DOSE,
    "taken": TAKEN,
    "acrobot": OTHERS,
    "rule": RULE,
}


def all_rows():
    """Return all rows by their labels; what has the same label is the same row."""
    rows = {}
    for table in TABLES.values():
        for row in table:
            assert rows.setdefault(row.label, row) == row, row.label
    return rows


def shortened(row, steps=1_500):
    """Return the row for a quick look: one seed, few steps."""
    every = min(row.every, steps // 4)
    few = row.seeds[:1]
    return replace(row, seeds=few, steps=min(row.steps, steps), every=every, far=500)
