"""Checks of the parameters, so that a wrong one is found before training."""

from dataclasses import asdict, dataclass

ONE_TO_BILLION = (1, 1_000_000_000)
RANGES = {  # the whole numbers; every other number is a fraction from 0 to 1
    "SEED": (0, 999_999_999),  # below the seeds of all starts
    "MAX_STEPS": ONE_TO_BILLION,
    "EVAL_EVERY": ONE_TO_BILLION,
    "BATCH_SIZE": (1, 10_000_000),
    "EPS_DECAY": ONE_TO_BILLION,
    "MEMORY_SIZE": (1, 10_000_000),
    "COMPARE_SEEDS": (0, 1_000),
}
TRACKING = ("none", False, "mlflow")  # YAML reads a bare `off` as False
DEVICES = ("auto", "cpu", "cuda")


def refuse(name, value, wanted):
    """Raise ValueError with what was found and what is wanted."""
    raise ValueError(
        f"{name} = {value!r} ({type(value).__name__}): it must be {wanted}"
    )


def check_number(name, value):
    """Raise ValueError unless a parameter is a Python number in its range."""
    low, high = RANGES.get(name, (0, 1))
    kinds = (int,) if name in RANGES else (int, float)
    if type(value) not in kinds or not low <= value <= high:
        refuse(name, value, f"{kinds[-1].__name__} from {low:,} to {high:,}")


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of a training run; ValueError if one cannot be used."""

    SEED: int
    MAX_STEPS: int
    EVAL_EVERY: int
    BATCH_SIZE: int
    GAMMA: float
    EPS_START: float
    EPS_END: float
    EPS_DECAY: int
    TAU: float
    LR: float
    MEMORY_SIZE: int
    TARGET_EPSILON: float

    def __post_init__(self):
        for name, value in asdict(self).items():
            check_number(name, value)
        if self.BATCH_SIZE > self.MEMORY_SIZE:
            most = f"at most MEMORY_SIZE = {self.MEMORY_SIZE}"
            refuse("BATCH_SIZE", self.BATCH_SIZE, most)


def check_options(mirror, compare_seeds, tracking, device):
    """Raise ValueError unless the options of the parameters cell can be used."""
    check_number("COMPARE_SEEDS", compare_seeds)
    if not isinstance(mirror, bool):
        refuse("MIRROR", mirror, "True or False")
    if tracking not in TRACKING:
        refuse("TRACKING", tracking, '"none" or "mlflow"')
    if device not in DEVICES:
        refuse("DEVICE", device, f"one of {DEVICES}")


def check_gym(version):
    """Raise ImportError unless the lesson runs with a version of gym."""
    if not version.startswith(("0.25.", "0.26.")):
        raise ImportError(
            f"gym is {version}: run %pip install gym==0.26.2, restart the kernel"
        )


def check_task(env, observation):
    """Raise ValueError unless the lesson's agent can be trained on an environment.

    observation: the first one of an episode.
    """
    name = env.spec.id
    if env.spec.reward_threshold is None:
        raise ValueError(f"{name} has no threshold at which an evaluation passes")
    if not hasattr(env.action_space, "n"):
        raise ValueError(f"{name} has no discrete actions, which DQN needs")
    shape = getattr(observation, "shape", ())
    if len(shape) != 1:
        raise ValueError(f"{name} observes an array {shape}, not a vector")
