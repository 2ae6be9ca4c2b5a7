"""Load what the notebook defines, so that nothing repeats its code."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "dqn_cartpole.ipynb"


def cells(path=NOTEBOOK):
    """Return a notebook's cells, each with its source as one string."""
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]


def tags(cell):
    """Return a cell's tags."""
    return cell["metadata"].get("tags", [])


def load(path=NOTEBOOK, **parameters):
    """Return all names that the notebook defines.

    The cells tagged `parameters` and `definition` run, whole and in order, and no
    others. `parameters` replace those of the parameters cell. What the cells print is
    dropped.
    """
    names = {"__name__": "lesson"}
    with contextlib.redirect_stdout(io.StringIO()):
        for index, cell in enumerate(cells(path)):
            if "parameters" in tags(cell):
                before = set(names)
                run(cell, index, names)
                unknown = set(parameters) - (set(names) - before)
                if unknown:
                    listed = ", ".join(sorted(unknown))
                    raise ValueError(f"no such parameter: {listed}")
                names.update(parameters)
            elif "definition" in tags(cell):
                run(cell, index, names)
    return SimpleNamespace(**names)


def run(cell, index, names):
    """Run a cell among `names`; a traceback tells which cell it was."""
    exec(compile(cell["source"], f"<cell {index}>", "exec"), names)
