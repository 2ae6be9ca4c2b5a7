"""What several files of the benchmarks need."""

import functools
import json
import re
from pathlib import Path

from tools.load_definitions import load

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SETTINGS_FILE = HERE / "settings.json"
SETTINGS = json.loads(SETTINGS_FILE.read_text(encoding="utf-8"))
PASS = 475  # the mean at which an evaluation of CartPole passes


@functools.cache
def lesson():
    """Return the notebook's definitions, on the CPU."""
    return load(DEVICE="cpu")


def dumps(data):
    """Return data as JSON, what lies deep in it without line breaks."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    return re.sub(r"\n {4,}|\n {3}(?=[\]}])", " ", text) + "\n"


def read_lines(path):
    """Return the records of a file with one JSON object a line."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a run that was cut off
    return records


def add_line(path, record):
    """Add a record to such a file, on a line of its own."""
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(record))
