"""Put the outputs of an executed notebook into the committed one, and its pictures into images/.

Usage: python tools/refresh_notebook.py EXECUTED_NOTEBOOK OUTPUT_FOLDER
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import nbformat

from lesson import NOTEBOOK, ROOT

CLEAN_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def code_hash(notebook):
    """Return a hash of all code cells, by which outputs are known to belong to them."""
    sources = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(["".join(source) for source in sources]).encode()).hexdigest()


def joined(outputs):
    """Return outputs with printed text in one piece where the kernel sent it in several."""
    whole = []
    for output in outputs:
        previous = whole[-1] if whole else {}
        if output.get("name") and output.get("name") == previous.get("name"):
            previous.text += output.text
        else:
            whole.append(output)
    return whole


def refresh(executed, outputs):
    """Write the executed notebook over the committed one, with clean metadata."""
    new = nbformat.read(executed, as_version=4)
    if code_hash(new) != code_hash(nbformat.read(NOTEBOOK, as_version=4)):
        sys.exit(f"{executed} was not executed from the present {NOTEBOOK.relative_to(ROOT)}")
    for cell in new.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
    new.metadata = {**CLEAN_METADATA, "outputs_of_code": code_hash(new)}
    nbformat.write(new, NOTEBOOK)
    for name in ("agent.png", "learning_curve.png"):
        shutil.copyfile(outputs / name, ROOT / "images" / name)


if __name__ == "__main__":
    refresh(Path(sys.argv[1]), Path(sys.argv[2]))
