"""Put the outputs of a run into the repository: its notebook, recording and pictures.

python -m tools.refresh_notebook EXECUTED_NOTEBOOK
"""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

from notebooks.dqn_helpers import cart
from tools.load_definitions import NOTEBOOK, ROOT, tags
from tools.recording import recording_of, side_by_side, two_curves

HELPERS = NOTEBOOK.parent / "dqn_helpers"
CODE = (".py", ".js", ".css", ".svg")  # of the helpers; the recording is no code
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


def code_hash(cells, helpers=HELPERS):
    """Return a hash of all code cells and helpers: to this code outputs belong."""
    sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    for path in sorted(helpers.rglob("*")):
        if path.suffix in CODE:
            sources.append(path.read_text(encoding="utf-8"))
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


def cart_data(output):
    """Return the data of a live cart, or nothing for other outputs."""
    markup = output.get("data", {}).get("text/html", "")
    found = BeautifulSoup(markup, "html.parser").select_one(".live-cart")
    return json.loads(found["data-cart"]) if found else {}


def recorded(run):
    """Return the recording of a run: the live cart that has two curves."""
    for cell in run.cells:
        if "parameters" in tags(cell):
            seed = re.search(r"^SEED = (\d+)", cell.source, re.M)[1]
        for output in cell.get("outputs", []):
            data = cart_data(output)
            if data.get("mode") == "curves" and len(data["curves"]) == 2:
                return recording_of(data, seed)
    sys.exit("no live cart of the run has two learning curves")


def still(output, recording):
    """Return an output as a picture where it has one: a live cart leaves its still.

    That of the preview is the new recording's.
    """
    is_preview = cart_data(output).get("mode") == "preview"
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("text/html", None)
    if is_preview:
        data.update({"image/png": recording["still"], "text/plain": recording["alt"]})
        output.metadata["image/png"] = {"alt": recording["alt"]}
    if "metadata" in output:
        metadata = output.metadata
        output.metadata = {kind: metadata[kind] for kind in data if kind in metadata}
    return output


def refresh(executed, notebook=NOTEBOOK, images=ROOT / "images"):
    """Give `notebook` the outputs of `executed`, the helpers its recording, and
    `images` the pictures of the README.

    Nothing is written if `executed` has other code than `notebook`.
    """
    node = nbformat.read(notebook, as_version=4)
    run = nbformat.read(executed, as_version=4)
    helpers = Path(notebook).parent / HELPERS.name
    code = code_hash(node.cells, helpers)
    if code_hash(run.cells, helpers) != code:
        sys.exit(f"{executed} was not executed from the present {notebook}")
    recording = recorded(run)
    for cell, done in zip(node.cells, run.cells, strict=True):
        cell.metadata = {"tags": tags(cell)} if tags(cell) else {}
        if cell.cell_type == "code":
            cell.outputs = [still(output, recording) for output in joined(done.outputs)]
            cell.execution_count = done.execution_count
    node.metadata = {**METADATA, "outputs_of_code": code}

    frames = {
        "agent.png": side_by_side(recording["cart"]),
        "collapse_and_cure.png": [two_curves(recording["cart"])],
    }
    for name, pictures in frames.items():
        (Path(images) / name).write_bytes(base64.b64decode(cart.png(pictures)))
    text = json.dumps(recording, indent=1, ensure_ascii=False)
    (helpers / cart.RECORDING.name).write_text(text + "\n", encoding="utf-8")
    nbformat.write(node, notebook)


if __name__ == "__main__":
    refresh(sys.argv[1])
