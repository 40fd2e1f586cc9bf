"""A clustering problem as arrays: what joins, what it then costs, who may be together. IV-C, reading R10.

Every solver beside this file rests on two properties. Heredity: what is allowed for a set is allowed for each of its
subsets. Monotony: the rate of a set is not below the rate of any of its subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..types import Array

Members = tuple[int, ...]
Further = Callable[[Members], float | None]

GRID = 2.0**40
"""Rates are compared as whole multiples of 2^-40, so that the last bits of a sum decide nothing."""

CHUNK = 8192
"""Pairs whose rates are computed at a time; their rows stay in the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """Items 0..M-1 to be clustered.

    leaves: what is known of each item alone. [M ...]
    join: (rows, a, b) -> the rows of the unions of rows a and b. rate: the same -> their rates, >= 0. [N]
    max_rate: S_max, the largest rate of a cluster.
    pairs: who may be together, i < j, in order; a cluster is a clique of them. [E 2]
    power: breaks ties between equal rates: lowest first, the worst pair of a cluster counts. [E]
    size: which items are hard to place: the largest. [M]
    further: whether a set of more than two may be together beyond that, and its power; None where it may not.
    least: rows such that no n items join to a lower rate than the first n of these; for a bound only. [N ...]
    """

    leaves: Array
    join: Callable[[Array, Int[np.ndarray, " N"], Int[np.ndarray, " N"]], Array]
    rate: Callable[[Array, Int[np.ndarray, " N"], Int[np.ndarray, " N"]], Float[np.ndarray, " N"]]
    max_rate: float
    pairs: Int[np.ndarray, "E 2"]
    power: Float[np.ndarray, " E"]
    size: Float[np.ndarray, " M"]
    further: Further | None = None
    least: Array | None = None


def on_grid(rate: Array) -> Array:
    """Rates as whole multiples of 2^-40, of any shape.

    >>> on_grid(np.array([0.5])).tolist() == [2**39]
    True
    """
    return np.asarray(np.rint(rate * GRID).astype(np.int64))


def limit(instance: Instance) -> int:
    """S_max on the grid."""
    return int(on_grid(np.array(instance.max_rate)))


def union_rates(instance: Instance, rows: Array, a: Array, b: Array) -> Array:
    """Rates of the unions of rows a and b on the grid, some at a time. [N]

    Raises:
        ValueError: a rate that is not a number.
    """
    found = np.empty(len(a), dtype=np.int64)
    for start in range(0, len(a), CHUNK):
        part = slice(start, start + CHUNK)
        rates = instance.rate(rows, a[part], b[part])
        if np.isnan(rates).any():
            n = start + int(np.argmax(np.isnan(rates)))
            raise ValueError(f"clustering: the rate of {a[n]} and {b[n]} is not a number; are all densities numbers?")
        found[part] = on_grid(rates)
    return found


def set_rate(instance: Instance, members: Members) -> int:
    """Rate of one set on the grid, joined in order of id; 0 for a single item."""
    rows = instance.leaves[list(members)]
    acc, last = rows[:1], 0
    for n in range(1, len(members)):
        both = np.concatenate([acc, rows[n : n + 1]])
        zero, one = np.array([0]), np.array([1])
        last = int(on_grid(instance.rate(both, zero, one))[0])
        acc = instance.join(both, zero, one)
    return last


def total_rate(instance: Instance, clusters: tuple[Members, ...]) -> int:
    """sum_C n_C S_C on the grid: M times the mean rate that an item meets."""
    return sum(len(members) * set_rate(instance, members) for members in clusters)


def order_of(instance: Instance, clusters: tuple[Members, ...]) -> tuple[int, int, float]:
    """What partitions are compared by (R10): number of clusters, sum_C n_C S_C on the grid, power of the worst pairs.

    The power is sum_C n_C p_C, where p_C is that of the worst pair of the cluster.
    """
    M, worst = len(instance.leaves), 0.0
    known = instance.pairs @ np.array([M, 1]) if M else np.zeros(0, dtype=np.int64)
    for members in clusters:
        inside = np.array([i * M + j for n, i in enumerate(members) for j in members[n + 1 :]], dtype=np.int64)
        if len(inside):
            worst += len(members) * float(instance.power[np.searchsorted(known, inside)].max())
    return len(clusters), total_rate(instance, clusters), worst


def allowed_pairs(instance: Instance) -> Bool[np.ndarray, " E"]:
    """Which pairs may be a cluster of two: rate and power. [E]"""
    fits = union_rates(instance, instance.leaves, *instance.pairs.T) <= limit(instance)
    if instance.further is not None:
        for n in np.flatnonzero(fits):
            fits[n] = instance.further((int(instance.pairs[n, 0]), int(instance.pairs[n, 1]))) is not None
    return fits


def neighbours(num_items: int, pairs: Int[np.ndarray, "E 2"]) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " D"]]:
    """Pairs as rows of neighbours: those of item i are ids[starts[i] : starts[i + 1]], ascending.

    >>> [a.tolist() for a in neighbours(3, np.array([[0, 2], [1, 2]]))]
    [[0, 1, 2, 4], [2, 2, 0, 1]]
    """
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    starts = np.zeros(num_items + 1, dtype=np.int64)
    np.cumsum(np.bincount(ends[:, 0], minlength=num_items), out=starts[1:])
    return starts, np.ascontiguousarray(ends[:, 1])


def components(num_items: int, pairs: Int[np.ndarray, "E 2"]) -> Iterator[Int[np.ndarray, " N"]]:
    """Items that pairs connect, each component ascending, by smallest item."""
    from scipy.sparse import coo_array  # late: costs a third of a second
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=np.int8), tuple(pairs.T)), shape=(num_items, num_items))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    yield from sorted(np.split(order, cuts), key=lambda items: int(items[0]))
