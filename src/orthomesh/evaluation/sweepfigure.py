"""Collision rate over a swept setting, the axes of the paper's Figures 4 and 6: table, CSV, SVG and a page."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
from rich import box
from rich.table import Table
from rich.text import Text

from ..planning.sweep import Axis, Row
from .axes import FONT, GRID, INK, SOFT, clean, figure_of, ink, label_ends, spread
from .page import Cell, card, chart, document, escape, table
from .wording import KNOWN, percent, size

LOOKS = {
    "orthomesh": (KNOWN["orthomesh"][0], "", "orthomesh"),
    "paper": (KNOWN["paper"][0], "", "paper, independent masks"),
    "one cluster": (KNOWN["base"][0], "5 4", "all in one cluster"),
    "LoRI": ("#009E73", "", "LoRI, random connection"),
    "LoRA": ("#D55E00", "", "LoRA, random connection"),
}
"""Colour, dashes and name of every method."""
LEFT, RIGHT, TOP, BOTTOM = 62.0, 740.0, 84.0, 420.0


class Point(NamedTuple):
    """Mean over the seeds at one value, the lowest and highest of them, and means of what else a row has."""

    value: float
    mean: float
    low: float
    high: float
    groups: float
    alone: float
    sent_bytes: float


def points(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Rows gathered over seeds, by method, in order of value; points where nobody shares are NaN.

    Args:
        rows: of a sweep.
    """
    found: dict[str, list[Point]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        for value in sorted({row.value for row in mine}):
            here = [row for row in mine if row.value == value]
            met = [row.collision for row in here if not math.isnan(row.collision)]
            point = Point(
                value, _mean(met), min(met, default=math.nan), max(met, default=math.nan),
                _mean([row.groups for row in here]), _mean([row.alone for row in here]),
                _mean([row.sent_bytes for row in here]),
            )  # fmt: skip
            found.setdefault(method, []).append(point)
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def sweep_table(over: Axis, by_method: Mapping[str, Sequence[Point]]) -> Table:
    """Mean collision rate, %, one line per value; groups of ours beside it."""
    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    found.add_column(Text(over.label), justify="right", no_wrap=True)
    for method in by_method:
        found.add_column(method, justify="right", no_wrap=True)
    found.add_column("groups", justify="right", no_wrap=True)
    for n, value in enumerate(p.value for p in by_method["orthomesh"]):
        cells = [_cell(some[n].mean) for some in by_method.values()]
        found.add_row(f"{value:g}", *cells, f"{by_method['orthomesh'][n].groups:.1f}")
    return found


def _cell(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.1f}"


def title(over: Axis, repeats: int) -> str:
    """What is shown, in a line."""
    seeds = f"mean of {repeats} seeds, from the lowest to the highest" if repeats > 1 else "one seed"
    return f"Mean parameter collision rate over {over.label}, {seeds}"


def write_sweep(rows: Sequence[Row], over: Axis, repeats: int, directory: Path) -> list[Path]:
    """Write `sweep.csv`, `sweep.svg` and `sweep.html`.

    Args:
        rows: of a sweep.
        over: what was swept.
        repeats: seeds at each value.
        directory: made where it is lacking.

    Returns:
        What was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"sweep.{end}" for end in ("csv", "svg", "html")]
    with open(paths[0], "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([over.label, *(field.name for field in fields(Row)[1:])])
        lines.writerows([["" if v != v else v for v in asdict(row).values()] for row in rows])
    by_method = points(rows)
    paths[1].write_text(svg(by_method, over, title(over, repeats)), encoding="utf-8")
    paths[2].write_text(page(by_method, over, title(over, repeats)), encoding="utf-8")
    return paths


def svg(by_method: Mapping[str, Sequence[Point]], over: Axis, words: str) -> str:
    """The figure for a document: a line per method with a band from the lowest seed to the highest."""
    low, high = over.values[0], over.values[-1]

    def at(value: float, rate: float) -> tuple[float, float]:
        across = (value - low) / (high - low) if high > low else 0.5
        return LEFT + (RIGHT - LEFT) * across, BOTTOM - (BOTTOM - TOP) * rate

    parts = [f'<text x="{LEFT}" y="34" font-size="17" font-weight="650">{clean(words, 110)}</text>',
             f'<text x="{LEFT}" y="58" fill="{SOFT}">share of positions that two or more of a group hold, (19)</text>',
             f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 46}" fill="{SOFT}" text-anchor="middle">'
             f"{clean(over.label, 40)}</text>"]  # fmt: skip
    for tick in range(0, 101, 20):
        y = at(low, tick / 100)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{SOFT}">{tick} %</text>')
    for value in _ticks(over.values):
        x = at(value, 0.0)[0]
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 22}" text-anchor="middle" fill="{SOFT}">{value:g}</text>')
    ends = []
    for method, some in by_method.items():
        shown = [p for p in some if not math.isnan(p.mean)]
        if not shown:
            continue
        colour, dashes, _ = LOOKS[method]
        band = [at(p.value, p.high) for p in shown] + [at(p.value, p.low) for p in reversed(shown)]
        parts.append(f'<polygon points="{_chain(band)}" fill="{colour}" fill-opacity="0.14"/>')
        line = _chain([at(p.value, p.mean) for p in shown])
        look = f'stroke="{colour}" stroke-width="2.4" stroke-dasharray="{dashes}" fill="none"'
        parts.append(f'<polyline points="{line}" {look} stroke-linejoin="round"/>')
        for p in shown:
            x, y = at(p.value, p.mean)
            tip = f"{method}, {over.label} = {p.value:g}: {percent(p.mean)}"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{tip}</title></circle>')
        ends.append((at(0.0, shown[-1].mean)[1], method))
    ends.sort()
    for y, (_, method) in zip(spread([e[0] for e in ends], 17.0, TOP - 10, BOTTOM), ends, strict=True):
        colour, _, name = LOOKS[method]
        parts.append(f'<text x="{RIGHT + 12}" y="{y + 4:.1f}" fill="{ink(colour)}" font-weight="600">{name}</text>')
    parts.insert(0, '<rect width="100%" height="100%" fill="white"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 480" width="1000" height="480" '
        f'font-family="{escape(FONT)}" font-size="13.5" fill="{INK}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _chain(dots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)


def _ticks(values: Sequence[float]) -> list[float]:
    """A dozen of the values at most, the first and the last among them."""
    step = max(1, math.ceil((len(values) - 1) / 11))
    return [*values[: -step or None : step], values[-1]] if len(values) > 1 else list(values)


def page(by_method: Mapping[str, Sequence[Point]], over: Axis, words: str) -> str:
    """The figure to point at, and every number."""
    head = f'<header><p class="kicker">orthomesh · plan</p><h1>Sweep over {escape(over.label)}</h1></header>'
    rows = [
        [
            Cell(text=f"{p.value:g}", head=True), Cell(text=method), Cell(text=f"{_cell(p.mean)} %", shade=p.mean),
            Cell(text=f"{_cell(p.low)} to {_cell(p.high)} %"),
            Cell(text="-" if math.isnan(p.groups) else f"{p.groups:.1f}"),
            Cell(text=percent(p.alone)), Cell(text=size(p.sent_bytes)),
        ]
        for method, some in by_method.items() for p in some
    ]  # fmt: skip
    for row, p in zip(rows, (p for some in by_method.values() for p in some), strict=True):
        if math.isnan(p.mean):
            row[2] = Cell(text="-")
    names = [over.label, "method", "collision rate", "over seeds", "groups", "alone", "sent per device"]
    how = "Collision rate met by a device that shares with somebody; alone: the share that does not."
    body = card("Collision rate", words + ".", chart(_figure(by_method, over), "sweep", "Nobody shares with anybody."))
    return document(
        f"{words} · orthomesh", "\n".join((head, body, card("Numbers", how, table(names, rows, tall=True))))
    )


def _figure(by_method: Mapping[str, Sequence[Point]], over: Axis) -> go.Figure:
    """A line per method, named where it ends."""
    figure, ends = figure_of(440), []
    for method, some in by_method.items():
        shown = [p for p in some if not math.isnan(p.mean)]
        colour, dashes, name = LOOKS[method]
        if shown:
            figure.add_scatter(
                x=[p.value for p in shown], y=[100 * p.mean for p in shown], mode="lines+markers", hoverinfo="text",
                line={"color": colour, "width": 2.4, "dash": "dash" if dashes else "solid"}, marker={"size": 6},
                hovertext=[f"<b>{method}</b>, {clean(over.label)} = {p.value:g}: {percent(p.mean)} "
                           f"({_cell(p.low)} to {_cell(p.high)})" for p in shown],
            )  # fmt: skip
            ends.append((100 * shown[-1].mean, name, colour))
    label_ends(figure, ends, x=float(over.values[-1]), low=0.0, high=104.0)
    room = 0.02 * (over.values[-1] - over.values[0]) or 1.0
    figure.update_xaxes(title_text=clean(over.label, 40), range=[over.values[0] - room, over.values[-1] + room])
    figure.update_yaxes(range=[-1, 104], ticksuffix=" %")
    return figure.update_layout(showlegend=False, hovermode="closest", margin={"r": 240})
