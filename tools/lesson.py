"""Load the lesson's own definitions from the notebook, so that nothing repeats its code."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "dqn_cartpole.ipynb"


def cells(path=NOTEBOOK):
    """Return the notebook's cells; each has its source as one string."""
    return [
        {**cell, "source": "".join(cell["source"])}
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]


def tags(cell):
    """Return a cell's tags."""
    return cell["metadata"].get("tags", [])


class _NoDisplay:
    """Stands for what `display` returns; updating it shows nothing."""

    def update(self, *_):
        """Show nothing."""


def _no_display(*_, **__):
    return _NoDisplay()


def load(path=NOTEBOOK, **parameters):
    """Run the cells tagged `parameters` or `definition` and return their names.

    `parameters` replace values of the parameters cell, as papermill would. What the cells print
    or display is dropped. Definition cells write nothing but the (empty) output folder.
    """
    names = {"__name__": "lesson"}
    with contextlib.redirect_stdout(io.StringIO()):
        for index, cell in enumerate(cells(path)):
            if cell["cell_type"] != "code" or not {"parameters", "definition"} & set(tags(cell)):
                continue
            exec(compile(cell["source"], f"{path.name}, cell {index}", "exec"), names)
            names["display"] = _no_display  # the imports bring the real one
            if "parameters" in tags(cell):
                unknown = set(parameters) - set(names)
                if unknown:
                    raise ValueError(f"no such parameter: {', '.join(sorted(unknown))}")
                names.update(parameters)
    return SimpleNamespace(**names)
