"""The page's style sheet and frame: one file, no script, no network, light and dark, phone and desk."""

from __future__ import annotations

from string import Template

from drpo.report.html.escape import visible_plain

#: Okabe and Ito's color-blind-safe colors, lightened for a dark ground.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fff; --card: #f6f7f8; --ink: #1b1f23; --soft: #59636e; --edge: #d9dee3; --grid: #e3e7ea;
  --c1: #0072b2; --c2: #ba4a00; --c3: #007a55; --c4: #666e77; --c5: #8f3f86;
  --warn: #9a4b00; --warn-ground: #fff4e5; --good: #00704c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1317; --card: #171c21; --ink: #e4e8eb; --soft: #9aa5af; --edge: #2c343b; --grid: #242b31;
    --c1: #56b4e9; --c2: #f0954f; --c3: #35c797; --c4: #98a1a9; --c5: #d98cc6;
    --warn: #ffb366; --warn-ground: #2b2013; --good: #4fd1a1;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 75rem; overflow-wrap: anywhere;
  background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption, th, dt { color: var(--soft); }
figcaption b { color: var(--ink); font-weight: 600; }
dd, td, .result, svg text { font-variant-numeric: tabular-nums; }
code, pre, .said { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
pre, .said { background: var(--card); border: 1px solid var(--edge); border-radius: 6px; }
pre { white-space: pre-wrap; padding: .7rem .8rem; margin: .4rem 0; }

.status {
  display: inline-block; padding: 0 .55em; border-radius: 1em; border: 1px solid currentColor;
  font-size: .85rem; font-weight: 600; vertical-align: .2em; color: var(--warn);
}
.status.finished { color: var(--good); }
.bad b { color: var(--warn); }
.lead {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1rem 2.5rem;
  margin: 1rem 0 0; align-items: start;
}
.result { font-size: 2.2rem; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; margin: 0; }
.result span { color: var(--soft); font-weight: 400; }
.counts { margin-top: .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dd { margin: 0; }
.notes { list-style: none; padding: 0; margin: 1.2rem 0 0; }
.notes li { padding: .4rem .8rem; margin: .35rem 0; border-left: 3px solid var(--edge); }
.notes li { background: var(--card); }
.notes.tight { margin: .3rem 0 1rem; }
.notes li.warn { border-color: var(--warn); background: var(--warn-ground); }

.charts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1.5rem 1.8rem;
  margin-top: .8rem;
}
summary { cursor: pointer; color: var(--soft); margin: .5rem 0; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
figure { margin: 0; min-width: 0; display: flex; flex-direction: column; justify-content: space-between; }
figcaption { font-size: .86rem; line-height: 1.4; margin-bottom: .3rem; }
.none { color: var(--soft); font-style: italic; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; overflow: visible; }
svg text { font-size: 11.5px; fill: var(--soft); }
svg .unit, svg text.rule { font-size: 10.5px; }
svg text.name { font-size: 11px; fill: currentColor; }
svg text.name tspan, svg text.rule { fill: var(--ink); }
svg path { fill: none; }
svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--soft); }
svg path.rule { stroke: var(--ink); stroke-dasharray: 1.5 3; }
svg .line { stroke: currentColor; stroke-width: 1.7; stroke-linejoin: round; stroke-linecap: round; }
svg .dashed .line { stroke-dasharray: 5 3; stroke-width: 1.3; }
svg .band { fill: currentColor; opacity: .14; }
svg .area { fill: currentColor; opacity: .4; }
svg .whisker { stroke: currentColor; stroke-width: 1.2; opacity: .6; }
svg circle, svg rect { fill: currentColor; }
svg .seeds { opacity: .55; }
svg .ramp .band { opacity: .05; }
svg .ramp .line { stroke-width: 1.4; }
svg text.inked { fill: var(--ink); }
svg circle.ring { fill: var(--ground); stroke: currentColor; stroke-width: 1.5; }
svg .cross { stroke: currentColor; stroke-width: 1.8; }
svg .whisker.bold { stroke-width: 2.2; opacity: 1; }
svg path.zero { stroke: var(--ink); }
.c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); } .c4 { color: var(--c4); }
.c5 { color: var(--c5); }

.example { border-top: 1px solid var(--edge); padding: .8rem 0; }
.example > p { margin: .2rem 0 .6rem; }
.sides {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .6rem 1.5rem;
}
.sides > div { min-width: 0; }
.said { white-space: pre-wrap; unicode-bidi: isolate; }
.said { padding: .5rem .7rem; margin: .2rem 0 0; max-height: 22rem; overflow: auto; }
.example > .said { background: none; border: 0; padding: 0; font-size: .95em; }
.example span.said { padding: .1rem .4rem; }
.said i, pre i, dd i, td i, h1 i {
  font: 600 .8em ui-monospace, monospace; color: var(--warn);
  border: 1px solid currentColor; border-radius: 3px; padding: 0 .2em; margin: 0 .1em;
}
.cut { color: var(--soft); }
.reward { font-weight: 600; }
.reward.full { color: var(--good); }
.tables { columns: 24rem; column-gap: 2.5rem; }
table { border-collapse: collapse; font-size: .9rem; }
th { text-align: left; font-weight: 400; padding: .12rem 1.2rem .12rem 0; vertical-align: top; }
td { padding: .12rem 0; }
.scroll { overflow-x: auto; margin: .5rem 0; }
.grid td, .grid th { padding: .3rem .7rem .3rem 0; white-space: nowrap; vertical-align: middle; line-height: 1.3; }
.grid tr { border-bottom: 1px solid var(--grid); }
.grid td:not(:first-child) { text-align: right; } .grid th:not(:first-child) { text-align: right; }
.grid .said { background: none; border: 0; padding: 0; white-space: pre; }
.grid .said b { background: var(--warn-ground); border-radius: 3px; }
.bar { width: 5rem; height: .8rem; max-width: none; }
svg .v0 { fill: var(--c2); } svg .v1 { fill: var(--c1); opacity: .75; } svg .v2 { fill: var(--edge); }
svg .v3 { fill: var(--c3); } svg .v4 { fill: var(--ink); }
.key.v0 { color: var(--c2); } .key.v1 { color: var(--c1); opacity: .75; } .key.v2 { color: var(--edge); }
.key.v3 { color: var(--c3); } .key.v4 { color: var(--ink); }
.matrix td { padding: .25rem .45rem; text-align: center; }
.matrix th { padding: .25rem .45rem; white-space: nowrap; }
.fix { font-style: normal; font-weight: 600; }
@media print { .said { max-height: none; } figure, .example { break-inside: avoid; } }
"""

#: The policy forbids scripts and every request, whatever a model wrote.
_FRAME = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")


def document(title: str, sections: list[str]) -> str:
    """The whole page; ``title`` is text, ``sections`` are HTML."""
    return _FRAME.substitute(title=visible_plain(title, 200), style=STYLE, body="\n".join(filter(None, sections)))
