"""Clustering problems as arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orthomesh.topology.clustering_instance import (
    GRID,
    Instance,
    allowed_pairs,
    components,
    neighbours,
    on_grid,
    set_rate,
    total_rate,
    union_rates,
)


def additive(load: list[float], max_rate: float, pairs: list[tuple[int, int]] | None = None) -> Instance:
    """Items whose loads add up; the rate is what exceeds 1."""
    m = len(load)
    every = [(i, j) for i in range(m) for j in range(i + 1, m)] if pairs is None else pairs
    return Instance(
        leaves=np.array(load),
        join=lambda rows, a, b: rows[a] + rows[b],
        rate=lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 1.0),
        max_rate=max_rate,
        pairs=np.array(every, dtype=np.int64).reshape(-1, 2),
        power=np.zeros(len(every)),
        size=np.array(load),
    )


def test_rates_of_sets_on_paper() -> None:
    three = additive([0.5, 0.5, 0.25], 0.0)
    assert set_rate(three, (0, 1)) == 0
    assert set_rate(three, (0, 1, 2)) == GRID / 4
    assert set_rate(three, (2,)) == 0
    assert total_rate(three, ((0, 1, 2),)) == 3 * GRID / 4
    assert total_rate(three, ((0, 1), (2,))) == 0


def test_the_grid_forgives_the_last_bits_of_a_sum() -> None:
    assert sum([0.1] * 10) != 1.0
    assert on_grid(np.array([sum([0.05] * 20) - 1.0])).tolist() == [0]


def test_pairs_that_are_too_much_by_themselves() -> None:
    three = additive([0.5, 0.75, 0.25], 0.0)
    assert allowed_pairs(three).tolist() == [False, True, True]
    assert allowed_pairs(replace(three, further=lambda m: None if 2 in m else 0.0)).tolist() == [False, False, False]


def test_neighbours_and_components() -> None:
    pairs = np.array([[0, 3], [1, 4], [3, 5]])
    starts, ids = neighbours(6, pairs)
    assert [ids[starts[i] : starts[i + 1]].tolist() for i in range(6)] == [[3], [4], [], [0, 5], [1], [3]]
    assert [c.tolist() for c in components(6, pairs)] == [[0, 3, 5], [1, 4], [2]]


def test_a_rate_that_is_not_a_number_is_refused() -> None:
    bad = additive([0.5, np.nan], 1.0)
    with pytest.raises(ValueError, match="rate of 0 and 1 is not a number"):
        union_rates(bad, bad.leaves, np.array([0]), np.array([1]))
