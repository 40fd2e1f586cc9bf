from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation.shapes import Point, bend, hull, middle_of

POINTS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=7)


def area(ring: list[Point]) -> float:
    """Shoelace formula; positive where the ring runs anticlockwise."""
    x, y = np.array(ring).T
    return 0.5 * float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def test_two_discs_make_a_capsule() -> None:
    ring = hull([(0.0, 0.0), (10.0, 0.0)], 2.0)
    exact = math.pi * 4 + 2 * 2 * 10
    polygon = 0.5 * 48 * 4 * math.sin(2 * math.pi / 48) + 2 * 2 * 10  # discs are drawn with 48 corners
    assert area(ring) == pytest.approx(polygon)
    assert polygon == pytest.approx(exact, rel=1e-3)


@given(POINTS, st.floats(0.5, 20))
def test_every_point_lies_deep_inside_a_convex_ring(points: list[tuple[int, int]], radius: float) -> None:
    ring = np.array(hull([(float(x), float(y)) for x, y in points], radius))
    edges = np.diff(ring, axis=0)
    length = np.hypot(*edges.T)
    edges, ring = edges[length > 1e-9], ring[:-1][length > 1e-9]
    deep = radius * math.cos(math.pi / 48) * (1 - 1e-6)
    for x, y in points:
        to = np.array([x, y]) - ring
        left = (edges[:, 0] * to[:, 1] - edges[:, 1] * to[:, 0]) / np.hypot(*edges.T)
        assert left.min() >= deep


def test_a_bent_line_starts_and_ends_where_it_should() -> None:
    curve = bend((0.0, 0.0), (4.0, 0.0), 0.5)
    assert curve[0] == (0.0, 0.0)
    assert curve[-1] == (4.0, 0.0)
    assert curve[len(curve) // 2] == pytest.approx((2.0, 1.0))  # half of 0.5 of the length 4
    assert bend((0.0, 0.0), (4.0, 2.0), 0.0)[1] == (2.0, 1.0)


def test_the_middle_of_nothing_is_an_error_of_ours() -> None:
    assert middle_of([(1.0, 1.0), (3.0, 5.0)]) == (2.0, 3.0)
    with pytest.raises(ZeroDivisionError):
        middle_of([])
