"""Give the committed notebook the outputs of a run: python tools/refresh_notebook.py RUN FOLDER"""

import base64
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat

from load_definitions import NOTEBOOK, ROOT


def code_hash(cells):
    """Return a hash of all code cells, which shows that outputs belong to them."""
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def joined(outputs):
    """Return outputs with printed text in one piece where the kernel sent it in several."""
    whole = []
    for output in outputs:
        if whole and output.get("name", 1) == whole[-1].get("name", 2):
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def attachments(source, folder):
    """Return the pictures that a Markdown cell shows as attachments, read from `folder`."""
    names = re.findall(r"\]\(attachment:([^)]+)\)", source)
    pictures = {name: base64.b64encode((folder / name).read_bytes()) for name in names}
    return {name: {"image/png": data.decode()} for name, data in pictures.items()}


def refresh(executed, folder):
    """Give the committed notebook the outputs of `executed` and the pictures in `folder`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run = nbformat.read(executed, as_version=4).cells
    if code_hash(run) != code_hash(notebook.cells):
        sys.exit(f"{executed} was not executed from the present {NOTEBOOK.relative_to(ROOT)}")
    for cell, done in zip(notebook.cells, run, strict=True):
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = joined(done.outputs), done.execution_count
        elif found := attachments(cell.source, folder):
            cell.attachments = found
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "outputs_of_code": code_hash(notebook.cells),
    }
    nbformat.write(notebook, NOTEBOOK)
    for name in ("agent.png", "collapse_and_cure.png"):  # for the README
        shutil.copyfile(folder / name, ROOT / "images" / name)


if __name__ == "__main__":
    refresh(Path(sys.argv[1]), Path(sys.argv[2]))
