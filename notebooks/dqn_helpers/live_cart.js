// The live cart: gym's CartPole-v1 in a page, driven by the reader, by networks and
// rules, or by the states of a film. cart.py writes the data that it reads.
(() => {
  "use strict";

  // ----- what drives the cart -----

  const decoded = (text, Numbers) =>
    new Numbers(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

  const decodedNetwork = (tensors) => {
    const network = {};
    for (const [name, { scale, values }] of Object.entries(tensors)) {
      const integers = decoded(values, Int16Array);
      network[name] = Float32Array.from(integers, (integer) => integer * scale);
    }
    return network;
  };

  const layer = (network, name, input) => {
    const weights = network[name + ".weight"];
    return network[name + ".bias"].map((bias, row) => {
      let sum = bias;
      for (let i = 0; i < input.length; i += 1) {
        sum += weights[row * input.length + i] * input[i];
      }
      return sum;
    });
  };
  const relu = (values) => values.map((value) => Math.max(0, value));

  // The lesson's network: three layers, a ReLU after the first two. [left, right]
  const qValues = (network, state) => {
    const scaled = state.map((value, i) => value / network.scale[i]);
    const hidden = relu(layer(network, "layer1", scaled));
    return layer(network, "layer3", relu(layer(network, "layer2", hidden)));
  };

  // How much better it is to push right: a rule by hand is four weights of the state.
  const preference = ({ network, rule }, state) => {
    if (rule) return rule.reduce((sum, weight, i) => sum + weight * state[i], 0);
    const [left, right] = qValues(network, state);
    return right - left;
  };

  // All drivers of a cart; those of a curve know their moment of training.
  const driversOf = (data) => {
    const drivers = [...(data.drivers ?? [])];
    (data.curves ?? []).forEach(({ title, points }, curve) => {
      for (const { step, mean, network } of points) {
        if (network) drivers.push({ title, curve, step, mean, network });
      }
    });
    return drivers.map(({ network, ...driver }) =>
      network ? { ...driver, network: decodedNetwork(network) } : driver);
  };

  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });

  const nameOf = ({ title, step }) =>
    step === undefined ? title : `${title} after ${number(step)} steps of training`;

  // ----- the game -----

  // Side −1 is left, 1 is right.
  const PUSHES = [
    { key: "ArrowLeft", text: "← push", part: "cart", side: -1 },
    { key: "ArrowRight", text: "push →", part: "cart", side: 1 },
    { key: "Shift+ArrowLeft", text: "← tip", part: "pole", side: -1 },
    { key: "Shift+ArrowRight", text: "tip →", part: "pole", side: 1 },
  ];

  const endingOf = ([x, , angle], steps) => {
    if (Math.abs(angle) > Math.PI / 15) return "The pole fell.";
    if (Math.abs(x) > 2.4) return "The cart left the track.";
    return steps >= 500 ? "The clock stopped." : "";
  };

  class Game {
    // film: the states to be replayed, if there are any
    constructor(film) {
      this.film = film;
      this.driver = null; // the reader
      this.reset();
    }

    reset() {
      const start = [0, 0, 0, 0].map(() => Math.random() * 0.1 - 0.05);
      this.state = this.film ? this.film[0] : start;
      this.steps = 0;
      this.ending = "";
      this.side = 0;
    }

    // The reader who drives pushes on and on; whoever else drives is disturbed once.
    push({ part, side }) {
      if (!this.driver) {
        this.side = side;
        return;
      }
      this.state = [...this.state];
      this.state[part === "cart" ? 1 : 3] += 0.25 * side;
    }

    step() {
      if (this.film) {
        this.steps += 1;
        this.state = this.film[this.steps];
        const isLast = this.steps === this.film.length - 1;
        if (isLast) this.ending = endingOf(this.state, this.steps) || "The film ends.";
        return;
      }
      if (this.driver) this.side = preference(this.driver, this.state) > 0 ? 1 : -1;
      if (this.side === 0) return; // the reader has not pushed yet
      // One step of gym's CartPole-v1.
      const [, velocity, angle, turning] = this.state;
      const sin = Math.sin(angle);
      const cos = Math.cos(angle);
      const push = (10 * this.side + 0.05 * turning ** 2 * sin) / 1.1;
      const pole = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - (0.1 * cos ** 2) / 1.1));
      const rates = [velocity, push - (0.05 * pole * cos) / 1.1, turning, pole];
      this.state = this.state.map((value, i) => value + 0.02 * rates[i]);
      this.steps += 1;
      this.ending = endingOf(this.state, this.steps);
    }
  }

  // ----- the page -----

  // data-only: the kinds of cart that have this part.
  const CONTENT = `
    <svg class="scene" viewBox="-273 -118 546 165">
      <path class="track" d="M-240,26 h480" />
      <path class="ends" d="M-240,10 v32 m480,0 v-32" />
      <g>
        <path class="pole" d="M0,4 v-104" />
        <rect class="body" x="-26" y="0" width="52" height="25" rx="4" />
      </g>
    </svg>
    <p class="line" role="status"><b class="name"></b> <span class="what"></span></p>
    <div class="buttons"><button class="go"></button><select aria-label="Speed"
      data-only="play drivers curves film">
      <option value="0.25">quarter speed</option>
      <option value="0.5">half speed</option>
      <option value="1">full speed</option>
      <option value="2">double speed</option>
    </select><span class="steps"></span></div>
    <p data-only="preview curves"><b>Drag the ring along the curve</b>, or move it with
      ← and →. The network of that moment takes over the cart.</p>
    <p class="help" data-only="preview curves">Steps that the pole stays up (mean of 20
      games):</p>
    <svg class="curve" data-only="preview curves"></svg>
    <div class="switch" data-only="preview curves drivers" role="group"
      aria-label="Who drives"></div>
    <pre class="code" data-only="preview" hidden></pre>
    <div class="values" data-only="drivers curves">
      Q(left) <i><i></i></i> <span></span>
      Q(right) <i><i></i></i> <span></span>
      right − left (±4) <i><i></i></i> <span></span>
    </div>
    <p class="help" data-only="play">Click the cart (or go to it with Tab) and use the
      keys: ← and → push, and a push goes on until you push the other way. The space bar
      starts and pauses, Escape leaves the cart.</p>
    <p class="help" data-only="preview curves">Click the cart (or go to it with Tab) to
      use its keys: ← and → push it, the space bar starts and pauses, Escape leaves.</p>
    <p class="help" data-only="drivers">Click the cart (or go to it with Tab) to use its
      keys: ← and → push it, with Shift they tip the pole, the space bar starts and
      pauses, Escape leaves.</p>
    <p class="help note" data-only="preview"></p>`;

  const MARGIN = { left: 40, right: 16, top: 14, bottom: 28 }; // around the curves

  // A circle stands for the first curve, a square for the second.
  const symbolOf = (curve) => {
    const symbol = document.createElement("span");
    symbol.className = `symbol curve-${curve}`;
    symbol.textContent = "●■"[curve];
    symbol.setAttribute("aria-hidden", "true");
    return symbol;
  };

  // The driver of a curve that is nearest to a moment of training.
  const nearest = (drivers, curve, step) => {
    const own = drivers.filter((driver) => driver.curve === curve);
    const distance = (driver) => Math.abs(driver.step - step);
    return own.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  };

  // The learning curves, which are a slider: `choose` hears which driver is chosen.
  class Curves {
    constructor(svg, { curves, threshold }, drivers, choose) {
      Object.assign(this, { svg, curves, threshold, drivers, choose });
      this.shown = curves.length;
      this.lastStep = Math.max(
        ...curves.flatMap(({ points }) => points.map(({ step }) => step)));
      svg.setAttribute("role", "slider");
      svg.setAttribute("aria-label", "Moment of training");
      svg.setAttribute("aria-valuemin", 0);
      svg.setAttribute("aria-valuemax", this.lastStep);
      svg.tabIndex = 0;
      svg.onpointerdown = (event) => {
        svg.setPointerCapture(event.pointerId);
        this.follow(event);
      };
      svg.onpointermove = (event) => {
        if (svg.hasPointerCapture(event.pointerId)) this.follow(event);
      };
      svg.onkeydown = (event) => this.moveByKey(event);
      new ResizeObserver(() => this.draw()).observe(svg);
    }

    follow(event) {
      const { left } = this.svg.getBoundingClientRect();
      const width = this.svg.clientWidth - MARGIN.left - MARGIN.right;
      const step = ((event.clientX - left - MARGIN.left) / width) * this.lastStep;
      this.choose(nearest(this.drivers, this.driver.curve, step));
    }

    moveByKey(event) {
      const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
      if (!(event.key in moves) || isForNotebook(event)) return;
      event.preventDefault();
      const next = this.drivers[this.drivers.indexOf(this.driver) + moves[event.key]];
      if (next && next.curve === this.driver.curve) this.choose(next);
    }

    place(step, mean) {
      const width = this.svg.clientWidth - MARGIN.left - MARGIN.right;
      const height = this.svg.clientHeight - MARGIN.top - MARGIN.bottom;
      const x = MARGIN.left + (width * step) / this.lastStep;
      return [x, MARGIN.top + height * (1 - mean / 500)];
    }

    draw() {
      const line = (name, places) =>
        `<path class="${name}" d="M${places.join("L")}" />`;
      const label = ([x, y], anchor, text) =>
        `<text x="${x}" y="${y}" text-anchor="${anchor}">${text}</text>`;

      const [left, bottom] = this.place(0, 0);
      const [right, top] = this.place(this.lastStep, this.threshold);
      const training = `${number(this.lastStep)} steps of training`;
      let drawing = line("axis", [[left, bottom], [right, bottom]]);
      drawing += line("threshold", [[left, top], [right, top]]);
      drawing += label([left - 6, bottom + 5], "end", "0");
      drawing += label([left - 6, top + 5], "end", this.threshold);
      drawing += label([left, bottom + 20], "start", "0");
      drawing += label([right, bottom + 20], "end", training);
      this.curves.slice(0, this.shown).forEach(({ points }, curve) => {
        const places = points.map(({ step, mean }) => this.place(step, mean));
        drawing += line(`run curve-${curve}`, places);
      });
      for (const { curve, step, mean } of this.drivers) {
        const [x, y] = this.place(step, mean);
        const circle = `<circle class="dot curve-0" cx="${x}" cy="${y}" r="5" />`;
        const corner = `x="${x - 5}" y="${y - 5}"`;
        const square = `<rect class="dot curve-1" ${corner} width="10" height="10" />`;
        if (curve < this.shown) drawing += curve === 0 ? circle : square;
      }
      this.svg.innerHTML = drawing + '<g class="marker"></g>';
      this.mark(this.driver);
    }

    // Put the ring around the point of the network that drives.
    mark(driver) {
      this.driver = driver;
      const { curve, step, mean } = driver;
      const [x, y] = this.place(step, mean);
      const [, bottom] = this.place(step, 0);
      const marker = this.svg.querySelector(".marker");
      if (!marker) return; // nothing is drawn yet
      marker.innerHTML =
        `<path d="M${x},${MARGIN.top} V${bottom}" />` +
        `<circle class="ring curve-${curve}" cx="${x}" cy="${y}" r="10" />`;
      const result = mean >= this.threshold ? "passes" : "fails";
      const text = `${nameOf(driver)}: mean ${number(mean)}, ${result}`;
      this.svg.setAttribute("aria-valuenow", step);
      this.svg.setAttribute("aria-valuetext", text);
    }
  }

  // The bars of Q: two from 0 to 100, and their difference from −4 to 4.
  const drawValues = (values, { network }, state) => {
    values.hidden = !network; // a rule by hand has no Q-values
    if (!network) return;
    const [left, right] = qValues(network, state);
    const gap = right - left;
    const bars = [[0, left], [0, right], [50 + 12.5 * Math.min(gap, 0), 12.5 * gap]];
    [left, right, gap].forEach((value, row) => {
      const [begin, length] = bars[row];
      const bar = values.children[2 * row].firstChild;
      bar.style.left = `${begin}%`;
      bar.style.width = `${Math.abs(length)}%`;
      values.children[2 * row + 1].textContent = value.toFixed(2);
    });
  };

  const start = (root) => {
    const data = JSON.parse(root.dataset.cart);
    const { mode } = data;
    const drivers = driversOf(data);
    const film = data.states && filmOf(data.states);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

    root.innerHTML = CONTENT;
    const find = (selector) => root.querySelector(selector);
    for (const part of root.querySelectorAll("[data-only]")) {
      if (!part.dataset.only.split(" ").includes(mode)) part.remove();
    }
    root.classList.add(mode);

    const game = new Game(film);
    game.driver = firstDriver(drivers);
    const cart = { game, running: false, best: 0 };
    root.cart = cart;
    const scene = find(".scene");
    const speed = find("select");
    if (speed) speed.value = data.speed ?? (mode === "play" || calm ? 0.25 : 1);

    // ----- what the reader does -----

    const choose = (driver) => {
      game.driver = driver;
      if (game.ending) run(true);
      else say();
    };
    const push = (way) => {
      if (game.ending) return;
      game.push(way);
      if (mode === "play" && !cart.running) run(true);
      draw();
    };
    const toggle = () => run(!cart.running);

    const keys = { " ": toggle };
    find(".go").onclick = () => {
      toggle();
      if (!film) scene.focus({ preventScroll: true });
    };
    for (const way of film ? [] : PUSHES) {
      if (way.part === "pole" && mode !== "drivers") continue;
      keys[way.key] = () => push(way);
      const button = document.createElement("button");
      button.textContent = way.text;
      button.onclick = keys[way.key];
      find(".steps").before(button);
    }
    scene.onkeydown = (event) => {
      const act = keys[(event.shiftKey ? "Shift+" : "") + event.key];
      if (!act || isForNotebook(event)) return;
      event.preventDefault();
      if (!event.repeat) act();
    };
    if (film) {
      scene.setAttribute("role", "img");
      scene.setAttribute("aria-label", `Film: ${data.caption}`);
    } else {
      scene.setAttribute("role", "application");
      scene.setAttribute("aria-label", "Cart; its keys are explained below");
      scene.tabIndex = 0;
    }
    const curves = data.curves && new Curves(find(".curve"), data, drivers, choose);

    // ----- the switch: a button for each driver, or for each of two curves -----

    const addChoice = (parts, isChosen, act) => {
      const button = document.createElement("button");
      button.append(...parts);
      button.isChosen = isChosen;
      button.onclick = act;
      find(".switch").append(button);
    };
    for (const driver of data.drivers ? drivers : []) {
      addChoice([driver.title], () => game.driver === driver, () => choose(driver));
    }
    if (curves && data.curves.length > 1) {
      data.curves.forEach(({ title }, curve) => {
        const isChosen = () => game.driver.curve === curve;
        addChoice([symbolOf(curve), ` ${title}`], isChosen, () => {
          if (mode === "preview") reveal();
          choose(nearest(drivers, curve, game.driver.step));
        });
      });
    }

    // ----- the preview shows one curve, until the reader asks for the other -----

    if (mode === "preview") {
      curves.shown = 1;
      const [plain, changed] = data.lines;
      const mark = document.createElement("mark");
      mark.textContent = changed.slice(plain.length);
      const code = [symbolOf(0), ` ${plain}\n`, symbolOf(1), ` ${plain}`, mark];
      find(".code").append(...code);
      find(".note").textContent = data.note;
    }
    const reveal = () => {
      curves.shown = data.curves.length;
      curves.draw();
      find(".code").hidden = false;
    };

    // ----- what is seen -----

    const draw = () => {
      const [x, , angle] = game.state;
      find(".scene g").style.transform = `translate(${100 * x}px)`;
      find(".pole").style.transform = `rotate(${angle}rad)`;
      const last = film ? film.length - 1 : 500;
      find(".steps").textContent = `step ${game.steps} of ${last}`;
      if (find(".values")) drawValues(find(".values"), game.driver, game.state);
    };

    const what = () => {
      const best = mode === "play" ? ` Your best: ${cart.best} of 500.` : "";
      if (game.ending) return game.ending + best;
      if (!cart.running) return game.steps ? "Paused." : "Press Start.";
      if (film) return "";
      return game.driver ? "drives." : "Go: push left or right.";
    };

    // Say what is going on, for those who see it and for those who hear it.
    const say = () => {
      const name = film ? data.caption : game.driver ? nameOf(game.driver) : "";
      const isSubject = what() === "drives."; // otherwise the name is a sentence
      find(".name").textContent = name && !isSubject ? `${name}.` : name;
      find(".what").textContent = what();
      const next = cart.running ? "Pause" : game.ending ? "Again" : "Start";
      find(".go").textContent = next;
      for (const button of root.querySelectorAll(".switch button")) {
        button.setAttribute("aria-pressed", String(button.isChosen()));
      }
      if (curves) curves.mark(game.driver);
      draw();
    };

    // ----- time -----

    let due = 0; // when the next step of the game is to be made
    let request = 0;
    let inSight = true;
    const wake = () => {
      cancelAnimationFrame(request);
      if (cart.running && inSight) request = requestAnimationFrame(frame);
    };
    const run = (running) => {
      if (running && game.ending) game.reset();
      cart.running = running;
      due = performance.now();
      say();
      wake();
    };
    const frame = (now) => {
      wake();
      const ended = game.ending;
      due = Math.max(due, now - 100); // what was hidden does not catch up
      const pace = speed ? Number(speed.value) : data.speed;
      for (; due < now && !game.ending; due += 20 / pace) game.step();
      if (ended || !game.ending) return draw();
      cart.best = Math.max(cart.best, game.steps);
      if (mode === "preview") setTimeout(beginAgain, 2500);
      else cart.running = false;
      say();
    };
    const beginAgain = () => {
      if (game.ending && cart.running) run(true);
    };

    // The preview and films begin when they are first seen, unless motion disturbs.
    // What is out of sight waits.
    let mayBegin = (mode === "preview" || film) && !calm;
    const watch = (sights) => {
      inSight = sights.at(-1).isIntersecting;
      if (inSight && mayBegin) run(true);
      else wake();
      if (inSight) mayBegin = false;
    };
    say();
    keepKeys(root);
    new IntersectionObserver(watch).observe(scene);
  };

  const filmOf = (text) => {
    const numbers = [...decoded(text, Float32Array)];
    const states = [];
    for (let i = 0; i < numbers.length; i += 4) states.push(numbers.slice(i, i + 4));
    return states;
  };

  // A curve begins with the best network of the first run.
  const firstDriver = (drivers) => {
    const own = drivers.filter(({ curve = 0 }) => curve === 0);
    const better = (best, one) => (one.mean > best.mean ? one : best);
    return own.length ? own.reduce(better) : null;
  };

  // Notebooks have keys for cells, such as `d d`. While the cart has the focus, keys
  // are the cart's alone; those with Ctrl, Alt or Cmd stay the notebook's.
  const isForNotebook = (event) => event.ctrlKey || event.altKey || event.metaKey;

  const keepKeys = (root) => {
    const parts = [root, ...root.querySelectorAll("button, select, [tabindex]")];
    const guard = (event) => {
      const own = !isForNotebook(event);
      // JupyterLab and Notebook 7 look for this attribute.
      for (const part of parts) part.toggleAttribute("data-lm-suppress-shortcuts", own);
      if (own && event.type === "keydown") event.stopPropagation();
      if (event.key === "Escape") leave(root);
    };
    for (const type of ["keydown", "keyup", "focusin"]) {
      root.addEventListener(type, guard);
    }
    guard({});
  };

  const leave = (root) => {
    document.activeElement.blur();
    root.parentElement.closest("[tabindex]")?.focus({ preventScroll: true });
  };

  if (typeof document === "undefined") {
    module.exports = { Game, PUSHES, driversOf, nameOf, preference, qValues };
    return;
  }
  for (const root of document.querySelectorAll(".live-cart")) {
    if (root.cart || !root.dataset.cart) continue;
    const still = root.innerHTML;
    try {
      start(root);
    } catch (error) {
      console.error(error); // this cart stays a picture, and the others start
      root.innerHTML = still;
    }
  }
})();
