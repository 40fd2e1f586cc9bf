"""Outlines and curves on a map, in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.spatial import ConvexHull

Point = tuple[float, float]


def hull(points: Sequence[Point], radius: float) -> list[Point]:
    """Closed outline around points, `radius` away from them: the convex hull of a disc around each.

    >>> ring = hull([(0.0, 0.0)], 2.0)
    >>> ring[0] == ring[-1], {round(math.hypot(x, y), 9) for x, y in ring}
    (True, {2.0})
    """
    turns = [2 * math.pi * k / 48 for k in range(48)]
    discs = [(x + radius * math.cos(a), y + radius * math.sin(a)) for x, y in points for a in turns]
    ring = [discs[i] for i in ConvexHull(discs).vertices]
    return [*ring, ring[0]]


def bend(a: Point, b: Point, bow: float) -> list[Point]:
    """Quadratic curve from a to b that leaves the straight line by `bow` / 2 of its length in the middle."""
    (ax, ay), (bx, by) = a, b
    cx, cy = (ax + bx) / 2 - bow * (by - ay), (ay + by) / 2 + bow * (bx - ax)
    steps = [k / 16 for k in range(17)] if bow else [0.0, 0.5, 1.0]
    return [
        (
            (1 - s) ** 2 * ax + 2 * s * (1 - s) * cx + s * s * bx,
            (1 - s) ** 2 * ay + 2 * s * (1 - s) * cy + s * s * by,
        )
        for s in steps
    ]


def middle_of(points: Sequence[Point]) -> Point:
    """Centre of mass.

    >>> middle_of([(0.0, 0.0), (2.0, 4.0)])
    (1.0, 2.0)
    """
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)
