"""Local search against the optimum, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.clustering_exact import by_subsets
from orthomesh.topology.clustering_instance import Instance, limit, order_of, set_rate
from orthomesh.topology.clustering_merge import merge_rounds
from orthomesh.topology.clustering_search import Effort, effort, improve, local_search


def drawn(m: int, seed: int, max_rate: float = 0.2) -> Instance:
    """Independent masks of one layer, two thirds of the pairs within reach."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.05, 0.4, m)
    every = np.array(list(combinations(range(m), 2)), dtype=np.int64).reshape(-1, 2)
    pairs = every[rng.random(len(every)) < 0.67]

    def join(rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (a0, a1, a2), (b0, b1, b2) = rows[a].T, rows[b].T
        return np.stack([a0 * b0, a0 * b1 + a1 * b0, a2 + (a0 + a1) * b2 + a1 * b1], axis=1)

    return Instance(
        leaves=np.stack([1 - s, s, 0 * s], axis=1),
        join=join,
        rate=lambda rows, a, b: join(rows, a, b)[:, 2],
        max_rate=max_rate,
        pairs=pairs,
        power=rng.random(len(pairs)),
        size=s,
    )


def check(asked: Instance, clusters: tuple[tuple[int, ...], ...]) -> None:
    near = set(map(tuple, asked.pairs.tolist()))
    assert sorted(i for c in clusters for i in c) == list(range(len(asked.leaves)))
    for c in clusters:
        assert set_rate(asked, c) <= limit(asked)
        assert all(p in near for p in combinations(c, 2))
        assert asked.further is None or len(c) == 1 or asked.further(c) is not None


def test_one_makes_room_for_another_on_paper() -> None:
    """Loads to 20: {10 6} {12 4} {8 3} {17}. 8 finds no place; but 4 can leave 12 for 10 6, and 3 can join 17."""
    load = np.array([10.0, 6.0, 12.0, 4.0, 8.0, 3.0, 17.0])
    pairs = np.array(list(combinations(range(7), 2)))
    asked = Instance(
        leaves=load,
        join=lambda rows, a, b: rows[a] + rows[b],
        rate=lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 20.0),
        max_rate=0.0,
        pairs=pairs,
        power=np.zeros(len(pairs)),
        size=load,
    )
    start = ((0, 1), (2, 3), (4, 5), (6,))
    assert improve(asked, start, Effort(depth=0)) == start
    assert improve(asked, start, Effort(depth=1)) == ((0, 1, 3), (2, 4), (5, 6))


@settings(max_examples=8)
@given(st.integers(1, 9), st.integers(0, 999), st.sampled_from([0.05, 0.2]))
def test_never_worse_than_its_start_nor_better_than_the_optimum(m: int, seed: int, max_rate: float) -> None:
    asked = drawn(m, seed, max_rate)
    found, best, greedy = local_search(asked), by_subsets(asked), merge_rounds(asked).clusters
    check(asked, found)
    check(asked, best)
    assert order_of(asked, best)[:2] <= order_of(asked, found)[:2] <= order_of(asked, greedy)[:2]
    assert order_of(asked, improve(asked, greedy, Effort())) <= order_of(asked, greedy)


def test_the_number_of_clusters_is_nearly_the_least() -> None:
    """The least in nearly all of ten instances, where the paper's mergers are a tenth above; benchmarks have more."""
    asked = [drawn(10, 100 + n) for n in range(10)]
    least = sum(len(by_subsets(a)) for a in asked)
    assert sum(len(local_search(a, Effort(depth=2))) for a in asked) <= least + 1
    assert sum(len(merge_rounds(a).clusters) for a in asked) >= 1.1 * least  # what the search is for


def test_a_further_limit_is_kept_to() -> None:
    asked = replace(drawn(8, 5), further=lambda c: 1.0 if len(c) <= 2 else None)
    found = local_search(asked)
    check(asked, found)
    assert max(map(len, found)) == 2


def test_less_effort_for_more_items() -> None:
    assert effort(100).depth > effort(1000).depth > effort(10_000).depth
    assert local_search(drawn(0, 0)) == ()
