"""Best-fit decreasing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from orthomesh.topology.clustering_fit import best_fit
from orthomesh.topology.clustering_instance import Instance, order_of

NONE = np.zeros((0, 2), dtype=np.int64)


def bins(load: list[float], pairs: np.ndarray | None = None) -> Instance:
    """Plain bin packing: loads add up to at most 1."""
    if pairs is None:
        pairs = np.array(list(combinations(range(len(load)), 2)), dtype=np.int64).reshape(-1, 2)
    return Instance(
        leaves=np.array(load, dtype=np.float64),
        join=lambda rows, a, b: rows[a] + rows[b],
        rate=lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 1.0),
        max_rate=0.0,
        pairs=pairs,
        power=np.zeros(len(pairs)),
        size=np.array(load, dtype=np.float64),
    )


def test_the_fullest_that_still_fits() -> None:
    """Rates of 0 wherever it fits, so the first: 0.7 + 0.3 and 0.6 + 0.4."""
    assert best_fit(bins([0.3, 0.6, 0.7, 0.4])) == ((0, 2), (1, 3))


def test_other_orders_can_do_better_and_never_worse() -> None:
    load = [0.55, 0.45, 0.36, 0.34, 0.3]  # decreasing: 0.55 + 0.45, 0.36 + 0.34 + 0.3: two; first fit is optimal
    assert len(best_fit(bins(load))) == 2
    rng = np.random.default_rng(0)
    for _ in range(5):
        asked = bins(rng.uniform(0.1, 0.7, 20).tolist())
        once, often = best_fit(asked), best_fit(asked, restarts=10, seed=1)
        assert order_of(asked, often) <= order_of(asked, once)
        assert often == best_fit(asked, restarts=10, seed=1)


def test_conflicts_are_kept_to() -> None:
    assert best_fit(bins([0.1, 0.1, 0.1], np.array([[0, 2]]))) == ((0, 2), (1,))
    assert best_fit(bins([0.1, 0.1], NONE)) == ((0,), (1,))
    assert best_fit(bins([], NONE)) == ()


@pytest.mark.parametrize("m", [1, 7])
def test_everybody_is_somewhere_once(m: int) -> None:
    assert sorted(i for c in best_fit(bins([0.3] * m)) for i in c) == list(range(m))
