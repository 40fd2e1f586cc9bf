"""Radio paths of overlay edges."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.paths import Link, hops, radio_paths


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, dict[Link, float]]:
    n = draw(st.integers(2, 8))
    links = draw(st.lists(st.sampled_from(list(permutations(range(n), 2))), unique=True))
    return n, {link: draw(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])) for link in links}


def test_a_detour_that_costs_less_is_taken() -> None:
    cost = {(0, 1): 1.0, (1, 2): 1.0, (0, 2): 2.5, (2, 3): 1.0, (2, 0): 9.0}
    assert radio_paths([(0, 3), (2, 0), (3, 0)], cost) == {(0, 3): (0, 1, 2, 3), (2, 0): (2, 0)}


@settings(max_examples=40, deadline=None)
@given(networks())
def test_paths_cost_what_those_of_networkx_cost(network: tuple[int, dict[Link, float]]) -> None:
    n, cost = network
    g: nx.DiGraph[int] = nx.DiGraph()
    g.add_nodes_from(range(n))
    g.add_weighted_edges_from((i, j, c) for (i, j), c in cost.items())
    everybody = list(permutations(range(n), 2))
    found = radio_paths(everybody, cost)
    least = dict(nx.all_pairs_dijkstra_path_length(g))
    for i, j in everybody:
        assert ((i, j) in found) == (j in least[i])
        if (i, j) in found:
            path = found[i, j]
            assert (path[0], path[-1]) == (i, j)
            assert sum(cost[link] for link in pairwise(path)) == pytest.approx(least[i][j])


@settings(max_examples=40, deadline=None)
@given(networks())
def test_hops_send_nothing_twice_and_nothing_one_does_not_have(network: tuple[int, dict[Link, float]]) -> None:
    n, cost = network
    paths = radio_paths(permutations(range(n), 2), cost)
    steps = hops(paths)
    holds = {(i, i) for i in range(n)}  # (device, origin)
    sent = []
    for step in steps:
        assert all((sender, origin) in holds for origin, sender, _ in step)
        holds |= {(receiver, origin) for origin, _, receiver in step}
        sent += [(origin, receiver) for origin, _, receiver in step]
    assert len(sent) == len(set(sent))
    assert holds >= {(j, i) for i, j in paths}
    assert set(sent) == {(path[0], k) for path in paths.values() for k in path[1:]}


def test_bad_input_is_refused() -> None:
    for link, cost in (((0, 1), -1.0), ((0, 1), math.nan), ((1, 1), 1.0)):
        with pytest.raises(ValueError, match="a link joins two devices"):
            radio_paths([], {link: cost})
    with pytest.raises(ValueError, match="from 2 to itself"):
        radio_paths([(2, 2)], {})
    assert hops({}) == ()
