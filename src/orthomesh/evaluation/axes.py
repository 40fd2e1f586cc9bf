"""What all figures of a report share: face, ticks, labels at line ends, and names made safe."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from .wording import Row, setting

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, GRID = "#1F2937", "#64748B", "#E8ECF1"
SYMBOLS = {"orthomesh": "circle", "gossip": "square", "paper": "diamond", "local": "triangle-up"}
PERCENT = {"range": [0, 104], "ticksuffix": " %", "tick0": 0, "dtick": 20}


def figure_of(height: int) -> go.Figure:
    """An empty figure with the face of the report: white, light grid, no frame, legend above, no template."""
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "tickfont": {"color": SOFT},
        "title": {"font": {"color": SOFT, "size": 12}},
        "automargin": True,
        "fixedrange": False,
    }
    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 12.5, "color": INK},
            "margin": {"l": 52, "r": 24, "t": 16, "b": 44},
            "xaxis": {**axis, "showgrid": False},
            "yaxis": axis,
            "hoverlabel": {"bgcolor": "white", "bordercolor": "#CBD5E1", "font": {"color": INK}},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#B6C0CC", "activecolor": SOFT},
        }
    )


def clean(name: object, length: int = 22) -> str:
    """A name from the data as plotly shows it literally: no markup, nothing invisible, not too long.

    >>> clean("<b>sst2</b>")
    '&lt;b&gt;sst2&lt;/b&gt;'
    """
    text = "".join(c if c.isprintable() else "?" for c in str(name))
    return html.escape(text if len(text) <= length else text[: length - 1] + "…", quote=False)


def stroke(label: str, colour: str) -> dict[str, Any]:
    """Line and markers of one method; its symbol tells it apart in print."""
    symbol = SYMBOLS.get(label, "pentagon")
    marker = {"size": 8, "color": colour, "symbol": symbol, "line": {"color": "white", "width": 1}}
    return {"line": {"color": colour, "width": 2.4}, "marker": marker, "hoverinfo": "text"}


def label_ends(figure: go.Figure, ends: Sequence[tuple[float, str, str]], x: float, low: float, high: float) -> None:
    """Write each line's name where it ends, in its own colour, moved apart where lines end too close.

    Args:
        figure: gets one annotation per line.
        ends: (height of the end, text, colour), one per line.
        x: where the lines end, in units of the axis (its logarithm on a logarithmic one).
        low: lower end of the vertical axis.
        high: upper end of the vertical axis.
    """
    plot_px = float(figure.layout.height) - 60
    gap = 16 * (high - low) / plot_px
    order = sorted(ends, key=lambda end: end[0])
    for y, (_, text, colour) in zip(spread([e[0] for e in order], gap, low, high), order, strict=True):
        figure.add_annotation(
            x=x, y=y, text=text, font={"color": ink(colour), "size": 12}, showarrow=False,
            xanchor="left", xshift=9, yanchor="middle",
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending heights at least `gap` apart, inside [low, high] where they fit.

    >>> spread([50.0, 51.0, 90.0], 10.0, 0.0, 100.0)
    [50.0, 60.0, 90.0]
    >>> spread([99.0, 100.0], 10.0, 0.0, 100.0)
    [90.0, 100.0]
    """
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else max(height, low))
    ceiling = high
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def ink(colour: str) -> str:
    """The same colour dark enough to read as text on white.

    >>> ink("#FFFFFF")
    '#a6a6a6'
    """
    parts = [round(0.65 * int(colour[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{p:02x}" for p in parts)


def method_axis(figure: go.Figure, rows: Sequence[Row]) -> None:
    """One line per method, top to bottom in the order of the table."""
    names = [clean(row["label"], 16) for row in rows]
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.5, -0.5],
        showgrid=False, tickfont={"color": INK},
        ticks="outside", ticklen=8, tickcolor="rgba(0,0,0,0)",
    )  # fmt: skip


def decades(values: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around positive values, at least one decade, as exponents.

    >>> decades([31e3, 3.1e6])
    (4.0, 7.0)
    """
    low = float(math.floor(math.log10(min(values)) + 1e-9))
    return low, max(low + 1.0, float(math.ceil(math.log10(max(values)) - 1e-9)))


def log_ticks(low: float, high: float, unit: str) -> dict[str, Any]:
    """A tick per decade (or every few of them), with the unit's prefix instead of an exponent."""
    step = max(1, math.ceil((high - low) / 6))
    at = [10.0**p for p in range(int(low), int(high) + 1, step)]
    return {"tickvals": at, "ticktext": [setting(v, unit) for v in at], "showgrid": True}


def round_axis(figure: go.Figure, title: str, last: int) -> None:
    """Ticks at whole rounds, a dozen at most, with room for the outermost markers."""
    step = max(1, math.ceil(last / 12))
    room = 0.03 * max(last, 1)
    figure.update_xaxes(title_text=title, range=[-room, max(last, 1) + room], tickvals=list(range(0, last + 1, step)))
