"""Put the outputs and pictures of a run into the repository.

python -m tools.refresh_notebook EXECUTED_NOTEBOOK FOLDER_OF_PICTURES
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import nbformat

from tools.load_definitions import NOTEBOOK, ROOT

PICTURES = ("agent.png", "collapse_and_cure.png")  # the README shows them
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {  # without a version, which would change with the machine
        "name": "python",
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}


def code_hash(cells):
    """Return a hash of all code cells; it shows to which code outputs belong."""
    sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def joined(outputs):
    """Return outputs with printed text in one piece where the kernel sent several."""
    whole = []
    for output in outputs:
        is_text = output.output_type == "stream"
        if is_text and whole and whole[-1].get("name") == output.name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def kept(metadata):
    """Return of a cell's metadata its tags, and whether it is folded."""
    clean = {name: metadata[name] for name in ("tags", "cellView") if name in metadata}
    if metadata.get("jupyter", {}).get("source_hidden"):
        clean["jupyter"] = {"source_hidden": True}
    return clean


def still(output):
    """Return an output as a picture where it has one: a live cart leaves its still."""
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("text/html", None)
    if "metadata" in output:
        metadata = output.metadata
        output.metadata = {kind: metadata[kind] for kind in data if kind in metadata}
    return output


def refresh(executed, folder, notebook=NOTEBOOK, images=ROOT / "images"):
    """Give `notebook` the outputs of `executed`, and `images` the pictures of the run.

    Nothing is written if `executed` has other code than `notebook`.
    """
    node = nbformat.read(notebook, as_version=4)
    run = nbformat.read(executed, as_version=4)
    if code_hash(run.cells) != code_hash(node.cells):
        sys.exit(f"{executed} was not executed from the present {notebook}")
    for cell, done in zip(node.cells, run.cells, strict=True):
        cell.metadata = kept(cell.metadata)
        if cell.cell_type == "code":
            cell.outputs = [still(output) for output in joined(done.outputs)]
            cell.execution_count = done.execution_count
    node.metadata = {**METADATA, "outputs_of_code": code_hash(node.cells)}
    for name in PICTURES:  # first, so that a missing one leaves the notebook as it was
        shutil.copyfile(Path(folder) / name, Path(images) / name)
    nbformat.write(node, notebook)


if __name__ == "__main__":
    refresh(sys.argv[1], sys.argv[2])
