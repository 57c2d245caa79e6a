// Values of figures, by pointer and by keyboard.
"use strict";

/** The place of `items` that is nearest to `at`. */
function nearest(items, at) {
  let best = 0;
  for (let i = 1; i < items.length; i++) if (Math.abs(items[i] - at) < Math.abs(items[best] - at)) best = i;
  return best;
}

/** A chart whose values at an x are shown beside the pointer, or by the arrow keys. */
function readChart(drawing) {
  const { label, at, x, lines } = JSON.parse(drawing.dataset.read);
  const figure = drawing.closest("figure");
  const tip = element("div", { class: "tip", hidden: true });
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "path");
  rule.setAttribute("class", "pointer");
  let shown = -1;

  function show(i, aloud) {
    shown = i;
    const { height, width } = drawing.viewBox.baseVal;
    rule.setAttribute("d", `M${at[i]} 8V${height - 26}`);
    drawing.append(rule);
    const said = [];
    tip.replaceChildren(element("b", {}, `${label} ${x[i]}`));
    for (const { name, color, values } of lines) {
      if (values[i] === null) continue;
      said.push(`${name} ${values[i]}`.trim());
      tip.append(element("span", { class: `c${color}` }, name), element("span", {}, values[i]));
    }
    tip.hidden = false;
    const box = drawing.getBoundingClientRect();
    const place = (box.width * at[i]) / width;
    const left = place > box.width / 2 ? place - tip.offsetWidth - 10 : place + 10;
    tip.style.left = `${box.left - figure.getBoundingClientRect().left + Math.max(0, left)}px`;
    tip.style.top = `${box.top - figure.getBoundingClientRect().top + 4}px`;
    if (aloud) announce(`${label} ${x[i]}: ${said.join(", ")}`);
  }

  function hide() {
    tip.hidden = true;
    rule.remove();
    shown = -1;
  }

  figure.append(tip);
  drawing.setAttribute("tabindex", "0");
  drawing.addEventListener("pointermove", event => {
    const box = drawing.getBoundingClientRect();
    const i = nearest(at, ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width);
    if (i !== shown) show(i, false);
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", event => {
    const last = at.length - 1;
    const moves = { ArrowRight: shown + 1, ArrowLeft: shown < 0 ? last : shown - 1, Home: 0, End: last };
    if (event.key === "Escape") hide();
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(Math.min(last, Math.max(0, moves[event.key])), true);
  });
}

/** A table of colored cells without text, whose values stand below it: by pointer, or by the arrow keys. */
function readHeat(table) {
  const readout = element("p", { class: "readout", "aria-hidden": "true" }, table.dataset.hint);
  const rows = [...table.tBodies[0].rows].map(row => [...row.cells].filter(cell => cell.title));
  let [row, column] = [0, -1];
  for (const cell of rows.flat()) {
    cell.dataset.say = cell.title;
    cell.removeAttribute("title");
  }

  function show(cell, aloud) {
    table.querySelector(".at")?.classList.remove("at");
    cell.classList.add("at");
    readout.textContent = cell.dataset.say;
    if (aloud) announce(cell.dataset.say);
  }

  table.closest(".scroll").after(readout);
  table.setAttribute("tabindex", "0");
  table.addEventListener("pointerover", event => event.target.dataset.say && show(event.target, false));
  table.addEventListener("keydown", event => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    row = Math.min(rows.length - 1, Math.max(0, row + move[0]));
    column = Math.min(rows[row].length - 1, Math.max(0, column + move[1]));
    show(rows[row][column], true);
  });
}
