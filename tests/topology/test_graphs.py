"""Graphs over devices."""

from __future__ import annotations

import math
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.topology.graphs import (
    Pair,
    complete,
    components,
    geometric,
    hypercube,
    random_neighbours,
    random_regular,
    ring,
    star,
    torus,
)

IDS = st.lists(st.integers(0, 40), unique=True, max_size=9)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], set[Pair]]:
    ids = draw(IDS)
    pairs = list(combinations(sorted(ids), 2))
    return ids, set(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])


def test_graphs_on_paper() -> None:
    assert complete([4, 1, 2]) == ((1, 2), (1, 4), (2, 4))
    assert ring([4, 1, 2, 9]) == ((1, 2), (1, 9), (2, 4), (4, 9))
    assert ring([4, 1]) == ((1, 4),)
    assert ring([4]) == complete([4]) == ring([]) == complete([]) == ()
    assert components([4, 1, 2, 9], [(1, 9), (2, 9)]) == ((1, 2, 9), (4,))


@pytest.mark.parametrize("n", [3, 4, 7])
def test_complete_and_ring_are_those_of_networkx(n: int) -> None:
    assert nx.utils.graphs_equal(nx.Graph(complete(range(n))), nx.complete_graph(n))
    assert nx.utils.graphs_equal(nx.Graph(ring(range(n))), nx.cycle_graph(n))


def test_torus_star_and_hypercube_on_paper() -> None:
    assert star([4, 1, 2]) == ((1, 2), (1, 4))
    assert torus([9, 1, 2, 3, 4, 5]) == ((1, 2), (1, 3), (1, 4), (2, 3), (2, 5), (3, 9), (4, 5), (4, 9), (5, 9))
    assert torus(range(5)) == ring(range(5))
    assert hypercube([7]) == star([7]) == torus([7]) == star([]) == torus([]) == ()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_torus_star_and_hypercube_are_those_of_networkx(k: int) -> None:
    rows, columns = k + 1, k + 2  # as square as 12, 20 and 30 allow
    theirs = nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, columns, periodic=True), ordering="sorted")
    assert nx.utils.graphs_equal(nx.Graph(torus(range(rows * columns))), theirs)
    assert nx.utils.graphs_equal(nx.Graph(star(range(k))), nx.star_graph(k - 1))
    theirs = nx.convert_node_labels_to_integers(nx.hypercube_graph(k), ordering="sorted")
    assert nx.utils.graphs_equal(nx.Graph(hypercube(range(2**k))), theirs)


def test_geometric_is_that_of_networkx() -> None:
    places = {i: tuple(stream(3, "place", i).random(2).tolist()) for i in range(30)}
    theirs = nx.random_geometric_graph(30, 0.3, pos=places)
    assert set(geometric(places, 0.3)) == {(min(e), max(e)) for e in theirs.edges}


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 14), degree=st.integers(0, 13), seed=st.integers(0, 99))
def test_regular_graphs_give_everybody_as_many_neighbours(n: int, degree: int, seed: int) -> None:
    if degree >= n or degree * n % 2:
        with pytest.raises(ValueError, match="no graph of"):
            random_regular(range(n), degree, stream(seed, "regular"))
        return
    pairs = random_regular(range(n), degree, stream(seed, "regular"))
    assert list(pairs) == sorted({(i, j) for i, j in pairs if i < j})
    assert all(sum(i in pair for pair in pairs) == degree for i in range(n))


def test_regular_graphs_are_uniform() -> None:
    """Six devices with two neighbours each: 60 hexagons and 10 pairs of triangles."""
    n = 1000
    drawn = [random_regular(range(6), 2, stream(0, "regular", k)) for k in range(n)]
    counts = {pairs: drawn.count(pairs) for pairs in set(drawn)}
    assert len(counts) == 70
    squares = sum((count - n / 70) ** 2 for count in counts.values()) / (n / 70)
    assert squares < 119.9  # 99.99 % of chi-squared with 69 degrees of freedom


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_components_are_those_of_networkx(graph: tuple[list[int], set[Pair]]) -> None:
    ids, pairs = graph
    g: nx.Graph[int] = nx.Graph()
    g.add_nodes_from(ids)
    g.add_edges_from(pairs)
    assert components(ids, pairs) == tuple(sorted(tuple(sorted(c)) for c in nx.connected_components(g)))


@settings(max_examples=100, deadline=None)
@given(graph=graphs(), cap=st.integers(0, 4), seed=st.integers(0, 99), data=st.data())
def test_random_neighbours_are_allowed_few_and_as_many_as_possible(
    graph: tuple[list[int], set[Pair]], cap: int, seed: int, data: st.DataObject
) -> None:
    ids, allowed = graph
    pairs = random_neighbours(ids, allowed, cap, stream(seed, "graph"))
    degree = {i: sum(i in pair for pair in pairs) for i in ids}
    assert set(pairs) <= allowed
    assert list(pairs) == sorted(set(pairs))
    assert all(d <= cap for d in degree.values())
    assert all(degree[i] == cap or degree[j] == cap for i, j in allowed - set(pairs))
    shuffled = data.draw(st.permutations(ids))
    assert random_neighbours(shuffled, allowed, cap, stream(seed, "graph")) == pairs


def test_every_pair_is_as_likely_as_any_other() -> None:
    allowed, n = set(complete(range(4))), 3000  # one neighbour each: one of three perfect matchings
    drawn = [random_neighbours(range(4), allowed, 1, stream(0, "graph", k)) for k in range(n)]
    share = [np.mean([pair in pairs for pairs in drawn]) for pair in sorted(allowed)]
    assert np.abs(np.array(share) - 1 / 3).max() < 4 * (2 / 9 / n) ** 0.5


def test_bad_input_is_refused() -> None:
    rng = stream(0, "graph")
    for pair in [(1, 0), (0, 0), (0, 5)]:
        with pytest.raises(ValueError, match="not a pair"):
            random_neighbours([0, 1], {pair}, 1, rng)
        with pytest.raises(ValueError, match="not a pair"):
            components([0, 1], [pair])
    with pytest.raises(ValueError, match="at least 0 neighbours"):
        random_neighbours([0, 1], set(), -1, rng)
    for count in (0, 3, 12):
        with pytest.raises(ValueError, match="a power of two"):
            hypercube(range(count))
    with pytest.raises(ValueError, match="device 1 is at"):
        geometric({0: (0.0, 0.0), 1: (math.nan, 0.0)}, 1.0)
    for reach_m in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a reach is"):
            geometric({}, reach_m)
    for build in (ring, complete, star, torus, hypercube):
        with pytest.raises(ValueError, match="device 3 is given twice"):
            build([3, 1, 3])
