"""How clusters reach each other, step 4 of IV-C in figures: a forest of gateway links and what crosses each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """Gateway links and their loads when every cluster's record goes everywhere once.

    links: devices (i, j) of every link. [N 2] power_w: what the worse direction needs. [N]
    load_bits: what crosses it from i to j, and from j to i. [N 2]
    received_bits: foreign records each cluster gets. [K] tree: number of the connected part a cluster is in. [K]
    """

    links: Int[np.ndarray, "N 2"]
    power_w: Float[np.ndarray, " N"]
    load_bits: Float[np.ndarray, "N 2"]
    received_bits: Float[np.ndarray, " K"]
    tree: Int[np.ndarray, " K"]


def backbone(
    home: Int[np.ndarray, " M"],
    record_bits: Float[np.ndarray, " K"],
    pairs: Int[np.ndarray, "E 2"],
    power_w: Float[np.ndarray, " E"],
) -> Backbone:
    """The cheapest forest that connects all clusters radio can connect, as `exchange.intercluster.relays` finds it.

    Every record crosses every link of its tree once, away from its cluster, so a link carries one way what lies on its
    one side, and the other way the rest.

    Args:
        home: cluster of every device. [M]
        record_bits: what a cluster has to tell. [K]
        pairs: links that both ends can use, i < j, within clusters and between. [E 2]
        power_w: what the worse direction of each needs. [E]

    Returns:
        Links from the cheapest up, and loads.

    >>> b = backbone(np.array([0, 1, 2]), np.array([1.0, 2.0, 4.0]), np.array([[0, 1], [1, 2]]), np.array([1.0, 1.0]))
    >>> b.load_bits.tolist(), b.received_bits.tolist()
    ([[1.0, 6.0], [3.0, 4.0]], [6.0, 5.0, 3.0])
    """
    sides = home[pairs]
    across = np.flatnonzero(sides[:, 0] != sides[:, 1])
    across = across[np.lexsort((pairs[across, 1], pairs[across, 0], power_w[across]))]
    ends = np.sort(sides[across], axis=1)
    _, first = np.unique(ends[:, 0] * len(record_bits) + ends[:, 1], return_index=True)  # the cheapest of two clusters
    chosen = across[_kruskal(sides[across].tolist(), sorted(first.tolist()), len(record_bits))]
    links, edges = pairs[chosen], sides[chosen]
    tree, below, total = _sums(edges.tolist(), record_bits)
    load = np.array([(below[n], total[tree[a]] - below[n]) for n, (a, _) in enumerate(edges.tolist())]).reshape(-1, 2)
    return Backbone(
        links=links, power_w=power_w[chosen], load_bits=load, tree=tree, received_bits=total[tree] - record_bits
    )


def _kruskal(sides: Sequence[Sequence[int]], candidates: Sequence[int], num_clusters: int) -> list[int]:
    """Which candidates join two trees, in the order given."""
    root = list(range(num_clusters))

    def find(c: int) -> int:
        while root[c] != c:
            root[c] = root[root[c]]
            c = root[c]
        return c

    kept = []
    for n in candidates:
        a, b = find(sides[n][0]), find(sides[n][1])
        if a != b:
            root[max(a, b)] = min(a, b)
            kept.append(n)
    return kept


def _sums(
    edges: Sequence[Sequence[int]], weight: Float[np.ndarray, " K"]
) -> tuple[Int[np.ndarray, " K"], list[float], Float[np.ndarray, " T"]]:
    """Tree of every node, weight on the first node's side of every edge, and weight of every tree."""
    around: list[list[tuple[int, int]]] = [[] for _ in weight]
    for n, (a, b) in enumerate(edges):
        around[a].append((b, n))
        around[b].append((a, n))
    totals: list[float] = []
    tree, below = np.full(len(weight), -1), [0.0] * len(edges)
    for start in range(len(weight)):
        if tree[start] >= 0:
            continue
        order, came = [start], {start: (-1, -1)}
        for node in order:
            tree[node] = len(totals)
            for other, n in around[node]:
                if other not in came:
                    came[other] = (node, n)
                    order.append(other)
        mass = {node: float(weight[node]) for node in order}
        for node in reversed(order[1:]):
            parent, n = came[node]
            below[n] = mass[node]
            mass[parent] += mass[node]
        for node in order[1:]:
            parent, n = came[node]
            if edges[n][0] == parent:  # what hangs below lies on the other side
                below[n] = mass[start] - below[n]
        totals.append(mass[start])
    return tree, below, np.array(totals)
