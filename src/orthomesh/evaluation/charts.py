"""The figures of a report, one function each: plain rows in, a figure out, None where nothing is to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from .axes import (
    PERCENT,
    clean,
    decades,
    figure_of,
    ink,
    label_ends,
    log_ticks,
    round_axis,
    stroke,
)
from .wording import REFERENCES, Summary, colours, count, key, percent, size, total_bytes

Table = Sequence[Mapping[str, Any]]


def accuracy_over_rounds(summary: Summary, accuracy: Table) -> go.Figure | None:
    """Mean accuracy over the tasks after every round; the oracle and the untouched model are dashed."""
    means = _mean_by_round(accuracy)
    shown = colours(summary)
    figure, ends = figure_of(360), []
    last = max((r for by in means.values() for r in by), default=0)
    for row in summary["rows"]:
        label, by = row["label"], means.get(row["label"], {})
        if key(row) in REFERENCES:
            x, y = [0, last], [100 * row["mean"]] * 2
            line = {"color": shown[label], "width": 1.6, "dash": "dash"}
            figure.add_scatter(x=x, y=y, mode="lines", line=line, name=clean(label), hoverinfo="skip")
        elif by:
            x, y = sorted(by), [100 * by[r] for r in sorted(by)]
            text = [f"<b>{clean(label)}</b>, after round {r}: {percent(by[r])}" for r in x]
            figure.add_scatter(x=x, y=y, mode="lines+markers", hovertext=text, **stroke(label, shown[label]))
        else:
            continue
        ends.append((y[-1], f"{clean(label)} {percent(y[-1] / 100)}", shown[label]))
    if not means:
        return None
    label_ends(figure, ends, x=float(last), low=0.0, high=104.0)
    round_axis(figure, "after round", last)
    figure.update_yaxes(**PERCENT)
    return figure.update_layout(margin={"r": 150}, showlegend=False)


def accuracy_for_bytes(summary: Summary) -> go.Figure | None:
    """What a method reaches against what a device sends for it; methods that send nothing are dashed."""
    shown, figure = colours(summary), figure_of(360)
    paid = [row for row in summary["rows"] if total_bytes(row) > 0]
    if not paid:
        return None
    for row in summary["rows"]:
        label, sent, mean = row["label"], total_bytes(row), 100 * row["mean"]
        if sent > 0:
            text = f"<b>{clean(label)}</b>: {percent(row['mean'])} for {size(sent)} per device"
            marker = {"color": shown[label], "size": 15, "line": {"color": "white", "width": 1.5}}
            figure.add_scatter(
                x=[sent], y=[mean], mode="markers+text", marker=marker, hovertext=[text], hoverinfo="text",
                text=[clean(label, 14)], textposition="bottom center", textfont={"color": ink(shown[label])},
            )  # fmt: skip
        else:
            figure.add_hline(y=mean, line={"color": shown[label], "width": 1.6, "dash": "dash"})
    low, high = decades([total_bytes(row) for row in paid])
    free = [row for row in summary["rows"] if total_bytes(row) == 0]
    ends = [(100 * row["mean"], clean(row["label"]), shown[row["label"]]) for row in free]
    label_ends(figure, ends, x=high, low=0.0, high=104.0)
    figure.update_xaxes(type="log", range=[low, high], title_text="sent per device", **log_ticks(low, high, "B"))
    figure.update_yaxes(**PERCENT)
    return figure.update_layout(margin={"r": 90}, showlegend=False, hovermode="closest")


def accuracy_per_task(summary: Summary) -> go.Figure | None:
    """Grouped bars, one group per task; the oracle and the untouched model are lines across the group."""
    tasks, shown = list(summary["tasks"]), colours(summary)
    if not tasks or not summary["rows"]:
        return None
    figure = figure_of(380)
    for row in summary["rows"]:
        label, values = row["label"], [100 * row["accuracy"][t] for t in tasks]
        text = [f"<b>{clean(label)}</b>, {clean(t)}: {v:.1f} %" for t, v in zip(tasks, values, strict=True)]
        if key(row) in REFERENCES:
            x = [v for i in range(len(tasks)) for v in (i - 0.42, i + 0.42, None)]
            y = [v for value in values for v in (value, value, None)]
            line = {"color": shown[label], "width": 2, "dash": "dot" if key(row) == "base" else "solid"}
            wide = [v for t in text for v in (t, t, "")]
            figure.add_scatter(x=x, y=y, mode="lines", line=line, name=clean(label), hovertext=wide)
        else:
            marker = {"color": shown[label]}
            places = list(range(len(tasks)))
            figure.add_bar(x=places, y=values, name=clean(label), marker=marker, hovertext=text)
    figure.update_traces(hoverinfo="text", textposition="none", selector={"type": "bar"})
    figure.update_xaxes(tickvals=list(range(len(tasks))), ticktext=[clean(t) for t in tasks], showgrid=False)
    room = max(0.5, 2.0 - 0.5 * len(tasks))  # few tasks do not make wide bars
    figure.update_xaxes(range=[-room, len(tasks) - 1 + room])
    figure.update_yaxes(**PERCENT)
    return figure.update_layout(barmode="group", bargap=0.18, bargroupgap=0.04, hovermode="closest", margin={"b": 28})


def collision_rates(summary: Summary) -> go.Figure | None:
    """Collision rate per layer: eq. (19) as a ring, what the masks really share as a dot."""
    rows = [row for row in summary["rows"] if row.get("collision") and row["collision"]["layers"]]
    if not rows:
        return None
    layers = list(dict.fromkeys(name for row in rows for name in row["collision"]["layers"]))
    shown, figure = colours(summary), figure_of(340)
    for row in rows:
        c, label, colour = row["collision"], clean(row["label"]), shown[row["label"]]
        x = [layers.index(name) for name in c["layers"]]
        pairs = list(zip(c["expected"], c["empirical"], strict=True))
        text = [
            f"<b>{label}</b>, {clean(name)}: expected {percent(e)}, found {percent(f)}"
            for name, (e, f) in zip(c["layers"], pairs, strict=True)
        ]
        stems = [v for e, f in pairs for v in (100 * e, 100 * f, None)]
        sticks = [v for i in x for v in (i, i, None)]
        figure.add_scatter(x=sticks, y=stems, mode="lines", line={"color": colour, "width": 1}, opacity=0.45,
                           hoverinfo="skip", showlegend=False)  # fmt: skip
        ring = {"symbol": "circle-open", "size": 9, "color": colour, "line": {"width": 1.6}}
        full = {"size": 7, "color": colour}
        for values, marker, name in ((0, ring, "expected, eq. (19)"), (1, full, "found")):
            figure.add_scatter(x=x, y=[100 * p[values] for p in pairs], mode="markers", marker=marker,
                               name=f"{label}: {name}",
                               hovertext=text, hoverinfo="text", cliponaxis=False)  # fmt: skip
    step = math.ceil(len(layers) / 42)
    ticks = range(0, len(layers), step)
    figure.update_xaxes(tickvals=list(ticks), ticktext=[clean(layers[i]) for i in ticks], tickangle=-50)
    figure.update_yaxes(rangemode="tozero", ticksuffix=" %")
    return figure.update_layout(hovermode="closest", margin={"b": 92})


def loss_over_rounds(summary: Summary, rounds: Table) -> go.Figure | None:
    """Mean local loss at the start and the end of every round; a step where a round begins shows merging."""
    shown, figure, ends = colours(summary), figure_of(340), []
    for row in summary["rows"]:
        mine = [r for r in rounds if r["method"] == row["label"] and _finite(r["loss_first"], r["loss_last"])]
        x, y, text = [], [], []
        for t in sorted({int(r["round"]) for r in mine}):
            here = [r for r in mine if int(r["round"]) == t]
            for at, name, word in ((t - 1, "loss_first", "start"), (t, "loss_last", "end")):
                losses = [float(r[name]) for r in here]
                x.append(at)
                y.append(sum(losses) / len(losses))
                spread = f" ({min(losses):.3f} to {max(losses):.3f} over {count(len(losses), 'device')})"
                text.append(f"<b>{clean(row['label'])}</b>, {word} of round {t}: {y[-1]:.3f}{spread}")
        if x:
            colour = shown[row["label"]]
            figure.add_scatter(x=x, y=y, mode="lines+markers", hovertext=text, **stroke(row["label"], colour))
            ends.append((y[-1], f"{clean(row['label'])} {y[-1]:.3f}", colour))
    if not ends:
        return None
    top = 1.05 * max(max(trace.y) for trace in figure.data)
    last = max(max(trace.x) for trace in figure.data)
    label_ends(figure, ends, x=float(last), low=0.0, high=top)
    figure.update_yaxes(range=[0, top or 1.0])
    round_axis(figure, "round", last)
    return figure.update_layout(showlegend=False, margin={"r": 150})


def _mean_by_round(accuracy: Table) -> dict[str, dict[int, float]]:
    """Plain mean over the tasks, by method and round."""
    found: dict[str, dict[int, list[float]]] = {}
    for r in accuracy:
        found.setdefault(r["method"], {}).setdefault(int(r["round"]), []).append(float(r["accuracy"]))
    return {label: {t: sum(v) / len(v) for t, v in by.items()} for label, by in found.items()}


def _finite(*values: float | None) -> bool:
    """Whether there is something to plot: a method that does not train has no loss."""
    return all(v is not None and math.isfinite(v) for v in values)
