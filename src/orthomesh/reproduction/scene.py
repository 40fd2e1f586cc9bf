"""A figure as a list of marks, written as SVG by itself and as PNG by Pillow."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

FONT = "Inter, system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
INK, SOFT, GRID = "#1f2937", "#64748b", "#e2e8f0"
OVERSAMPLED = 2
"""Pixels of a PNG for each unit of the figure."""

Spot = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Straight strokes through spots; closed and filled where `fill` is given. dashes: lengths of stroke and gap."""

    spots: tuple[Spot, ...]
    colour: str = INK
    width: float = 1.0
    fill: str = ""
    opacity: float = 1.0
    dashes: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A disc, or a ring where it is hollow. tip: what it says when pointed at."""

    at: Spot
    radius: float
    colour: str
    hollow: bool = False
    tip: str = ""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A line of text; `at` is where its baseline starts, has its middle, or ends."""

    at: Spot
    text: str
    size: float = 13.0
    colour: str = INK
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False


Mark: TypeAlias = Line | Dot | Words


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Marks on a white sheet, drawn in order."""

    width: int
    height: int
    marks: tuple[Mark, ...]


def bar(left: float, top: float, right: float, bottom: float, colour: str, opacity: float = 1.0) -> Line:
    """A filled rectangle."""
    spots = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Line(spots=spots, fill=colour, opacity=opacity, width=0.0)


def svg(scene: Scene) -> str:
    """The figure as SVG text; it needs nothing from outside.

    >>> svg(Scene(width=10, height=5, marks=())).splitlines()[0][:50]
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0'
    """
    size = f'viewBox="0 0 {scene.width} {scene.height}" width="{scene.width}" height="{scene.height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    parts += [_element(mark) for mark in scene.marks]
    return "\n".join([*parts, "</svg>", ""])


def _element(mark: Mark) -> str:
    if isinstance(mark, Words):
        weight = ' font-weight="600"' if mark.bold else ""
        place = f'x="{mark.at[0]:.1f}" y="{mark.at[1]:.1f}" font-size="{mark.size:g}" text-anchor="{mark.anchor}"'
        return f'<text {place} fill="{mark.colour}"{weight}>{html.escape(_printable(mark.text))}</text>'
    if isinstance(mark, Dot):
        look = f'fill="white" stroke="{mark.colour}" stroke-width="1.8"' if mark.hollow else f'fill="{mark.colour}"'
        tip = f"<title>{html.escape(_printable(mark.tip))}</title>" if mark.tip else ""
        return f'<circle cx="{mark.at[0]:.1f}" cy="{mark.at[1]:.1f}" r="{mark.radius:g}" {look}>{tip}</circle>'
    spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.spots)
    if mark.fill:
        return f'<polygon points="{spots}" fill="{mark.fill}" fill-opacity="{mark.opacity:g}"/>'
    dashes = f' stroke-dasharray="{mark.dashes[0]:g} {mark.dashes[1]:g}"' if mark.dashes else ""
    look = f'stroke="{mark.colour}" stroke-width="{mark.width:g}" stroke-opacity="{mark.opacity:g}"{dashes}'
    return f'<polyline points="{spots}" fill="none" {look}/>'


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


def write(scene: Scene, stem: Path) -> tuple[list[Path], str]:
    """Write STEM.svg, and STEM.png where Pillow is there.

    Returns:
        What was written, and a sentence where the PNG was not.
    """
    path = stem.with_suffix(".svg")
    path.write_text(svg(scene), encoding="utf-8")
    try:
        import PIL  # noqa: F401
    except ImportError:
        return [path], "PNG files need Pillow: pip install 'orthomesh[figures]'"
    image = stem.with_suffix(".png")
    _png(scene, image)
    return [path, image], ""


def _png(scene: Scene, path: Path) -> None:
    """Draw with Pillow at twice the size."""
    from PIL import Image, ImageDraw, ImageFont

    k = OVERSAMPLED
    image = Image.new("RGB", (k * scene.width, k * scene.height), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    for mark in scene.marks:
        if isinstance(mark, Words):
            font = ImageFont.load_default(size=k * mark.size)
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
            spot = (k * mark.at[0], k * mark.at[1])
            text = _printable(mark.text).replace("µ", "u")  # which Pillow's own font has not
            draw.text(spot, text, fill=mark.colour, font=font, anchor=anchor)
        elif isinstance(mark, Dot):
            (x, y), r = mark.at, mark.radius
            box = (k * (x - r), k * (y - r), k * (x + r), k * (y + r))
            fill = "white" if mark.hollow else mark.colour
            draw.ellipse(box, fill=fill, outline=mark.colour, width=2 * k if mark.hollow else 0)
        elif mark.fill:
            draw.polygon([(k * x, k * y) for x, y in mark.spots], fill=_rgba(mark.fill, mark.opacity))
        else:
            strokes = _strokes(mark.spots, mark.dashes)
            colour, width = _rgba(mark.colour, mark.opacity), max(1, round(k * mark.width))
            for stroke in strokes:
                draw.line([(k * x, k * y) for x, y in stroke], fill=colour, width=width, joint="curve")
    image.save(path)


def _rgba(colour: str, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue, round(255 * opacity)


def _strokes(spots: Sequence[Spot], dashes: tuple[float, float] | None) -> list[list[Spot]]:
    """A line as the pieces that are drawn: one, or as many as there are dashes."""
    if dashes is None:
        return [list(spots)]
    pieces = []
    on, off = dashes
    for (x0, y0), (x1, y1) in itertools.pairwise(spots):
        length = math.hypot(x1 - x0, y1 - y0)
        for n in range(math.ceil(length / (on + off)) if length else 0):
            a, b = n * (on + off) / length, min(1.0, (n * (on + off) + on) / length)
            pieces.append([(x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0))])
    return pieces
