"""All rows that are measured, and the tables in which they stand."""

from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FIVE, TEN, TWENTY, HUNDRED = (range(n) for n in (5, 10, 20, 100))
OLD_TUTORIAL = {"lr": 1e-4, "eps_end": 0.05, "eps_decay": 1_000}
NEW_TUTORIAL = {"lr": 3e-4, "eps_end": 0.01, "eps_decay": 2_500}
ZOO_SETTINGS = {
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


@dataclass(frozen=True)
class Row:
    """What is trained, on which seeds, and how long.

    settings: the lesson's settings that are changed. options: an agent's own.
    targets, remember, loss: names of functions; with the lesson's agent.
    far: steps beyond the clock.
    """

    label: str
    seeds: range
    agent: str = "lesson"
    settings: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    targets: str = "td_targets"
    remember: str = "remember"
    loss: str = "smooth_l1_loss"
    env_id: str = "CartPole-v1"
    scale: tuple | None = None
    steps: int = 10_000
    every: int = 250
    far: int = 5_000


def plain(label, seeds=TWENTY, **changes):
    """Return a row of plain DQN with some changes."""
    return Row(label, seeds, **changes)


def careful(label, seeds=TWENTY, **changes):
    """Return a row with the careful target and some changes."""
    return Row(label, seeds, **{"targets": "careful_targets", **changes})


def n_steps(label, n, seeds=TWENTY, **changes):
    """Return a row with n-step returns and some changes."""
    return Row(label, seeds, "n_step", **{"options": {"n": n}, **changes})


PLAIN = plain("plain DQN", HUNDRED)
CAREFUL = careful("careful target", HUNDRED)
FINAL = careful("final agent", HUNDRED, remember="remember_mirrored")
OURS = [PLAIN, CAREFUL, FINAL]
KEPT = {row.label for row in OURS}  # their networks are kept for the exchange
RULE = Row("rule by hand", range(1), "rule", steps=250)

VARIANTS = []
UNSCALED = (1.0, 1.0, 1.0, 1.0)
for value in (0.3, 0.5, 1.0):
    changes = {"settings": {"TARGET_EPSILON": value}}
    VARIANTS.append(careful(f"careful target, ε′ = {value}", **changes))
VARIANTS += [
    careful("careful target, inputs not scaled", scale=UNSCALED),
    plain("plain DQN, inputs not scaled", scale=UNSCALED),
    plain("mirror alone", TEN, remember="remember_mirrored"),
    n_steps("5-step returns", 5, TEN),
    n_steps("10-step returns", 10, TEN),
    n_steps("10-step returns, mirror", 10, remember="remember_mirrored"),
    n_steps(
        "5-step returns, ε′ = 0.5, mirror",
        5,
        settings={"TARGET_EPSILON": 0.5},
        targets="careful_targets",
        remember="remember_mirrored",
    ),
    plain("Double DQN", TEN, agent="double", targets=""),
    plain("squared error", TEN, loss="mse_loss"),
]

NO_TARGET_NETWORK = {"TAU": 1.0}
RUNAWAY = []
for agent in (plain, careful):
    for loss, name in (("smooth_l1_loss", "Huber loss"), ("mse_loss", "squared error")):
        label = f"{agent.__name__}, τ = 1, {name}"
        RUNAWAY.append(agent(label, FIVE, settings=NO_TARGET_NETWORK, loss=loss))


def parts(label, loss="smooth_l1_loss", **settings):
    """Return a row of the careful agent with parts taken away, for 2,000 steps."""
    return careful(label, TEN, settings=settings, loss=loss, steps=2_000)


PARTS = [
    parts("whole"),
    parts("the latest step alone", MEMORY_SIZE=1, BATCH_SIZE=1),
    parts("one step at a time, drawn from all", BATCH_SIZE=1),
    parts("the latest 128, in batches of 128", MEMORY_SIZE=128, BATCH_SIZE=128),
    parts("no target network", **NO_TARGET_NETWORK),
    parts("no target network, squared error", "mse_loss", **NO_TARGET_NETWORK),
    parts("target network, squared error", "mse_loss"),
]

ACROBOT = []
for value in (0.0, 0.7):
    row = careful(
        f"Acrobot, ε′ = {value}",
        TEN,
        settings={"TARGET_EPSILON": value},
        env_id="Acrobot-v1",
        scale=(1.0, 1.0, 1.0, 1.0, 6.0, 12.0),
        steps=20_000,
        every=1_000,
    )
    ACROBOT.append(row)


def contestant(label, agent, **options):
    """Return a row of somebody else's code or settings, with the common budget."""
    return Row(label, TEN, agent, {}, options, "", "", steps=50_000)


TUTORIAL = "PyTorch tutorial, today's settings"
ZOO = "Stable-Baselines3, the zoo's settings"
SAME = "Stable-Baselines3, the notebook's hyperparameters"
CONTEST = [
    replace(FINAL, label="final agent, 50,000 steps", seeds=TEN, steps=50_000),
    replace(PLAIN, label="plain DQN, 50,000 steps", seeds=TEN, steps=50_000),
    contestant("PyTorch tutorial, older settings", "tutorial", **OLD_TUTORIAL),
    contestant(TUTORIAL, "tutorial", **NEW_TUTORIAL),
    contestant(ZOO, "sb3", **ZOO_SETTINGS),
    contestant(SAME, "sb3_same"),
    contestant("SBX (JAX), the zoo's settings", "sbx", **ZOO_SETTINGS),
]
CLEANRL = replace(
    contestant("CleanRL's settings, 500,000 steps", "cleanrl"),
    steps=500_000,
    every=2_500,
)
N_STEPS = contestant(f"{SAME}, its 5-step returns", "sb3_same", n_steps=5)
ELSEWHERE = []
for row in [*CONTEST[3:6], CLEANRL]:
    options = {**row.options, "epsilon": 0.7}
    ELSEWHERE.append(replace(row, label=f"{row.label}, ε′ = 0.7", options=options))

TABLES = {
    "agents": [*OURS, RULE],
    "others": [*CONTEST, CLEANRL, N_STEPS, *ELSEWHERE],
    "variants": VARIANTS,
    "parts": [*PARTS, *RUNAWAY],
    "acrobot": ACROBOT,
}


def all_rows():
    """Return all rows by their labels."""
    return {row.label: row for rows in TABLES.values() for row in rows}


def shortened(row, steps=1_500):
    """Return the row for a quick look: one seed, few steps."""
    every = min(row.every, steps // 4)
    few = row.seeds[:1]
    return replace(row, seeds=few, steps=min(row.steps, steps), every=every, far=500)
