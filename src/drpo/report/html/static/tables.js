// Tables that can be sorted and downloaded, and commands that can be copied.
"use strict";

/** What a cell is sorted by and downloaded as. */
function valueOf(cell) {
  return cell.dataset.v ?? cell.textContent.trim();
}

/** Order of two values; what is missing comes last, whichever way a column is sorted. */
function compareValues(a, b, numeric, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return direction * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

function sortBy(table, column, header) {
  const rows = [...table.tBodies[0].rows];
  const value = row => valueOf(row.cells[column]);
  const numeric = rows.every(row => value(row) === "" || Number.isFinite(Number(value(row))));
  const before = header.getAttribute("aria-sort");
  const falling = before === "none" ? numeric : before === "ascending";
  rows.sort((a, b) => compareValues(value(a), value(b), numeric, falling ? -1 : 1));
  table.tBodies[0].append(...rows);
  for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.ariaSort = "none";
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  announce(`Sorted by ${header.textContent.trim()}, ${falling ? "descending" : "ascending"}.`);
}

function makeSortable(table) {
  for (const [column, header] of [...table.tHead.rows[0].cells].entries()) {
    if (!header.textContent.trim()) continue;
    const button = element("button", { type: "button", title: header.title || false }, ...header.childNodes);
    button.addEventListener("click", () => sortBy(table, column, header));
    header.setAttribute("aria-sort", "none");
    header.append(button);
  }
}

/** A choice of the kinds of the examples in `place`. */
function offerKinds(place) {
  const examples = [...place.querySelectorAll("[data-kind]")];
  const kinds = [...new Set(examples.map(example => example.dataset.kind))];
  const rewards = rewardChoices(examples.filter(one => "reward" in one.dataset).map(one => Number(one.dataset.reward)));
  const chosen = { kind: () => true, reward: () => true };
  const count = element("span", { class: "soft", role: "status" });
  const line = element("p", { class: "choice" });
  const show = change => {
    Object.assign(chosen, change);
    for (const one of examples) one.hidden = !chosen.kind(one) || !chosen.reward(one);
    count.textContent = `${examples.filter(one => !one.hidden).length} of ${examples.length} are shown.`;
  };
  const offer = (title, options, then) => {
    if (options.length < 3) return;
    const select = element("select", {}, ...options.map(([name]) => element("option", {}, name)));
    select.addEventListener("change", () => then(options[select.selectedIndex][1]));
    line.append(element("label", {}, `${title} `, select), " ");
  };
  const byKind = kinds.map(kind => [kind, one => one.dataset.kind === kind]);
  offer("Show", [["all", () => true], ...byKind], kind => show({ kind }));
  const byReward = rewards.map(([name, fits]) => [name, one => "reward" in one.dataset && fits(Number(one.dataset.reward))]);
  offer("Last reward", [["any", () => true], ...byReward], reward => show({ reward }));
  if (!line.childElementCount) return;
  line.append(count);
  place.before(line);
}

/** What rewards can be chosen by, [name, test]: each value where there are few, else above and below their mean. */
function rewardChoices(known) {
  const values = [...new Set(known)].sort((a, b) => b - a);
  if (values.length < 2) return [];
  if (values.length <= 6) return values.map(value => [short(value), reward => reward === value]);
  const mean = known.reduce((sum, reward) => sum + reward, 0) / known.length;
  return [[`above ${short(mean)}`, reward => reward > mean], [`at most ${short(mean)}`, reward => reward <= mean]];
}

/** One field of a CSV file. A text that a spreadsheet would read as a formula gets an apostrophe before it. */
function csvField(text) {
  const formula = /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text));
  const safe = formula ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvOf(table) {
  return [...table.rows].map(row => [...row.cells].map(cell => csvField(valueOf(cell))).join(",")).join("\r\n") + "\r\n";
}

function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function offerDownload(table) {
  const name = `${table.dataset.file}.csv`;
  const save = element("button", { type: "button", class: "tool", title: `Save this table as ${name}` }, "CSV");
  save.addEventListener("click", () => download(name, csvOf(table)));
  table.closest(".framed").append(save);
}

async function copyText(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page that was opened from a file may not use the clipboard: select the text, for the reader to copy.
    getSelection().selectAllChildren(place);
    return document.execCommand("copy");
  }
}

function offerCopy(command) {
  const button = element("button", { type: "button", class: "tool" }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copyText(command.textContent, command);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    announce(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  command.after(button);
}
