"""A plan as one HTML page that fetches nothing: the map to point at and zoom into, and every figure below it."""

from __future__ import annotations

import json
import math

from ..planning.plan import Plan
from ..planning.records import DevicePlan, Relay
from .devicemap import CLUSTER_COLOURS
from .page import Cell, card, document, escape, table, tiles
from .planfile import totals
from .planmap import NIGHT_LOOK, colours_of, layers, legend, view_of
from .planscript import SCRIPT, STYLE
from .plantable import LIMITS, gap_in_words, sentences
from .wording import count, percent, quantity, size

WIDTH, HEIGHT = 1200, 860
LAYERS = {"areas": "areas", "links": "links", "relays": "gateways", "names": "names", "numbers": "numbers"}


def page(plan: Plan) -> str:
    """The whole page of a plan.

    Args:
        plan: what to show.

    Returns:
        HTML with its own style, script and drawing; light or dark, on a screen or on paper.
    """
    said = sentences(plan)
    head = (
        '<header><button id="theme" title="light or dark">◐</button><p class="kicker">orthomesh · plan of a network</p>'
        f'<h1>{escape(plan.settings.name)}</h1><p class="headline">{escape(said[0])}.</p>{_tiles(plan)}</header>'
    )
    cards = [_map(plan), _clusters(plan), _out_of_reach(plan), _devices(plan), _gateways(plan)]
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in said[1:])
    about = card(
        "What it rests on",
        "Sentences of the plan, then its settings.",
        f'<ul class="notes">{notes}</ul>',
        _settings(plan),
    )
    night = (rule.strip().split("{") for rule in NIGHT_LOOK.split("}")[:-1])
    style = STYLE + "".join(f':root[data-theme="dark"] :is({which}){{{look}}}\n' for which, look in night)
    return document(f"{plan.settings.name} · orthomesh", "\n".join((head, *cards, about)), (style, SCRIPT))


def _tiles(plan: Plan) -> str:
    t, n = totals(plan), len(plan.devices)
    alone = f"{t['alone']} alone, {t['out_of_reach']} of them out of reach" if t["alone"] else "nobody alone"
    spare = "-" if t["least_margin_db"] is None else f"weakest link: {t['least_margin_db']:.1f} dB to spare"
    return tiles(
        [
            ("Clusters", str(t["clusters"]), f"{n:,} devices, {alone}"),
            (
                "Mean collision rate",
                percent(plan.mean_collision),
                f"S_max {percent(plan.settings.rules.max_collision)}",
            ),
            ("A round takes", quantity(t["delay_s"], "s"), spare),
            (
                "Radiated per device",
                quantity(t["energy_j"] / n, "J"),
                f"{quantity(t['relay_energy_j'] / n, 'J')} more for relays",
            ),
            ("Sent per device", size(t["sent_bytes"] / n), f"{size(t['relay_bytes'] / n)} more for relays"),
        ]
    )


def _map(plan: Plan) -> str:
    view = view_of(plan, (12.0, 20.0, WIDTH - 12.0, HEIGHT - 12.0))
    drawing = layers(plan, view)
    boxes = "".join(
        f'<label><input type="checkbox" data-layer="{name}"> {words}</label>' for name, words in LAYERS.items()
    )
    tools = (
        f'<div class="tools">{boxes}<span class="gap"></span><input id="find" placeholder="find a device" size="12">'
        '<button data-zoom="1.5">+</button><button data-zoom="0.6667">&minus;</button>'
        '<button data-zoom="0">whole</button>'
        '<button data-save="svg">SVG</button><button data-save="png">PNG</button></div>'
    )
    facts = {
        "devices": [_facts(plan, d) for d in plan.devices], "names": [d.name for d in plan.devices],
        "cluster": [d.cluster for d in plan.devices], "scale": view.scale,
        "clusters": [f"<b>cluster {c.index + 1}</b>, {count(len(c.members), 'device')}<br>S = {percent(c.collision)}, "
                     f"{c.margin_db:.1f} dB to spare<br>held by {LIMITS[c.limit]}" for c in plan.clusters],
        "relays": [_relay_facts(plan, r) for r in plan.relays],
    }  # fmt: skip
    told = json.dumps(facts).replace("<", "\\u003c")
    drawn = (
        f'<div id="map"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="13">'
        f'{drawing}</svg><div id="tip"></div><div id="bar"><i></i><span></span></div></div>'
        f'<svg class="legend" viewBox="0 0 {WIDTH} 26">{legend(plan, 6.0, 18.0)}</svg>'
        f'<script type="application/json" id="facts">{told}</script>'
    )
    how = "Point at a device for its account, click to hold its cluster, scroll to zoom, drag to move."
    return card("Map", how, tools, drawn)


def _relay_facts(plan: Plan, r: Relay) -> str:
    """What a gateway link tells when pointed at."""
    a, b = (escape(plan.devices[i].name) for i in r.ends)
    return (
        f"<b>{a} ↔ {b}</b>, between gateways<br>{r.distance_m:.0f} m, {r.margin_db:.1f} dB to spare<br>"
        f"{size(r.bytes)}, {quantity(r.airtime_s, 's')} on the air"
    )


def _facts(plan: Plan, d: DevicePlan) -> str:
    """What a device tells when pointed at."""
    lines = [f"<b>{escape(d.name)}</b>" + ("" if d.cluster is None else f", cluster {d.cluster + 1}")]
    lines.append(f"({d.x_m:.1f}, {d.y_m:.1f}) m, {count(d.links, 'link')}")
    lines.append(f"density {percent(d.density)}{', held by (11c)' if d.capped else ''}, {size(d.payload_bytes)}")
    if d.power_dbm is not None and d.margin_db is not None and d.worst is not None:
        lines.append(
            f"{d.power_dbm:.1f} dBm, {d.margin_db:.1f} dB to spare, hardest to {escape(plan.devices[d.worst].name)}"
        )
        lines.append(f"{quantity(d.airtime_s, 's')} on the air, {quantity(d.energy_j, 'J')}")
    if d.relay_bytes:
        lines.append(f"for others: {size(d.relay_bytes)}, {quantity(d.relay_energy_j, 'J')}")
    if d.battery_rounds is not None:
        lines.append(f"battery for {d.battery_rounds:,.0f} rounds")
    for o in plan.outsiders:
        if o.device == d.index:
            lines.append(f"out of reach: {_remedies(o.power_dbm, o.deadline_s, o.density)}")
    return "<br>".join(lines)


def _remedies(power_dbm: float, deadline_s: float | None, density: float | None) -> str:
    """What would bring a device in, in words."""
    ways = [f"{power_dbm:.1f} dBm"] if math.isfinite(power_dbm) else []
    ways += [f"a deadline of {deadline_s:.3g} s"] if deadline_s is not None else []
    ways += [f"density {percent(density)}"] if density is not None else []
    return f"would take {', or '.join(ways)}" if ways else "no power is enough"


def _clusters(plan: Plan) -> str:
    colour, names = colours_of(plan), [d.name for d in plan.devices]
    head = [
        "cluster",
        "devices",
        "members",
        "S",
        "weakest link",
        "to spare",
        "delay",
        "energy",
        "sent",
        "record",
        "held by",
        "room",
    ]
    rows = [
        [
            Cell(text=str(c.index + 1), head=True, colour=CLUSTER_COLOURS[colour[c.index]]),
            Cell(text=str(len(c.members))), Cell(text=", ".join(names[i] for i in c.members)),
            Cell(text=percent(c.collision), shade=c.collision),
            Cell(text=f"{names[c.worst[0]]} to {names[c.worst[1]]}, {c.distance_m:.0f} m"),
            Cell(text=f"{c.margin_db:.1f} dB"), Cell(text=quantity(c.delay_s, "s")),
            Cell(text=quantity(c.energy_j, "J")),
            Cell(text=size(c.sent_bytes)), Cell(text=size(c.record_bytes)), Cell(text=LIMITS[c.limit]),
            Cell(text=str(c.room or "-")),
        ]
        for c in plan.clusters
    ]  # fmt: skip
    how = (
        "Held by: what keeps a cluster from merging with another; reach is (11a)(11b), power (11b) in unicast, S_max "
        "the collision rate. Room: single devices of others it could take. Record: what it has to tell other clusters. "
        + gap_in_words(plan)
        + "."
    )
    if not rows:
        return card("Clusters", how, '<p class="missing">Everybody is alone.</p>')
    return card("Clusters", how, f'<div id="clusters">{table(head, rows, tall=True)}</div>')


def _out_of_reach(plan: Plan) -> str:
    if not plan.outsiders:
        return ""
    names = [d.name for d in plan.devices]
    rows = [
        [
            Cell(text=names[o.device], head=True), Cell(text=f"{names[o.nearest]}, {o.distance_m:.0f} m"),
            Cell(text=f"{o.power_dbm:.1f} dBm" if math.isfinite(o.power_dbm) else "none is enough"),
            Cell(text="none helps" if o.deadline_s is None else f"{o.deadline_s:.3g} s"),
            Cell(text="none helps" if o.density is None else percent(o.density)),
        ]
        for o in plan.outsiders
    ]  # fmt: skip
    how = (
        "Nobody hears and is heard by them within deadline and power limit. Any one of the last three columns would "
        "bring a device in."
    )
    return card(
        "Out of reach",
        how,
        table(["device", "hears best", "power at both ends", "deadline", "density"], rows, tall=True),
    )


def _devices(plan: Plan) -> str:
    head = [
        "device",
        "cluster",
        "place",
        "links",
        "density",
        "payload",
        "power",
        "to spare",
        "on air",
        "energy",
        "for others",
        "battery",
    ]
    rows = [
        [
            Cell(text=d.name, head=True), Cell(text="-" if d.cluster is None else str(d.cluster + 1)),
            Cell(text=f"{d.x_m:.1f}, {d.y_m:.1f} m"), Cell(text=str(d.links)),
            Cell(text=percent(d.density) + (" (11c)" if d.capped else "")), Cell(text=size(d.payload_bytes)),
            Cell(text="-" if d.power_dbm is None else f"{d.power_dbm:.1f} dBm"),
            Cell(text="-" if d.margin_db is None else f"{d.margin_db:.1f} dB"), Cell(text=quantity(d.airtime_s, "s")),
            Cell(text=quantity(d.energy_j, "J")), Cell(text=size(d.relay_bytes)),
            Cell(text="-" if d.battery_rounds is None else f"{d.battery_rounds:,.0f} rounds"),
        ]
        for d in plan.devices
    ]  # fmt: skip
    how = "One round inside clusters; for others: what a gateway sends when records go everywhere once."
    return card("Devices", how, table(head, rows, tall=True))


def _gateways(plan: Plan) -> str:
    if not plan.relays:
        return ""
    names = [d.name for d in plan.devices]
    rows = [
        [
            Cell(text=f"{names[r.ends[0]]} to {names[r.ends[1]]}", head=True), Cell(text=f"{r.distance_m:.0f} m"),
            Cell(text=f"{r.margin_db:.1f} dB"), Cell(text=size(r.bytes)), Cell(text=quantity(r.airtime_s, "s")),
            Cell(text=quantity(r.energy_j, "J")),
        ]
        for r in plan.relays
    ]  # fmt: skip
    how = (
        "The cheapest forest that connects the clusters, and what crosses it when every cluster's record goes "
        "everywhere once."
    )
    return card(
        "Gateways", how, table(["link", "length", "to spare", "both ways", "busier way", "energy"], rows, tall=True)
    )


def _settings(plan: Plan) -> str:
    s, radio, channel, adapter, rules = (
        plan.settings, plan.settings.radio, plan.settings.channel, plan.settings.adapter, plan.settings.rules,
    )  # fmt: skip
    entries = {
        "radio": f"{quantity(radio.bandwidth_hz, 'Hz')}, {radio.deadline_s:g} s, up to {radio.max_power_dbm:g} dBm, "
        f"noise figure {radio.noise_figure_db:g} dB, lowest code {radio.min_efficiency_bps_per_hz:g} bit/s/Hz",
        "channel": f"{channel.path_loss}, exponent {channel.exponent:g}, {channel.reference_loss_db:g} dB at 1 m, "
        f"fading {channel.fading}",
        "adapter": f"rank {adapter.rank}, {adapter.blocks} blocks, density {percent(adapter.density)}, "
        f"{adapter.bits_per_entry} bits an entry",
        "rules": f"S_max {percent(rules.max_collision)}, {rules.masks} masks, {rules.cast}, "
        f"{rules.margin_db:g} dB kept for fades",
        "solver": s.rules.solver,
        "seed": str(s.seed),
    }
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items()) + "</dl>"
