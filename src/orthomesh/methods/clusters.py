"""Steps 1 and 4 of IV-C as a plan: who clusters with whom, who bids for positions, how clusters reach each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..adapters.collision import collision_rate, mean_rate, negotiated_rate
from ..adapters.collision_rows import expected
from ..adapters.collision_rows import negotiated as agreed
from ..exchange.intercluster import Link, overheard, relays
from ..planning.problem import Limits as Bounds
from ..planning.problem import Solver
from ..planning.serverless import UNLIMITED, leaf_of, price
from ..planning.solve import cluster
from ..topology.clustering_instance import Instance
from ..types import Array, Edge, Facts, Forming, Phase
from ..wireless.access import turn_radio
from ..wireless.link import Radio, max_power_w
from ..wireless.power import broadcast_power_w, pair_powers_w, required_power_w, unicast_powers_w

Members = tuple[int, ...]
NEVER = 2**32 - 1
"""Later than any round: the mask of a device that has just found it is known to nobody."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a cluster must keep to.

    negotiated: masks are agreed on, so that S follows R3 and not (19). sizes: positions of every group of matrices
    that share a quota, the weights of S. overhear: whether what one gateway tells another is for all who hear it.
    """

    max_collision: float
    negotiated: bool
    cast: Literal["broadcast", "unicast"]
    radio: Radio
    sizes: tuple[int, ...]
    solver: Solver = "local-search"
    overhear: bool = False


def rates(densities: Array, negotiated: bool) -> Array:
    """Collision rate of every group of matrices for devices of the given densities, [M, G] -> [G]."""
    return negotiated_rate(densities) if negotiated else collision_rate(densities)


def arrange(facts: Mapping[int, Facts], units: Iterable[Members], limits: Limits) -> tuple[Members, ...]:
    """Clusters within the limits of problem (11), step 1 of IV-C; fewest, then least joint collision rate (R10).

    Clusters that are formed stay. Whoever has none joins the one that keeps the limits with the lowest joint
    collision rate, then the least power; those that none can take cluster among themselves, by `limits.solver`. Where
    devices have talked about it, what they agreed on holds, and who has not is alone.

    Args:
        facts: `density`, payload and gains of every device; `cluster` of those that have one, with `seed` where
            devices share an adapter (R11).
        units: the devices without a cluster, each by itself or in its group of R11, which holds positions once.
        limits: S_max, transmission, radio budget.

    Returns:
        A partition of the devices.
    """
    if any(f.agreed for f in facts.values()):
        told = {k: set(f.agreed) & facts.keys() | {k} for k, f in facts.items() if "cluster" not in f.public}
        return tuple(sorted([*formed(facts), *_mutual(told)]))
    holder = _holders(facts, units := tuple(units))

    def key(members: Members) -> tuple[float, float] | None:
        densities = np.stack([facts[k].public["density"] for k in sorted({holder[k] for k in members})])
        rate = mean_rate(rates(densities.astype(np.float64), limits.negotiated), limits.sizes)
        power = power_w(facts, members, limits)
        return (rate, power) if rate <= limits.max_collision and power <= max_power_w(limits.radio) else None

    clusters, left = list(formed(facts)), {}
    for unit in units:
        unions = [tuple(sorted(members + unit)) for members in clusters]
        offers = [(*cost, n) for n, union in enumerate(unions) if (cost := key(union)) is not None]
        if offers:
            chosen = min(offers)[2]
            clusters[chosen] = unions[chosen]
        else:
            left[unit[0]] = unit

    firsts = sorted(left)
    new = cluster(_instance(facts, [left[k] for k in firsts], limits), limits.solver) if firsts else ()
    return tuple(sorted([*clusters, *(tuple(sorted(k for n in part for k in left[firsts[n]])) for part in new)]))


def _instance(facts: Mapping[int, Facts], units: list[Members], limits: Limits) -> Instance:
    """Units without a cluster as items. In unicast the powers of a union add up and are asked for each.

    There the whole band counts beside the split one, so that who can serve many could serve any few of them: with a
    lowest code a single far receiver may need more power than the same one among near ones.
    """
    limit_w = max_power_w(limits.radio)

    def everybody(items: Members) -> Members:
        return tuple(sorted(k for n in items for k in units[n]))

    def needed_w(items: Members) -> float | None:
        members = everybody(items)
        worst = max(power_w(facts, members, limits), *(_undivided_w(facts[k], members, limits) for k in members))
        return worst if worst <= limit_w else None

    densities = np.stack([facts[unit[0]].public["density"] for unit in units]).astype(np.float64)
    rows = (agreed if limits.negotiated else expected)(densities, limits.sizes)
    pairs = np.stack(np.triu_indices(len(units), 1), axis=1)
    if limits.cast == "broadcast" and all(len(unit) == 1 for unit in units):
        radio = limits.radio if limits.radio.access == "dedicated" else turn_radio(limits.radio, 2)
        alone = {unit[0]: facts[unit[0]] for unit in units}
        both = pair_powers_w([f.payload_bits for f in alone.values()], _gains(alone), radio)
        power = np.maximum(both, both.T)[pairs[:, 0], pairs[:, 1]]
    else:
        power = np.array([power_w(facts, everybody((a, b)), limits) for a, b in pairs.tolist()])
    works = power <= limit_w
    return Instance(
        leaves=rows.leaves,
        join=rows.join,
        rate=rows.rate,
        max_rate=limits.max_collision,
        pairs=pairs[works],
        power=power[works],
        size=densities @ (np.asarray(limits.sizes) / sum(limits.sizes)),
        further=needed_w if limits.cast == "unicast" else None,
    )


def _undivided_w(device: Facts, members: Members, limits: Limits) -> float:
    """Power to all others added up if each had the whole band."""
    gains = [device.gains.get(k, math.inf) for k in members if k != device.id]
    return math.fsum(required_power_w(device.payload_bits, gain, 1, limits.radio) for gain in gains)


def formed(facts: Mapping[int, Facts]) -> tuple[Members, ...]:
    """Clusters there are: two devices share one if both say so."""
    return _mutual({k: {int(m) for m in f.public["cluster"]} for k, f in facts.items() if "cluster" in f.public})


def has_parted(facts: Mapping[int, Facts], clusters: Iterable[Members]) -> bool:
    """Whether some device counts another one to its cluster that is in a different one of these."""
    home = {k: members for members in clusters for k in members}
    told = {k: f.public["cluster"].tolist() for k, f in facts.items() if "cluster" in f.public}
    return any(m in facts and m not in home[k] for k, members in told.items() for m in members)


def _mutual(told: Mapping[int, set[int]]) -> tuple[Members, ...]:
    clusters: list[set[int]] = []
    for k in sorted(told):
        mine = {k, *(m for m in told[k] if k in told.get(m, ()))}
        touching = [members for members in clusters if members & mine]
        clusters = [members for members in clusters if not members & mine] + [mine.union(*touching)]
    return tuple(sorted(tuple(sorted(members)) for members in clusters))


def talk(facts: Mapping[int, Facts], limits: Limits) -> Forming:
    """The devices and the price of a union as the protocol without a server takes them; links to each other only.

    Args:
        facts: `density`, payload and gains of every device.
        limits: S_max, transmission, radio budget; its solver does not matter.

    Returns:
        What they talk about.
    """
    of = Bounds(
        max_collision=limits.max_collision, cast=limits.cast, masks="negotiated" if limits.negotiated else "independent"
    )
    gains = {k: {j: f.gains.get(j, UNLIMITED) for j in facts if j != k} for k, f in facts.items()}
    leaves = {k: leaf_of(replace(facts[k], gains=gains[k]), limits.radio) for k in sorted(facts)}
    return Forming(leaves, price(of, limits.sizes, limits.radio))


def _holders(facts: Mapping[int, Facts], units: Iterable[Members]) -> dict[int, int]:
    """For every device the first one with the same adapter, itself where it has its own."""
    first_of = {k: unit[0] for unit in units for k in unit}
    by_seed: dict[int, int] = {}
    for k in sorted(facts.keys() - first_of.keys()):
        seed = facts[k].public.get("seed")
        first_of[k] = k if seed is None else by_seed.setdefault(int(seed), k)
    return first_of


def power_w(facts: Mapping[int, Facts], members: Members, limits: Limits) -> float:
    """What the worst placed member needs to reach all others within the deadline, eqs. (11a), (25)."""
    return max(_needed_w(facts[k], members, limits) for k in members)


def _needed_w(device: Facts, members: Members, limits: Limits) -> float:
    gains = [device.gains.get(k, math.inf) for k in members if k != device.id]
    radio = limits.radio if limits.radio.access == "dedicated" else turn_radio(limits.radio, len(members))
    if limits.cast == "broadcast":
        return broadcast_power_w(device.payload_bits, gains, radio)
    return sum(unicast_powers_w(device.payload_bits, gains, radio))


def _gains(facts: Mapping[int, Facts]) -> Array:
    """Gain from each device to each, in their order; infinite where nothing is known to limit the link. [M M]"""
    return np.array([[f.gains.get(j, math.inf) for j in facts] for f in facts.values()]).reshape(len(facts), len(facts))


def agreement(clusters: Iterable[Members], units: Iterable[Members]) -> Phase:
    """The phase in which whoever is new in a cluster finds its mask.

    The first of every unit bids to all others of its cluster; `carries` names its unit. The first of the devices
    that were there before tells those who come which positions are taken; `carries` names who was there.
    """
    leader = {k: unit for unit in units for k in unit}
    edges = []
    for members in clusters:
        before = tuple(k for k in members if k not in leader)
        edges += [Edge(before[0], k, carries=before) for k in members if k in leader and before]
        bidders = {leader[k] for k in members if k in leader}
        edges += [Edge(unit[0], k, carries=unit) for unit in bidders for k in members if k != unit[0]]
    return Phase(name="masks", edges=tuple(sorted(edges)))


def between(facts: Mapping[int, Facts], clusters: tuple[Members, ...], limits: Limits) -> tuple[Phase, ...]:
    """Phases that bring every cluster's record to every device that radio can reach, step 4 of IV-C.

    A link counts as usable if it carries the records of all devices at once within the deadline, so that it
    also serves the last hop.
    """
    bits = sum(f.payload_bits for f in facts.values())
    ids, limit_w = list(facts), max_power_w(limits.radio)
    power = pair_powers_w([bits] * len(ids), _gains(facts), limits.radio)
    needed = {(ids[a], ids[b]): float(power[a, b]) for a, b in np.argwhere(power <= limit_w).tolist() if a != b}
    phases = relays(clusters, needed, limit_w)
    return overheard(phases, clusters, needed, limit_w) if limits.overhear else phases


def exchange_phases(
    facts: Mapping[int, Facts],
    clusters: tuple[Members, ...],
    latest: Mapping[int, int],
    limits: Limits,
    begin: Iterable[Link] = (),
    across: bool = True,
) -> tuple[Phase, ...]:
    """Steps 2-4 of IV-C for whoever lacks what: new values, and old ones that were lost on the way.

    Args:
        facts: what each device holds already (`have`: ids and versions), the round its mask was found in
            (`masked`), which masks it takes its cluster to have (`masks`), payloads and gains.
        clusters: the partition.
        latest: version of every device's values after this round; 0 where nothing was sent yet.
        limits: transmission and radio budget.
        begin: (first of a group, another of it), where the latter begins from what the former has (R11).
        across: whether clusters exchange with each other in this round.

    Returns:
        `intra`: values inside clusters; then `inter` and `spread`: records between them. An edge is fresh where
        its receiver lacks the masks and task codes of what comes, or has those of an earlier life. It is `masked`
        where both found the same masks from the bids.
    """
    have = {k: dict(f.public["have"].tolist()) for k, f in facts.items()}
    masked = {k: int(f.public.get("masked", NEVER)) for k, f in facts.items()}

    def lacks(device: int, members: Members) -> bool:
        return any(have[device].get(m, 0) < latest[m] for m in members)

    def strange(device: int, members: Members) -> bool:
        return any(have[device].get(m, 0) <= masked[m] for m in members if latest[m])

    def agree(i: int, j: int) -> bool:
        one, other = (facts[k].public.get("masks") for k in (i, j))
        return one is not None and other is not None and np.array_equal(one, other)

    pairs = [Edge(i, j, carries=(i,)) for members in clusters for i in members for j in members if i != j]
    intra = [
        e._replace(fresh=strange(e.dst, e.carries), held=have[e.dst].get(e.src, 0), masked=agree(e.src, e.dst))
        for e in pairs
        if lacks(e.dst, e.carries)
    ]
    served = {(e.src, e.dst) for e in intra}
    intra += [Edge(i, j, carries=(i,), fresh=True) for i, j in begin if (i, j) not in served]
    phases = [Phase(name="intra", edges=tuple(intra), cast=limits.cast)]  # singletons note what they sent in it
    for phase in between(facts, clusters, limits) if across else ():
        edges = []
        for edge in phase.edges:
            carried = [clusters[c] for c in edge.carries if lacks(edge.dst, clusters[c])]
            fresh = any(strange(edge.dst, members) for members in carried)
            if carried:
                edges.append(edge._replace(carries=tuple(m[0] for m in carried), fresh=fresh))
        if edges:
            phases.append(Phase(name=phase.name, edges=tuple(edges), cast=limits.cast))
    return tuple(phases)
