"""How the page of a report looks, and the few lines that sort its tables; without them the page says the same."""

from __future__ import annotations

# Two cycles of eight colours, each at least 3:1 against its ground, dark and light; dashes tell roles of one colour apart.
STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1c2430; --quiet: #5b6675; --rule: #d9dee5; --soft: #f3f5f8;
  --c0: #1f6fd1; --c1: #d9600a; --c2: #12805c; --c3: #c2276b; --c4: #6f4bd8; --c5: #8a6a00; --c6: #0a7f98; --c7: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --bg: #14181f; --ink: #e6eaf0; --quiet: #9aa6b5; --rule: #343c48; --soft: #1d232c;
  --c0: #6aaefc; --c1: #ff9a4d; --c2: #4ccf9e; --c3: #ff7eb3; --c4: #b29bff; --c5: #e3c04b; --c6: #4fd0e6; --c7: #a9b2bf; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.25rem; margin: 3rem 0 .25rem; } h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
h1, h2, p, li, dd { overflow-wrap: anywhere; }
p { margin: .25rem 0; } .quiet { color: var(--quiet); } a { color: var(--c0); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem; margin: 1rem 0; }
dl div { background: var(--soft); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--quiet); font-size: .8rem; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
dd small { display: block; font-size: .75rem; font-weight: 400; color: var(--quiet); }
.box { overflow-x: auto; border: 1px solid var(--rule); border-radius: .5rem; max-width: 100%; width: fit-content; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--quiet); font-weight: 600; background: var(--soft); }
th:first-child, td.left, th.left { text-align: left; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--bg); border-right: 1px solid var(--rule);
  white-space: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 20rem; }
.named tbody th { min-width: 15rem; }
thead th:first-child { position: sticky; left: 0; border-right: 1px solid var(--rule); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--c0); }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 1.5rem 0; max-width: 52rem; } figcaption { font-weight: 600; margin-bottom: .5rem; }
figure > svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--quiet); }
.grid { stroke: var(--rule); } .edge { stroke: var(--quiet); stroke-dasharray: 2 4; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
g path { fill: none; stroke: currentColor; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.d1 path { stroke-dasharray: 6 4; } .d2 path { stroke-dasharray: 1.5 3.5; }
g circle { fill: currentColor; r: 3.5px; } .dense circle { r: 2.2px; } g .diamond { fill: currentColor; stroke-dasharray: none; }
.d1 circle, .d1 .diamond, .d2 circle, .d2 .diamond { fill: var(--bg); stroke: currentColor; stroke-width: 2; }
.faded { opacity: .12; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; margin: .75rem 0 0; padding: 0; font-size: .85rem; }
.legend li { cursor: default; display: flex; align-items: center; gap: .4rem; min-width: 0; }
.key { flex: none; width: 28px; height: 12px; overflow: visible; }
ul.told { padding-left: 1.2rem; }
@media (max-width: 40rem) { th, td { padding: .35rem .5rem; } figure > svg text { font-size: 24px; } figure > svg circle { r: 5px; }
  .named tbody th { min-width: 9.5rem; max-width: 10rem; } figure > svg.dense circle { r: 3.5px; } dl { grid-template-columns: 1fr 1fr; } }
"""

SCRIPT = """
document.querySelectorAll("table.sortable th").forEach(head => {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex;
    const up = head.ariaSort === "descending" || !head.ariaSort && head.matches(".left, :first-child");
    const key = row => row.cells[column].querySelector("data")?.value ?? row.cells[column].textContent;
    const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
      : (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    for (const other of head.parentNode.cells) other.ariaSort = null;
    head.ariaSort = up ? "ascending" : "descending";
  });
});
document.querySelectorAll("figure").forEach(figure => {
  const marks = figure.querySelectorAll(":scope > svg [data-role]");
  figure.querySelectorAll(".legend li").forEach(item => {
    const fade = on => marks.forEach(mark => mark.classList.toggle("faded", on && mark.dataset.role !== item.dataset.role));
    item.addEventListener("pointerenter", () => fade(true));
    item.addEventListener("pointerleave", () => fade(false));
  });
});
"""
