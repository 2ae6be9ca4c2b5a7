"""Checks of the parameters, so that a wrong one is found before training."""

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


def check_settings(settings):
    """Raise ValueError unless all hyperparameters, name → number, can be used."""
    for name, value in settings.items():
        check_number(name, value)
    batch_size, memory_size = settings["BATCH_SIZE"], settings["MEMORY_SIZE"]
    if batch_size > memory_size:
        refuse("BATCH_SIZE", batch_size, f"at most MEMORY_SIZE = {memory_size}")


def check_options(mirror, compare_seeds, tracking, device):
    """Raise ValueError unless the options of the parameters cell can be used."""
    check_number("COMPARE_SEEDS", compare_seeds)
    if not isinstance(mirror, bool):
        refuse("MIRROR", mirror, "True or False")
    if tracking not in TRACKING:
        refuse("TRACKING", tracking, '"none" or "mlflow"')
    if device not in DEVICES:
        refuse("DEVICE", device, f"one of {DEVICES}")


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
