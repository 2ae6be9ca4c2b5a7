"""Load the lesson's own definitions from the notebook, so that nothing repeats its code."""

import ast
import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "dqn_cartpole.ipynb"


def cells(path=NOTEBOOK):
    """Return the notebook's cells; each has its source as one string."""
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]


def tags(cell):
    """Return a cell's tags."""
    return cell["metadata"].get("tags", [])


def _no_display(*_, **__):
    """Stand for `display`: show nothing."""
    return SimpleNamespace(update=_no_display)


DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def load(path=NOTEBOOK, **parameters):
    """Return the names that the notebook defines.

    Cells tagged `parameters` or `definition` run whole; of the others (but for exercises) only the
    imports, functions and classes are taken. `parameters` replace those of the parameters cell.
    What the cells print or show is dropped.
    """
    names = {"__name__": "lesson"}
    with contextlib.redirect_stdout(io.StringIO()):
        for index, cell in enumerate(cells(path)):
            if cell["cell_type"] != "code" or "exercise" in tags(cell):
                continue
            tree, before = ast.parse(cell["source"]), set(names)
            if not {"parameters", "definition"} & set(tags(cell)):
                tree.body = [node for node in tree.body if isinstance(node, DEFINITIONS)]
            exec(compile(tree, f"<{path}, cell {index}>", "exec"), names)
            names["display"] = _no_display  # the imports bring the real one
            if "parameters" in tags(cell):
                if unknown := set(parameters) - (set(names) - before):
                    raise ValueError(f"no such parameter: {', '.join(sorted(unknown))}")
                names.update(parameters)
    return SimpleNamespace(**names)
