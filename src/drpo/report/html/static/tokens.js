// The token viewer: responses token by token, colored by what was done to each. A card's tokens become elements when the
// card comes near the window, and a token's class says its level in each coloring, so that another coloring is one class
// of the whole list.
"use strict";

/** Colorings: what the class of a level begins with, the ends of the levels from the middle outwards, and words. */
const COLORINGS = {
  weight: { letter: "w", title: "gradient weight w" },
  shift: { letter: "s", title: "shift π − μ", ends: [0.01, 0.1, 0.5, 1, 2] },
  ratio: { letter: "l", title: "log-ratio log π − log μ", ends: [0.001, 0.05, 0.2, 0.5, 1] },
};
const MIDDLE = 5;
const POOLS = { changed: "changed most", extreme: "largest |log π − log μ|", random: "random sample" };

function unpack(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), character => character.charCodeAt(0)).buffer);
}

function short(value) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const far = size !== 0 && (size < 0.00095 || size >= 1e5);
  return (far ? value.toExponential(1) : String(Number(value.toPrecision(3)))).replaceAll("-", "−");
}

const signed = value => (value > 0 ? `+${short(value)}` : short(value));

/** The level of a signed value: 0 to 10, of which 5 is next to nothing. */
function signedLevel(value, ends) {
  const place = ends.findIndex(end => Math.abs(value) <= end);
  return MIDDLE + Math.sign(value) * (place < 0 ? ends.length : place);
}

/** The level of a gradient weight in thousandths: 0 for none or less, 5 for that of the plain surrogate. */
function weightLevel(thousandths) {
  if (thousandths === -32768) return "none";
  const apart = thousandths - 1000;
  if (Math.abs(apart) <= 10) return MIDDLE;
  if (apart > 0) return MIDDLE + 1 + [250, 500, 1000, 2000].filter(end => apart > end).length;
  return thousandths <= 0 ? 0 : MIDDLE - 1 - [250, 500, 750].filter(end => -apart > end).length;
}

/** What the levels of a signed value mean, from the lowest. */
function scaleWords(ends) {
  const sides = ends.slice(1).map(short);
  const falling = [...sides].reverse().map(end => `to −${end}`);
  return ["less", ...falling, "0", ...sides.map(end => `to +${end}`), "more"];
}

/** All tokens one after the other, and the responses that they make up. */
class TokenStore {
  constructor(given) {
    Object.assign(this, { delta: given.delta, files: given.files });
    this.tests = given.tests.map(test => ({ ...test, flags: test.flags && unpack(test.flags, Uint8Array) }));
    this.mu = unpack(given.mu, Float32Array);
    this.pi = unpack(given.pi, Float32Array);
    this.advantages = unpack(given.advantages, Float32Array);
    this.objectives = Object.keys(given.weights);
    this.weights = Object.fromEntries(this.objectives.map(name => [name, unpack(given.weights[name], Int16Array)]));
    this.texts = given.texts && { known: given.texts, at: unpack(given.texts_at, Uint32Array) };
    this.ids = given.ids && { known: given.ids, at: unpack(given.ids_at, Uint32Array) };
    let end = 0;
    this.responses = given.responses.map(response => ({ ...response, start: end, end: (end += response.count) }));
    for (const response of this.responses) response.advantage = this.advantages[response.start];
  }

  text(i) {
    return this.texts ? this.texts.known[this.texts.at[i]] : "";
  }

  id(i) {
    return this.ids ? this.ids.known[this.ids.at[i]] : "";
  }

  /** The gradient weight, NaN where there is none. */
  weight(i, objective) {
    const thousandths = objective === undefined ? -32768 : this.weights[objective][i];
    return thousandths === -32768 ? NaN : thousandths / 1000;
  }

  shift(i) {
    return Math.exp(this.pi[i]) - Math.exp(this.mu[i]);
  }

  meets(i, test, objective) {
    if (test.flags) return ((test.flags[i >> 3] >> (i & 7)) & 1) === 1;
    if (test.figure === "shift") return Math.abs(this.shift(i)) > test.limit;
    return this.weight(i, objective) <= test.limit;
  }

  /** The share of a response's gradient that an objective changes: Σ |Â r| |w − 1| / Σ |Â r|. */
  changed(response, objective) {
    let [changed, whole] = [0, 0];
    for (let i = response.start; i < response.end; i++) {
      const mass = Math.abs(this.advantages[i]) * Math.exp(this.pi[i] - this.mu[i]);
      const weight = this.weight(i, objective);
      if (Number.isNaN(weight)) continue;
      whole += mass;
      changed += mass * Math.abs(weight - 1);
    }
    return whole ? changed / whole : 0;
  }
}

class TokenViewer {
  constructor(place) {
    this.store = new TokenStore(JSON.parse(document.getElementById(place.dataset.tokens).textContent));
    const { objectives, responses } = this.store;
    this.objective = objectives[0];
    this.test = null;
    this.current = null;
    this.cards = responses.map(response => this.card(response));
    this.list = element("div", {
      class: "tokens",
      tabindex: "0",
      role: "group",
      "aria-label": "Responses. The arrow keys move from token to token.",
    });
    this.reading = element("p", { class: "reading", "aria-hidden": "true" });
    this.all = element("div");
    this.list.append(this.reading, this.all);
    this.count = element("p", { class: "soft", role: "status" });
    this.legend = element("p", { class: "legend" });
    place.replaceChildren(this.controls(), this.legend, this.count, this.list);
    this.watch = new IntersectionObserver(
      entries => entries.forEach(entry => entry.isIntersecting && this.reveal(entry.target.card)),
      { root: this.list, rootMargin: "600px 0px" },
    );
    this.list.addEventListener("pointerover", event => this.point(event.target.closest(".t")));
    this.list.addEventListener("click", event => this.point(event.target.closest(".t")));
    this.list.addEventListener("keydown", event => this.key(event));
    this.color(objectives.length ? "weight" : "shift");
    this.order();
    this.read(null);
    for (const card of this.cards) this.watch.observe(card.whole);
  }

  // What the reader chooses.

  controls() {
    const { objectives, responses, tests } = this.store;
    const kinds = Object.keys(COLORINGS).filter(kind => kind !== "weight" || objectives.length);
    const radios = kinds.map((kind, i) =>
      element(
        "label",
        {},
        element("input", { type: "radio", name: "coloring", checked: !i, onchange: () => this.color(kind) }),
        ` ${COLORINGS[kind].title}`,
      ),
    );
    const box = element("div", { class: "controls" });
    box.append(element("fieldset", { class: "wide" }, element("legend", {}, "Color by"), ...radios));
    const choose = (title, options, then) => {
      if (options.length < 2) return;
      const select = element("select", {}, ...options.map(([name, value]) => element("option", { value }, name)));
      select.addEventListener("change", () => then(select.value));
      box.append(element("label", {}, `${title} `, select));
    };
    choose("Objective", objectives.map(name => [name, name]), name => this.choose(name));
    const pools = Object.keys(POOLS).filter(pool => responses.some(response => response.why.includes(pool)));
    choose("Show", [["all", ""], ...pools.map(pool => [POOLS[pool], pool])], value => this.filter({ pool: value }));
    choose("Reward", this.rewards(), value => this.filter({ reward: value }));
    const signs = [-1, 1].filter(sign => responses.some(response => Math.sign(response.advantage) === sign));
    const said = { 1: "Â > 0", "-1": "Â < 0" };
    choose("Advantage", signs.length < 2 ? [] : [["any", ""], ...signs.map(sign => [said[sign], sign])], value =>
      this.filter({ sign: value }),
    );
    const asked = tests.filter(test => test.figure !== "below_weight" || objectives.length);
    choose("With a token that has", [["anything", ""], ...asked.map(test => [test.title, tests.indexOf(test)])], value => {
      this.test = value === "" ? null : tests[value];
      this.repaint();
      this.filter({});
    });
    choose("Order", [["changed most first", "changed"], ["as logged", "logged"]].slice(objectives.length ? 0 : 1), value =>
      this.order(value),
    );
    this.chosen = { pool: "", reward: "", sign: "" };
    return box;
  }

  /** The rewards that can be chosen, if there are several. */
  rewards() {
    const known = this.store.responses.map(response => response.reward).filter(reward => reward !== null);
    this.rewardTests = rewardChoices(known);
    return this.rewardTests.length ? [["any", ""], ...this.rewardTests.map(([name], place) => [name, place])] : [];
  }

  filter(change) {
    Object.assign(this.chosen, change);
    const { pool, reward, sign } = this.chosen;
    const fits = reward === "" ? () => true : value => value !== null && this.rewardTests[reward][1](value);
    let shown = 0;
    for (const card of this.cards) {
      const { response } = card;
      const kept =
        (!pool || response.why.includes(pool)) &&
        fits(response.reward) &&
        (!sign || Math.sign(response.advantage) === Number(sign)) &&
        (!this.test || this.hits(response) > 0);
      card.whole.hidden = !kept;
      shown += kept;
    }
    for (const group of this.list.querySelectorAll(".group")) {
      group.hidden = ![...group.querySelectorAll(".response")].some(response => !response.hidden);
    }
    this.count.textContent = `${shown} of ${this.cards.length} responses are shown.`;
  }

  hits(response) {
    let found = 0;
    for (let i = response.start; i < response.end; i++) found += this.store.meets(i, this.test, this.objective);
    return found;
  }

  /** Put the responses in an order; those of one group stand side by side. */
  order(by = this.store.objectives.length ? "changed" : "logged") {
    this.by = by;
    const groups = new Map();
    for (const card of this.cards) {
      const { group, step } = card.response;
      const key = group === null ? card : `${step} ${group}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(card);
    }
    const found = [...groups.values()];
    if (by === "changed") {
      const most = cards => Math.max(...cards.map(card => card.changed));
      for (const cards of found) cards.sort((a, b) => b.changed - a.changed);
      found.sort((a, b) => most(b) - most(a));
    }
    this.all.replaceChildren(...found.map(cards => this.group(cards)));
    this.shownCards = found.flat();
    this.filter({});
  }

  group(cards) {
    const { group, step } = cards[0].response;
    if (group === null || cards.length < 2) return cards[0].whole;
    const moment = step === null ? "" : `step ${step}, `;
    return element(
      "div",
      { class: "group" },
      element("h4", {}, `Group ${group} `, element("span", { class: "soft" }, `${moment}${cards.length} responses`)),
      element("div", { class: "sides" }, ...cards.map(card => card.whole)),
    );
  }

  choose(objective) {
    this.objective = objective;
    for (const card of this.cards) this.describe(card);
    this.repaint();
    if (this.by === "changed") this.order();
    else this.filter({});
    this.read(this.current);
  }

  color(kind) {
    this.coloring = kind;
    for (const { letter } of Object.values(COLORINGS)) this.list.classList.remove(`by-${letter}`);
    this.list.classList.add(`by-${COLORINGS[kind].letter}`);
    this.explain();
  }

  // The cards and their tokens.

  card(response) {
    const body = element("p", { class: "text", dir: "auto" });
    const head = element("p", { class: "where" });
    const card = { response, body, head, whole: element("article", { class: "response" }, head, body), spans: null };
    card.whole.card = card;
    this.describe(card);
    const { store } = this;
    // Until its tokens are drawn the card has their text, so that it has its height and can be searched.
    let text = response.first ? "… " : "";
    for (let i = response.start; i < response.end; i++) text += store.text(i) || (store.id(i) ? `${store.id(i)} ` : "\u2007");
    body.textContent = text;
    return card;
  }

  describe(card) {
    const { response, head } = card;
    const { files } = this.store;
    card.changed = this.objective === undefined ? 0 : this.store.changed(response, this.objective);
    const where = [
      response.step !== null && `step ${response.step}`,
      response.update !== null && `update ${response.update}`,
      `row ${response.row}`,
    ];
    const facts = [
      response.reward !== null && `reward ${short(response.reward)}`,
      `Â ${signed(response.advantage)}`,
      response.count < response.length
        ? `tokens ${response.first + 1} to ${response.first + response.count} of ${response.length}`
        : `${response.count} tokens`,
      this.objective !== undefined && `gradient changed ${short(100 * card.changed)} %`,
    ];
    head.title = files[response.file];
    head.replaceChildren(element("b", {}, where.filter(Boolean).join(", ")), ` ${facts.filter(Boolean).join(" · ")}`);
  }

  /** Make the tokens of a card elements. */
  reveal(card) {
    if (card.spans) return;
    this.watch.unobserve(card.whole);
    const { response, body } = card;
    card.spans = [];
    const parts = response.first ? ["… "] : [];
    for (let i = response.start; i < response.end; i++) {
      const span = element("span");
      span.token = i;
      span.card = card;
      this.write(span, i);
      span.className = this.classOf(i);
      card.spans.push(span);
      parts.push(span);
    }
    if (response.first + response.count < response.length) parts.push(" …");
    body.replaceChildren(...parts);
  }

  write(span, i) {
    const text = this.store.text(i);
    if (!text) {
      span.textContent = this.store.id(i) ? `${this.store.id(i)} ` : "\u2007";
      return;
    }
    text.split("\n").forEach((line, place) => {
      if (place) span.append(element("span", { class: "newline" }), "\n");
      span.append(line);
    });
  }

  classOf(i) {
    const { store } = this;
    const thousandths = this.objective === undefined ? -32768 : store.weights[this.objective][i];
    const levels = [
      `w${weightLevel(thousandths)}`,
      `s${signedLevel(store.shift(i) / store.delta, COLORINGS.shift.ends)}`,
      `l${signedLevel(store.pi[i] - store.mu[i], COLORINGS.ratio.ends)}`,
    ];
    if (thousandths === 0) levels.push("masked");
    if (thousandths < 0 && thousandths !== -32768) levels.push("corrective");
    if (this.test && store.meets(i, this.test, this.objective)) levels.push("hit");
    if (/^[ \t]+$/.test(store.text(i))) levels.push("blank");
    return `t ${levels.join(" ")}`;
  }

  repaint() {
    for (const { spans } of this.cards) {
      if (spans) for (const span of spans) span.className = this.classOf(span.token);
    }
    this.current?.classList.add("at");
  }

  // Reading one token.

  point(span) {
    if (span && span !== this.current) this.read(span);
  }

  read(span, aloud = false) {
    this.current?.classList.remove("at");
    this.current = span;
    if (!span) {
      this.reading.replaceChildren(
        "Point at a token, or move with the arrow keys, to read its figures. N and P lead to the next and the previous " +
          "token that is held back, or that has what you chose.",
      );
      return;
    }
    span.classList.add("at");
    const { store } = this;
    const i = span.token;
    const { response } = span.card;
    const weight = store.weight(i, this.objective);
    const kind = weight < 0 ? " (corrective)" : weight === 0 ? " (masked)" : "";
    const name = store.text(i) || store.id(i) || "token";
    const figures = [
      ["μ", short(Math.exp(store.mu[i]))],
      ["π", short(Math.exp(store.pi[i]))],
      ["r", short(Math.exp(store.pi[i] - store.mu[i]))],
      ["π − μ", signed(store.shift(i))],
      ["Â", signed(store.advantages[i])],
      ...(this.objective === undefined ? [] : [[`w of ${this.objective}`, `${short(weight)}${kind}`]]),
      ...(store.texts && store.ids ? [["id", store.id(i)]] : []),
      ["token", `${response.first + i - response.start + 1} of ${response.length}`],
    ];
    this.reading.replaceChildren(
      element("code", {}, name.replaceAll("\n", "↵")),
      ...figures.map(([title, value]) => element("span", {}, `${title} `, element("b", {}, value))),
    );
    if (aloud) announce(`${name}: ${figures.map(figure => figure.join(" ")).join(", ")}`);
  }

  key(event) {
    const moves = {
      ArrowRight: () => this.beside(1),
      ArrowLeft: () => this.beside(-1),
      ArrowDown: () => this.inCard(1),
      ArrowUp: () => this.inCard(-1),
      Home: () => this.current?.card.spans[0],
      End: () => this.current?.card.spans.at(-1),
      n: () => this.search(1),
      p: () => this.search(-1),
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const span = this.current ? move() : this.first();
    if (!span) return;
    this.read(span, true);
    span.scrollIntoView({ block: "nearest" });
  }

  /** The cards that are shown, in their order. */
  open() {
    return this.shownCards.filter(card => !card.whole.hidden);
  }

  /** The first token of the first card that can be seen. */
  first() {
    const card = this.open().find(one => one.whole.getBoundingClientRect().bottom > 0);
    if (!card) return null;
    this.reveal(card);
    return card.spans[0];
  }

  beside(way) {
    const { card } = this.current;
    const span = card.spans[card.spans.indexOf(this.current) + way];
    return span ?? this.inCard(way, way > 0 ? 0 : -1);
  }

  /** A token of the next or the previous card. */
  inCard(way, place = 0) {
    const cards = this.open();
    const card = cards[cards.indexOf(this.current.card) + way];
    if (!card) return null;
    this.reveal(card);
    return card.spans.at(place);
  }

  /** The next token that has what was chosen, or that the objective holds back. */
  search(way) {
    const wanted = this.test ?? { figure: "below_weight", limit: 0 };
    const cards = this.open();
    let place = cards.indexOf(this.current.card);
    let i = this.current.token + way;
    for (; place >= 0 && place < cards.length; place += way) {
      const { response } = cards[place];
      if (i === null) i = way > 0 ? response.start : response.end - 1;
      for (; i >= response.start && i < response.end; i += way) {
        if (!this.store.meets(i, wanted, this.objective)) continue;
        this.reveal(cards[place]);
        return cards[place].spans[i - response.start];
      }
      i = null;
    }
    return null;
  }

  // The legend.

  explain() {
    const { delta } = this.store;
    const { letter, ends } = COLORINGS[this.coloring];
    const weights = ["w ≤ 0", "to 0.25", "to 0.5", "to 0.75", "to 0.99", "1", "to 1.25", "to 1.5", "to 2", "to 3", "more"];
    const words = ends ? scaleWords(ends.map(end => end * (this.coloring === "shift" ? delta : 1))) : weights;
    const said = {
      weight: "Orange is held back, blue is amplified.",
      shift: `Orange is less likely than when it was sampled, blue more. The two outermost are beyond δ = ${short(delta)}.`,
      ratio: "Orange is less likely than when it was sampled, blue more; in nats.",
    }[this.coloring];
    const cues = [["masked", "w = 0"], ["corrective", "w < 0"]].map(([kind, text]) =>
      element("span", { class: "nowrap" }, element("span", { class: `t ${kind}` }, text), " "),
    );
    const swatch = level => element("span", { class: `t ${letter}${level}` }, "\u2003");
    const swatches = words.map((text, level) => element("span", { class: "nowrap" }, swatch(level), ` ${text}`));
    this.legend.className = `legend by-${letter}`;
    this.legend.replaceChildren(
      ...swatches.flatMap(one => [one, " "]),
      ...(this.store.objectives.length ? cues : []),
      said,
    );
  }
}
