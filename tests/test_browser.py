"""The notebook in JupyterLab, in a real browser: run, watched, interrupted, cleared, restarted."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from browser import chromium
from conftest import user_folder

import lesson as loader

pytestmark = pytest.mark.run

LONG = 300_000  # milliseconds; waits end as soon as what they wait for is there
KERNEL = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
COUNT_PICTURES = """index => {
  const cell = jupyterapp.shell.currentWidget.content.widgets[index];
  const images = cell.node.getElementsByTagName('img');
  const old = images[0]?.src;  // of an earlier run
  const seen = window.seen = {sources: [], heights: [], most: 0, gaps: 0};
  const look = () => {
    const last = images[images.length - 1];
    const shown = last?.complete && last.naturalWidth && last.src;
    seen.most = Math.max(seen.most, images.length);
    seen.gaps += seen.sources.length && !last ? 1 : 0;
    if (shown && shown !== old && shown !== seen.sources.at(-1)) {
      seen.sources.push(shown);
      seen.heights.push(cell.node.querySelector('.jp-OutputArea').offsetHeight);
    }
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab without a user's settings, on this machine alone; its address and folder."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1"]
    options += [f"--port={port}", "--ServerApp.port_retries=0", "--LabApp.news_url=None"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    own = {f"JUPYTER_{kind}_DIR": str(folder / ".own" / kind) for kind in ("CONFIG", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(address, process, folder / "server.log")
        yield address, folder
    finally:
        process.terminate()
        process.wait(30)


def wait_for_server(address, process, log):
    """Return when the server answers; fail with its log where it does not."""
    for _ in range(600):
        try:
            return urllib.request.urlopen(f"{address}/api", timeout=10)
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    pytest.fail(log.read_text())


class Book:
    """The notebook, open in JupyterLab. Cells are named by their index."""

    def __init__(self, page, address):
        self.page, self.address, self.errors, self.requests = page, address, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(f"{address}/lab/tree/notebooks/{loader.NOTEBOOK.name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(f"{KERNEL} === 'idle'")
        self.training = self.only_cell_with("live_plot = LivePlot(")
        self.make_run = self.only_cell_with("run = make_run(settings, device)\n")
        self.facts = self.only_cell_with("live_plot.updates")

    def only_cell_with(self, code):
        """The one code cell that contains `code`."""
        cells = enumerate(self.cells())
        (found,) = [i for i, c in cells if c["cell_type"] == "code" and code in c["source"]]
        return found

    def cells(self):
        """All cells with their outputs, as they would be saved."""
        return self.page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")

    def start(self, command):
        """Start a command of JupyterLab."""
        self.page.evaluate(
            """command => {
              window.ended = false;
              jupyterapp.commands.execute(command).finally(() => { window.ended = true; });
            }""",
            command,
        )

    def finish(self):
        """Wait until what was started has ended and the kernel is idle."""
        self.page.wait_for_function(f"window.ended && {KERNEL} === 'idle'")

    def select(self, index):
        """Make a cell the active one and show it."""
        self.page.evaluate(
            """async index => {
              const content = jupyterapp.shell.currentWidget.content;
              content.activeCellIndex = index;
              await content.scrollToItem(index, 'start');
            }""",
            index,
        )

    def run(self, *indices):
        """Run cells, one after the other, to their ends."""
        for index in indices:
            self.select(index)
            self.start("notebook:run-cell")
            self.finish()

    def start_training(self):
        """Start a fresh training; return at its third picture."""
        self.run(self.make_run)
        self.select(self.training)
        self.page.evaluate(COUNT_PICTURES, self.training)
        self.start("notebook:run-cell")
        self.page.wait_for_function("window.seen.sources.length >= 3")

    def outputs(self, index):
        """The outputs of a cell."""
        return self.cells()[index]["outputs"]

    def figures(self):
        """The pictures that are to be seen below the training cell."""
        cell = self.page.locator(".jp-Notebook .jp-Cell").nth(self.training)
        return cell.locator(".jp-OutputArea img")

    def facts_of_run(self):
        """The table of what the run has reached so far."""
        self.run(self.facts)
        return str(self.outputs(self.facts))

    def check_that_all_ran(self):
        """Every code cell has run, in order, and none of them complains."""
        cells = [cell for cell in self.cells() if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        for cell in cells:
            kinds = [output.get("name", output["output_type"]) for output in cell["outputs"]]
            assert not {"error", "stderr"} & set(kinds), cell["source"]

    def check_the_figure(self):
        """The training cell shows one finished figure, and nothing else."""
        assert self.figures().count() == 1
        assert [o["output_type"] for o in self.outputs(self.training)] == ["display_data"]


@pytest.fixture(scope="module")
def book(server):
    """The notebook with a short training, all of it run once, with the training cell watched."""
    address, folder = server
    path = user_folder(folder, MAX_STEPS=3000, COMPARE_SEEDS=0, ABLATION_SEEDS=0, DEVICE="cpu")
    draw_more_often(path)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(LONG)
        book = Book(page, address)
        book.select(book.training)
        page.evaluate(COUNT_PICTURES, book.training)
        book.start("notebook:run-all-cells")
        book.finish()
        yield book


def draw_more_often(path):
    """Let the live plot take half of the time: a short run then has as many pictures as a long."""
    notebook = nbformat.read(path, as_version=4)
    found = [cell for cell in notebook.cells if "live_plot = " in cell.source]
    assert len(found) == 1 and found[0].source.count("LivePlot()") == 1
    found[0].source = found[0].source.replace("LivePlot()", "LivePlot(share=0.5)")
    nbformat.write(notebook, path)


def test_all_cells_run(book):
    book.check_that_all_ran()
    assert book.errors == []
    inside = f"{book.address}/", "data:", "blob:"
    assert [url for url in book.requests if not url.startswith(inside)] == []


def test_training_updates_one_figure_in_place(book):
    seen = book.page.evaluate("window.seen")
    print(len(seen["sources"]), "pictures of height", seen["heights"][0])
    assert len(seen["sources"]) >= 5
    assert seen["most"] == 1 and seen["gaps"] == 0
    assert set(seen["heights"]) == {seen["heights"][0]}, "the output must neither grow nor jump"
    book.check_the_figure()


def test_every_picture_has_an_alternative_text(book):
    texts = book.page.locator(".jp-OutputArea img").evaluate_all("all => all.map(i => i.alt)")
    assert len(texts) >= 6
    assert all(len(text) > 20 for text in texts)


def test_the_animation_plays(book):
    picture = book.page.locator(".jp-OutputArea img").last
    picture.scroll_into_view_if_needed()
    first_look = picture.screenshot()
    assert any(picture.screenshot() != first_look for _ in range(100))


def test_training_twice_leaves_one_figure(book):
    for _ in range(2):
        book.start_training()
        book.finish()
        book.check_the_figure()
        assert "environment steps | 3,000 |" in book.facts_of_run()


def test_outputs_cleared_during_training(book):
    book.start_training()
    left = book.page.evaluate(
        """async () => {
          await jupyterapp.commands.execute('editmenu:clear-all');
          const cells = jupyterapp.shell.currentWidget.content.model.toJSON().cells;
          return cells.flatMap(cell => cell.outputs ?? []);
        }"""
    )
    assert left == [], "cleared while the cell runs"
    book.finish()
    assert all(output["output_type"] != "error" for output in book.outputs(book.training))
    assert "environment steps | 3,000 |" in book.facts_of_run()
    assert book.errors == []
    book.start_training()
    book.finish()
    book.check_the_figure()


def test_interrupted_training_goes_on(book):
    book.start_training()
    book.page.locator("[data-command='notebook:interrupt-kernel']").click()
    book.finish()
    figure, message = book.outputs(book.training)
    assert figure["output_type"] == "display_data" and book.figures().count() == 1
    assert message["output_type"] == "error"
    assert "Interrupted after step" in message["evalue"] and "To go on" in message["evalue"]
    assert len(message["traceback"]) <= 1
    shown = book.page.locator(".jp-Notebook .jp-Cell").nth(book.training).inner_text()
    assert "To go on" in shown and "Traceback" not in shown
    book.run(book.training)
    book.check_the_figure()
    assert "environment steps | 3,000 |" in book.facts_of_run()


def test_restart_and_run_all(book):
    book.start("notebook:restart-run-all")
    book.page.locator(".jp-Dialog .jp-mod-accept").click()
    book.finish()
    book.check_that_all_ran()
    book.check_the_figure()
