"""Configuration for nbconvert: execute, and say on the terminal what the notebook is doing."""

import sys
import time

from nbconvert.preprocessors import ExecutePreprocessor

INTERVAL = 5  # seconds between two lines about the same cell


class Announce(ExecutePreprocessor):
    """Executes a notebook; prints each new section, and what long cells say of their progress."""

    started, spoken = time.monotonic(), 0.0

    def say(self, text):
        """Print one line with the time since the beginning."""
        self.spoken = time.monotonic()
        print(f"{self.spoken - self.started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def preprocess_cell(self, cell, resources, index):
        """Announce a section, then execute the cell."""
        titles = [line for line in cell.source.splitlines() if line.startswith("#")]
        if cell.cell_type == "markdown" and titles:
            self.say(titles[-1].lstrip("# "))
        return super().preprocess_cell(cell, resources, index)

    def process_message(self, msg, cell, cell_index):
        """Take a message from the kernel; where it renews an output, print that now and then."""
        if msg["msg_type"] == "update_display_data":
            data = msg["content"]["data"]
            if time.monotonic() - self.spoken >= INTERVAL:
                self.say("   " + data.get("text/markdown", data.get("text/plain", "")))
        return super().process_message(msg, cell, cell_index)


c = get_config()  # noqa: F821
c.NotebookExporter.preprocessors = [Announce]
c.Announce.enabled = True
c.Announce.record_timing = False
