// The script of every page. It reads the page and changes how it looks; it asks for nothing and runs nothing from data:
// what data says is set as text only. Without it the page can still be read.
"use strict";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Say `text` to readers who do not see the page. */
function announce(text) {
  let place = document.getElementById("announced");
  if (!place) {
    place = element("div", { id: "announced", role: "status", class: "unseen" });
    document.body.append(place);
  }
  place.textContent = text;
}

/** Open what a link leads into. */
function openTarget() {
  const name = decodeURIComponent(location.hash.slice(1));
  const target = name && document.getElementById(name);
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}

/** Mark the section that is being read in the list of contents. */
function followContents() {
  const links = new Map();
  for (const link of document.querySelectorAll("nav.contents a")) {
    const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (section) links.set(section, link);
  }
  const inView = new Set();
  const watch = new IntersectionObserver(
    entries => {
      for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
      const first = [...links.keys()].find(section => inView.has(section));
      for (const [section, link] of links) {
        if (section === first) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "0px 0px -60% 0px" },
  );
  for (const section of links.keys()) watch.observe(section);
}
