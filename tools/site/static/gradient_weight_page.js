// The controls, the chart and the table of docs/gradient-weight.md. Formulas: gradient_weight.js.
"use strict";

(() => {
  const { OBJECTIVES, token, weight } = GradientWeight;
  const NAMES = Object.keys(OBJECTIVES);
  // Widths of the last and the first curve, so that none hides another. Colors and dashes: palette.css.
  const WIDTHS = [2.2, 7];
  const LOW = -1.25;
  const HIGH = 2.25;
  const SAMPLES = 600;
  // Own bounds that a reader may change: numbers, apart from those that δ sets and the dead zone, which must stay below it.
  const FIXED = ["delta", "boundary", "deadzone"];

  const state = {
    mu: 0.3,
    pi: 0.4,
    delta: 0.15,
    sign: 1,
    size: 1,
    logOdds: false,
    drawn: new Set(["drpo", "dppo_tv", "ppo", "spo"]),
    own: {},
  };

  const logit = p => Math.log(p / (1 - p));
  const logistic = x => 1 / (1 + Math.exp(-x));
  const SPAN = logit(0.9999);

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  }

  function drawing(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function shown(value, digits = 3) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e4 || size < 1e-4) return value.toExponential(1).replace("-", "−");
    // 0.9999 keeps its digits; other numbers have three.
    const text = size > 0.99 && size < 1 ? value.toFixed(4) : Number(value.toPrecision(digits)).toString();
    return text.replace("-", "−");
  }

  function parametersOf(name) {
    const known = OBJECTIVES[name].parameters;
    const set = { ...state.own[name] };
    if ("delta" in known) set.delta = state.delta;
    if ("boundary" in known) set.boundary = state.delta;
    return set;
  }

  const weightAt = (name, pi) => weight(name, state.mu, pi, state.sign * state.size, parametersOf(name));

  function meaning(w) {
    if (w < 0) return "corrective";
    if (w === 0) return "masked";
    if (Math.abs(w - 1) < 1e-9) return "as the surrogate";
    return w < 1 ? "damped" : "amplified";
  }

  // Controls

  // A value that is dragged, or typed: `low` to `high`; the slider's own scale is `toSlider` of it.
  function slider(key, label, [low, high, step], toSlider = x => x, fromSlider = x => x) {
    const id = `gw-${key}`;
    const input = element("input", {
      id, type: "range", min: toSlider(low), max: toSlider(high), step,
      oninput: event => { state[key] = fromSlider(Number(event.target.value)); update(); },
    });
    const typed = element("input", {
      id: `${id}-number`, type: "number", min: low, max: high, step: "any", "aria-label": `${label}, as a number`,
      oninput: event => {
        const bad = event.target.value === "" || !event.target.validity.valid;
        event.target.setAttribute("aria-invalid", bad);
        if (!bad) { state[key] = Number(event.target.value); update(); }
      },
      onblur: () => { typed.setAttribute("aria-invalid", false); update(); },
    });
    const show = () => {
      input.value = toSlider(state[key]);
      input.setAttribute("aria-valuetext", shown(state[key]));
      if (document.activeElement !== typed) typed.value = shown(state[key]);
    };
    return { row: element("div", { class: "gw-slider" }, element("label", { for: id }, label), input, typed), show };
  }

  function choice(key, legend, options) {
    const inputs = options.map(([text, value]) => {
      const input = element("input", {
        type: "radio", name: `gw-${key}`, checked: state[key] === value,
        onchange: () => { state[key] = value; update(); },
      });
      return element("label", {}, input, ` ${text}`);
    });
    return element("fieldset", { class: "gw-choice" }, element("legend", {}, legend), ...inputs);
  }

  const probability = (key, label) => slider(key, label, [0.0001, 0.9999, SPAN / 200], logit, logistic);
  const sliders = [
    probability("mu", "μ, behavior policy"),
    probability("pi", "π, policy"),
    slider("delta", "δ, bound on |π − μ|", [0.01, 1, 0.01]),
    slider("size", "|Â|, advantage", [0.1, 5, 0.1]),
  ];
  const facts = element("p", { class: "gw-facts" });

  // Chart

  const chart = drawing("svg", { role: "img", "aria-labelledby": "gw-title gw-description" });
  const legend = element("p", { class: "gw-legend", "aria-hidden": "true" });
  const margin = { left: 40, right: 12, top: 38, bottom: 44 };

  const toAxis = pi => (state.logOdds ? (logit(pi) + SPAN) / (2 * SPAN) : pi);
  const fromAxis = x => {
    const pi = state.logOdds ? logistic(x * 2 * SPAN - SPAN) : x;
    return Math.min(0.9999, Math.max(0.0001, pi));
  };

  function frame() {
    const width = Math.max(280, chart.parentElement.clientWidth);
    const height = Math.round(Math.min(420, Math.max(300, width * 0.55)));
    const inner = width - margin.left - margin.right;
    return {
      width,
      height,
      x: pi => margin.left + toAxis(pi) * inner,
      y: w => margin.top + ((HIGH - w) / (HIGH - LOW)) * (height - margin.top - margin.bottom),
      pi: x => fromAxis((x - margin.left) / inner),
    };
  }

  function text(x, y, said, attributes = {}) {
    return drawing("text", { x, y, ...attributes }, said);
  }

  function line(x1, y1, x2, y2, kind) {
    return drawing("line", { x1, y1, x2, y2, class: kind });
  }

  // The curve of an objective; a jump is a gap.
  function curve(name, width, { x, y }) {
    let path = "";
    let before = null;
    for (let i = 0; i <= SAMPLES; i++) {
      const pi = fromAxis(i / SAMPLES);
      const w = weightAt(name, pi);
      const jump = before !== null && Math.abs(w - before) > 0.2 && isJump(name, fromAxis((i - 1) / SAMPLES), pi);
      path += `${before === null || jump ? "M" : "L"}${x(pi).toFixed(1)} ${y(Math.max(-50, Math.min(50, w))).toFixed(1)}`;
      before = w;
    }
    return drawing("path", { d: path, class: `gw-curve gw-${name}`, "stroke-width": width });
  }

  // Whether w jumps between two points: it does if half of the way holds most of the step, however often it is halved.
  function isJump(name, low, high) {
    const step = Math.abs(weightAt(name, high) - weightAt(name, low));
    for (let i = 0; i < 20; i++) {
      const middle = (low + high) / 2;
      const left = Math.abs(weightAt(name, middle) - weightAt(name, low));
      const right = Math.abs(weightAt(name, high) - weightAt(name, middle));
      if (Math.max(left, right) < 0.8 * step) return false;
      if (left > right) high = middle;
      else low = middle;
    }
    return true;
  }

  function ground({ width, height, x, y }) {
    const right = width - margin.right;
    const bottom = height - margin.bottom;
    const parts = [drawing("rect", { x: margin.left, y: y(0), width: right - margin.left, height: bottom - y(0), class: "gw-corrective" })];
    for (const w of [-1, 0, 1, 2]) {
      parts.push(line(margin.left, y(w), right, y(w), w === 0 ? "gw-zero" : "gw-grid"));
      parts.push(text(margin.left - 8, y(w) + 4, shown(w), { "text-anchor": "end" }));
    }
    const ticks = state.logOdds ? [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999] : [0, 0.2, 0.4, 0.6, 0.8, 1];
    const narrow = width < 520;
    ticks.forEach((pi, i) => {
      if (narrow && state.logOdds && i % 2 === 1) return;
      const anchor = i === 0 ? "start" : i === ticks.length - 1 ? "end" : "middle";
      parts.push(line(x(pi), bottom, x(pi), bottom + 4, "gw-zero"));
      parts.push(text(x(pi), bottom + 18, String(pi), { "text-anchor": anchor }));
    });
    parts.push(text((margin.left + right) / 2, height - 6, "π", { "text-anchor": "middle", class: "gw-name" }));
    parts.push(text(margin.left, 14, "gradient weight w", { class: "gw-name" }));
    parts.push(text(right - 4, bottom - 6, "w < 0: corrective", { "text-anchor": "end", class: "gw-below" }));
    return parts;
  }

  function marks({ height, x }) {
    const bottom = height - margin.bottom;
    const parts = [];
    const edge = state.mu + state.sign * state.delta;
    const near = Math.abs(x(state.mu) - x(Math.min(0.9999, Math.max(0.0001, edge)))) < 34;
    parts.push(line(x(state.mu), margin.top, x(state.mu), bottom, "gw-mu"));
    parts.push(text(x(state.mu), margin.top - 6, "μ", { "text-anchor": "middle", class: "gw-name" }));
    if (edge > 0.0001 && edge < 0.9999) {
      parts.push(line(x(edge), margin.top, x(edge), bottom, "gw-delta"));
      const said = state.sign > 0 ? "μ + δ" : "μ − δ";
      const anchor = near ? (state.sign > 0 ? "start" : "end") : "middle";
      const shift = near ? state.sign * 6 : 0;
      parts.push(text(x(edge) + shift, margin.top - 6, said, { "text-anchor": anchor, class: "gw-name" }));
    }
    return parts;
  }

  function point(name, { x, y }) {
    return drawing("circle", { cx: x(state.pi), cy: y(weightAt(name, state.pi)), r: 5, class: `gw-point gw-${name}` });
  }

  function draw() {
    const at = frame();
    const { width, height, x } = at;
    // The last of the table lies lowest and is the widest.
    const drawn = NAMES.filter(name => state.drawn.has(name)).reverse();
    const last = drawn.length - 1;
    const stroke = i => WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** ((last - i) / Math.max(1, last));
    const area = { x: margin.left, y: margin.top, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
    const said = drawn.map(name => `${name} ${shown(weightAt(name, state.pi))}`).join(", ");
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.setAttribute("height", height);
    chart.replaceChildren(
      drawing("title", { id: "gw-title" }, "Gradient weight over π"),
      drawing("desc", { id: "gw-description" }, `At π = ${shown(state.pi)}: ${said}.`),
      drawing("clipPath", { id: "gw-clip" }, drawing("rect", area)),
      ...ground(at),
      ...marks(at),
      line(x(state.pi), margin.top, x(state.pi), height - margin.bottom, "gw-pi"),
      drawing("g", { "clip-path": "url(#gw-clip)" }, ...drawn.map((name, i) => curve(name, stroke(i), at)), ...drawn.map(name => point(name, at))),
    );
    legend.replaceChildren(...NAMES.filter(name => state.drawn.has(name)).map(name => element("span", {}, sample(name), ` ${name}`)));
  }

  function drag(event) {
    const box = chart.getBoundingClientRect();
    state.pi = frame().pi(((event.clientX - box.left) / box.width) * frame().width);
    update();
  }
  chart.addEventListener("pointerdown", event => { chart.setPointerCapture(event.pointerId); drag(event); });
  chart.addEventListener("pointermove", event => { if (chart.hasPointerCapture(event.pointerId)) drag(event); });

  // Table

  function sample(name) {
    const path = drawing("path", { d: "M0 6H32", class: `gw-curve gw-${name}`, "stroke-width": 2.4 });
    return drawing("svg", { width: 32, height: 12, viewBox: "0 0 32 12", "aria-hidden": "true" }, path);
  }

  function row(name) {
    const box = element("input", {
      type: "checkbox", id: `gw-draw-${name}`, checked: state.drawn.has(name),
      onchange: event => { state.drawn[event.target.checked ? "add" : "delete"](name); update(); },
    });
    const label = element("label", { for: `gw-draw-${name}` }, sample(name), " ", element("code", {}, name));
    const number = element("td", { class: "gw-number" });
    const said = element("td");
    const show = () => {
      const w = weightAt(name, state.pi);
      number.textContent = shown(w);
      said.textContent = meaning(w);
      said.className = w < 0 ? "gw-is-corrective" : "";
    };
    return { row: element("tr", {}, element("th", { scope: "row" }, box, label), number, said), show };
  }

  function bound(name, key) {
    const start = OBJECTIVES[name].parameters[key];
    const id = `gw-${name}-${key}`;
    const highest = ["ratio_low", "outer_low"].includes(key) ? 1 : 10000;
    const lowest = ["rollback", "coefficient", "beta", "low"].includes(key) ? 0 : 0.001;
    const input = element("input", {
      id, type: "number", value: start, min: lowest, max: highest, step: "any",
      oninput: event => {
        const bad = event.target.value === "" || !event.target.validity.valid;
        event.target.setAttribute("aria-invalid", bad);
        if (!bad) state.own[name] = { ...state.own[name], [key]: Number(event.target.value) };
        update();
      },
    });
    return element("label", { for: id }, element("code", {}, `${name}.${key}`), input);
  }

  const rows = NAMES.map(row);
  const bounds = NAMES.flatMap(name => Object.entries(OBJECTIVES[name].parameters)
    .filter(([key, value]) => typeof value === "number" && !FIXED.includes(key))
    .map(([key]) => bound(name, key)));
  const head = ["objective", "w at π", "this token is"].map(said => element("th", { scope: "col" }, said));
  const table = element("table", { class: "gw-table" }, element("caption", {}, "Check an objective to draw it."),
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows.map(made => made.row)));

  function update() {
    const { ratio, shift, direction } = token(state.mu, state.pi, state.sign * state.size);
    for (const made of [...sliders, ...rows]) made.show();
    const way = direction > 0 ? "diverging" : direction < 0 ? "converging" : "at μ";
    const side = shift > state.delta ? ", beyond δ" : "";
    facts.replaceChildren(`r = ${shown(ratio)}, |π − μ| = ${shown(shift)}${side}: the token is `, element("strong", {}, way), ".");
    draw();
  }

  function start() {
    const place = document.getElementById("gradient-weight");
    place.replaceChildren(
      element("div", { class: "gw-controls" }, ...sliders.map(made => made.row),
        element("div", { class: "gw-choices" },
          choice("sign", "Advantage Â", [["positive", 1], ["negative", -1]]),
          choice("logOdds", "Axis of π", [["linear", false], ["log-odds", true]]))),
      facts,
      element("div", { class: "gw-chart" }, chart),
      legend,
      table,
      element("details", { class: "gw-bounds" }, element("summary", {}, "Bounds of the other objectives"), ...bounds),
    );
    update();
    new ResizeObserver(draw).observe(chart.parentElement);
  }

  start();
})();
