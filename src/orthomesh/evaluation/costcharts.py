"""The figures of what a run costs: bytes, energy and time on the air.

They differ by orders of magnitude between methods, so totals are dots on a logarithmic axis (a bar's length
means nothing where there is no zero), and what the bytes are made of is shown as shares.
"""

from __future__ import annotations

import plotly.graph_objects as go

from ..types import COLUMNS
from .axes import INK, SOFT, clean, decades, figure_of, log_ticks, method_axis
from .wording import Summary, colours, quantity, size, total_bytes

COLUMN_COLOURS = {
    "values": "#33567F",
    "mask": "#6E9CC4",
    "codes": "#7FB8A4",
    "control": "#D9A566",
    "one_off": "#B9BFC9",
}


def cost_dots(summary: Summary, what: str) -> go.Figure | None:
    """One number per method as a dot on a logarithmic axis; `what`: "bytes", "airtime_s" or "energy_j".

    A method at zero has no place on such an axis and says so in words.
    """
    rows, shown = summary["rows"], colours(summary)
    unit = {"bytes": "B", "airtime_s": "s", "energy_j": "J"}[what]
    values = [total_bytes(row) if what == "bytes" else float(row[what]) for row in rows]
    some = [v for v in values if v > 0]
    if not some:
        return None
    low, high = decades(some)
    top = 36 if what == "bytes" else 8  # stands beside a figure with a legend
    figure = figure_of(68 + top + 34 * len(rows))
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        text = quantity(value, unit) if value > 0 else "none"
        marker = {"color": shown[row["label"]], "size": 13}
        x = [value if value > 0 else 10**low]
        figure.add_scatter(
            x=x, y=[i], mode="markers+text" if value > 0 else "text", marker=marker, text=[text],
            textposition="middle right", textfont={"color": INK if value > 0 else SOFT},
            hovertext=[f"<b>{clean(row['label'])}</b>: {text}"], cliponaxis=False,
        )  # fmt: skip
    method_axis(figure, rows)
    ticks = log_ticks(low, high, unit)
    figure.update_xaxes(type="log", range=[low, high + 0.25 * (high - low)], **ticks)
    return figure.update_layout(showlegend=False, hovermode="closest", margin={"r": 16, "t": top})


def byte_shares(summary: Summary) -> go.Figure | None:
    """What the bytes of each method are made of, as shares of its own total."""
    rows = summary["rows"]
    totals = [total_bytes(row) for row in rows]
    if not any(totals):
        return None
    figure = figure_of(104 + 34 * len(rows))
    for column in COLUMNS:
        sent = [float(row["bytes_per_device"][column]) for row in rows]
        share = [100 * s / t if t else 0.0 for s, t in zip(sent, totals, strict=True)]
        text = [
            f"<b>{clean(row['label'])}</b>, {column.replace('_', '-')}: {size(s)} ({p:.1f} %)"
            for row, s, p in zip(rows, sent, share, strict=True)
        ]
        figure.add_bar(
            x=share, y=list(range(len(rows))), orientation="h", name=column.replace("_", "-"), width=0.56,
            marker={"color": COLUMN_COLOURS[column]}, hovertext=text, hoverinfo="text", textposition="none",
        )  # fmt: skip
    for i, total in enumerate(totals):
        if not total:
            none = {"text": "none", "xanchor": "left", "showarrow": False, "font": {"color": SOFT}}
            figure.add_annotation(x=0, y=i, **none)
    method_axis(figure, rows)
    figure.update_xaxes(range=[0, 100], ticksuffix=" %", dtick=25, showgrid=True)
    return figure.update_layout(barmode="stack", hovermode="closest", margin={"r": 24, "t": 36}, legend_x=-0.15)
