"""Steps 1 and 4 of IV-C as a plan: who clusters with whom, and how clusters reach each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..adapters.collision import collision_rate, mean_rate, negotiated_rate
from ..exchange.intercluster import relays
from ..topology.clustering import agnes
from ..types import Array, Edge, Facts, Phase
from ..wireless.link import Radio, max_power_w
from ..wireless.power import broadcast_power_w, unicast_powers_w

Members = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a cluster must keep to. negotiated: masks are agreed on, so that S follows R3 and not (19)."""

    max_collision: float
    negotiated: bool
    cast: Literal["broadcast", "unicast"]
    radio: Radio


def rates(densities: Array, negotiated: bool) -> Array:
    """Collision rate of every layer for devices of the given densities, [M, L] -> [L]."""
    return negotiated_rate(densities) if negotiated else collision_rate(densities)


def form(facts: Mapping[int, Facts], limits: Limits) -> tuple[Members, ...]:
    """Clusters of the lowest joint collision rate within the limits of problem (11), step 1 of IV-C.

    Args:
        facts: densities (`density`, `sizes`), payload and gains of every device.
        limits: S_max, transmission, radio budget.

    Returns:
        A partition of the devices.
    """

    def key(members: Members) -> tuple[float, float] | None:
        densities = np.stack([facts[k].public["density"] for k in members]).astype(np.float64)
        sizes = [int(n) for n in facts[members[0]].public["sizes"]]
        rate = mean_rate(rates(densities, limits.negotiated), sizes)
        power = max(_power_w(facts[k], members, limits) for k in members)
        allowed = rate <= limits.max_collision and power <= max_power_w(limits.radio)
        return (rate, power) if allowed else None

    return agnes(facts, key)


def _power_w(device: Facts, members: Members, limits: Limits) -> float:
    """What one member needs to reach all others within the deadline, eqs. (11a), (25)."""
    gains = [device.gains.get(k, math.inf) for k in members if k != device.id]
    if limits.cast == "broadcast":
        return broadcast_power_w(device.payload_bits, gains, limits.radio)
    return sum(unicast_powers_w(device.payload_bits, gains, limits.radio))


def between(facts: Mapping[int, Facts], clusters: tuple[Members, ...], radio: Radio) -> tuple[Phase, ...]:
    """Phases that bring every cluster's record to every device that radio can reach, step 4 of IV-C.

    A link counts as usable if it carries the records of all devices at once within the deadline, so that it
    also serves the last hop.
    """
    bits = sum(f.payload_bits for f in facts.values())
    needed = {
        (i, j): broadcast_power_w(bits, [facts[i].gains.get(j, math.inf)], radio)
        for i in facts
        for j in facts
        if i != j
    }
    return relays(clusters, needed, max_power_w(radio))


def pairs_within(clusters: tuple[Members, ...]) -> tuple[Edge, ...]:
    """Everybody to everybody else in the own cluster."""
    return tuple(Edge(i, j) for members in clusters for i in members for j in members if i != j)


def exchange_phases(
    facts: Mapping[int, Facts], clusters: tuple[Members, ...], latest: Mapping[int, int], limits: Limits
) -> tuple[Phase, ...]:
    """Steps 2-4 of IV-C for whoever lacks what: new values, and old ones that were lost on the way.

    Args:
        facts: what each device holds already (`have`: ids and versions), payloads and gains.
        clusters: the partition.
        latest: version of every device's values after this round; 0 where nothing was sent yet.
        limits: transmission and radio budget.

    Returns:
        `intra`: values inside clusters; then `inter` and `spread`: records between them. An edge is fresh where
        its receiver lacks the masks and task codes of what comes.
    """
    have = {k: {int(m): int(v) for m, v in f.public["have"]} for k, f in facts.items()}

    def lacks(device: int, members: Members) -> bool:
        return any(have[device].get(m, 0) < latest[m] for m in members)

    intra = [
        e._replace(carries=(e.src,), fresh=e.src not in have[e.dst])
        for e in pairs_within(clusters)
        if lacks(e.dst, (e.src,))
    ]
    phases = [Phase(name="intra", edges=tuple(intra), cast=limits.cast)]  # singletons note what they sent in it
    for phase in between(facts, clusters, limits.radio):
        edges = []
        for edge in phase.edges:
            carried = [clusters[c] for c in edge.carries if lacks(edge.dst, clusters[c])]
            fresh = any(not set(members) <= have[edge.dst].keys() for members in carried)
            if carried:
                edges.append(edge._replace(carries=tuple(m[0] for m in carried), fresh=fresh))
        if edges:
            phases.append(Phase(name=phase.name, edges=tuple(edges), cast=limits.cast))
    return tuple(phases)
