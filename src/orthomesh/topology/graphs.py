"""Undirected graphs over devices, as sorted tuples of pairs (i, j) with i < j."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
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


def star(ids: Iterable[int]) -> Pairs:
    """The lowest id with everybody else.

    >>> star([2, 0, 1])
    ((0, 1), (0, 2))
    """
    nodes = _distinct(ids)
    return tuple((nodes[0], j) for j in nodes[1:])


def torus(ids: Iterable[int]) -> Pairs:
    """A grid as square as the number of devices allows, edges joined: row by row by id, four neighbours each.

    A side of two leaves three neighbours, a prime number of devices a ring.

    >>> torus(range(4))
    ((0, 1), (0, 2), (1, 3), (2, 3))
    """
    nodes = _distinct(ids)
    side = next((r for r in range(math.isqrt(len(nodes)), 0, -1) if len(nodes) % r == 0), 1)
    width = len(nodes) // side
    pairs = set()
    for k, i in enumerate(nodes):
        row, column = divmod(k, width)
        for other in (row * width + (column + 1) % width, (row + 1) % side * width + column):
            if other != k:
                pairs.add((min(i, nodes[other]), max(i, nodes[other])))
    return tuple(sorted(pairs))


def hypercube(ids: Iterable[int]) -> Pairs:
    """Devices whose places by id differ in one binary digit.

    Raises:
        ValueError: a number of devices that is no power of two.

    >>> hypercube(range(4))
    ((0, 1), (0, 2), (1, 3), (2, 3))
    """
    nodes = _distinct(ids)
    if len(nodes) & (len(nodes) - 1) or not nodes:
        raise ValueError(f"a hypercube has a power of two of devices (2, 4, 8, ...), got {len(nodes)}")
    digits = [1 << d for d in range(len(nodes).bit_length() - 1)]
    return tuple(sorted((nodes[k], nodes[k | d]) for k in range(len(nodes)) for d in digits if not k & d))


def geometric(positions_m: Mapping[int, tuple[float, float]], reach_m: float) -> Pairs:
    """Devices no farther apart than a reach: a random geometric graph where positions are random.

    Args:
        positions_m: (x, y) in m by id.
        reach_m: longest link, m, >= 0.

    Raises:
        ValueError: a position or reach that is not a finite number, or a negative reach.

    >>> geometric({0: (0.0, 0.0), 1: (3.0, 4.0), 2: (9.0, 0.0)}, 5.0)
    ((0, 1),)
    """
    if not 0.0 <= reach_m < math.inf:
        raise ValueError(f"a reach is a distance >= 0 in m, got {reach_m}")
    for i, position in sorted(positions_m.items()):
        if not all(map(math.isfinite, position)):
            raise ValueError(f"graph: device {i} is at {position}, which is no place in m")
    return tuple((i, j) for i, j in complete(positions_m) if math.dist(positions_m[i], positions_m[j]) <= reach_m)


def random_regular(ids: Iterable[int], degree: int, rng: np.random.Generator) -> Pairs:
    """A graph in which everybody has equally many neighbours, each such graph as likely as any other.

    A regular graph is stirred by switches: two links at random swap an end, unless that made a loop or a second
    link. Every graph is reached and no step prefers one, so draws tend to uniform; 20 tries per link are made. (To
    pair free ends and mend what does not fit is quicker and favours some graphs: in tests twofold.)

    Args:
        ids: devices.
        degree: neighbours of each, 0 <= degree < number of devices, their product even.
        rng: a stream of its own.

    Returns:
        Pairs, ascending.

    Raises:
        ValueError: a degree that no graph has.

    >>> random_regular(range(4), 3, np.random.default_rng(0)) == complete(range(4))
    True
    """
    nodes = _distinct(ids)
    n = len(nodes)
    if not 0 <= degree < max(1, n) or degree * n % 2:
        raise ValueError(
            f"no graph of {n} devices gives each {degree} neighbours; they are fewer than the devices, "
            "and an even number in all"
        )
    steps = [*range(1, degree // 2 + 1), *([n // 2] if degree % 2 else [])]
    links = sorted({(min(k, (k + s) % n), max(k, (k + s) % n)) for s in steps for k in range(n)})
    present = set(links)
    for a, b, turned in rng.integers((len(links), len(links), 2), size=(20 * len(links), 3)) if links else ():
        (i, j), (k, m) = links[a], links[b][::-1] if turned else links[b]
        one, two = (min(i, m), max(i, m)), (min(k, j), max(k, j))
        if i != m and k != j and one not in present and two not in present:
            present -= {links[a], links[b]}
            present |= {one, two}
            links[a], links[b] = one, two
    return tuple(sorted((nodes[i], nodes[j]) for i, j in present))


def random_neighbours(ids: Iterable[int], allowed: Set[Pair], num_neighbours: int, rng: np.random.Generator) -> Pairs:
    """Random connections under constraints: pairs in random order, each kept if both ends still have room.

    The result is maximal (no allowed pair could be added), but devices may end with fewer neighbours than
    asked for, and the graph need not be connected. With one neighbour it is a random maximal matching.

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
