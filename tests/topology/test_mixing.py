"""Metropolis weights and the speed of gossip."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.topology.mixing import (
    Pair,
    consensus_distance,
    consensus_over_time,
    equal,
    matrix,
    metropolis,
    slem,
    spectral_gap,
)


def mixing(graph: nx.Graph[int]) -> np.ndarray:
    plain = nx.convert_node_labels_to_integers(graph)
    pairs = [(min(e), max(e)) for e in plain.edges]
    return matrix(metropolis(pairs, plain.nodes), plain.nodes)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], list[Pair]]:
    ids = draw(st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=9))
    pairs = list(combinations(sorted(ids), 2))
    return ids, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


def test_weights_of_a_path_on_paper() -> None:
    w = metropolis([(0, 1), (1, 2)], [2, 0, 1])  # the middle has two neighbours: 1 / (1 + 2)
    third = 1 / 3
    assert w == pytest.approx(
        {
            (0, 0): 2 * third,
            (0, 1): third,
            (1, 0): third,
            (1, 1): third,
            (1, 2): third,
            (2, 1): third,
            (2, 2): 2 * third,
        }
    )
    assert list(w) == sorted(w)


@pytest.mark.parametrize("n", [3, 4, 5, 16, 64])
def test_closed_forms(n: int) -> None:
    assert slem(mixing(nx.cycle_graph(n))) == pytest.approx(1 - 2 / 3 * (1 - math.cos(2 * math.pi / n)), abs=1e-12)
    assert slem(mixing(nx.star_graph(n - 1))) == pytest.approx(1 - 1 / n, abs=1e-12)
    assert slem(mixing(nx.complete_graph(n))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_closed_forms_of_hypercube_and_torus(k: int) -> None:
    assert slem(mixing(nx.hypercube_graph(k))) == pytest.approx(1 - 2 / (1 + k), abs=1e-12)
    r = k + 2
    torus = nx.grid_2d_graph(r, r, periodic=True)
    assert slem(mixing(torus)) == pytest.approx(1 - 2 / 5 * (1 - math.cos(2 * math.pi / r)), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 99))
def test_averaging_keeps_the_mean_and_shrinks_the_rest(graph: tuple[list[int], list[Pair]], seed: int) -> None:
    ids, pairs = graph
    w = matrix(metropolis(pairs, ids), ids)
    assert np.all(w >= 0.0)
    assert np.array_equal(w, w.T)
    np.testing.assert_allclose(w.sum(axis=0), 1.0, atol=1e-14)
    np.testing.assert_allclose(w.sum(axis=1), 1.0, atol=1e-14)
    x = np.random.default_rng(seed).normal(size=len(ids))
    before, after = x - x.mean(), w @ x - x.mean()
    assert np.linalg.norm(after) <= slem(w) * np.linalg.norm(before) + 1e-13
    modulus = np.sort(np.abs(np.linalg.eigvalsh(w)))
    assert slem(w) == pytest.approx(modulus[-2] if len(ids) > 1 else 0.0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_gossip_mixes_exactly_where_the_graph_is_connected(graph: tuple[list[int], list[Pair]]) -> None:
    ids, pairs = graph
    g: nx.Graph[int] = nx.Graph(pairs)
    g.add_nodes_from(ids)
    assert (slem(matrix(metropolis(pairs, ids), ids)) < 1 - 1e-9) == nx.is_connected(g)


def test_rows_are_in_order_of_id() -> None:
    assert matrix({(9, 2): 0.25, (5, 5): 1.0}, [9, 5, 2]).tolist() == [[0, 0, 0], [0, 1, 0], [0.25, 0, 0]]


def test_bad_input_is_refused() -> None:
    for pairs in [[(1, 0)], [(0, 2)], [(0, 0)], [(0, 1), (0, 1)]]:
        with pytest.raises(ValueError, match="given twice or is not a pair"):
            metropolis(pairs, [0, 1])
    with pytest.raises(ValueError, match=r"\(0, 7\) names a device"):
        matrix({(0, 7): 1.0}, [0, 1])
    with pytest.raises(ValueError, match="not empty"):
        slem(np.zeros((0, 0)))


def test_equal_weights_on_paper() -> None:
    assert equal({3: [], 1: [3, 2], 2: [1]}) == {
        (1, 1): 1 / 3,
        (1, 2): 1 / 3,
        (1, 3): 1 / 3,
        (2, 1): 1 / 2,
        (2, 2): 1 / 2,
        (3, 3): 1.0,
    }
    for heard in ({0: [0]}, {0: [1, 1], 1: []}, {0: [2]}):
        with pytest.raises(ValueError, match="device 0 hears"):
            equal(heard)


def test_consensus_distance_is_the_spread_of_the_rows() -> None:
    x = stream(0, "x").standard_normal((7, 5))
    assert consensus_distance(x) == pytest.approx(math.sqrt(x.var(axis=0).sum()))
    assert consensus_distance(np.tile(x[:1], (4, 1))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        consensus_distance(np.zeros((0, 3)))


@settings(max_examples=50, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 99))
def test_no_disagreement_outlives_its_share(graph: tuple[list[int], list[Pair]], seed: int) -> None:
    ids, pairs = graph
    w = matrix(metropolis(pairs, ids), ids)
    over_time = consensus_over_time(stream(seed, "x").standard_normal((len(ids), 3)), [w] * 4)
    assert len(over_time) == 5
    for before, after in pairwise(over_time):
        assert after <= (1.0 - spectral_gap(w)) * before + 1e-12


def test_the_slowest_direction_decays_exactly_by_its_share() -> None:
    w = mixing(nx.cycle_graph(8))
    slow = np.cos(2 * np.pi * np.arange(8) / 8)[:, None]  # the eigenvector of a ring
    over_time = consensus_over_time(slow, [w] * 3)
    assert over_time[3] / over_time[0] == pytest.approx((1 - 2 / 3 * (1 - math.cos(2 * math.pi / 8))) ** 3)
