// What runs when the page has been read.
"use strict";

document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
document.querySelectorAll("table[data-file]").forEach(offerDownload);
document.querySelectorAll("[data-kinds]").forEach(offerKinds);
document.querySelectorAll("pre[data-copy]").forEach(offerCopy);
document.querySelectorAll("svg[data-read]").forEach(readChart);
document.querySelectorAll("table.heat").forEach(readHeat);
document.querySelectorAll("[data-tokens]").forEach(place => new TokenViewer(place));
followContents();
openTarget();
addEventListener("hashchange", openTarget);
