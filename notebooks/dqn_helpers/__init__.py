"""Helpers of the lesson: what only draws, plays, formats, checks and saves.

They know neither torch nor gym nor anything of the lesson; they take plain numbers,
arrays and functions. To be imported they need the standard library and IPython alone.
"""

from .cart import film, live_cart, preview
from .drawings import draw_algorithm, draw_cart_and_agent
from .figures import (
    mean_of_last_100,
    new_figure,
    picture,
    plot_answers,
    plot_endings,
    plot_evaluations,
    plot_maps,
    plot_seeds,
    table,
    verdict,
)
from .files import (
    connect_to_mlflow,
    log_to_mlflow,
    made_with,
    metrics_of,
    results_folder,
    save_run,
)
from .parameters import check_options, check_settings, check_task

__all__ = [
    "check_options",
    "check_settings",
    "check_task",
    "connect_to_mlflow",
    "draw_algorithm",
    "draw_cart_and_agent",
    "film",
    "live_cart",
    "log_to_mlflow",
    "made_with",
    "mean_of_last_100",
    "metrics_of",
    "new_figure",
    "picture",
    "plot_answers",
    "plot_endings",
    "plot_evaluations",
    "plot_maps",
    "plot_seeds",
    "preview",
    "results_folder",
    "save_run",
    "table",
    "verdict",
]
