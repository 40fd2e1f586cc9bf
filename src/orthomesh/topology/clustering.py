"""Who shares an expert bank: greedy agglomerative clustering, IV-C (AGNES)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable

Members = tuple[int, ...]
Key = Callable[[Members], tuple[float, float] | None]


def agnes(ids: Iterable[int], key: Key) -> tuple[Members, ...]:
    """Merge the two clusters of lowest joint collision rate until no merger is allowed, IV-C.

    Every device starts alone. At each step all pairs of clusters are compared by the key of their union:
    rate, then power, then the names of the two (a cluster goes by its largest member, which keeps the order
    the same for a protocol without a coordinator). The paper minimises the rate alone, which singletons would
    win; its stop rule implies what is done here: merge as far as the limits allow (R10, `agnes`).

    Keys are kept in a heap: M (M - 1) / 2 evaluations at the start, one per remaining cluster after each
    merger.

    Args:
        ids: devices, in any order; the result does not depend on it.
        key: (collision rate, needed power in W) of a union, given its members ascending, or None where it is
            not allowed (rate above S_max, deadline or power limit broken). A pure function.

    Returns:
        Clusters by smallest member, members ascending: a partition of the ids.

    Raises:
        ValueError: an id given twice, or a key that is not a number.

    >>> agnes(range(4), lambda union: (0.1 * len(union), 0.0) if len(union) <= 2 else None)
    ((0, 1), (2, 3))
    """
    clusters: dict[int, Members] = {}  # by name: the largest member
    heap: list[tuple[float, float, int, int, Members]] = []
    for i in sorted(ids):
        if i in clusters:
            raise ValueError(f"clustering: device {i} is given twice")
        clusters[i] = (i,)
    for b in clusters:
        _offer(heap, clusters, b, [a for a in clusters if a < b], key)
    while heap:
        _, _, a, b, union = heapq.heappop(heap)
        if not _is_current(clusters, a, b, union):
            continue
        del clusters[a]
        clusters[b] = union
        _offer(heap, clusters, b, [c for c in clusters if c != b], key)
    return tuple(sorted(clusters.values()))


def _offer(
    heap: list[tuple[float, float, int, int, Members]],
    clusters: dict[int, Members],
    name: int,
    others: list[int],
    key: Key,
) -> None:
    """Put the allowed mergers of one cluster with others on the heap."""
    for other in others:
        union = tuple(sorted(clusters[name] + clusters[other]))
        value = key(union)
        if value is None:
            continue
        rate, power_w = value
        if math.isnan(rate) or math.isnan(power_w):
            raise ValueError(f"clustering: the key of {union} is not a number, got {value}")
        heapq.heappush(heap, (rate, power_w, min(name, other), max(name, other), union))


def _is_current(clusters: dict[int, Members], a: int, b: int, union: Members) -> bool:
    """Whether neither cluster changed since the offer: clusters only grow, so equal size means unchanged."""
    return a in clusters and b in clusters and len(clusters[a]) + len(clusters[b]) == len(union)
