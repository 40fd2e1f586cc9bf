"""The paper's greedy mergers for many devices: all reciprocal nearest neighbours merge at once, IV-C (AGNES).

A union's rate is not below that of its parts, and whom it may join with could also join with either part. Then no
merger brings two clusters closer to a third ("reducible"), and merging every pair of clusters that are each other's
best gives what merging one best pair at a time gives, as in RAC (arXiv 2105.11653), in some thirty rounds of array
arithmetic whatever the number of devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..types import Array
from .clustering_instance import Instance, Members, limit, union_rates


@dataclass(frozen=True, kw_only=True)
class Merging:
    """Clusters by smallest member, members ascending; rounds it took; unions whose rate was computed."""

    clusters: tuple[Members, ...]
    rounds: int
    evaluations: int


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of clusters that may merge, by name: the largest member. u < v; rate on the grid; cross: power of the
    worst pair across; power: of the worst pair of the union."""

    u: Int[np.ndarray, " E"]
    v: Int[np.ndarray, " E"]
    rate: Int[np.ndarray, " E"]
    cross: Float[np.ndarray, " E"]
    power: Float[np.ndarray, " E"]

    def keep(self, which: Bool[np.ndarray, " E"]) -> _Candidates:
        """Some of them."""
        return _Candidates(self.u[which], self.v[which], self.rate[which], self.cross[which], self.power[which])


def merge_rounds(instance: Instance) -> Merging:
    """Merge clusters of lowest joint rate until no merger is allowed, as `clustering.agnes` does, in parallel.

    Keys are (rate on a grid of 2^-40, power, smaller name, larger name), where a cluster goes by its largest member.
    Neighbours of a union are the common neighbours of its parts.

    Args:
        instance: items, how they join, who may be together.

    Returns:
        The partition of `clustering.agnes` under the same keys.

    Raises:
        ValueError: a rate that is not a number.
    """
    num_items = len(instance.leaves)
    rows, own = instance.leaves.copy(), np.zeros(num_items)
    parent, names = np.arange(num_items), np.arange(num_items)
    members: dict[int, Members] = {k: (k,) for k in range(num_items)} if instance.further is not None else {}
    edges, evaluations = _evaluated(instance, rows, own, members, (*instance.pairs.T, instance.power))
    rounds = 0
    while len(edges.u):
        rounds += 1
        best = _mutual(edges, num_items)
        lo, hi = edges.u[best], edges.v[best]
        rows[hi] = instance.join(rows, lo, hi)
        own[hi] = edges.power[best]
        parent[lo] = hi
        for a, b in zip(lo.tolist(), hi.tolist(), strict=True) if members else ():
            members[b] = tuple(sorted(members.pop(a) + members[b]))
        rest, united = _relabelled(edges, lo, hi, names)
        names[lo] = lo
        fresh, count = _evaluated(instance, rows, own, members, united)
        evaluations += count
        edges = _Candidates(*(np.concatenate(parts) for parts in zip(_columns(rest), _columns(fresh), strict=True)))
    return Merging(clusters=_clusters(parent), rounds=rounds, evaluations=evaluations)


def _columns(edges: _Candidates) -> tuple[Array, ...]:
    return edges.u, edges.v, edges.rate, edges.cross, edges.power


def _mutual(edges: _Candidates, num_items: int) -> Bool[np.ndarray, " E"]:
    """Pairs that are the best of both their ends; keys are unique, so that they share no end."""
    ends = np.concatenate([edges.u, edges.v])
    at = np.tile(np.arange(len(edges.u)), 2)
    for column in (edges.rate, edges.power, edges.u, edges.v):
        value = column[at]
        best = np.full(num_items, np.inf if value.dtype.kind == "f" else np.iinfo(value.dtype).max, value.dtype)
        np.minimum.at(best, ends, value)
        left = value == best[ends]
        ends, at = ends[left], at[left]
    return np.asarray(np.bincount(at, minlength=len(edges.u)) == 2)


def _relabelled(
    edges: _Candidates, lo: Int[np.ndarray, " N"], hi: Int[np.ndarray, " N"], names: Int[np.ndarray, " M"]
) -> tuple[_Candidates, tuple[Array, Array, Array]]:
    """Pairs that the mergers of a round leave alone, and the new ones: where every part knew every part.

    `names` is the identity, and is left with the mergers written into it.
    """
    names[lo] = hi
    u, v = names[edges.u], names[edges.v]
    parts = np.ones(len(names), dtype=np.int8)
    parts[hi] = 2
    alone = (parts[u] == 1) & (parts[v] == 1)
    changed = ~alone & (u != v)
    u, v, cross = u[changed], v[changed], edges.cross[changed]
    u, v = np.minimum(u, v), np.maximum(u, v)
    order = np.argsort(u * len(names) + v, kind="stable")
    u, v, cross = u[order], v[order], cross[order]
    first = np.flatnonzero(np.append(True, (u[1:] != u[:-1]) | (v[1:] != v[:-1]))) if len(u) else np.zeros(0, int)
    count = np.diff(np.append(first, len(u)))
    worst = np.maximum.reduceat(cross, first) if len(u) else cross
    u, v = u[first], v[first]
    whole = count == parts[u] * parts[v]
    return edges.keep(alone), (u[whole], v[whole], worst[whole])


def _evaluated(
    instance: Instance,
    rows: Array,
    own: Float[np.ndarray, " M"],
    members: dict[int, Members],
    pairs: tuple[Array, Array, Array],
) -> tuple[_Candidates, int]:
    """The allowed ones of some pairs of clusters with their keys, and how many rates were computed."""
    u, v, cross = pairs
    rate = union_rates(instance, rows, u, v)
    power = np.maximum(cross, np.maximum(own[u], own[v]))
    fits = rate <= limit(instance)
    if instance.further is not None:
        for n in np.flatnonzero(fits).tolist():
            needed = instance.further(tuple(sorted(members[int(u[n])] + members[int(v[n])])))
            fits[n] = needed is not None
            power[n] = 0.0 if needed is None else needed
    return _Candidates(u, v, rate, cross, power).keep(fits), len(u)


def _clusters(parent: Int[np.ndarray, " M"]) -> tuple[Members, ...]:
    """Follow every item to the name of its cluster."""
    while (parent != (up := parent[parent])).any():
        parent = up
    order = np.argsort(parent, kind="stable")
    cuts = np.flatnonzero(np.diff(parent[order])) + 1
    return tuple(sorted(tuple(part.tolist()) for part in np.split(order, cuts) if len(part)))
