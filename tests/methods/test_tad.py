"""TAD-LoRA: the length of a phase follows the spectral gap of the graphs there were."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.methods.setup import Setup
from orthomesh.methods.tad import Tad, phase_length, with_edges
from orthomesh.models.base import load_base
from orthomesh.topology.graphs import complete, ring
from orthomesh.topology.mixing import matrix, metropolis
from orthomesh.types import Edge, Envelope, Round
from orthomesh.wireless.air import IdealAir, SimulatedAir
from orthomesh.wireless.channel import Channel


class Row:
    """An air in which a device hears only its neighbours by id."""

    def announce(self, facts: Any, t: Round) -> Any:
        told, cost = IdealAir().announce(facts, t)
        gains = {i: {j: 1.0 if abs(i - j) == 1 else 1e-30 for j in told if j != i} for i in told}
        return {i: replace(f, gains=gains[i]) for i, f in told.items()}, cost

    def transmit(self, outbox: Any, phase: Any, t: Round) -> Any:
        return IdealAir().transmit(outbox, phase, t)


def of_graph(pairs: tuple[tuple[int, int], ...], n: int) -> np.ndarray:
    w = matrix(metropolis(pairs, range(n)), range(n))
    return np.asarray(w.T @ w)


# example


def test_lengths_on_paper() -> None:
    """A ring of n: W has 1/3 on three diagonals, its second eigenvalue is (1 + 2 cos(2 pi / n)) / 3."""
    assert phase_length(of_graph(complete(range(10)), 10), 1.0, 99) == 1
    rho = (1 + 2 * math.cos(2 * math.pi / 10)) / 3
    assert 1 / math.sqrt(1 - rho) == pytest.approx(2.8, abs=0.01)
    assert phase_length(of_graph(ring(range(10)), 10), 1.0, 99) == 3
    assert phase_length(of_graph(ring(range(10)), 10), 2.0, 99) == 6
    assert phase_length(3 * of_graph(ring(range(10)), 10), 1.0, 99) == 3  # a sum over rounds


def test_weights_of_edges_as_a_matrix() -> None:
    first = with_edges(np.zeros((3, 3)), (Edge(0, 2, 0.25), Edge(2, 1, 0.0)))
    assert first.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 0.0]]
    relayed = with_edges(first, (Edge(2, 1, 0.5, carries=(0,)),))
    assert relayed.tolist() == [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.25, 0.0, 0.0]]


# law


@given(st.integers(3, 9), st.integers(0, 9))
def test_a_sparser_graph_has_longer_phases(n: int, extra: int) -> None:
    chords = [p for p in complete(range(n)) if p not in ring(range(n))]
    some = (*ring(range(n)), *chords[:extra])
    lengths = [phase_length(of_graph(tuple(sorted(p)), n), 3.0, 99) for p in (complete(range(n)), some)]
    assert lengths[0] <= lengths[1] <= 99


# reference


def test_the_factor_turns_after_as_many_rounds_as_the_graph_needs(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """Who averages with all alternates every round; with c = 2, every second."""
    setup = small(3, steps=1)
    layout = load_base(setup.model).layout
    names = {layout.num_projection: "A", layout.num_expansion: "B"}
    for scale, expected in ((1.0, "BABA"), (2.0, "BBAA")):
        played = play(Tad(topology="radio", phase_scale=scale), setup, rounds=4)
        told = [{names[learnt.trained] for learnt in info.learnt.values()} for info in played.infos]
        assert told == [{factor} for factor in expected]
        state = played.last[0].own
        assert state["met"].sum() == pytest.approx(3 * 4)


def test_both_factors_are_averaged_by_the_graph_whichever_is_trained(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """On a star of three the hub keeps 1/3 and a leaf 2/3: X <- W X for A and for B, of which A has rested."""
    setup, settings = small(3, steps=1), Tad(topology="star")
    w = np.array([[1, 1, 1], [1, 2, 0], [1, 0, 2]]) / 3
    played, method = play(settings, setup, rounds=1), settings.build(setup)
    drawn = {k: np.random.default_rng(k).standard_normal(s.own["A"].size) for k, s in played.last.items()}
    apart = {k: replace(s, own={**s.own, "A": drawn[k].astype(np.float32)}) for k, s in played.last.items()}
    (phase,) = played.infos[0].plan.phases
    sent = {m.src: m.payload for s in apart.values() for m in method.send(s, phase, Round(0, 1, 2))}
    for k, state in apart.items():
        inbox = [Envelope(e, sent[e.src]) for e in phase.edges if e.dst == k]
        after = method.merge(state, inbox, phase, Round(0, 1, 2))
        for name in "AB":
            mixed = w[k] @ np.stack([apart[j].own[name] for j in range(3)])
            np.testing.assert_allclose(after.own[name], mixed, atol=2e-3)  # in 16 bit


def test_relayed_rings_count_as_rings(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Five devices in a row, each of which hears only the next: a ring among them has an edge that takes four hops."""
    played = play(Tad(topology="ring"), small(5, steps=1), rounds=2, air=Row())
    assert len(played.infos[0].plan.phases) > 1
    for state in played.last.values():
        np.testing.assert_allclose(state.own["met"], 2 * of_graph(ring(range(5)), 5), atol=1e-12)
        assert "mixing" not in state.own
        assert not state.bank


def test_devices_agree_on_the_phase_whatever_the_radio_lets_through(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    setup = small(5, steps=1)
    air = SimulatedAir(channel=Channel(radius_m=800.0), radio=setup.radio, seed=3, num_devices=5)
    played = play(Tad(num_neighbours=1), setup, rounds=4, air=air)
    assert all(len({learnt.trained for learnt in info.learnt.values()}) == 1 for info in played.infos)


# edge


def test_graphs_in_parts_get_the_longest_phase_and_strangers_do_not_count() -> None:
    apart = of_graph(((0, 1), (2, 3)), 4)
    assert phase_length(apart, 1.0, 7) == 7
    alone = of_graph(complete(range(3)), 4)  # the fourth never met anybody
    assert phase_length(alone, 1.0, 7) == 1


def test_where_nobody_meets_the_factor_turns_all_the_same(tiny_setup: Setup) -> None:
    method = Tad(longest=1).build(tiny_setup)
    state = method.init(0)
    trained = []
    for index in range(3):
        state, learnt = method.fit(state, Round(0, index, 3))
        trained.append(learnt.trained)
    assert trained[0] == trained[2] != trained[1]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="phase_scale"):
        Tad(phase_scale=0.0)
