"""The map of a plan as SVG: clusters as areas, links as wide as their margin, gateways, and who is out of reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..planning.plan import Plan
from .axes import FONT, INK, SOFT, clean
from .devicemap import ALONE, CLUSTER_COLOURS
from .shapes import Point, hull, middle_of
from .wording import count, percent, size

NIGHT = ("#7F9CE8", "#F08FA5", "#4FC79E", "#E2B057", "#B48BE0", "#6CC7DE", "#D98A7C", "#B4C95A", "#E68BD0", "#9DB1C4")
"""The colours of clusters on a dark ground, in the order of `CLUSTER_COLOURS`."""
WARNING = "#C0262D"
FULL_DB = 20.0
"""Margin at which a link is drawn widest."""
WIDTH, HEIGHT, TOP, FOOT, EDGE = 1200.0, 980.0, 84.0, 64.0, 30.0
NAMED, LABELLED = 60, 40
"""Devices above which names, and clusters above which their numbers are hidden at first."""


class View(NamedTuple):
    """Metres to units of the drawing: x = left + scale x_m, y = top - scale y_m."""

    scale: float
    left: float
    top: float

    def at(self, x_m: float, y_m: float) -> Point:
        """Where a place in metres is drawn."""
        return self.left + self.scale * x_m, self.top - self.scale * y_m


def svg(plan: Plan) -> str:
    """The map as a file of its own, with title, legend and scale bar; light or dark as the reader's screen is.

    Args:
        plan: what to draw.

    Returns:
        SVG; nothing is fetched, no script runs.
    """
    view = view_of(plan, (EDGE, TOP, WIDTH - EDGE, HEIGHT - FOOT - EDGE / 2))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" '
        f'height="{HEIGHT:g}" font-family="{FONT.replace(chr(34), chr(39))}" font-size="13">\n'
        f"<style>{NIGHT_RULES}</style>\n"
        f'<rect class="ground" width="100%" height="100%" fill="white"/>\n{_title(plan)}\n{layers(plan, view)}\n'
        f"{legend(plan, EDGE, HEIGHT - 30)}\n{_scale_bar(view)}\n</svg>\n"
    )


def view_of(plan: Plan, box: tuple[float, float, float, float]) -> View:
    """Fit all devices into a box (left, top, right, bottom), with room for the areas around them."""
    edge = _ground(plan)
    r = plan.settings.channel.radius_m
    x = np.array([d.x_m for d in plan.devices] + ([-r, r] if edge else []))
    y = np.array([d.y_m for d in plan.devices] + ([-r, r] if edge else []))
    left, top, right, bottom = box
    room = 12.0 if edge else 32.0
    wide, high = float(np.ptp(x)), float(np.ptp(y))
    scale = min(
        (right - left - 2 * room) / wide if wide else math.inf, (bottom - top - 2 * room) / high if high else math.inf
    )
    if not math.isfinite(scale):
        scale = 1.0  # everybody at one point
    middle_x, middle_y = float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2
    return View(scale, (left + right) / 2 - scale * middle_x, (top + bottom) / 2 + scale * middle_y)


def layers(plan: Plan, view: View) -> str:
    """What lies on the map, from the ground up: disk, areas, links, gateway links, devices, names."""
    colour = colours_of(plan)
    parts = {
        "disk": _disk(plan, view), "areas": _areas(plan, view, colour), "links": _links(plan, view, colour),
        "relays": _relays(plan, view), "devices": _devices(plan, view, colour), "names": _names(plan, view),
        "numbers": _numbers(plan, view, colour),
    }  # fmt: skip
    hidden = {"names": len(plan.devices) > NAMED, "numbers": len(plan.clusters) > LABELLED}
    look = {name: ' display="none"' if hidden.get(name) else "" for name in parts}
    return "\n".join(f'<g class="{name}"{look[name]}>\n' + "\n".join(body) + "\n</g>" for name, body in parts.items())


def colours_of(plan: Plan) -> list[int]:
    """A colour for every cluster, as unlike those of its neighbours as ten colours allow.

    Args:
        plan: its clusters.

    Returns:
        Index into `CLUSTER_COLOURS`, one per cluster.
    """
    middles = np.array([middle_of([_place(plan, i) for i in c.members]) for c in plan.clusters]).reshape(-1, 2)
    chosen: list[int] = []
    for k, here in enumerate(middles):
        far = np.full(len(CLUSTER_COLOURS), np.inf)
        for colour, there in zip(chosen, middles[:k], strict=True):
            far[colour] = min(far[colour], float(np.hypot(*(here - there))))
        chosen.append(int(np.argmax(far)) if k >= len(CLUSTER_COLOURS) else k)
    return chosen


def _place(plan: Plan, device: int) -> Point:
    return plan.devices[device].x_m, plan.devices[device].y_m


def radius_of(plan: Plan) -> float:
    """Size of a device on the drawing, smaller the more there are."""
    return float(min(11.0, max(2.6, 62.0 / math.sqrt(len(plan.devices)))))


def _ground(plan: Plan) -> bool:
    """Whether devices were drawn in a disk or square, which is then shown."""
    return plan.settings.positions is None and plan.settings.channel.positions_m is None


def _at(point: Point) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _disk(plan: Plan, view: View) -> list[str]:
    """Outline of the disk or square devices were drawn in, where they were."""
    s = plan.settings
    if not _ground(plan):
        return []
    (x, y), r = view.at(0.0, 0.0), s.channel.radius_m * view.scale
    look = 'class="line" fill="#F8FAFC" stroke="#CBD5E1" stroke-width="1.2" stroke-dasharray="2 5"'
    if s.channel.region == "square":
        return [f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}" {look}/>']
    return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" {look}/>']


def _group(plan: Plan, cluster: int, colour: Sequence[int], body: str) -> str:
    """Something of one cluster, in its colour."""
    k = colour[cluster]
    return f'<g class="k{k}" color="{CLUSTER_COLOURS[k]}" data-c="{cluster}">{body}</g>'


def _areas(plan: Plan, view: View, colour: Sequence[int]) -> list[str]:
    return [
        _group(plan, c.index, colour, f'<path d="{_outline(plan, view, c.members)}" fill="currentColor" '
               'fill-opacity="0.1" stroke="currentColor" stroke-opacity="0.5" stroke-width="1.3"/>')
        for c in plan.clusters
    ]  # fmt: skip


def _outline(plan: Plan, view: View, members: Sequence[int]) -> str:
    ring = hull([view.at(*_place(plan, i)) for i in members], radius_of(plan) + 7.0)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring[:-1]) + "Z"


def _links(plan: Plan, view: View, colour: Sequence[int]) -> list[str]:
    """One path per cluster and width: thousands of lines stay light."""
    thin = min(1.0, 14.0 / math.sqrt(len(plan.links) + 1))
    groups: dict[int, dict[float, list[str]]] = {}
    for link in plan.links:
        home = plan.devices[link.ends[0]].cluster
        if home is not None:
            a, b = (view.at(*_place(plan, i)) for i in link.ends)
            line = f"M{_at(a)}L{_at(b)}"
            groups.setdefault(home, {}).setdefault(width_of(link.margin_db), []).append(line)
    look = f'fill="none" stroke="currentColor" stroke-opacity="{0.3 + 0.35 * thin:.2f}" stroke-linecap="round"'
    parts = []
    for k, by_width in sorted(groups.items()):
        paths = [
            f'<path d="{"".join(lines)}" stroke-width="{(0.4 + 0.6 * thin) * wide:.2f}" {look}/>'
            for wide, lines in sorted(by_width.items())
        ]
        parts.append(_group(plan, k, colour, "".join(paths)))
    return parts


def width_of(margin_db: float) -> float:
    """Width of a link, from 0.7 without margin to 3.9 at `FULL_DB` and above, in nine steps.

    >>> width_of(0.0), width_of(35.0)
    (0.7, 3.9)
    """
    return round(0.7 + 0.4 * round(8 * min(max(margin_db, 0.0), FULL_DB) / FULL_DB), 1)


def _relays(plan: Plan, view: View) -> list[str]:
    """Gateway links: bent and dashed, so that they are not taken for links of a cluster."""
    wide = 2.2 if len(plan.devices) <= 300 else 1.4
    parts = []
    for n, r in enumerate(plan.relays):
        a, b = (view.at(*_place(plan, i)) for i in r.ends)
        middle = ((a[0] + b[0]) / 2 + 0.14 * (b[1] - a[1]), (a[1] + b[1]) / 2 - 0.14 * (b[0] - a[0]))
        parts.append(
            f'<path class="relay" data-r="{n}" d="M{_at(a)}Q{_at(middle)} {_at(b)}" fill="none" stroke="{INK}" '
            f'stroke-opacity="0.75" stroke-width="{wide}" stroke-dasharray="{2 * wide:g} {1.8 * wide:g}"/>'
        )
    return parts


def _devices(plan: Plan, view: View, colour: Sequence[int]) -> list[str]:
    """Discs in the colour of their cluster, ringed where gateways; grey rings alone; red crosses out of reach."""
    r, out = radius_of(plan), {o.device for o in plan.outsiders}
    gates = {i for relay in plan.relays for i in relay.ends}
    parts = []
    for d in plan.devices:
        x, y = view.at(d.x_m, d.y_m)
        mark = f'data-i="{d.index}" data-x="{x:.1f}" data-y="{y:.1f}"'
        disc = f'{mark} cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"'
        if d.index in out:
            parts.append(f"<path {mark} {_cross(x, y, 0.9 * r)}/>")
        elif d.cluster is None:
            parts.append(f'<circle {disc} class="alone" fill="white" stroke="{ALONE}" stroke-width="1.8"/>')
        else:
            body = (
                f'<circle {disc} class="dot" fill="currentColor" stroke="white" stroke-width="{min(2.0, r / 4):.1f}"/>'
            )
            if d.index in gates:
                wide = round(min(1.4, 0.3 * r), 1)
                ring = f'cx="{x:.1f}" cy="{y:.1f}" r="{r + max(2.0, 0.32 * r):.1f}"'
                body = f'<circle {ring} class="gate" fill="none" stroke="{INK}" stroke-width="{wide}"/>{body}'
            parts.append(_group(plan, d.cluster, colour, body))
    return parts


def _cross(x: float, y: float, half: float) -> str:
    a, b, c, d = (x - half, y - half), (x + half, y + half), (x - half, y + half), (x + half, y - half)
    return (
        f'class="out" d="M{_at(a)}L{_at(b)}M{_at(c)}L{_at(d)}" stroke="{WARNING}" '
        f'stroke-width="{max(1.6, half / 3):.1f}" stroke-linecap="round"'
    )


def _names(plan: Plan, view: View) -> list[str]:
    """Names: inside the disc where they fit, else below it."""
    r, parts = radius_of(plan), []
    out = {o.device for o in plan.outsiders}
    for d in plan.devices:
        x, y = view.at(d.x_m, d.y_m)
        inside = len(d.name) <= 3 and d.cluster is not None and r > 7.5
        look = 'class="in" fill="white" font-weight="600"'
        if not inside:
            look = f'fill="{WARNING}"' if d.index in out else f'class="soft" fill="{SOFT}"'
        about = f"transform-origin:{x:.1f}px {y:.1f}px"  # where a zoomed page shrinks it to
        y, big = (y + 0.36 * 1.05 * r, 1.05 * r) if inside else (y + r + 13.0, 11.5)
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{big:.1f}" style="{about}"'
        parts.append(f"<text {place} {look}>{clean(d.name, 16)}</text>")
    return parts


def _numbers(plan: Plan, view: View, colour: Sequence[int]) -> list[str]:
    """Number of every cluster where its area is farthest from the middle of the map."""
    parts, middle = [], middle_of([view.at(d.x_m, d.y_m) for d in plan.devices])
    for c in plan.clusters:
        points = [view.at(*_place(plan, i)) for i in c.members]
        home, ring = middle_of(points), hull(points, radius_of(plan) + 15.0)
        away = math.hypot(home[0] - middle[0], home[1] - middle[1]) or 1.0
        east, south = (home[0] - middle[0]) / away, (home[1] - middle[1]) / away
        x, y = max(ring, key=lambda p: p[0] * east + p[1] * south)
        place = f'x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" font-size="13" font-weight="700"'
        halo = 'class="halo" stroke="white" stroke-width="3" paint-order="stroke"'
        text = f'<text {place} {halo} fill="currentColor">{c.index + 1}</text>'
        parts.append(_group(plan, c.index, colour, text))
    return parts


def _title(plan: Plan) -> str:
    name = clean(plan.settings.name, 60)
    return (
        f'<text class="ink" x="{EDGE}" y="40" font-size="22" font-weight="650" fill="{INK}">{name}</text>\n'
        f'<text class="soft" x="{EDGE}" y="64" font-size="14" fill="{SOFT}">{in_a_line(plan)}</text>'
    )


def in_a_line(plan: Plan) -> str:
    """The plan in one line of figures."""
    alone = sum(d.cluster is None for d in plan.devices)
    sent = sum(d.sent_bytes for d in plan.devices) / len(plan.devices)
    parts = [count(len(plan.devices), "device"), f"{count(len(plan.clusters), 'cluster')}"]
    parts += [f"{alone} alone"] if alone else []
    parts += [f"{len(plan.outsiders)} out of reach"] if plan.outsiders else []
    parts += [f"mean collision rate {percent(plan.mean_collision)}", f"{size(sent)} sent per device and round"]
    return " · ".join(parts)


def legend(plan: Plan, x: float, y: float) -> str:
    """What the marks stand for, in colours that are no cluster's; only what is on the map.

    Args:
        plan: what is drawn.
        x: where the line begins.
        y: its height.
    """
    parts = []
    alone = sum(d.cluster is None for d in plan.devices) > len(plan.outsiders)
    lines = "".join(f'<path d="M{18 * n} 0h14" stroke-width="{width_of(db)}"/>' for n, db in enumerate((0, 10, 20)))
    dashes = f'<path class="relay" d="M0 0h34" stroke="{INK}" stroke-width="2.2" stroke-dasharray="4.4 4"/>'
    ring = f'<circle cx="8" r="6.5" class="alone" fill="white" stroke="{ALONE}" stroke-width="1.8"/>'
    marks = [
        (f'<g stroke="{ALONE}">{lines}</g>', 56, "link, power to spare: 0, 10, 20 dB", bool(plan.links)),
        (dashes, 40, "between gateways", bool(plan.relays)),
        (ring, 20, "alone", alone),
        (f"<path {_cross(8.0, 0.0, 6.0)}/>", 20, "out of everybody's reach", bool(plan.outsiders)),
    ]
    for mark, wide, words, shown in marks:
        if shown:
            parts.append(f'<g transform="translate({x:.0f} {y - 4:.0f})">{mark}</g>')
            parts.append(f'<text class="soft" x="{x + wide + 4:.0f}" y="{y:.0f}" fill="{SOFT}">{words}</text>')
            x += wide + 40 + 7.8 * len(words)
    return "\n".join(parts)


def _scale_bar(view: View) -> str:
    """A bar of a round number of metres, at most a sixth of the width."""
    metres = round_length(WIDTH / 6 / view.scale)
    long, y = metres * view.scale, HEIGHT - 34
    words = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    x = WIDTH - EDGE - long
    bar = f"M{x:.1f} {y - 4}v8M{x:.1f} {y}h{long:.1f}M{x + long:.1f} {y - 4}v8"
    return (
        f'<path class="ink-line" d="{bar}" stroke="{INK}" stroke-width="1.5" fill="none"/>'
        f'<text class="soft" x="{x + long / 2:.1f}" y="{y + 20}" text-anchor="middle" fill="{SOFT}">{words}</text>'
    )


def round_length(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above `most`.

    >>> round_length(180.0), round_length(0.7)
    (100.0, 0.5)
    """
    power = 10.0 ** math.floor(math.log10(most))
    return max(m * power for m in (1.0, 2.0, 5.0) if m * power <= most * (1 + 1e-9))


NIGHT_LOOK = (
    ".ground{fill:#0F172A} .ink{fill:#E2E8F0} .soft{fill:#94A3B8} .line{fill:#131D33;stroke:#334155} "
    ".relay,.gate,.ink-line{stroke:#CBD5E1} .alone{fill:#0F172A;stroke:#94A3B8} .dot,.halo{stroke:#0F172A} "
    ".in{fill:#0F172A} " + " ".join(f".k{k}{{color:{c}}}" for k, c in enumerate(NIGHT))
)
NIGHT_RULES = f"@media (prefers-color-scheme: dark){{{NIGHT_LOOK}}}"
