"""The live cart: gym's physics, torch's answers, everybody's keys."""

import base64
import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import playwright
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from notebooks.dqn_helpers import cart
from tests.helpers import made_up
from tools.load_definitions import ROOT
from tools.recording import decoded, dots_of

SCRIPT = ROOT / "notebooks" / "dqn_helpers" / "live_cart.js"
NODE = Path(playwright.__file__).with_name("driver") / (
    "node.exe" if sys.platform == "win32" else "node"
)


def in_node(function, *values):
    """What a JavaScript function of the cart's names and `values` returns."""
    program = f"""
      const names = require({json.dumps(str(SCRIPT))});
      const values = JSON.parse(require("fs").readFileSync(0));
      console.log(JSON.stringify(({function})(names, ...values)));"""
    command = [NODE, "-e", program]
    text = json.dumps(values)
    done = subprocess.run(
        command, input=text, capture_output=True, check=True, encoding="utf-8"
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def recorded():
    """The cart of the recording."""
    return json.loads(cart.RECORDING.read_text(encoding="utf-8"))["cart"]


# ---------- without a browser ----------

PLAY = """({ Game }, starts, sides) => starts.map((start) => {
  const game = new Game();
  game.state = start;
  return sides.map((side) => {
    game.push({ part: "cart", side });
    game.step();
    return [game.state, game.ending];
  });
})"""


@pytest.mark.filterwarnings("ignore:.*You are calling 'step")
def test_its_physics_are_those_of_gym(lesson):
    env, rng = lesson.make_env("CartPole-v1").unwrapped, np.random.default_rng(0)
    starts = (rng.uniform(-1, 1, (10, 4)) * [2.3, 2.0, 0.15, 1.0]).tolist()
    sides = rng.choice([-1, 1], 200).tolist()
    endings = set()
    for start, played in zip(starts, in_node(PLAY, starts, sides), strict=True):
        lesson.reset_env(env)
        env.state = start
        for side, (state, ending) in zip(sides, played, strict=True):
            over = env.step(int(side == 1))[2]
            assert state == pytest.approx(env.state, abs=1e-5)
            assert bool(ending) == over
            endings.add(ending)
    assert endings == {"", "The cart left the track.", "The pole fell."}


def tensors_of(arrays):
    """The state of a network of torch."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


ANSWERS = """({ driversOf, qValues, preference }, data, states) =>
  driversOf(data).map((driver) => states.map((state) =>
    driver.rule ? preference(driver, state) : Array.from(qValues(driver.network, state))
  ))"""


def test_its_drivers_answer_as_torch_does(lesson, recorded):
    torch.manual_seed(0)
    trained = lesson.DQN(4, 2, [1.0] * 4)
    weights = decoded(dots_of(recorded["curves"][0])[-1]["network"])
    trained.load_state_dict(tensors_of(weights))
    narrow = lesson.DQN(4, 2, [1.0, 2.0, 3.0, 4.0])
    narrow.layer1, narrow.layer2 = torch.nn.Linear(4, 5), torch.nn.Linear(5, 7)
    narrow.layer3 = torch.nn.Linear(7, 2)
    rule = [1, -2, 3, -4]
    drivers = {"t": trained, "n": narrow, "r": rule}
    states = torch.rand(100, 4) * 2 - 1
    answers = in_node(ANSWERS, cart.live_cart(drivers).data, states.tolist())
    for net, values in zip((trained, narrow), answers, strict=False):
        expected = net(states).detach().numpy()
        np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(answers[2], states.numpy() @ rule, atol=1e-5)


PUSH = """({ Game, PUSHES }) => PUSHES.map((way) => {
  const disturbed = new Game();
  disturbed.driver = { rule: [0, 0, 1, 1] };
  const before = disturbed.state;
  disturbed.push(way);
  const driven = new Game();
  driven.push(way);
  return [way.key, way.text, disturbed.state.map((v, i) => v - before[i]), driven.side];
})"""


def test_each_push_goes_where_its_arrow_points():
    found = {key: (text, moved, side) for key, text, moved, side in in_node(PUSH)}
    for shift, number in (("", 1), ("Shift+", 3)):
        for key, arrow, side in (("ArrowLeft", "←", -1), ("ArrowRight", "→", 1)):
            text, moved, driven = found.pop(shift + key)
            expected = [0, 0, 0, 0]
            expected[number] = 0.25 * side
            assert arrow in text and driven == side
            assert moved == pytest.approx(expected)
    assert not found


LABELS = """({ driversOf, nameOf, qValues }, data) => driversOf(data).map((driver) =>
  [nameOf(driver), driver.mean, qValues(driver.network, [0, 0, 0, 0])[1]])"""


def test_each_label_belongs_to_its_network(lesson):
    torch.manual_seed(0)
    run = made_up(*torch.randperm(40).tolist())
    means = [evaluation.mean for evaluation in run.evaluations]
    for place, evaluation in enumerate(run.evaluations):
        evaluation.network = lesson.DQN(4, 2, lesson.SCALE)
        with torch.no_grad():
            for parameter in evaluation.network.parameters():
                parameter.zero_()
            evaluation.network.layer3.bias[1] = place
    drivers = in_node(LABELS, cart.live_cart(curves={"a run": run}).data)
    assert 18 <= len(drivers) <= 22
    for label, mean, value in drivers:
        place = round(value)
        assert label == f"a run after {100 * (place + 1):,} steps of training"
        assert mean == means[place]
    best = means.index(39)
    assert {39, means[best + 1], min(means[best:])} <= {mean for _, mean, _ in drivers}


def test_the_lines_of_the_preview_are_those_of_the_lesson(lesson, recorded):
    next_q = torch.randn(8, 2)
    nothing = torch.zeros(8)
    batch = lesson.Transition(None, None, nothing, None, torch.zeros(8, dtype=bool))
    settings = lesson.replace(lesson.settings, GAMMA=1)
    for line, targets in zip(
        recorded["lines"], (lesson.td_targets, lesson.careful_targets), strict=True
    ):
        names = {"next_q": next_q}
        exec(line, names)
        expected = targets(batch, None, lambda _: next_q, settings)
        torch.testing.assert_close(names["next_value"], expected)


BALANCE = """({ Game, driversOf }, data, starts) => driversOf(data).map((driver) =>
  starts.map((start) => {
    const game = new Game();
    game.driver = driver;
    game.state = start;
    while (!game.ending) game.step();
    return game.steps;
  }))"""


def test_the_recorded_networks_score_what_the_recorded_curve_says(lesson, recorded):
    env = lesson.make_env("CartPole-v1")
    starts = [lesson.reset_env(env, s).tolist() for s in lesson.VALIDATION_STARTS]
    plain = recorded["curves"][0]
    scores = np.array(in_node(BALANCE, {"curves": [plain]}, starts))
    means = np.array([dot["mean"] for dot in dots_of(plain)])
    np.testing.assert_allclose(scores.mean(axis=1), means, atol=25)
    best = means.argmax()
    lowest = scores[best + means[best:].argmin()]
    assert max(lowest) < 500, "the reader sees no game end"


def test_the_first_picture_of_the_notebook_is_the_recording(committed):
    recording = json.loads(cart.RECORDING.read_text(encoding="utf-8"))
    outputs = [out for cell in committed.cells for out in cell.get("outputs", [])]
    data = next(output.data for output in outputs if "data" in output)
    assert data["image/png"].strip() == recording["still"].strip()


def test_what_moves_by_itself_stops_within_five_seconds():
    film = cart.film(np.zeros((501, 4)) + np.linspace(0, 1, 501)[:, None], "a film")
    for still in (film.still, cart.preview().still):
        picture = Image.open(io.BytesIO(base64.b64decode(still)))
        total = 0
        for frame in range(picture.n_frames):
            picture.seek(frame)
            total += picture.info["duration"]
        assert picture.info["loop"] == 1 and 1000 < total <= 5000


# ---------- in a browser ----------

full = pytest.mark.full
HOSTILE = '</script><b>"fails" &amp; more</b>'
PLAYER, AGENTS, CURVES, FILM = range(2, 6)  # the carts of the page
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Carts</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<main><h1>Carts</h1>{}<p>The end.</p></main></html>"""


@pytest.fixture(scope="module")
def address(recorded, tmp_path_factory):
    """The address of a page with an empty cart, a broken one, and four good ones."""
    broken = cart.LiveCart({"mode": "drivers"}, cart.preview().still, "A broken cart.")
    empty = broken.html().replace(" data-cart=", " data-other=")
    networks = [dot["network"] for run in recorded["curves"] for dot in dots_of(run)]
    good = SimpleNamespace(state_dict=lambda: tensors_of(decoded(networks[-1])))
    agents = {"good": good, HOSTILE: [0, 0, 0, -1]}
    curves = cart.LiveCart({**recorded, "mode": "curves"}, cart.preview().still, "Two.")
    states = np.linspace([0] * 4, [1, 0, 0.1, 0], 51)
    carts = [
        cart.live_cart(),
        cart.live_cart(agents),
        curves,
        cart.film(states, "a film"),
    ]
    forms = [empty, broken.html(), *(good.html() for good in carts)]
    path = tmp_path_factory.mktemp("carts") / "page.html"
    path.write_text(PAGE.format("<hr>".join(forms)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """The page, with a clock that the test turns on; it may not fail or ask the net."""
    page, bad = browser.new_page(viewport={"width": 800, "height": 5000}), []
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on("request", lambda request: bad.append(request.url))
    page.clock.install(time=0)
    page.goto(address)
    page.clock.pause_at(60_000)
    yield page
    page.close()
    assert bad == [address]


def root(page, number):
    return page.locator(".live-cart").nth(number)


def read(page, number, what):
    """What a cart says about its game: "steps", "state", "ending" and so on."""
    return root(page, number).evaluate("(root, what) => root.cart.game[what]", what)


def said(page, number):
    text = root(page, number).locator("[role=status]").inner_text()
    return re.sub(r"\s+", " ", text).strip()


def press(page, number, name):
    root(page, number).get_by_role("button", name=name, exact=True).click()


@full
def test_a_reader_plays_by_the_keyboard_alone(page):
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == 0
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    page.clock.run_for(400)
    early = read(page, PLAYER, "steps")
    assert early == pytest.approx(5, abs=1), "a quarter of 50 steps a second"
    page.keyboard.press("Space")
    assert said(page, PLAYER) == "Paused."
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == early
    page.keyboard.press("Space")
    page.clock.run_for(5_000)
    steps = read(page, PLAYER, "steps")
    assert early < steps < 20 and read(page, PLAYER, "state")[0] < 0
    best = f"Your best: {steps} of 500."
    assert said(page, PLAYER) == f"The pole fell. {best}"
    page.keyboard.press("ArrowRight")
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "ending"), "a late push begins no new episode"
    page.keyboard.press("Space")
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == 0, "it waits for a first push"
    root(page, PLAYER).evaluate("root => { root.cart.game.state = [2.39, 2, 0, 0]; }")
    page.keyboard.press("ArrowRight")
    page.clock.run_for(5_000)
    assert said(page, PLAYER) == f"The cart left the track. {best}"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")


@full
def test_another_driver_takes_over_a_moving_cart(page):
    press(page, AGENTS, "Start")
    page.clock.run_for(1_000)
    assert read(page, AGENTS, "steps") == pytest.approx(50, abs=1)
    page.clock.fast_forward(9_000)  # another window hid the page, and nothing was drawn
    steps, state = read(page, AGENTS, "steps"), read(page, AGENTS, "state")
    assert steps <= 60
    press(page, AGENTS, HOSTILE)
    assert said(page, AGENTS) == f"{HOSTILE} drives."
    assert read(page, AGENTS, "state") == state
    page.clock.run_for(5_000)
    assert read(page, AGENTS, "ending") and read(page, AGENTS, "steps") > steps
    assert read(page, PLAYER, "steps") == read(page, CURVES, "steps") == 0
    press(page, AGENTS, "good")
    page.clock.run_for(1_000)
    assert not read(page, AGENTS, "ending"), "another driver begins another episode"


@full
def test_each_push_counts_once(page):
    def moved(act):
        before = np.array(read(page, AGENTS, "state"))
        act()
        return np.round(read(page, AGENTS, "state") - before, 6).tolist()

    tip = root(page, AGENTS).get_by_role("button", name="← tip")
    assert moved(lambda: press(page, AGENTS, "push →")) == [0, 0.25, 0, 0]
    assert moved(tip.click) == [0, 0, 0, -0.25]
    assert moved(lambda: tip.press("Enter")) == [0, 0, 0, -0.25]
    scene = root(page, AGENTS).get_by_role("application")
    assert moved(lambda: scene.press("ArrowLeft")) == [0, -0.25, 0, 0]
    assert moved(lambda: scene.press("Shift+ArrowRight")) == [0, 0, 0, 0.25]
    page.evaluate("document.activeElement.blur()")
    assert moved(lambda: page.keyboard.press("ArrowLeft")) == [0, 0, 0, 0]


@full
def test_the_curve_is_a_slider_for_mouse_and_keyboard(page, recorded):
    slider = root(page, CURVES).get_by_role("slider")
    dots = dots_of(recorded["curves"][0])
    means = [dot["mean"] for dot in dots]
    best = means.index(max(means))
    lowest = min(range(best, len(dots)), key=means.__getitem__)
    names = [f"plain DQN after {dot['step']:,} steps of training" for dot in dots]

    press(page, CURVES, "Start")
    page.clock.run_for(500)
    assert said(page, CURVES) == f"{names[best]} drives."
    state = read(page, CURVES, "state")
    ring = slider.locator(".ring").bounding_box()
    circle = slider.locator("circle.dot").nth(lowest).bounding_box()
    page.mouse.move(ring["x"] + 10, ring["y"] + 10)
    page.mouse.down()
    page.mouse.move(circle["x"] + 5, circle["y"] + 40, steps=5)
    page.mouse.up()
    assert said(page, CURVES) == f"{names[lowest]} drives."
    assert slider.get_attribute("aria-valuetext").endswith("fails")
    assert read(page, CURVES, "state") == state
    page.mouse.move(ring["x"], ring["y"])
    assert said(page, CURVES) == f"{names[lowest]} drives.", "the mouse has let go"

    for _ in range(lowest - best):
        slider.press("ArrowLeft")
    assert said(page, CURVES) == f"{names[best]} drives."
    slider.press("ArrowLeft")
    assert said(page, CURVES) == f"{names[best - 1]} drives."
    assert slider.get_attribute("aria-valuenow") == str(dots[best - 1]["step"])
    assert read(page, CURVES, "state") == state
    press(page, CURVES, "one line changed")
    assert said(page, CURVES).startswith("one line changed after")
    assert read(page, CURVES, "state") == state


@full
def test_a_film_plays_stops_and_plays_again(page):
    root(page, FILM).get_by_role("button", name="Pause").wait_for()  # begun by itself
    page.clock.run_for(5_000)
    assert read(page, FILM, "steps") == 50
    assert said(page, FILM) == "a film. The film ends."
    press(page, FILM, "Again")
    page.clock.run_for(1_000)
    press(page, FILM, "Pause")
    steps = read(page, FILM, "steps")
    page.clock.run_for(1_000)
    assert read(page, FILM, "steps") == steps == pytest.approx(12, abs=1)


@full
def test_a_cart_that_is_taken_away_waits(page):
    press(page, AGENTS, "Start")
    page.clock.run_for(200)
    kept = root(page, AGENTS).evaluate_handle("root => { root.remove(); return root; }")
    page.wait_for_timeout(100)
    steps = kept.evaluate("root => root.cart.game.steps")
    page.clock.run_for(1_000)
    assert kept.evaluate("root => root.cart.game.steps") == steps
    # JupyterLab puts it back, and runs the script again
    kept.evaluate("root => document.querySelector('main').prepend(root)")
    script = "document.querySelector('script[data-live-cart]').textContent"
    page.evaluate(f"eval({script})")
    page.wait_for_timeout(100)
    page.clock.run_for(200)
    assert steps < read(page, 0, "steps") < steps + 20


@full
@pytest.mark.parametrize("width", [390, 1280])
def test_everybody_can_read_it(browser, address, width):
    calm = {"reduced_motion": "reduce", "color_scheme": "dark"}
    page = browser.new_page(viewport={"width": width, "height": 5000}, **calm)
    page.goto(address)
    page.wait_for_timeout(300)
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(wide) <= 0, "the page scrolls sideways"
    assert root(page, AGENTS).locator("select").input_value() == "0.25"
    assert said(page, FILM) == "a film. Press Start."
    axe = files("axe_playwright_python") / "axe.min.js"
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [violation["help"] for violation in found["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    page.close()


@full
def test_without_scripts_the_still_is_there(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    still = root(page, PLAYER).get_by_role("img")
    assert still.bounding_box()["width"] == 600
    data, metadata = cart.live_cart()._repr_mimebundle_()
    assert still.get_attribute("alt") == metadata["image/png"]["alt"]
    assert still.get_attribute("src").endswith("," + data["image/png"])
    page.close()


@contextlib.contextmanager
def jupyter(folder):
    """JupyterLab without a user's settings, on this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--expose-app-in-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME")}
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log
        )
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=10)
                break
            assert server.poll() is None, (folder / "server.log").read_text("utf-8")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


CELLS = """() => {
  const { content } = jupyterapp.shell.currentWidget;
  const sources = content.widgets.map((cell) => cell.model.sharedModel.source);
  return [sources, content.activeCellIndex, content.mode];
}"""
KEYS = "d d x a b m y z j k 0 0 i i ArrowUp ArrowDown ArrowLeft ArrowRight Space Enter"


@full
def test_no_key_typed_at_the_cart_changes_a_cell(browser, tmp_path):
    code = f"import sys\nsys.path.append({str(ROOT / 'notebooks')!r})\n"
    code += "from dqn_helpers.cart import live_cart, preview\nlive_cart()"
    sources = ["preview()", "live_cart(drivers={'rule': [0, 0, 1, 1]})"]
    cells = [
        new_code_cell(code),
        *map(new_code_cell, sources),
        new_markdown_cell("End"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    node = new_notebook(cells=cells, metadata=kernel)
    nbformat.write(node, tmp_path / "cart.ipynb")
    with jupyter(tmp_path) as address:
        page, errors = browser.new_page(), []
        page.set_default_timeout(100_000)
        page.goto(f"{address}/lab/tree/cart.ipynb")
        widget = "window.jupyterapp?.shell.currentWidget"
        idle = f"{widget}?.sessionContext?.session?.kernel?.status === 'idle'"
        page.wait_for_function(idle)
        page.evaluate(
            "() => { jupyterapp.commands.execute('notebook:run-all-cells'); }"
        )
        page.wait_for_selector(".live-cart.drivers")
        page.on("pageerror", lambda error: errors.append(str(error)))
        for number in range(3):
            for part in root(page, number).locator("button, select, [tabindex]").all():
                part.focus()
                before = page.evaluate(CELLS)
                for key in KEYS.split():
                    page.keyboard.press(key)
                assert page.evaluate(CELLS) == before

        root(page, 0).locator("select").select_option("full speed")
        root(page, 0).get_by_role("application").focus()
        page.keyboard.press("Space")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("document.querySelector('.live-cart').cart.game.ending")
        page.keyboard.press("Control+s")
        dirty = f"{widget}.context.model.dirty"
        page.wait_for_function(f"!{dirty}")
        page.keyboard.press("Escape")
        page.keyboard.press("b")
        page.wait_for_function(f"{widget}.content.widgets.length === 5")
        assert errors == []
        page.close()
