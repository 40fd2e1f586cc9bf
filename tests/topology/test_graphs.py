"""Graphs over devices."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.topology.graphs import Pair, complete, components, random_neighbours, ring

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
    for build in (ring, complete):
        with pytest.raises(ValueError, match="device 3 is given twice"):
            build([3, 1, 3])
