"""Checks of the parameters, so that a wrong one is found before training."""

import numbers

ONE_TO_BILLION = (1, 1_000_000_000)
RANGES = {  # the whole numbers; every other number is a fraction from 0 to 1
    "SEED": (0, 999_999_999),  # below the seeds of all starts
    "MAX_STEPS": ONE_TO_BILLION,
    "EVAL_EVERY": ONE_TO_BILLION,
    "BATCH_SIZE": (1, 10_000_000),
    "EPS_DECAY": ONE_TO_BILLION,
    "MEMORY_SIZE": (1, 10_000_000),
    "N_STEPS": (1, 1_000),
    "COMPARE_SEEDS": (0, 1_000),
}
TRACKING = ("none", "mlflow")
DEVICES = ("auto", "cpu", "cuda")


def found(name, value):
    """Return how a message begins that refuses a parameter."""
    return f"{name} = {value!r} ({type(value).__name__}): it must be"


def checked(name, value):
    """Return a number as an int or a float; ValueError unless it is in its range."""
    kind = int if name in RANGES else float
    low, high = RANGES.get(name, (0, 1))
    is_number = isinstance(value, numbers.Real)
    if is_number and low <= value <= high and value == kind(value):
        return kind(value)
    raise ValueError(f"{found(name, value)} {kind.__name__} from {low:,} to {high:,}")


def checked_settings(values):
    """Return the hyperparameters, name → number; ValueError if one cannot be used."""
    values = {name: checked(name, value) for name, value in values.items()}
    batch_size, memory_size = values["BATCH_SIZE"], values["MEMORY_SIZE"]
    if batch_size > memory_size:
        limit = f"at most MEMORY_SIZE = {memory_size}"
        raise ValueError(f"{found('BATCH_SIZE', batch_size)} {limit}")
    return values


def checked_options(mirror, compare_seeds, tracking, device):
    """Return COMPARE_SEEDS and TRACKING; ValueError if an option cannot be used."""
    tracking = tracking or "none"  # YAML reads a bare `off` as False
    if not isinstance(mirror, bool):  # one of NumPy could not be loaded again
        raise ValueError(f"{found('MIRROR', mirror)} True or False")
    if tracking not in TRACKING:
        raise ValueError(f"{found('TRACKING', tracking)} one of {TRACKING}")
    if device not in DEVICES:
        raise ValueError(f"{found('DEVICE', device)} one of {DEVICES}")
    return checked("COMPARE_SEEDS", compare_seeds), tracking


def check_task(env_id, threshold, observation, n_actions):
    """Raise ValueError unless the lesson's agent can be trained on an environment.

    threshold: the mean score that counts as a pass. observation: a first one.
    n_actions: the number of discrete actions, None where there are none.
    """
    if threshold is None:
        raise ValueError(f"{env_id} has no threshold at which an evaluation passes")
    if n_actions is None:
        raise ValueError(f"{env_id} has no discrete actions, which DQN needs")
    shape = getattr(observation, "shape", ())
    if len(shape) != 1:
        raise ValueError(f"{env_id} observes an array {shape}, not a vector")
