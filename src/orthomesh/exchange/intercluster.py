"""Step 4 of IV-C: clusters hand each other what they stored, over gateways, without joining it further.

The paper says that clusters exchange, not how. Here: every pair of clusters has its best link as gateways; over
the cheapest forest of them that connects all clusters that can be connected every aggregate travels away from
where it was made, one hop per pair of phases, stored and forwarded. Whoever lacks a version of one is planned for
again in the next round in which clusters exchange, so that losses delay and do not harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..types import Edge, Phase

Link = tuple[int, int]
"""(device, device), one in each of two clusters."""


def is_due(round_index: int, num_rounds: int, period: int) -> bool:
    """Whether clusters exchange in a round: in every `period`-th, and in the last, after which nothing follows.

    Args:
        round_index: from 0.
        num_rounds: of the run.
        period: p, >= 1; 1 is every round.

    Raises:
        ValueError: a period below 1.

    >>> [is_due(t, 5, 3) for t in range(5)]
    [False, False, True, False, True]
    """
    if period < 1:
        raise ValueError(f"clusters exchange every p rounds, p at least 1, got {period}")
    return (round_index + 1) % period == 0 or round_index == num_rounds - 1


def relays(clusters: Sequence[Sequence[int]], needed_w: Mapping[Link, float], max_power_w: float) -> tuple[Phase, ...]:
    """Phases after which every device holds the aggregate of every cluster that radio can connect to its own.

    Phases alternate: "inter", gateway to gateway over the links of a minimum spanning forest, and "spread",
    each gateway to its own cluster with what it has just received. `Edge.carries` names the clusters, by
    index, whose aggregates travel. Each aggregate crosses each link of its tree once, away from its cluster;
    the longest path of the forest sets the number of phases. Edges of one sender that carry the same can go
    out as one broadcast.

    Args:
        clusters: members of each cluster, all of which hold its aggregate; order gives the index.
        needed_w: power in W that (sender, receiver) needs; a missing pair is out of reach. A link is usable
            if both directions stay within the limit, and as good as its worse direction.
        max_power_w: the limit, W.

    Returns:
        Phases in order, none empty; () where there is nothing to exchange. Spreading takes links inside a
        cluster as given: clusters were formed so that they carry.

    Raises:
        ValueError: a cluster that is empty, or a device in two.

    >>> phases = relays([(0,), (1,)], {(0, 1): 1.0, (1, 0): 1.0}, 2.0)
    >>> [(p.name, [(e.src, e.dst, e.carries) for e in p.edges]) for p in phases]
    [('inter', [(0, 1, (0,)), (1, 0, (1,))])]
    """
    home = _homes(clusters)
    forest = _spanning_forest(len(clusters), gateways(clusters, needed_w, max_power_w), home)
    held: list[set[int]] = [{c} for c in range(len(clusters))]
    phases: list[Phase] = []
    while edges := _inter_edges(forest, held, home):
        phases.append(Phase(name="inter", edges=edges))
        if spread := _spread_edges(edges, clusters, home):
            phases.append(Phase(name="spread", edges=spread))
        for edge in edges:
            held[home[edge.dst]].update(edge.carries)
    return tuple(phases)


def overheard(
    phases: Sequence[Phase], clusters: Sequence[Sequence[int]], needed_w: Mapping[Link, float], max_power_w: float
) -> tuple[Phase, ...]:
    """The same phases where a gateway's word to another is meant for all of that one's cluster who can hear it.

    A broadcast is sent once however many hear it, so what they have heard need not be spread to them again.

    Args:
        phases: of `relays`.
        clusters: members of each.
        needed_w: power in W that (sender, receiver) needs; a missing pair is out of reach.
        max_power_w: the limit, W.

    Returns:
        Phases in order, none empty.

    >>> power = {(i, j): 1.0 for i in range(3) for j in range(3) if i != j}
    >>> wide = overheard(relays([(0,), (1, 2)], power, 2.0), [(0,), (1, 2)], power, 2.0)
    >>> [(p.name, [(e.src, e.dst, e.carries) for e in p.edges]) for p in wide]
    [('inter', [(0, 1, (0,)), (0, 2, (0,)), (1, 0, (1,))])]
    """
    home, found, heard = _homes(clusters), list[Phase](), dict[int, set[int]]()
    for phase in phases:
        if phase.name == "inter":
            wide = [
                edge._replace(dst=k)
                for edge in phase.edges
                for k in clusters[home[edge.dst]]
                if k == edge.dst or needed_w.get((edge.src, k), float("inf")) <= max_power_w
            ]
            heard = {}
            for edge in wide:
                heard.setdefault(edge.dst, set()).update(edge.carries)
        else:
            left = [(e, tuple(c for c in e.carries if c not in heard.get(e.dst, ()))) for e in phase.edges]
            wide = [edge._replace(carries=carries) for edge, carries in left if carries]
        if wide:
            found.append(Phase(name=phase.name, edges=tuple(sorted(wide)), cast=phase.cast))
    return tuple(found)


def gateways(
    clusters: Sequence[Sequence[int]], needed_w: Mapping[Link, float], max_power_w: float
) -> dict[Link, float]:
    """The link of best h between any two clusters, whose ends are the gateways; ties go to the lower ids.

    Args:
        clusters: members of each.
        needed_w: power in W that (sender, receiver) needs for the same payload, so that the least needed is the
            best h; a missing pair is out of reach.
        max_power_w: the limit, W, for both directions.

    Returns:
        Power in W that the worse direction needs, by link (lower id, higher id); clusters without a usable link
        between them have none.

    >>> gateways([(0, 1), (2,)], {(0, 2): 0.3, (2, 0): 0.3, (1, 2): 0.1, (2, 1): 0.2}, 1.0)
    {(1, 2): 0.2}
    """
    home, best = _homes(clusters), dict[Link, tuple[float, Link]]()
    for (i, j), power_w in needed_w.items():
        if i > j or home.get(i) == home.get(j) or not {i, j} <= home.keys() or (j, i) not in needed_w:
            continue
        worse_w = max(power_w, needed_w[j, i])
        if worse_w <= max_power_w:
            sides = min(home[i], home[j]), max(home[i], home[j])
            best[sides] = min(best.get(sides, (math.inf, (i, j))), (worse_w, (i, j)))
    return {link: worse_w for worse_w, link in best.values()}


def _homes(clusters: Sequence[Sequence[int]]) -> dict[int, int]:
    """Cluster index of each device."""
    home: dict[int, int] = {}
    for c, members in enumerate(clusters):
        if not members:
            raise ValueError(f"relays: cluster {c} has no members")
        for i in members:
            if i in home:
                raise ValueError(f"relays: device {i} is in clusters {home[i]} and {c}; it belongs to one")
            home[i] = c
    return home


def _spanning_forest(num_clusters: int, links: Mapping[Link, float], home: Mapping[int, int]) -> tuple[Link, ...]:
    """Kruskal: cheapest links first, each kept if it joins two trees; ties by id."""
    tree = list(range(num_clusters))
    kept: list[Link] = []
    for i, j in sorted(links, key=lambda link: (links[link], link)):
        old, new = tree[home[i]], tree[home[j]]
        if old != new:
            tree = [new if t == old else t for t in tree]
            kept.append((i, j))
    return tuple(sorted(kept))


def _inter_edges(forest: Sequence[Link], held: Sequence[set[int]], home: Mapping[int, int]) -> tuple[Edge, ...]:
    """Both ways over every link: what this side holds and the other does not.

    In a forest that is only what came from this side, so nothing crosses a link twice or back.
    """
    directed = sorted([*forest, *((j, i) for i, j in forest)])
    new = [(i, j, tuple(sorted(held[home[i]] - held[home[j]]))) for i, j in directed]
    return tuple(Edge(i, j, carries=carries) for i, j, carries in new if carries)


def _spread_edges(
    inter: Sequence[Edge], clusters: Sequence[Sequence[int]], home: Mapping[int, int]
) -> tuple[Edge, ...]:
    """Each gateway to the rest of its cluster, with all it has just received."""
    received: dict[int, set[int]] = {}
    for edge in inter:
        received.setdefault(edge.dst, set()).update(edge.carries)
    return tuple(
        Edge(gateway, member, carries=tuple(sorted(received[gateway])))
        for gateway in sorted(received)
        for member in sorted(clusters[home[gateway]])
        if member != gateway
    )
