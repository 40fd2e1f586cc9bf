"""Style and script of the page of a plan: pointing, zooming, layers, light and dark, saving the picture."""

from __future__ import annotations

STYLE = """
main { max-width: 1300px; }
#theme { float: right; }
button, .tools input { font: inherit; font-size: 13.5px; color: var(--ink); background: white; cursor: pointer;
  border: 1px solid #cbd5e1; border-radius: 7px; padding: 3px 10px; }
.tools input[type=checkbox] { vertical-align: -1px; } #find { cursor: text; }
.tools { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin: 0 0 8px; font-size: 13.5px; }
.tools button { margin-left: -6px; } .gap { flex: 1; }
#map { position: relative; touch-action: none; overflow: hidden; border-radius: 8px; }
#map svg { display: block; width: 100%; cursor: grab; user-select: none; }
#map.moved svg { cursor: grabbing; }
.legend { display: block; width: 100%; }
#map path, #map circle { vector-effect: non-scaling-stroke; }
#map .devices circle, #map .devices path, #map .numbers text { transform-box: fill-box; transform-origin: center; }
#map .devices circle, #map .devices path, #map text { transform: scale(var(--shrink, 1)); }
#map [data-c] { transition: opacity .12s; }
#map .picked [data-c]:not(.on), #map .picked .alone, #map .picked .out { opacity: .13; }
#map .picked .relays { opacity: .25; }
#tip { position: absolute; display: none; pointer-events: none; background: white; color: var(--ink);
  border: 1px solid #cbd5e1; border-radius: 8px; padding: 7px 11px; font-size: 13px; line-height: 1.45;
  box-shadow: 0 4px 16px rgba(15,23,42,.13); max-width: 340px; z-index: 2; }
#bar { position: absolute; right: 14px; bottom: 10px; font-size: 12.5px; color: var(--soft); text-align: center;
  pointer-events: none; }
#bar i { display: block; height: 6px; border: 1.5px solid var(--ink); border-top: 0; margin-bottom: 2px; }
#clusters tbody tr { cursor: pointer; } #clusters tbody tr:hover > * { background: #f1f5f9; }
#clusters td:nth-child(3) { white-space: normal; text-align: left; min-width: 180px; }
:root[data-theme="dark"] { --ink: #e2e8f0; --soft: #94a3b8; --line: #273449; --accent: #4aa8e0; color-scheme: dark; }
:root[data-theme="dark"] body { background: #0b1120; }
:root[data-theme="dark"] :is(.card, .tile, button, .tools input, #tip, th:first-child, .tall thead th) {
  background: #0f172a; border-color: #273449; }
:root[data-theme="dark"] .card { background: #0f172a; }
:root[data-theme="dark"] #clusters tbody tr:hover > * { background: #1e293b; }
:root[data-theme="dark"] .missing { background: #131d33; }
"""

SCRIPT = r"""
const svg = document.querySelector("#map svg"), box = document.querySelector("#map");
const tip = document.querySelector("#tip"), root = document.documentElement;
const facts = JSON.parse(document.querySelector("#facts").textContent);
const whole = svg.getAttribute("viewBox").split(" ").map(Number);
const marks = [...svg.querySelectorAll("[data-i]")].map((e) => [+e.dataset.i, +e.dataset.x, +e.dataset.y]);
const places = new Map(marks.map(([i, x, y]) => [i, [x, y]]));
let view = whole.slice(), held = null, drag = null;

root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.querySelector("#theme").onclick = () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
};

function show() {
  svg.setAttribute("viewBox", view.join(" "));
  const zoom = whole[2] / view[2];
  svg.style.setProperty("--shrink", zoom ** -0.7);
  const perMetre = facts.scale * svg.clientWidth / view[2], most = svg.clientWidth / 6 / perMetre;
  const ten = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].map((m) => m * ten).find((m) => m <= most) || ten;
  document.querySelector("#bar i").style.width = metres * perMetre + "px";
  const words = metres >= 1000 ? metres / 1000 + " km" : +metres.toPrecision(3) + " m";
  document.querySelector("#bar span").textContent = words;
}
function zoomAt(x, y, factor) {
  const width = Math.min(whole[2], Math.max(whole[2] / 60, view[2] / factor)), f = width / view[2];
  view = [x - (x - view[0]) * f, y - (y - view[1]) * f, width, view[3] * f];
  if (width === whole[2]) view = whole.slice();
  show();
}
function at(event) {
  const r = svg.getBoundingClientRect();
  const across = (event.clientX - r.left) / r.width, down = (event.clientY - r.top) / r.height;
  return [view[0] + across * view[2], view[1] + down * view[3]];
}
function pick(c) {
  svg.querySelectorAll(".on").forEach((e) => e.classList.remove("on"));
  svg.classList.toggle("picked", c !== null);
  if (c !== null) svg.querySelectorAll(`[data-c="${c}"]`).forEach((e) => e.classList.add("on"));
}
function nearest(x, y) {
  let best = null, least = (14 * view[2] / svg.clientWidth) ** 2;
  for (const [i, a, b] of marks) {
    const d = (a - x) ** 2 + (b - y) ** 2;
    if (d < least) [best, least] = [i, d];
  }
  return best;
}
function tell(event, text) {
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.innerHTML = text;
  const r = box.getBoundingClientRect(), x = event.clientX - r.left, y = event.clientY - r.top;
  tip.style.left = (x + tip.offsetWidth + 24 > r.width ? x - tip.offsetWidth - 14 : x + 14) + "px";
  tip.style.top = Math.max(4, Math.min(y + 14, r.height - tip.offsetHeight - 4)) + "px";
}
function frame(devices) {
  const xs = devices.map((i) => places.get(i)[0]), ys = devices.map((i) => places.get(i)[1]);
  const [left, right] = [Math.min(...xs), Math.max(...xs)], [top, low] = [Math.min(...ys), Math.max(...ys)];
  const wide = Math.max(right - left, (low - top) * whole[2] / whole[3], 40);
  const width = Math.min(whole[2], 2.6 * wide), height = width * whole[3] / whole[2];
  view = [(left + right - width) / 2, (top + low - height) / 2, width, height];
  show();
}
svg.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  if (drag) {
    view[0] += drag[0] - x; view[1] += drag[1] - y; drag[2] = true;
    box.classList.add("moved");
    return show();
  }
  const i = nearest(x, y), owner = event.target.closest("[data-c]"), relay = event.target.dataset.r;
  const c = i !== null ? facts.cluster[i] : owner ? +owner.dataset.c : null;
  const rest = relay !== undefined ? facts.relays[+relay] : c !== null ? facts.clusters[c] : "";
  tell(event, i !== null ? facts.devices[i] : rest);
  if (held === null) pick(i !== null || relay === undefined ? c : null);
});
svg.addEventListener("pointerleave", () => { tell(null, ""); if (held === null) pick(null); });
svg.addEventListener("pointerdown", (event) => {
  drag = [...at(event), false];
  svg.setPointerCapture(event.pointerId);
});
svg.addEventListener("pointerup", (event) => {
  const moved = drag && drag[2], [x, y] = at(event), i = nearest(x, y);
  drag = null; box.classList.remove("moved");
  if (moved) return;
  held = i !== null && facts.cluster[i] !== held ? facts.cluster[i] : null;
  pick(held);
});
svg.addEventListener("dblclick", (event) => zoomAt(...at(event), 2));
svg.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(...at(event), 1.0015 ** -event.deltaY); },
  {passive: false});
function reset() { view = whole.slice(); held = null; pick(null); show(); }
addEventListener("keydown", (event) => { if (event.key === "Escape") reset(); });
addEventListener("resize", show);
for (const tick of document.querySelectorAll("[data-layer]")) {
  const layer = svg.querySelector("." + tick.dataset.layer);
  tick.checked = layer.getAttribute("display") !== "none";
  tick.addEventListener("change", () => layer.setAttribute("display", tick.checked ? "inline" : "none"));
}
for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => {
  if (+button.dataset.zoom) return zoomAt(view[0] + view[2] / 2, view[1] + view[3] / 2, +button.dataset.zoom);
  reset();
});
document.querySelector("#find").addEventListener("change", (event) => {
  const i = facts.names.indexOf(event.target.value.trim());
  event.target.style.borderColor = i < 0 && event.target.value ? "#c0262d" : "";
  if (i < 0) return;
  held = facts.cluster[i]; pick(held);
  frame(held === null ? [i] : marks.map((m) => m[0]).filter((k) => facts.cluster[k] === held));
});
document.querySelectorAll("#clusters tbody tr").forEach((row, c) => {
  row.addEventListener("pointerenter", () => pick(c));
  row.addEventListener("pointerleave", () => pick(held));
  row.addEventListener("click", () => {
    held = c; pick(c); frame(marks.map((m) => m[0]).filter((k) => facts.cluster[k] === c));
    box.scrollIntoView({behavior: "smooth", block: "center"});
  });
});
function drawing() {
  const copy = svg.cloneNode(true), style = document.createElementNS("http://www.w3.org/2000/svg", "style");
  const dark = root.dataset.theme === "dark";
  let rules = "";
  for (const sheet of document.styleSheets) for (const rule of sheet.cssRules) {
    const text = rule.cssText.replaceAll("#map ", "");
    const night = ':root[data-theme="dark"] ';
    if (dark && text.startsWith(night + ":is(.")) rules += text.replace(night, "");
    if (rule.cssText.startsWith("#map ") && !rule.cssText.startsWith("#map svg")) rules += text;
  }
  style.textContent = rules;
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  ["x", "y", "width", "height"].forEach((name, n) => ground.setAttribute(name, view[n]));
  ground.setAttribute("fill", dark ? "#0f172a" : "white");
  copy.prepend(style, ground);
  copy.setAttribute("width", 2 * whole[2]); copy.setAttribute("height", 2 * whole[3]);
  copy.setAttribute("font-family", "system-ui, sans-serif");
  return new XMLSerializer().serializeToString(copy);
}
function keep(address, end) {
  const link = document.createElement("a");
  link.href = address; link.download = document.title.split(" · ")[0] + "." + end; link.click();
}
for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => {
  const address = URL.createObjectURL(new Blob([drawing()], {type: "image/svg+xml"}));
  if (button.dataset.save === "svg") return keep(address, "svg");
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * whole[2]; canvas.height = 2 * whole[3];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    keep(canvas.toDataURL("image/png"), "png");
  };
  image.src = address;
});
show();
"""
