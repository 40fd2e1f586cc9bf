"""What an overlay costs over the radio: two devices that are linked on paper may be several hops apart."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping

Link = tuple[int, int]
"""(sender, receiver)."""
Path = tuple[int, ...]
FAR = (math.inf, 0)


def radio_paths(overlay: Iterable[Link], cost: Mapping[Link, float]) -> dict[Link, Path]:
    """The cheapest way over usable links from one end of every overlay edge to the other (Dijkstra).

    The paths of one sender make a tree, so that a relay that serves several receivers sends once for all.

    Args:
        overlay: (sender, receiver) on paper.
        cost: of every usable link, both directions on their own, >= 0: airtime in s, energy in J, or 1 for hops.

    Returns:
        Devices along the way, ends included, by overlay edge; those that no path serves are missing. A path of
        n devices is n - 1 hops. Among paths that cost the same, the one through lower ids.

    Raises:
        ValueError: a cost that is negative or not a number, or an edge from a device to itself.

    >>> radio_paths([(0, 2), (2, 0)], {(0, 1): 1.0, (1, 2): 1.0})
    {(0, 2): (0, 1, 2)}
    """
    around: dict[int, list[tuple[float, int]]] = {}
    for (i, j), link_cost in cost.items():
        if not link_cost >= 0.0 or i == j:
            raise ValueError(f"a link joins two devices at a cost >= 0, got {link_cost} from {i} to {j}")
        around.setdefault(i, []).append((link_cost, j))
    for links in around.values():
        links.sort()
    wanted: dict[int, set[int]] = {}
    for i, j in overlay:
        if i == j:
            raise ValueError(f"an overlay edge joins two devices, got one from {i} to itself")
        wanted.setdefault(i, set()).add(j)
    found: dict[Link, Path] = {}
    for i in sorted(wanted):
        before = _tree(i, around, wanted[i])
        for j in sorted(wanted[i] & before.keys()):
            path = [j]
            while path[-1] != i:
                path.append(before[path[-1]])
            found[i, j] = tuple(reversed(path))
    return found


def _tree(root: int, around: Mapping[int, list[tuple[float, int]]], wanted: Iterable[int]) -> dict[int, int]:
    """The device before each on the cheapest way from a root, no further than those wanted.

    around: what leads from a device, cheapest first, so that nobody looks at links that cost more than is known to do.
    """
    before: dict[int, int] = {}
    best, left = {root: (0.0, root)}, set(wanted)
    queue = [(0.0, root, root)]
    while queue and left:
        spent, via, here = heapq.heappop(queue)
        if here in before:
            continue
        before[here] = via
        left.discard(here)
        most = max((best.get(k, FAR)[0] for k in left), default=0.0)
        for link_cost, there in around.get(here, ()):
            if spent + link_cost > most:
                break
            if there not in before and (spent + link_cost, here) < best.get(there, FAR):
                best[there] = (spent + link_cost, here)
                heapq.heappush(queue, (spent + link_cost, here, there))
    return before


def hops(paths: Mapping[Link, Path]) -> tuple[frozenset[tuple[int, int, int]], ...]:
    """What must be sent for the paths, hop by hop: (origin, sender, receiver), each once.

    Args:
        paths: of `radio_paths`, so that those of one origin make a tree.

    Returns:
        One set per hop; all of a set can go at the same time, after those of the set before.

    >>> [sorted(step) for step in hops({(0, 1): (0, 1), (0, 2): (0, 1, 2)})]
    [[(0, 0, 1)], [(0, 1, 2)]]
    """
    longest = max((len(path) - 1 for path in paths.values()), default=0)
    return tuple(
        frozenset((path[0], path[k], path[k + 1]) for path in paths.values() if len(path) > k + 1)
        for k in range(longest)
    )
