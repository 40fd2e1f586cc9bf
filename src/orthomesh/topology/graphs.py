"""Undirected graphs over devices, as sorted tuples of pairs (i, j) with i < j."""

from __future__ import annotations

from collections.abc import Iterable, Set
from itertools import combinations, pairwise

import numpy as np

Pair = tuple[int, int]
Pairs = tuple[Pair, ...]


def complete(ids: Iterable[int]) -> Pairs:
    """Everybody with everybody.

    >>> complete([2, 0, 1])
    ((0, 1), (0, 2), (1, 2))
    """
    return tuple(combinations(_distinct(ids), 2))


def ring(ids: Iterable[int]) -> Pairs:
    """Each device with the next by id, the last with the first; two devices share one link, one has none.

    >>> ring([5, 1, 3])
    ((1, 3), (1, 5), (3, 5))
    """
    nodes = _distinct(ids)
    closed = zip(nodes, [*nodes[1:], *nodes[:1]], strict=True)
    return tuple(sorted({(min(i, j), max(i, j)) for i, j in closed if i != j}))


def random_neighbours(ids: Iterable[int], allowed: Set[Pair], num_neighbours: int, rng: np.random.Generator) -> Pairs:
    """Random connections under constraints: pairs in random order, each kept if both ends still have room.

    The result is maximal (no allowed pair could be added), but devices may end with fewer neighbours than
    asked for, and the graph need not be connected.

    Args:
        ids: devices.
        allowed: pairs (i, j), i < j, that may be connected (radio range, deadline, power).
        num_neighbours: most neighbours a device may have, >= 0.
        rng: a stream of its own, e.g. keyed by (seed, "graph", round).

    Returns:
        Pairs, ascending.

    Raises:
        ValueError: a pair that is not (lower, higher) of the ids, or a negative number of neighbours.

    >>> random_neighbours(range(2), {(0, 1)}, 1, np.random.default_rng(0))
    ((0, 1),)
    """
    if num_neighbours < 0:
        raise ValueError(f"a device has at least 0 neighbours, got {num_neighbours}")
    room = dict.fromkeys(_distinct(ids), num_neighbours)
    candidates = sorted(allowed)
    _check_pairs(candidates, room)
    kept: list[Pair] = []
    for k in rng.permutation(len(candidates)):
        i, j = candidates[k]
        if room[i] > 0 and room[j] > 0:
            kept.append((i, j))
            room[i] -= 1
            room[j] -= 1
    return tuple(sorted(kept))


def components(ids: Iterable[int], pairs: Iterable[Pair]) -> tuple[tuple[int, ...], ...]:
    """Groups of devices that reach each other over any number of links.

    Args:
        ids: devices.
        pairs: links (i, j), i < j.

    Returns:
        Groups by smallest member, members ascending: a partition of the ids.

    Raises:
        ValueError: a pair that is not (lower, higher) of the ids.

    >>> components(range(4), [(0, 2)])
    ((0, 2), (1,), (3,))
    """
    group = {i: [i] for i in _distinct(ids)}
    links = sorted(pairs)
    _check_pairs(links, group)
    for i, j in links:
        if group[i] is not group[j]:
            group[i].extend(group[j])
            for k in group[j]:
                group[k] = group[i]
    return tuple(sorted({tuple(sorted(members)) for members in group.values()}))


def _distinct(ids: Iterable[int]) -> list[int]:
    """Ids ascending, each once."""
    nodes = sorted(ids)
    for i, j in pairwise(nodes):
        if i == j:
            raise ValueError(f"graph: device {i} is given twice")
    return nodes


def _check_pairs(pairs: Iterable[Pair], ids: Iterable[int]) -> None:
    known = set(ids)
    for i, j in pairs:
        if not (i in known and j in known and i < j):
            raise ValueError(f"graph: ({i}, {j}) is not a pair (lower, higher) of the devices given")
