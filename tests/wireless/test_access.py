"""Turns, conflicts and interference; signal to interference in the closed forms of Rayleigh fading."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orthomesh.types import Edge
from orthomesh.wireless.access import colours, conflicts, disturbed, num_turns, schedule, sinr, turn_radio, turns
from orthomesh.wireless.link import Radio, max_power_w, noise_w

TWO_CLUSTERS = tuple(Edge(i, j) for members in ((0, 1, 2), (3, 4)) for i in members for j in members if i != j)
NEAR, FAR = 1e-6, 1e-12
GAINS = np.where(np.equal.outer(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1])), NEAR, FAR)
np.fill_diagonal(GAINS, 0.0)
N = 100_000


def test_dedicated_bands_wait_for_nobody() -> None:
    turn = turns(TWO_CLUSTERS, GAINS, Radio())
    assert set(num_turns(turn).values()) == {1}
    assert len(set(turn.values())) == 5


def test_members_of_a_cluster_take_turns_and_clusters_do_not() -> None:
    turn = turns(TWO_CLUSTERS, GAINS, Radio(access="tdma"))
    assert turn == {0: (0, 0), 1: (0, 1), 2: (0, 2), 3: (3, 0), 4: (3, 1)}
    assert num_turns(turn) == {0: 3, 3: 2}


def test_far_clusters_share_turns_and_near_ones_do_not() -> None:
    shared = turns(TWO_CLUSTERS, GAINS, Radio(access="reuse"))
    assert num_turns(shared) == {0: 3}
    assert shared[3][1] != shared[4][1]
    apart = turns(TWO_CLUSTERS, np.where(GAINS > 0.0, NEAR, 0.0), Radio(access="reuse"))
    assert num_turns(apart) == {0: 5}


def test_a_schedule_says_what_interference_leaves() -> None:
    for access, left in (("dedicated", 1.0), ("tdma", 1.0), ("reuse", None)):
        turn, counts, part = schedule(TWO_CLUSTERS, GAINS, Radio(access=access))
        assert turn == turns(TWO_CLUSTERS, GAINS, Radio(access=access))
        assert counts == num_turns(turn)
        np.testing.assert_array_equal(part[GAINS == 0.0], 1.0)
        if left is None:
            np.testing.assert_allclose(part * GAINS, disturbed(turn, GAINS, Radio()), rtol=1e-12)
        else:
            assert (part == left).all()


def test_a_turn_is_its_part_of_the_deadline() -> None:
    assert turn_radio(Radio(deadline_s=2.0), 4).deadline_s == 0.5
    assert turn_radio(Radio(), 1) == Radio()


@st.composite
def planned(draw: st.DrawFn) -> tuple[list[Edge], np.ndarray]:
    ends = st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda e: e[0] != e[1])
    edges = draw(st.lists(ends, min_size=1, max_size=15, unique=True))
    return [Edge(*e) for e in sorted(edges)], drawn_gains(draw(st.integers(0, 10**6)))


def drawn_gains(seed: int) -> np.ndarray:
    h = 10 ** np.random.default_rng(seed).uniform(-14, -6, (7, 7))
    np.fill_diagonal(h, 0.0)
    return (h + h.T) / 2


@settings(max_examples=60, deadline=None)
@example(case=([Edge(1, 5), Edge(2, 4)], drawn_gains(106)))  # h * noise / noise is not h in floating point
@given(case=planned())
def test_nobody_shares_a_turn_with_one_it_disturbs(case: tuple[list[Edge], np.ndarray]) -> None:
    edges, h = case
    radio = Radio(access="reuse")
    turn = turns(edges, h, radio)
    for a in edges:
        for b in edges:
            if a.src != b.src and turn[a.src] == turn[b.src]:
                assert a.dst not in (b.src, b.dst)
                assert h[a.src, a.dst] >= 10.0 * h[b.src, a.dst]
    seen = disturbed(turn, h, radio)
    assert np.all(seen <= h)
    graph = nx.Graph((i, k) for i, others in conflicts(edges, h, 10.0).items() for k in others)
    chosen = colours({i: set(graph[i]) for i in sorted(graph)})
    assert all(chosen[i] != chosen[k] for i, k in graph.edges)
    assert len(set(chosen.values())) <= 1 + max((d for _, d in graph.degree), default=0)


def test_interference_at_the_power_limit_takes_its_part_of_a_gain() -> None:
    radio = Radio(access="reuse")
    turn = {0: (0, 0), 3: (0, 0), 1: (0, 1)}
    noise, limit_w = noise_w(radio, 1e6), max_power_w(radio)
    seen = disturbed(turn, GAINS, radio)
    assert seen[0, 1] == pytest.approx(NEAR * noise / (noise + limit_w * FAR), rel=1e-12)
    assert seen[1, 0] == NEAR
    power_w = {0: limit_w, 3: limit_w}
    assert sinr(power_w, 0, 1, GAINS, noise) == pytest.approx(limit_w * seen[0, 1] / noise, rel=1e-12)


def test_one_rayleigh_interferer() -> None:
    draw = np.random.default_rng(2)
    own, other = draw.standard_exponential((2, 2000))
    ratio, threshold, noise = 0.4, 1.5, 0.1
    got = []
    for a, b in zip(own, other, strict=True):
        h = np.array([[0.0, 0.0, a], [0.0, 0.0, b], [a, b, 0.0]])
        got.append(sinr({0: 1.0, 1: ratio}, 0, 2, h, noise) > threshold)
    for z, hit in ((noise, np.array(got)), (0.0, own / (ratio * other) > threshold)):
        expected = math.exp(-threshold * z) / (1 + threshold * ratio)
        assert abs(hit.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / len(own))


def test_a_field_of_interferers() -> None:
    """Poisson interferers of density lambda with Rayleigh fading: P(SIR > T) in closed form, alpha = 4."""
    draw = np.random.default_rng(7)
    density, r, alpha, threshold, radius, n = 0.05, 1.0, 4.0, 2.0, 40.0, 3000
    hits = 0
    for _ in range(n):
        count = draw.poisson(density * math.pi * radius**2)
        d = radius * np.sqrt(draw.random(count))
        h = np.zeros((count + 2, count + 2))
        h[0, 1] = draw.standard_exponential() * r**-alpha
        h[2:, 1] = draw.standard_exponential(count) * d**-alpha
        disturbing = float(h[2:, 1].sum())  # what `sinr` adds up, without its loop
        hits += h[0, 1] > threshold * disturbing
    exponent = density * math.pi * r**2 * threshold ** (2 / alpha) * (2 * math.pi / alpha)
    expected = math.exp(-exponent / math.sin(2 * math.pi / alpha))
    assert abs(hits / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
