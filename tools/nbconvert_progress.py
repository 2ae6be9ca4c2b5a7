"""Configuration for nbconvert: say on the terminal which part of the notebook is running."""

import sys
import time

started = time.monotonic()
heading = "the beginning"


def announce(cell, cell_index, **_):
    """Print a line when a new section begins."""
    global heading
    titles = [line for line in cell.source.splitlines() if line.startswith("#")]
    if cell.cell_type == "markdown" and titles:
        heading = titles[-1].lstrip("# ")
        print(f"{time.monotonic() - started:5.0f} s  {heading}", file=sys.stderr, flush=True)


c = get_config()  # noqa: F821
c.ExecutePreprocessor.on_cell_start = announce
c.ExecutePreprocessor.record_timing = False
c.ExecutePreprocessor.coalesce_streams = True
