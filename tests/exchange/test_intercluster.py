"""Handing aggregates from cluster to cluster."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.exchange.intercluster import Link, gateways, is_due, overheard, relays
from orthomesh.types import Edge, Phase

Clusters = list[tuple[int, ...]]
LIMIT_W = 1.0


def both_ways(costs: dict[Link, float]) -> dict[Link, float]:
    return {link: w for (i, j), w in costs.items() for link in ((i, j), (j, i))}


def follow(clusters: Clusters, phases: tuple[Phase, ...]) -> dict[int, set[int]]:
    """Who holds which aggregates in the end, if nobody sends what it does not hold."""
    held = {i: {c} for c, members in enumerate(clusters) for i in members}
    for phase in phases:
        before = {i: set(aggregates) for i, aggregates in held.items()}
        for e in phase.edges:
            assert set(e.carries) <= before[e.src]
            assert e.carries
            held[e.dst] |= set(e.carries)
    return held


@st.composite
def networks(draw: st.DrawFn) -> tuple[Clusters, dict[Link, float]]:
    sizes = draw(st.lists(st.integers(1, 3), max_size=6))
    names = iter(draw(st.permutations(range(sum(sizes)))))
    clusters = [tuple(sorted(next(names) for _ in range(size))) for size in sizes]
    links = [(i, j) for a in clusters for b in clusters if a != b for i in a for j in b]
    cost = st.sampled_from([0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0])  # few values: ties; some beyond the limit
    chosen = draw(st.lists(st.sampled_from(links), unique=True)) if links else []
    return clusters, {link: draw(cost) for link in chosen}


def cluster_graph(clusters: Clusters, needed_w: dict[Link, float]) -> nx.Graph[int]:
    """Cheapest usable link between any two clusters, found by looking at all."""
    g: nx.Graph[int] = nx.Graph()
    g.add_nodes_from(range(len(clusters)))
    for a, b in combinations(range(len(clusters)), 2):
        worse = [max(needed_w.get((i, j), 9.0), needed_w.get((j, i), 9.0)) for i in clusters[a] for j in clusters[b]]
        if min(worse) <= LIMIT_W:
            g.add_edge(a, b, weight=min(worse))
    return g


def test_three_clusters_in_a_line_on_paper() -> None:
    clusters: Clusters = [(0, 1), (2, 3, 4), (5,)]
    needed_w = both_ways({(1, 2): 0.3, (0, 2): 0.5, (4, 5): 0.1, (1, 5): 0.9})
    assert relays(clusters, needed_w, LIMIT_W) == (
        Phase(
            name="inter",
            edges=(
                Edge(1, 2, carries=(0,)),
                Edge(2, 1, carries=(1,)),
                Edge(4, 5, carries=(1,)),
                Edge(5, 4, carries=(2,)),
            ),
        ),
        Phase(
            name="spread",
            edges=(
                Edge(1, 0, carries=(1,)),
                Edge(2, 3, carries=(0,)),
                Edge(2, 4, carries=(0,)),
                Edge(4, 2, carries=(2,)),
                Edge(4, 3, carries=(2,)),
            ),
        ),
        Phase(name="inter", edges=(Edge(2, 1, carries=(2,)), Edge(4, 5, carries=(0,)))),
        Phase(name="spread", edges=(Edge(1, 0, carries=(2,)),)),
    )


def test_a_link_is_as_good_as_its_worse_direction() -> None:
    clusters: Clusters = [(0, 1), (2, 3)]
    needed_w = {(0, 2): 0.1, (2, 0): 0.9, (1, 3): 0.5, (3, 1): 0.5, (0, 3): 0.1, (1, 2): 0.1, (2, 1): 1.1}
    inter = relays(clusters, needed_w, LIMIT_W)[0]
    assert [(e.src, e.dst) for e in inter.edges] == [(1, 3), (3, 1)]


@settings(max_examples=60, deadline=None)
@given(networks())
def test_gateways_are_the_best_link_of_every_pair_of_clusters(network: tuple[Clusters, dict[Link, float]]) -> None:
    clusters, needed_w = network
    home = {i: c for c, members in enumerate(clusters) for i in members}
    found = gateways(clusters, needed_w, LIMIT_W)
    g = cluster_graph(clusters, needed_w)
    assert sorted(tuple(sorted((home[i], home[j]))) for i, j in found) == sorted(tuple(sorted(e)) for e in g.edges)
    for (i, j), power_w in found.items():
        assert power_w == max(needed_w[i, j], needed_w[j, i]) == g.edges[home[i], home[j]]["weight"]


def test_clusters_exchange_every_so_many_rounds_and_in_the_last() -> None:
    assert [t for t in range(10) if is_due(t, 10, 4)] == [3, 7, 9]
    assert all(is_due(t, 3, 1) for t in range(3))
    assert [t for t in range(3) if is_due(t, 3, 50)] == [2]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        is_due(0, 1, 0)


@settings(max_examples=200, deadline=None)
@given(networks())
def test_everybody_who_can_gets_everything_once(network: tuple[Clusters, dict[Link, float]]) -> None:
    clusters, needed_w = network
    phases = relays(clusters, needed_w, LIMIT_W)
    g = cluster_graph(clusters, needed_w)
    parts = list(nx.connected_components(g))
    part_of = {c: part for part in parts for c in part}
    held = follow(clusters, phases)
    for c, members in enumerate(clusters):
        assert all(held[i] == part_of[c] for i in members)  # its own component, and nothing else

    home = {i: c for c, members in enumerate(clusters) for i in members}
    inter = [e for p in phases if p.name == "inter" for e in p.edges]
    crossings = Counter((min(e.src, e.dst), max(e.src, e.dst), c) for e in inter for c in e.carries)
    assert all(times == 1 for times in crossings.values())
    assert len(crossings) == sum(len(part) * (len(part) - 1) for part in parts)

    used = {(min(e.src, e.dst), max(e.src, e.dst)) for e in inter}
    spent_w = sum(max(needed_w[i, j], needed_w[j, i]) for i, j in used)
    forest = nx.minimum_spanning_edges(g, data=True)
    assert spent_w == pytest.approx(sum(d["weight"] for _, _, d in forest))
    longest = max(
        (nx.diameter(nx.Graph([(home[i], home[j]) for i, j in used]).subgraph(p)) for p in parts if len(p) > 1),
        default=0,
    )
    assert [p.name for p in phases].count("inter") == longest


@settings(max_examples=100, deadline=None)
@given(networks())
def test_who_overhears_ends_with_the_same_and_hears_it_once(network: tuple[Clusters, dict[Link, float]]) -> None:
    """Nothing goes out that did not before, and it reaches whoever it reached."""
    clusters, needed_w = network
    plain = relays(clusters, needed_w, LIMIT_W)
    wide = overheard(plain, clusters, needed_w, LIMIT_W)
    assert follow(clusters, wide) == follow(clusters, plain)
    arrivals = Counter((e.dst, c) for p in wide for e in p.edges for c in e.carries)
    assert all(times == 1 for times in arrivals.values())
    sent = [{(n, p.name, e.src, e.carries) for n, p in enumerate(phases) for e in p.edges} for phases in (plain, wide)]
    inter = [{(src, carries) for _, name, src, carries in found if name == "inter"} for found in sent]
    assert inter[0] == inter[1]
    assert all(p.edges for p in wide)
    for p in wide:
        if p.name == "inter":
            assert all(needed_w[e.src, e.dst] <= LIMIT_W for e in p.edges)


@settings(max_examples=100, deadline=None)
@given(networks())
def test_phases_are_never_empty_and_stay_where_they_belong(
    network: tuple[Clusters, dict[Link, float]],
) -> None:
    clusters, needed_w = network
    home = {i: c for c, members in enumerate(clusters) for i in members}
    phases = relays(clusters, needed_w, LIMIT_W)
    assert all(p.edges and p.cast == "broadcast" for p in phases)
    for p in phases:
        assert [(e.src, e.dst) for e in p.edges] == sorted({(e.src, e.dst) for e in p.edges})
        for e in p.edges:
            assert e.src != e.dst
            assert (home[e.src] == home[e.dst]) == (p.name == "spread")
    for p, following in pairwise(phases):
        gateways = {e.dst for e in p.edges if p.name == "inter" and len(clusters[home[e.dst]]) > 1}
        assert {e.src for e in following.edges if following.name == "spread"} == gateways


def test_clusters_out_of_reach_are_left_apart() -> None:
    clusters: Clusters = [(0,), (1,), (2, 3), (4,)]
    one_way_or_too_far = {(0, 2): 0.1, **both_ways({(0, 1): 0.5, (3, 4): 0.2, (1, 3): 1.01})}
    held = follow(clusters, relays(clusters, one_way_or_too_far, LIMIT_W))
    assert held == {0: {0, 1}, 1: {0, 1}, 2: {2, 3}, 3: {2, 3}, 4: {2, 3}}


def test_nothing_to_exchange() -> None:
    assert relays([], {}, LIMIT_W) == ()
    assert relays([(0, 1)], both_ways({(0, 1): 0.1}), LIMIT_W) == ()
    assert relays([(0,), (1,)], {}, LIMIT_W) == ()


def test_bad_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="cluster 1 has no members"):
        relays([(0,), ()], {}, LIMIT_W)
    with pytest.raises(ValueError, match="device 0 is in clusters 0 and 1"):
        relays([(0,), (1, 0)], {}, LIMIT_W)
