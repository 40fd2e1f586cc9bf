"""In the last round nothing is repeated, so what a fade keeps from a member of a cluster goes over another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..types import Edge, Facts, Phase
from ..wireless.access import turn_radio
from ..wireless.link import max_power_w
from ..wireless.power import broadcast_power_w
from .clusters import Limits, Members


def detours(intra: Phase, clusters: Sequence[Members], facts: Mapping[int, Facts], limits: Limits) -> Phase:
    """Who hands whose values on to whom, after a phase in which some links will not carry them.

    Every such pair goes over the member whose weaker link of the two is best, among those whose links carry the values
    and whatever else they hand on to the same device. `carries` of an edge names whose values; where no member will
    do, there is none.

    Args:
        intra: values inside clusters.
        clusters: the partition.
        facts: payloads and gains of the round, by device.
        limits: transmission and radio budget.

    Returns:
        Phase `detour`, without edges where all links carry.
    """
    limit_w, cluster_of = max_power_w(limits.radio), {k: members for members in clusters for k in members}

    def gain(i: int, j: int) -> float:
        return facts[i].gains.get(j, math.inf)

    def carried(i: int, j: int, bits: int) -> bool:
        radio = limits.radio
        if radio.access != "dedicated":
            radio = turn_radio(radio, len(cluster_of[i]))
        return broadcast_power_w(bits, [gain(i, j)], radio) <= limit_w

    loads: dict[tuple[int, int], int] = {}
    over: dict[tuple[int, int], list[Edge]] = {}
    for edge in intra.edges:
        i, j, bits = edge.src, edge.dst, facts[edge.src].payload_bits
        if carried(i, j, bits):
            continue
        ways = [
            (-min(gain(i, m), gain(m, j)), m)
            for m in cluster_of[i]
            if m not in (i, j) and carried(i, m, bits) and carried(m, j, bits + loads.get((m, j), 0))
        ]
        if ways:
            m = min(ways)[1]
            loads[m, j] = loads.get((m, j), 0) + bits
            over.setdefault((m, j), []).append(edge)
    edges = [
        Edge(
            m,
            j,
            carries=tuple(e.src for e in asked),
            fresh=any(e.fresh for e in asked),
            masked=all(e.masked for e in asked),
        )
        for (m, j), asked in sorted(over.items())
    ]
    return Phase(name="detour", edges=tuple(edges), cast=intra.cast)
