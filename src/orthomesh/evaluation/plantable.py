"""A plan on a terminal: clusters, devices, who is out of reach, and what it all comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ..planning.plan import Plan
from .planfile import totals
from .wording import column, count, percent, quantity, significant, size

SHOWN = 24
"""Clusters, or devices out of reach, up to which all are printed; the files have the rest."""
FEW = 20
"""Devices up to which every one has its line."""

BOUNDS = {"size": "densities that must fit", "conflict": "devices no two of which may share", "exact solution": "proof"}
"""What says that no plan has fewer groups, in words; what is not here goes by its name."""

LIMITS = {"collision": "S_max", "reach": "reach", "power": "power", "nothing": "-"}
"""What keeps a cluster from merging with another, in a word."""


def tables(plan: Plan, all_devices: bool = False) -> list[Table]:
    """What is printed of a plan: clusters, devices where they are few or asked for, who is out of reach.

    Args:
        plan: what to print.
        all_devices: every device, however many.
    """
    found = [cluster_table(plan)] if plan.clusters else []
    found += [device_table(plan)] if all_devices or len(plan.devices) <= FEW else []
    return found + ([outsider_table(plan)] if plan.outsiders else [])


def cluster_table(plan: Plan) -> Table:
    """One line per cluster: the largest of them where there are many."""
    shown = sorted(sorted(plan.clusters, key=lambda c: (-len(c.members), c.index))[:SHOWN], key=lambda c: c.index)
    names = [d.name for d in plan.devices]
    energy, energy_unit = column([c.energy_j for c in shown], "J")
    sent, sent_unit = column([float(c.sent_bytes) for c in shown], "B")
    cells = {
        "": [str(c.index + 1) for c in shown],
        "devices": [listed([names[i] for i in c.members], 16) for c in shown],
        "n": [str(len(c.members)) for c in shown],
        "S %": [f"{100 * c.collision:.1f}" for c in shown],
        "weakest link": [f"{names[c.worst[0]]}-{names[c.worst[1]]} {c.distance_m:.0f} m" for c in shown],
        "dB": [f"{c.margin_db:.1f}" for c in shown],
        "s": [significant(c.delay_s) for c in shown],
        energy_unit: energy,
        sent_unit: sent,
        "held by": [LIMITS[c.limit] for c in shown],
        "room": [str(c.room or "-") for c in shown],
    }
    return _table(cells, words=("devices", "weakest link", "held by"))


def device_table(plan: Plan) -> Table:
    """One line per device."""
    d, names = plan.devices, [one.name for one in plan.devices]
    energy, energy_unit = column([one.energy_j + one.relay_energy_j for one in d], "J")
    sent, sent_unit = column([float(one.sent_bytes) for one in d], "B")
    relay, relay_unit = column([float(one.relay_bytes) for one in d], "B")
    cells = {
        "device": names,
        "in": ["-" if one.cluster is None else str(one.cluster + 1) for one in d],
        "links": [str(one.links) for one in d],
        "density": [f"{'(11c) ' if one.capped else ''}{percent(one.density)}" for one in d],
        "dBm": ["-" if one.power_dbm is None else f"{one.power_dbm:.1f}" for one in d],
        "dB": ["-" if one.margin_db is None else f"{one.margin_db:.1f}" for one in d],
        "s": ["-" if not one.airtime_s else significant(one.airtime_s) for one in d],
        sent_unit: sent,
        f"relays, {relay_unit}": relay,
        energy_unit: energy,
    }
    if any(one.battery_rounds is not None for one in d):
        cells["lasts"] = ["-" if r is None else f"{r:,.0f} rounds" for r in (one.battery_rounds for one in d)]
    return _table(cells, words=("device",))


def outsider_table(plan: Plan) -> Table:
    """Devices in nobody's reach, and what would bring each of them in: any one of the last three columns does."""
    names, shown = [d.name for d in plan.devices], plan.outsiders[:SHOWN]
    return _table(
        {
            "out of reach": [names[o.device] for o in shown],
            "hears best": [f"{names[o.nearest]}, {o.distance_m:.0f} m" for o in shown],
            "would take, dBm": [
                f"{o.power_dbm:.1f}" if math.isfinite(o.power_dbm) else "none is enough" for o in shown
            ],
            "or deadline, s": ["none helps" if o.deadline_s is None else f"{o.deadline_s:.3g}" for o in shown],
            "or density, %": ["none helps" if o.density is None else f"{100 * o.density:.3g}" for o in shown],
        },
        words=("out of reach", "hears best"),
    )


def sentences(plan: Plan) -> list[str]:
    """What a plan comes to, and what a reader should know, a sentence each."""
    t, d = totals(plan), plan.devices
    n = len(d)
    said = [
        f"{count(n, 'device')} in {count(t['clusters'], 'cluster')}"
        + (f", {t['alone']} alone" if t["alone"] else "")
        + f"; mean collision rate {percent(plan.mean_collision)} (S_max {percent(plan.settings.rules.max_collision)}); "
        + gap_in_words(plan)
    ]
    if plan.clusters:
        said.append(
            f"a round inside clusters takes {quantity(t['delay_s'], 's')}, {size(t['sent_bytes'] / n)} and "
            f"{quantity(t['energy_j'] / n, 'J')} per device; the weakest link has {t['least_margin_db']:.1f} dB to "
            f"spare beyond the {plan.settings.rules.margin_db:g} dB kept for fades"
        )
        said.append(
            "dB: power to spare; s: time on the air. Held by, when growing: reach, no other cluster in mutual reach of "
            "all members within deadline and power, (11a)(11b); power, splitting the band once more breaks (11b); "
            "S_max, the collision rate. room: single devices of others it could take"
        )
    if plan.relays:
        said.append(
            f"telling every cluster's record to everybody once takes {count(len(plan.relays), 'gateway link')}, "
            f"{size(t['relay_bytes'])} and {quantity(t['relay_energy_j'], 'J')} in all; the busiest link is on the air "
            f"for {quantity(t['relay_delay_s'], 's')}"
        )
    if len(plan.parts) > 1:
        said.append(
            f"radio connects {count(len(plan.parts), 'separate part')}, of {listed([str(p) for p in plan.parts], 30)} "
            "devices; experts do not cross between them"
        )
    capped = [one.name for one in d if one.capped]
    if capped:
        said.append(f"computing, (11c), lowers the density of {count(len(capped), 'device')}: {listed(capped, 40)}")
    for same in plan.twins[:3]:
        said.append(f"devices {listed([d[i].name for i in same], 40)} are at one point; their distance counts as 1 m")
    return said


def gap_in_words(plan: Plan) -> str:
    """How far from the fewest groups the plan can be, with what says so."""
    lone = ", lone devices counted," if plan.num_groups > len(plan.clusters) else ""
    by = BOUNDS.get(plan.bound_by, plan.bound_by)
    if plan.num_groups == plan.bound:
        return f"{count(plan.num_groups, 'group')}{lone} is the fewest possible (by {by})"
    return (
        f"{count(plan.num_groups, 'group')}{lone} of at least {plan.bound} (by {by}): "
        f"optimality gap at most {percent(plan.gap)}"
    )


def listed(words: Sequence[str], room: int) -> str:
    """Words joined by commas as far as there is room, then how many more.

    >>> listed(["1", "2", "10"], 20), listed(["alpha", "beta", "gamma"], 12)
    ('1, 2, 10', 'alpha and 2 more')
    """
    text = ", ".join(words)
    if len(text) <= room:
        return text
    taken = 1
    while len(", ".join(words[: taken + 1])) + 10 <= room:
        taken += 1
    return f"{', '.join(words[:taken])} and {len(words) - taken} more"


def _table(cells: dict[str, list[str]], words: Sequence[str]) -> Table:
    """Columns of cells, words to the left and numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in cells:
        table.add_column(name, justify="left" if name in words else "right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*(Text("".join(c if c.isprintable() else "?" for c in cell)) for cell in row))
    return table
