"""A real kernel that runs the notebook's cells in any order."""

import queue
import re
from types import SimpleNamespace

from jupyter_client.manager import start_new_kernel

import lesson as loader


class Kernel:
    """A running kernel; `execute` runs source, `cell` runs a cell of the notebook by its index.

    `parameters` replace the values of the parameters cell.
    """

    def __init__(self, folder, **parameters):
        self.cells = loader.cells()
        self.parameters = "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    @property
    def code(self):
        """The indices of the code cells."""
        return [i for i, cell in enumerate(self.cells) if cell["cell_type"] == "code"]

    def find(self, text):
        """Return the index of the one code cell that holds `text`."""
        (index,) = [i for i in self.code if text in self.cells[i]["source"]]
        return index

    def cell(self, index):
        """Run a cell of the notebook; see `execute`."""
        cell = self.cells[index]
        extra = self.parameters if "parameters" in loader.tags(cell) else ""
        return self.execute(cell["source"] + extra)

    def start(self, source):
        """Send source to the kernel, as a notebook would; return the message's id."""
        return self.client.execute(source, allow_stdin=True, stop_on_error=False)

    def execute(self, source):
        """Run source; return its error (name and message, or None), printed text and pictures."""
        return self.finish(self.start(source))

    def answers(self, channel, message):
        """Yield (kind, content) of what comes on a channel in answer to a message."""
        while True:
            try:
                answer = channel(timeout=300)
            except queue.Empty:
                raise AssertionError("the kernel does not answer") from None
            if answer["parent_header"].get("msg_id") == message:
                yield answer["msg_type"], answer["content"]

    def finish(self, message):
        """Wait for the end of what `start` sent; return what it has put out.

        Like every notebook program it waits for the reply as well, before anything else is sent:
        a kernel may overlook what arrives while it is still about to reply.
        """
        found = SimpleNamespace(error=None, text="", pictures=0)
        for kind, content in self.answers(self.client.get_iopub_msg, message):
            if kind == "error":
                found.error = f"{content['ename']}: {content['evalue']}"
                found.traceback = content["traceback"]
            elif kind == "stream":
                found.text += content["text"]
            elif kind in ("display_data", "update_display_data", "execute_result"):
                found.pictures += "image/png" in content["data"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        next(self.answers(self.client.get_shell_msg, message))
        found.text = re.sub(r"\x1b\[[0-9;]*m", "", found.text)
        return found

    def run_to_the_end(self):
        """Run all cells from top to bottom; every one must succeed."""
        for index in self.code:
            found = self.cell(index)
            assert found.error is None, f"{self.cells[index]['source'][:60]}: {found.error}"
