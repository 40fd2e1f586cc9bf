"""The figures of a reproduction as scenes: averages with intervals, lines over something, stacked drops."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..evaluation.axes import spread
from ..evaluation.wording import SPARE, setting
from .scene import GRID, INK, SOFT, Dot, Line, Mark, Scene, Spot, Words, bar

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#1F2937", "#8791A0", *SPARE[2:])
CAUSES = ("#D55E00", "#E69F00", "#8791A0", "#CC79A7")
LEFT, RIGHT, TOP, BOTTOM = 70.0, 700.0, 74.0, 430.0
STROKES = (None, (7.0, 3.0), (2.0, 3.0))
"""Of lines whose colour has been used before, so that no two look alike."""


Look = tuple[str, tuple[float, float] | None]
"""Colour of a line, and its dashes."""


class Measure(NamedTuple):
    """One line of dots: what was found with its half-width (NaN: unknown), and what the paper prints, by model."""

    name: str
    mean: float
    half: float
    printed: tuple[float, ...]


class Curve(NamedTuple):
    """One line over an axis. spots: (x, y, half-width)."""

    name: str
    spots: tuple[tuple[float, float, float], ...]


def dots(title: str, subtitle: str, measures: Sequence[Measure], rings: str = "the paper") -> Scene:
    """Averages with intervals, one line per method; rings are the paper's numbers, or what `rings` says."""
    step, left = 30.0, max(240.0, 7.0 * max((len(one.name) for one in measures), default=0) + 24)
    right = left + 580.0
    bottom = TOP + step * len(measures)

    def x(value: float) -> float:
        return left + (right - left) * value / 100

    marks: list[Mark] = _head(title, subtitle)
    for tick in range(0, 101, 20):
        marks.append(Line(spots=((x(tick), TOP), (x(tick), bottom)), colour=GRID))
        marks.append(Words(at=(x(tick), bottom + 20), text=f"{tick} %", anchor="middle", colour=SOFT))
    for n, one in enumerate(measures):
        y = TOP + step * (n + 0.5)
        marks.append(Words(at=(left - 12, y + 4), text=one.name, anchor="end"))
        for value in one.printed:
            marks.append(
                Dot(at=(x(value), y), radius=5.5, colour="#8791A0", hollow=True, tip=f"{rings}: {value:.2f} %")
            )
        if not math.isnan(one.half):
            low, high = max(0.0, one.mean - one.half), min(100.0, one.mean + one.half)
            marks.append(Line(spots=((x(low), y), (x(high), y)), colour=PALETTE[0], width=2.4))
        marks.append(Dot(at=(x(one.mean), y), radius=5.0, colour=PALETTE[0], tip=f"{one.name}: {_number(one)}"))
        marks.append(Words(at=(right + 14, y + 4), text=_number(one), colour=SOFT))
    return Scene(width=int(right + 180), height=int(bottom + 40), marks=tuple(marks))


def _number(one: Measure) -> str:
    return f"{one.mean:.1f} %" if math.isnan(one.half) else f"{one.mean:.1f} ± {one.half:.1f} %"


def _head(title: str, subtitle: str) -> list[Mark]:
    return [Words(at=(24, 30), text=title, size=17, bold=True), Words(at=(24, 52), text=subtitle, colour=SOFT)]


class Axes(NamedTuple):
    """What a figure of lines shows. over: the horizontal axis, in words; unit: of its numbers, or none. log: whether it
    is logarithmic; spots at zero then stand at its left end. top, suffix: of the vertical axis. frontier: what the
    staircase is called of the highest spots that come with no more of what is counted; empty: none is drawn."""

    title: str
    subtitle: str
    over: str
    unit: str = ""
    log: bool = False
    top: float = 100.0
    suffix: str = " %"
    frontier: str = ""


def rounded(highest: float) -> float:
    """Where an axis from zero ends whose five steps are round numbers.

    >>> rounded(22.487), rounded(2.9), rounded(0.0)
    (25.0, 5.0, 1.0)
    """
    if highest <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(highest / 5))
    return next(5 * unit * n for n in (1, 2, 2.5, 5, 10) if 5 * unit * n >= highest)


def best(lines: Sequence[Curve]) -> list[tuple[float, float]]:
    """Spots of all lines that no other reaches with as little: ascending in both.

    >>> best([Curve("a", ((1.0, 5.0, 0.0), (3.0, 4.0, 0.0))), Curve("b", ((2.0, 9.0, 0.0),))])
    [(1.0, 5.0), (2.0, 9.0)]
    """
    found: list[tuple[float, float]] = []
    for x, y in sorted(
        ((p[0], p[1]) for c in lines for p in c.spots if math.isfinite(p[1])), key=lambda p: (p[0], -p[1])
    ):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found


def curves(axes: Axes, lines: Sequence[Curve]) -> Scene:
    """Lines with bands of their half-widths; each name stands beside a stroke of its line, tied to where that ends.

    Args:
        axes: what is shown.
        lines: what to draw; spots without a finite height are left out.
    """
    at = [p[0] for line in lines for p in line.spots if not axes.log or p[0] > 0]
    low, high = _range(at, axes.log)
    bottom = max(BOTTOM, TOP + 17.0 * len(lines))  # so that names find room beside the ends

    def x(value: float) -> float:
        if axes.log:
            return LEFT + (RIGHT - LEFT) * math.log10(max(value, low) / low) / math.log10(high / low)
        return LEFT + (RIGHT - LEFT) * ((value - low) / (high - low) if high > low else 0.5)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * min(max(value, 0.0), axes.top) / axes.top

    marks = _head(axes.title, axes.subtitle)
    for n in range(6):
        value = axes.top * n / 5
        marks.append(Line(spots=((LEFT, y(value)), (RIGHT, y(value))), colour=GRID))
        marks.append(Words(at=(LEFT - 8, y(value) + 4), text=f"{value:g}{axes.suffix}", anchor="end", colour=SOFT))
    for tick in _ticks(low, high, at, axes.log):
        marks.append(Words(at=(x(tick), bottom + 20), text=_place(tick, axes), anchor="middle", colour=SOFT))
    marks.append(Words(at=((LEFT + RIGHT) / 2, bottom + 44), text=axes.over, anchor="middle", colour=SOFT))
    ends, drawn = [], list[Mark]()
    for n, line in enumerate(lines):
        shown, colour = [p for p in line.spots if math.isfinite(p[1])], PALETTE[n % len(PALETTE)]
        if shown:
            dashes = STROKES[n // len(PALETTE) % len(STROKES)]
            drawn += _curve(line.name, shown, (colour, dashes), axes, x, y)
            ends.append((y(shown[-1][1]), x(shown[-1][0]), line.name, (colour, dashes)))
    if axes.frontier and (steps := [(x(across), y(up)) for across, up in best(lines)]):
        stairs = [spot for one, other in itertools.pairwise(steps) for spot in (one, (other[0], one[1]))]
        whole = (*stairs, steps[-1], (RIGHT, steps[-1][1]))
        marks.append(Line(spots=whole, colour="#94a3b8", width=6.0, opacity=0.35))
        marks.append(Words(at=(RIGHT, bottom + 44), text=axes.frontier, anchor="end", colour=SOFT, size=11.5))
    ends.sort()
    heights = spread([e[0] for e in ends], 17.0, TOP - 8, bottom)
    for place, (height, end, name, look) in zip(heights, ends, strict=True):
        marks += _name(name, place, (end, height), look)
    marks += drawn
    return Scene(width=1000, height=int(bottom + 60), marks=tuple(marks))


def _name(name: str, place: float, end: Spot, look: Look) -> list[Mark]:
    """A line's name beside a stroke of it, and a thin one from where the line ends, where that is elsewhere."""
    colour, dashes = look
    sample = Line(spots=((RIGHT + 12, place), (RIGHT + 30, place)), colour=colour, width=2.2, dashes=dashes)
    told: list[Mark] = [sample, Words(at=(RIGHT + 35, place + 4), text=name, colour=colour, bold=True)]
    if math.hypot(RIGHT + 12 - end[0], place - end[1]) < 20:
        return told
    return [Line(spots=(end, (RIGHT + 10, place)), colour=colour, width=0.8, opacity=0.3), *told]


def _range(at: Sequence[float], log: bool) -> tuple[float, float]:
    """Ends of the horizontal axis: the values' own, or whole powers of ten around them."""
    low, high = (min(at), max(at)) if at else (1.0, 10.0)
    if not log:
        return low, high
    first = math.floor(math.log10(low))
    return 10.0**first, 10.0 ** max(math.ceil(math.log10(high)), first + 1)


def _place(value: float, axes: Axes) -> str:
    return setting(value, axes.unit) if axes.unit else f"{value:g}"


def _curve(
    name: str, shown: Sequence[tuple[float, float, float]], look: Look, axes: Axes,
    x: Callable[[float], float], y: Callable[[float], float],
) -> list[Mark]:  # fmt: skip
    """One line, its band and its dots."""
    marks, (colour, dashes) = list[Mark](), look
    band = [p for p in shown if math.isfinite(p[2])]
    if len(band) > 1:
        edge = [(x(p[0]), y(p[1] + p[2])) for p in band] + [(x(p[0]), y(p[1] - p[2])) for p in reversed(band)]
        marks.append(Line(spots=tuple(edge), fill=colour, opacity=0.13))
    marks.append(Line(spots=tuple((x(p[0]), y(p[1])) for p in shown), colour=colour, width=2.2, dashes=dashes))
    for p in shown:
        tip = f"{name}, {_place(p[0], axes)}: {p[1]:.1f}"
        marks.append(Dot(at=(x(p[0]), y(p[1])), radius=3.2, colour=colour, tip=tip))
    return marks


def _ticks(low: float, high: float, at: Sequence[float], log: bool) -> list[float]:
    if log:
        return [10.0**p for p in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    values = sorted(set(at))
    step = max(1, math.ceil(len(values) / 12))
    return values[::step]


def stacked(title: str, subtitle: str, bars: Mapping[str, Mapping[str, float]], causes: Sequence[str]) -> Scene:
    """One bar per name: what is left at the bottom, what each cause took above it, from top to bottom in their order.

    Args:
        title: of the figure.
        subtitle: how to read it.
        bars: `given` and one drop per cause, %, by name; a drop below zero is shown as nothing and said in the tip.
        causes: in order, the first on top.
    """
    names = list(bars)
    wide = (RIGHT + 150 - LEFT) / max(1, len(names))

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP - 20) * min(max(value, 0.0), 100.0) / 100

    marks = _head(title, subtitle)
    for tick in range(0, 101, 20):
        marks.append(Line(spots=((LEFT, y(tick)), (RIGHT + 150, y(tick))), colour=GRID))
        marks.append(Words(at=(LEFT - 8, y(tick) + 4), text=f"{tick} %", anchor="end", colour=SOFT))
    for n, name in enumerate(names):
        left, right = LEFT + wide * (n + 0.18), LEFT + wide * (n + 0.82)
        level = bars[name]["given"]
        marks.append(bar(left, y(level), right, y(0.0), PALETTE[0]))
        for cause, colour in reversed(list(zip(causes, CAUSES, strict=True))):
            drop = bars[name][cause]
            if drop > 0:
                marks.append(bar(left, y(level + drop), right, y(level), colour))
                level += drop
        middle = (left + right) / 2
        for row, text in enumerate(textwrap.wrap(name, max(8, int(wide / 6.5)))[:2]):
            marks.append(Words(at=(middle, BOTTOM + 17 + 13 * row), text=text, anchor="middle", colour=SOFT, size=11.5))
        marks.append(
            Dot(at=(middle, y(bars[name]["given"])), radius=2.5, colour=INK, tip=f"{name}: {_said(bars[name])}")
        )
    place = LEFT
    for label, colour in (("answered rightly", PALETTE[0]), *zip(causes, CAUSES, strict=True)):
        marks.append(bar(place, BOTTOM + 46, place + 12, BOTTOM + 58, colour))
        marks.append(Words(at=(place + 18, BOTTOM + 57), text=label))
        place += 40 + 8.0 * len(label)
    return Scene(width=1000, height=int(BOTTOM + 76), marks=tuple(marks))


def _said(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
