"""The map of a run: devices where they stand, clusters as coloured areas, and the links that were used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import plotly.graph_objects as go

from ..units import to_dbm
from .axes import SOFT, clean, figure_of
from .shapes import Point, bend, hull, middle_of
from .wording import Row, Summary, percent, quantity, size

Table = Sequence[Mapping[str, Any]]

CLUSTER_COLOURS = (
    "#2F4B8F", "#C2546B", "#1B7F5C", "#B07A1E", "#7B4FA0",
    "#2C8FA8", "#8A3B2E", "#6B7F1F", "#B5489A", "#4F6272",
)  # fmt: skip
ALONE = "#64748B"
LINK = "#475569"
NAMED = 30  # devices above which task names would cover the map
HOVERED = 400  # links above which each link no longer tells its own story


def device_map(summary: Summary, row: Row, rounds: Table, links: Table) -> go.Figure | None:
    """Where the devices of one method stand, how they were grouped and who sent to whom.

    Links are drawn once per pair of devices for the whole run: dashed and bent where only the exchange
    between clusters used them, else solid; a cross marks a pair that lost a transfer.

    Args:
        summary: the run.
        row: the method's row of the summary; its clusters colour the map.
        rounds: rows of `rounds.parquet`, for what each device spent.
        links: rows of `links.parquet`.

    Returns:
        The figure, or None where there are no devices.
    """
    devices = sorted(summary["devices"], key=lambda d: int(d["id"]))
    if not devices:
        return None
    places = {int(d["id"]): (float(d["x_m"]), float(d["y_m"])) for d in devices}
    reach = _reach(places, summary)
    figure = figure_of(680)
    edge = _draw_area(figure, places, summary)
    middle = middle_of(list(places.values()))
    for k, members in enumerate(row["clusters"]):
        _draw_cluster(figure, k, [places[i] for i in members], middle, 0.08 * reach)
    _draw_links(figure, row, places, [r for r in links if r["method"] == row["label"]])
    mine = [r for r in rounds if r["method"] == row["label"]]
    _draw_devices(figure, row, devices, mine)
    return _frame(figure, [*places.values(), *edge], 0.12 * reach)


def cluster_colour(row: Row, device: int) -> str:
    """Colour of the cluster a device is in; grey where it is in none."""
    for k, members in enumerate(row["clusters"]):
        if device in members:
            return CLUSTER_COLOURS[k % len(CLUSTER_COLOURS)]
    return ALONE


def pairs(links: Table) -> dict[tuple[int, int], dict[str, tuple[int, int]]]:
    """Transfers tried and arrived by phase, for every unordered pair that tried any, in order of ids.

    >>> pairs([{"phase": "intra", "src": 1, "dst": 0, "arrived": True},
    ...        {"phase": "intra", "src": 0, "dst": 1, "arrived": False}])
    {(0, 1): {'intra': (2, 1)}}
    """
    found: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
    for r in links:
        i, j = sorted((int(r["src"]), int(r["dst"])))
        phases = found.setdefault((i, j), {})
        tried, arrived = phases.get(r["phase"], (0, 0))
        phases[r["phase"]] = (tried + 1, arrived + bool(r["arrived"]))
    return dict(sorted(found.items()))


def _reach(places: Mapping[int, Point], summary: Summary) -> float:
    """Size of the map in metres; devices on one spot still get a map."""
    xs, ys = zip(*places.values(), strict=True)
    span = max(max(xs) - min(xs), max(ys) - min(ys))
    return span or float((summary.get("radio") or {}).get("radius_m") or 1.0)


def _draw_area(figure: go.Figure, places: Mapping[int, Point], summary: Summary) -> list[Point]:
    """Outline of the disc devices were placed in, where it really holds them all."""
    radius = (summary.get("radio") or {}).get("radius_m")
    if not radius or any(math.hypot(x, y) > 1.001 * radius for x, y in places.values()):
        return []
    ring = hull([(0.0, 0.0)], float(radius))
    figure.add_scatter(
        x=[p[0] for p in ring], y=[p[1] for p in ring], mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": "#CBD5E1", "width": 1.2, "dash": "dot"},
        fill="toself", fillcolor="rgba(241,245,249,0.55)",
    )  # fmt: skip
    return [(-0.9 * radius, -0.9 * radius), (0.9 * radius, 0.9 * radius)]


def _draw_cluster(figure: go.Figure, k: int, members: Sequence[Point], middle: Point, radius: float) -> None:
    """A tinted area around the members, its name on the side that faces away from the middle of the map."""
    ring = hull(members, radius)
    colour = CLUSTER_COLOURS[k % len(CLUSTER_COLOURS)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=[p[0] for p in ring], y=[p[1] for p in ring], mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": f"rgba({red},{green},{blue},0.55)", "width": 1.4, "shape": "spline"},
        fill="toself", fillcolor=f"rgba({red},{green},{blue},0.11)",
    )  # fmt: skip
    home = middle_of(members)
    away = math.hypot(home[0] - middle[0], home[1] - middle[1])
    east, north = ((home[0] - middle[0]) / away, (home[1] - middle[1]) / away) if away else (0.0, 1.0)
    at = max(ring, key=lambda p: p[0] * east + p[1] * north)
    figure.add_annotation(
        x=at[0], y=at[1], text=f"cluster {k + 1}", showarrow=False, borderpad=2,
        xanchor="center" if abs(east) < 0.35 else ("left" if east > 0 else "right"),
        yanchor="middle" if abs(north) < 0.35 else ("bottom" if north > 0 else "top"),
        font={"color": colour, "size": 12.5, "weight": 600},
    )  # fmt: skip


def _draw_links(figure: go.Figure, row: Row, places: Mapping[int, Point], links: Table) -> None:
    """One line per pair of devices, thinner and paler the more there are."""
    found = pairs(links)
    weight = min(1.0, 5.0 / math.sqrt(max(len(found), 1)))
    groups: dict[tuple[bool, str], list[Point | tuple[None, None]]] = {}
    middles: list[tuple[Point, str, bool]] = []
    for (i, j), phases in found.items():
        across = set(phases) == {"inter"}
        curve = bend(places[i], places[j], 0.16 if across else 0.0)
        colour = LINK if across else cluster_colour(row, i)
        groups.setdefault((across, colour), []).extend([*curve, (None, None)])
        told = [f"{clean(phase)}: {arrived} of {tried} arrived" for phase, (tried, arrived) in phases.items()]
        lost = any(arrived < tried for tried, arrived in phases.values())
        middles.append((curve[len(curve) // 2], "<br>".join([f"<b>{i} ↔ {j}</b>", *told]), lost))
    for (across, colour), points in sorted(groups.items(), reverse=True):
        line = {"color": colour, "width": 0.8 + 1.4 * weight, "dash": "dash" if across else "solid"}
        figure.add_scatter(
            x=[p[0] for p in points], y=[p[1] for p in points], mode="lines", line=line, hoverinfo="skip",
            opacity=0.3 + 0.5 * weight, legendgroup=str(across), showlegend=False,
        )  # fmt: skip
    _draw_legend(figure, {across for across, _ in groups}, bool(row["clusters"]))
    _draw_middles(figure, middles)


def _draw_legend(figure: go.Figure, kinds: Set[bool], clustered: bool) -> None:
    """What a solid and a dashed line stand for, in a colour that is no cluster's."""
    for across in sorted(kinds):
        name = "between clusters" if across else "inside a cluster" if clustered else "link used"
        line = {"color": LINK, "width": 1.8, "dash": "dash" if across else "solid"}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, legendgroup=str(across))


def _draw_middles(figure: go.Figure, middles: Sequence[tuple[Point, str, bool]]) -> None:
    """What a link tells when pointed at, and a cross where it lost a transfer."""
    for lost in (False, True):
        here = [m for m in middles if m[2] == lost]
        if not here or (len(middles) > HOVERED and not lost):
            continue
        marker = {"symbol": "x-thin", "size": 8, "line": {"color": "#C0262D", "width": 2}}
        figure.add_scatter(
            x=[m[0][0] for m in here], y=[m[0][1] for m in here], mode="markers", hoverinfo="text",
            hovertext=[m[1] for m in here], name="lost a transfer", showlegend=lost,
            marker=marker if lost else {"size": 12, "opacity": 0},
        )  # fmt: skip


def _draw_devices(figure: go.Figure, row: Row, devices: Sequence[Mapping[str, Any]], rounds: Table) -> None:
    """Numbered discs with the task below, and the device's own account when pointed at."""
    few = len(devices) <= NAMED
    colours = [cluster_colour(row, int(d["id"])) for d in devices]
    x, y = [float(d["x_m"]) for d in devices], [float(d["y_m"]) for d in devices]
    figure.add_scatter(
        x=x, y=y, mode="markers+text" if few else "markers", hoverinfo="text", showlegend=False,
        marker={"size": 27 if few else 11, "color": colours, "line": {"color": "white", "width": 2}},
        text=[str(d["id"]) for d in devices], textfont={"color": "white", "size": 12, "weight": 600},
        hovertext=[device_text(row, d, rounds) for d in devices],
    )  # fmt: skip
    for d in devices if few else ():
        figure.add_annotation(
            x=float(d["x_m"]), y=float(d["y_m"]), text=clean(d["task"], 18), showarrow=False, yshift=-24,
            font={"size": 11.5, "color": "#334155"}, bgcolor="rgba(255,255,255,0.72)", borderpad=1,
        )  # fmt: skip


def device_text(row: Row, device: Mapping[str, Any], rounds: Table) -> str:
    """What one device tells when pointed at: task, experts held, power, bytes, losses."""
    number = int(device["id"])
    mine = sorted((r for r in rounds if int(r["device"]) == number), key=lambda r: int(r["round"]))
    lines = [f"<b>device {number}</b>", f"task: {clean(device['task'], 40)}"]
    home = [k + 1 for k, members in enumerate(row["clusters"]) if number in members]
    lines += [f"cluster {k}" for k in home]
    lines.append(f"at ({float(device['x_m']):.1f}, {float(device['y_m']):.1f}) m")
    if mine:
        sent = sum(float(v) for r in mine for name, v in r.items() if name.startswith("bytes_"))
        power_w = max(float(r["power_w"]) for r in mine)
        lines.append(f"experts held: {float(mine[-1]['experts_held']):g}")
        if power_w > 0:
            lines.append(f"highest power: {quantity(power_w, 'W')} ({to_dbm(power_w):.1f} dBm)")
        lines.append(f"sent: {size(sent)} in {quantity(sum(float(r['airtime_s']) for r in mine), 's')}")
        lines.append(f"lost transfers: {sum(int(r['lost']) for r in mine)}")
    own = row["accuracy"].get(device["task"])
    return "<br>".join([*lines, *([f"{clean(row['label'])} on its task: {percent(own)}"] if own is not None else [])])


def _frame(figure: go.Figure, points: Sequence[Point], room: float) -> go.Figure:
    """Equal scales in metres, with room for the outermost names."""
    xs, ys = zip(*points, strict=True)
    axis = {
        "ticksuffix": " m",
        "showgrid": True,
        "gridcolor": "#EEF2F6",
        "nticks": 7,
        "tickfont": {"color": SOFT},
    }
    figure.update_xaxes(range=[min(xs) - room, max(xs) + room], **axis)
    figure.update_yaxes(range=[min(ys) - room, max(ys) + room], scaleanchor="x", **axis)
    return figure.update_layout(hovermode="closest", margin={"l": 58, "r": 12, "t": 12, "b": 36})
