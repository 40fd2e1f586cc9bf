"""D-Cliques: groups that see every label."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.topology.cliques import joined, label_cliques, skew


def one_label_each(n: int, num_labels: int) -> dict[int, np.ndarray]:
    return {i: np.eye(num_labels)[i % num_labels] for i in range(n)}


def test_skew_on_paper() -> None:
    counts = {0: np.array([3.0, 1.0]), 1: np.array([1.0, 3.0]), 2: np.array([4.0, 4.0])}
    assert skew([0], counts) == 0.25 + 0.25
    assert skew([0, 1], counts) == skew([2], counts) == 0.0


def test_devices_of_one_label_each_end_in_cliques_of_all_labels() -> None:
    counts = one_label_each(20, 5)
    cliques = label_cliques(counts, 5, 500, stream(0, "cliques"))
    assert [skew(members, counts) for members in cliques] == [0.0] * 4


def test_without_swaps_they_are_not() -> None:
    counts = one_label_each(20, 5)
    assert max(skew(m, counts) for m in label_cliques(counts, 5, 0, stream(0, "cliques"))) > 0.0


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 12), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_cliques_are_a_partition_and_joined_a_connected_graph(n: int, size: int, seed: int) -> None:
    cliques = label_cliques(one_label_each(n, 3), size, 20, stream(seed, "cliques"))
    assert sorted(i for members in cliques for i in members) == list(range(n))
    assert all(len(members) <= size for members in cliques)
    assert len(cliques) == -(-n // size)
    pairs = joined(cliques)
    assert list(pairs) == sorted({(i, j) for i, j in pairs if i < j})
    assert all(pair in pairs for members in cliques for pair in combinations(members, 2))
    between = len(pairs) - sum(len(m) * (len(m) - 1) // 2 for m in cliques)
    assert between == len(cliques) * (len(cliques) - 1) // 2
    g: nx.Graph[int] = nx.Graph(pairs)
    g.add_nodes_from(range(n))
    assert n == 0 or nx.is_connected(g)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_swapping_never_raises_the_skew(seed: int) -> None:
    rng = stream(seed, "counts")
    counts = {i: rng.integers(0, 9, 4) + np.eye(4)[0] for i in range(12)}
    total = [
        sum(skew(m, counts) for m in label_cliques(counts, 4, swaps, stream(seed, "cliques"))) for swaps in (0, 3, 20)
    ]
    assert total == sorted(total, reverse=True)


def test_bad_input_is_refused() -> None:
    rng = stream(0, "cliques")
    with pytest.raises(ValueError, match="at least 1 member"):
        label_cliques({}, 0, 1, rng)
    for bad in ([0.0, 0.0], [2.0, -1.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="labels of device 1"):
            label_cliques({0: np.ones(2), 1: np.array(bad)}, 2, 1, rng)
