"""The live cart in a browser: gym's physics, torch's answers, everybody's keys."""

import copy
import functools
from importlib.resources import files

import nbformat
import numpy as np
import pytest
import torch

from tests.helpers import jupyterlab

pytestmark = pytest.mark.full

HOSTILE = '</script><b>"fails" &amp; more</b>'
PLAYER, AGENTS = 0, 1  # the carts on the page
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Carts</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<main><h1>Two carts</h1>{}<hr>{}<p>The end.</p></main></html>"""


@pytest.fixture(scope="module")
def agent(lesson):
    """A network that balances."""
    settings = lesson.replace(lesson.settings, MAX_STEPS=2_000, EVAL_EVERY=2_000)
    careful = functools.partial(lesson.careful_targets, epsilon=0.7)
    remember = lesson.remember_mirrored
    return lesson.train(settings, targets=careful, remember=remember).policy_net


@pytest.fixture(scope="module")
def networks(lesson, agent):
    """A good network, a fresh one, and a fresh one that is narrow."""
    torch.manual_seed(0)
    fresh = lesson.DQN(4, 2, lesson.SCALE)
    narrow = lesson.DQN(4, 2, [1.0, 2.0, 3.0, 4.0])
    narrow.layer1, narrow.layer2 = torch.nn.Linear(4, 5), torch.nn.Linear(5, 7)
    narrow.layer3 = torch.nn.Linear(7, 2)
    return [("good", agent), (HOSTILE, fresh), ("narrow", narrow)]


@pytest.fixture(scope="module")
def address(lesson, networks, tmp_path_factory):
    """The address of a page with two carts: one for the reader, one with networks."""
    carts = [lesson.live_cart(), lesson.live_cart(networks)]
    forms = [cart._repr_mimebundle_()[0]["text/html"] for cart in carts]
    path = tmp_path_factory.mktemp("carts") / "page.html"
    path.write_text(PAGE.format(*forms), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """The page, with a clock that the test turns on; it may not fail or ask the net."""
    page, bad = browser.new_page(), []
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
    """What a cart says about itself: "steps", "state", "ending" and so on."""
    return root(page, number).evaluate("(root, what) => root.cart[what]", what)


def said(page, number):
    return root(page, number).locator("[role=status]").inner_text()


DRIVE = """(root, [state, sides]) => {
  root.cart.reset();
  root.cart.state = state;
  return sides.map(side => {
    root.cart.side = side;
    root.cart.step();
    return [root.cart.state, root.cart.ending];
  });
}"""


@pytest.mark.filterwarnings("ignore:.*You are calling 'step")
def test_its_physics_are_those_of_gym(lesson, page):
    env, rng = lesson.make_env("CartPole-v1").unwrapped, np.random.default_rng(0)
    endings = set()
    for start in rng.uniform(-1, 1, (10, 4)) * [2.3, 2.0, 0.15, 1.0]:
        lesson.reset_env(env)
        env.state = start
        sides = rng.choice([-1, 1], 200).tolist()
        driven = root(page, PLAYER).evaluate(DRIVE, [start.tolist(), sides])
        over = False
        for side, (state, ending) in zip(sides, driven, strict=True):
            over = env.step(int(side == 1))[2] or over
            assert state == pytest.approx(env.state, abs=1e-5)
            assert bool(ending) == over
            endings.add(ending)
    assert endings == {"", "The cart left the track", "The pole fell"}


Q_VALUES = """(root, states) => states.map(state => {
  root.cart.state = state;
  return Array.from(root.cart.qValues());
})"""


def test_its_networks_answer_as_torch_does(networks, page):
    states = torch.rand(100, 4) * 2 - 1
    for place, (_, net) in enumerate(networks):
        root(page, AGENTS).locator("input").fill(str(place))
        values = root(page, AGENTS).evaluate(Q_VALUES, states.tolist())
        expected = net(states).detach().numpy()
        np.testing.assert_allclose(values, expected, atol=1e-3, rtol=0)


BALANCE = """(root, starts) => starts.map(state => {
  root.cart.reset();
  root.cart.state = state;
  while (!root.cart.ending) root.cart.step();
  return [root.cart.steps, root.cart.ending];
})"""


def test_a_good_agent_balances_until_the_clock_stops(lesson, page):
    env = lesson.make_env("CartPole-v1")
    starts = [lesson.reset_env(env, seed=seed).tolist() for seed in range(20)]
    ends = root(page, AGENTS).evaluate(BALANCE, starts)
    assert ends == [[500, "The clock stopped"]] * 20


def test_a_reader_plays_by_the_keyboard_alone(page):
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == 0
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    page.clock.run_for(400)
    early = read(page, PLAYER, "steps")
    assert early == pytest.approx(5, abs=1), "a quarter of 50 steps a second"
    page.keyboard.press("Space")
    assert said(page, PLAYER) == f"Paused at step {early}."
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == early
    page.keyboard.press("Space")
    page.clock.run_for(5_000)
    steps = read(page, PLAYER, "steps")
    assert early < steps < 20 and read(page, PLAYER, "state")[0] < 0
    best = f"Your best: {steps} of 500."
    assert said(page, PLAYER) == f"The pole fell at step {steps}. {best}"
    page.keyboard.press("ArrowRight")
    assert not read(page, PLAYER, "running"), "a late push begins no new episode"
    page.keyboard.press("Space")
    page.clock.run_for(1_000)
    assert read(page, PLAYER, "steps") == 0, "it waits for a first push"
    root(page, PLAYER).evaluate("root => { root.cart.state = [2.39, 2, 0, 0]; }")
    page.keyboard.press("ArrowRight")
    page.clock.run_for(5_000)
    assert said(page, PLAYER) == f"The cart left the track at step 1. {best}"
    assert read(page, AGENTS, "steps") == 0


def test_the_slider_changes_the_network_under_a_moving_cart(networks, page):
    cart = root(page, AGENTS)
    cart.get_by_role("button", name="Start").click()
    page.clock.run_for(1_000)
    steps, state = read(page, AGENTS, "steps"), read(page, AGENTS, "state")
    assert steps == pytest.approx(50, abs=1)
    page.clock.fast_forward(9_000)  # another window hid the page, and nothing was drawn
    steps, state = read(page, AGENTS, "steps"), read(page, AGENTS, "state")
    assert steps <= 60
    values = cart.locator(".values").inner_text()
    cart.locator("input").focus()
    page.keyboard.press("ArrowRight")
    assert cart.locator("label b").inner_text() == HOSTILE
    assert cart.locator("input").get_attribute("aria-valuetext") == HOSTILE
    assert cart.locator(".values").inner_text() != values
    assert read(page, AGENTS, "state") == state and read(page, AGENTS, "running")
    page.clock.run_for(5_000)
    assert read(page, AGENTS, "ending") and read(page, AGENTS, "steps") > steps
    assert read(page, PLAYER, "steps") == 0
    cart.locator("input").fill("0")
    assert read(page, AGENTS, "running"), "another network begins another episode"


def test_each_push_counts_once(page):
    cart = root(page, AGENTS)

    def moved(act):
        before = np.array(read(page, AGENTS, "state"))
        act()
        return np.round(read(page, AGENTS, "state") - before, 6).tolist()

    pole = cart.get_by_role("button", name="← pole")
    assert moved(cart.get_by_role("button", name="cart →").click) == [0, 0.25, 0, 0]
    assert moved(pole.click) == [0, 0, 0, -0.25]
    assert moved(lambda: pole.press("Enter")) == [0, 0, 0, -0.25]
    scene = cart.get_by_role("application")
    assert moved(lambda: scene.press("ArrowLeft")) == [0, -0.25, 0, 0]
    assert moved(lambda: scene.press("Shift+ArrowRight")) == [0, 0, 0, 0.25]
    page.evaluate("document.activeElement.blur()")
    assert moved(lambda: page.keyboard.press("ArrowLeft")) == [0, 0, 0, 0]


def test_a_cart_that_is_taken_away_stops(page):
    root(page, AGENTS).get_by_role("button", name="Start").click()
    page.clock.run_for(200)
    kept = root(page, AGENTS).evaluate_handle("root => { root.remove(); return root; }")
    steps = kept.evaluate("root => root.cart.steps")
    page.clock.run_for(1_000)
    assert kept.evaluate("root => root.cart.steps") == steps
    kept.evaluate("root => document.body.append(root)")  # as JupyterLab does
    assert said(page, AGENTS) == f"Paused at step {steps}."
    root(page, AGENTS).get_by_role("button", name="Start").click()
    page.clock.run_for(200)
    assert read(page, AGENTS, "steps") > steps


AGAIN = """() => {
  const script = document.createElement("script");
  script.text = document.querySelector("script[data-live-cart]").text;
  document.body.append(script);
}"""


def test_running_the_script_again_leaves_a_cart_alone(page):
    root(page, AGENTS).get_by_role("button", name="Start").click()
    page.clock.run_for(200)
    page.evaluate(AGAIN)
    page.clock.run_for(200)
    assert read(page, AGENTS, "steps") == pytest.approx(20, abs=1)


@pytest.mark.parametrize("width", [390, 1280])
def test_everybody_can_read_it(browser, address, width):
    calm = {"reduced_motion": "reduce", "color_scheme": "dark"}
    page = browser.new_page(viewport={"width": width, "height": 800}, **calm)
    page.goto(address)
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(wide) <= 0, "the page scrolls sideways"
    assert root(page, AGENTS).locator("select").input_value() == "0.25"
    assert root(page, AGENTS).locator("input").is_visible()
    assert not root(page, PLAYER).locator("input").is_visible()
    axe = files("axe_playwright_python") / "axe.min.js"
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [violation["help"] for violation in found["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    page.close()


def test_without_scripts_the_still_is_there(lesson, browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    still = root(page, PLAYER).get_by_role("img")
    assert still.bounding_box()["width"] == 600
    data, metadata = lesson.live_cart()._repr_mimebundle_()
    assert still.get_attribute("alt") == metadata["image/png"]["alt"]
    assert still.get_attribute("src").endswith("," + data["image/png"])
    page.close()


def test_in_jupyterlab_it_starts_and_plays(browser, committed, tmp_path):
    notebook = copy.deepcopy(committed)
    sources = [cell.source for cell in notebook.cells]
    del notebook.cells[sources.index("live_cart()") + 1 :]
    nbformat.write(notebook, tmp_path / "cart.ipynb")
    widget = "jupyterapp.shell.currentWidget"
    idle = f"{widget}?.sessionContext?.session?.kernel?.status === 'idle'"
    with jupyterlab(tmp_path) as address:
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/lab/tree/cart.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(idle, timeout=100_000)
        page.evaluate(
            "() => { jupyterapp.commands.execute('notebook:run-all-cells'); }"
        )
        page.wait_for_selector(".live-cart svg", timeout=100_000)
        root(page, 0).locator("select").select_option("full speed")
        root(page, 0).get_by_role("button", name="Start").click()
        active = f"{widget}.content.activeCellIndex"
        before = page.evaluate(active)
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("document.querySelector('.live-cart').cart.ending")
        assert said(page, 0).startswith("The pole fell at step ")
        assert page.evaluate(active) == before, "the arrow key is the cart's alone"
        assert errors == []
        page.close()
