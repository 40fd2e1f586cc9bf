"""The shell of a report: one HTML page that carries its style, script and figures, and fetches nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table. tip: shown when pointed at. shade: 0 (none) to 1. head: names its row."""

    text: str
    tip: str = ""
    shade: float | None = None
    head: bool = False
    colour: str = ""


def document(title: str, body: str, own: tuple[str, str] | None = None) -> str:
    """The whole page; its policy forbids every request, so that a stray address could not be followed.

    Args:
        title: of the window.
        body: HTML.
        own: style and script of a page that draws for itself, in place of the library that draws charts.
    """
    style, script = own or ("", SCRIPT)
    library = "" if own else f'<script id="plotly-library">{get_plotlyjs()}</script>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}{style}</style>
{library}
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def escape(text: object) -> str:
    """Text that stays text inside HTML, also inside attributes.

    >>> escape("<i>")
    '&lt;i&gt;'
    """
    return html.escape(str(text))


def card(title: str, caption: str, *bodies: str) -> str:
    """One block of the page: a heading, a sentence that says how to read it, and what there is to see."""
    inside = "\n".join(bodies)
    top = f'<h2>{escape(title)}</h2>\n<p class="how">{escape(caption)}</p>'
    return f'<section class="card">\n{top}\n{inside}\n</section>'


def chart(figure: go.Figure | None, name: str, missing: str, title: str = "") -> str:
    """A figure in place, or the sentence that says why there is none. `name` is unique on the page."""
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    if figure is None:
        return f'<div>{heading}<p class="missing">{escape(missing)}</p></div>'
    data = figure.to_json().replace("<", "\\u003c")  # so that no name can close the script
    drawn = f'<div class="plot" id="{name}" style="height:{figure.layout.height}px"></div>'
    told = f'<script type="application/json" data-for="{name}">{data}</script>'
    return f'<div class="chart">{heading}{drawn}{told}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], lead: int | None = None, tall: bool = False) -> str:
    """A table that scrolls sideways on a narrow screen, and in place if `tall`; row `lead` is set off."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="lead"' if i == lead else ""
        lines.append(f"<tr{mark}>{''.join(_cell(cell) for cell in row)}</tr>")
    inside = f"<thead><tr>{top}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>"
    return f'<div class="scroll{" tall" if tall else ""}"><table>\n{inside}</table></div>'


def _cell(cell: Cell) -> str:
    tip = f' title="{escape(cell.tip)}"' if cell.tip else ""
    dot = f'<i class="dot" style="background:{cell.colour}"></i>' if cell.colour else ""
    if cell.head:
        return f'<th scope="row"{tip}>{dot}{escape(cell.text)}</th>'
    tint = f' style="background:rgba(0,114,178,{0.34 * cell.shade:.3f})"' if cell.shade is not None else ""
    return f"<td{tip}{tint}>{dot}{escape(cell.text)}</td>"


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Large numbers side by side: (what, value, remark)."""
    one = '<div class="tile"><span>{}</span><strong>{}</strong><small>{}</small></div>'
    return '<div class="tiles">' + "".join(one.format(*map(escape, entry)) for entry in entries) + "</div>"


def panels(bodies: Mapping[str, str]) -> str:
    """Blocks of which one is seen at a time, chosen from a list, the first at first; all of them in print."""
    if len(bodies) < 2:
        return "".join(bodies.values())
    options = "".join(f'<option value="{i}">{escape(name)}</option>' for i, name in enumerate(bodies))
    choice = f'<label class="choice">Method <select data-panels>{options}</select></label>'
    blocks = [
        f'<div class="panel{"" if i == 0 else " hidden"}"><h3 class="paper">{escape(name)}</h3>{body}</div>'
        for i, (name, body) in enumerate(bodies.items())
    ]
    return f"<div>{choice}{''.join(blocks)}</div>"


SCRIPT = """
const hover = window.matchMedia("(hover: hover)").matches;
const config = {displaylogo: false, responsive: true, displayModeBar: hover ? "hover" : false,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], toImageButtonOptions: {format: "svg"}};
for (const script of document.querySelectorAll("script[data-for]")) {
  const figure = JSON.parse(script.textContent);
  Plotly.newPlot(script.dataset.for, figure.data, figure.layout, config);
}
for (const select of document.querySelectorAll("select[data-panels]")) {
  select.selectedIndex = 0;
  select.addEventListener("change", () => {
    const panels = select.closest("div").querySelectorAll(":scope > .panel");
    panels.forEach((panel, i) => panel.classList.toggle("hidden", i !== select.selectedIndex));
    const plots = panels[select.selectedIndex].querySelectorAll(".js-plotly-plot");
    plots.forEach((plot) => Plotly.Plots.resize(plot));
  });
}
"""

CSS = """
:root { --ink: #1f2937; --soft: #64748b; --line: #e2e8f0; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #f5f7fa; color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 36px 20px 48px; }
header { margin: 0 4px 26px; }
.kicker { color: var(--accent); font-weight: 600; letter-spacing: .07em; font-size: 12px;
  text-transform: uppercase; margin: 0; }
h1 { font-size: 32px; line-height: 1.2; margin: 2px 0 10px; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
.headline { font-size: 19px; line-height: 1.5; margin: 0 0 10px; max-width: 56em; text-wrap: pretty; }
.headline b { font-weight: 650; white-space: nowrap; }
.what { color: var(--soft); margin: 0; max-width: 62em; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px;
  margin: 22px 0 0; }
.tile { background: white; border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px;
  border-top: 3px solid var(--accent); }
.tile span, .tile small { display: block; color: var(--soft); font-size: 13px; }
.tile strong { display: block; font-size: 27px; line-height: 1.3; letter-spacing: -.01em;
  font-weight: 650; }
.card { background: white; border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px 18px;
  margin: 0 0 20px; }
h2 { font-size: 18px; margin: 0 0 2px; letter-spacing: -.005em; }
h3 { font-size: 14px; margin: 18px 0 4px; font-weight: 600; }
.how { color: var(--soft); font-size: 13.5px; margin: 0 0 12px; max-width: 66em; }
.missing { color: var(--soft); background: #f8fafc; border-radius: 8px; padding: 12px 14px;
  margin: 6px 0; font-size: 14px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 6px 28px; }
.map { display: grid; grid-template-columns: minmax(0, 1fr) 250px; gap: 20px; align-items: start; }
.chart { min-width: 0; }
.scroll { overflow-x: auto; margin: 0 -6px 6px; padding: 0 6px; }
.tall { max-height: 620px; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: white; z-index: 1; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 550; font-size: 12.5px; vertical-align: bottom;
  border-bottom: 1.5px solid #cbd5e1; }
thead th:not(:first-child) { white-space: normal; }
tbody th { text-align: left; font-weight: 550; }
th:first-child { text-align: left; position: sticky; left: 0; background: white; }
tbody tr:last-child > * { border-bottom: 0; }
tr.lead > * { font-weight: 680; }
tr.lead > th { box-shadow: inset 3px 0 0 var(--accent); }
tbody td[title], tbody th[title] { cursor: help; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin: 0 8px 0 3px; }
.members { list-style: none; padding: 0; margin: 0; font-size: 13.5px; }
.members li { padding: 9px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.members b { display: block; }
.members span { color: var(--soft); }
.choice { font-size: 13.5px; color: var(--soft); }
.choice select { font: inherit; color: var(--ink); padding: 4px 8px; border-radius: 7px;
  border: 1px solid #cbd5e1; background: white; }
.hidden, .paper { display: none; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; margin: 8px 0 0;
  font-size: 13.5px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px;
  background: #f1f5f9; padding: 2px 6px; border-radius: 5px; }
.notes { margin: 0; padding-left: 18px; }
@media (max-width: 760px) { main { padding: 20px 10px; } .card { padding: 16px 12px; }
  .map { grid-template-columns: 1fr; }
  h1 { font-size: 25px; } .headline { font-size: 17px; } }
@media print { @page { size: A4; margin: 11mm; } body { background: white; zoom: .66; }
  main { max-width: none; padding: 0; }
  .card, .tile { break-inside: avoid; } .tall { max-height: none; } .choice, .modebar { display: none; }
  .panel.hidden, .paper { display: block; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
