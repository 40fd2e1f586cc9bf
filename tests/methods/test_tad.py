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

from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.setup import Setup
from orthomesh.methods.tad import Tad, phase_length, with_edges
from orthomesh.models.base import load_base
from orthomesh.topology.graphs import complete, random_neighbours, ring
from orthomesh.topology.mixing import matrix, metropolis
from orthomesh.types import DeviceState, Edge, Envelope, Round
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


class Sometimes(Row):
    """An air in which only every second round lets anybody hear anybody."""

    def announce(self, facts: Any, t: Round) -> Any:
        told, cost = IdealAir().announce(facts, t)
        return {
            i: replace(f, gains=dict.fromkeys(told.keys() - {i}, float(t.index % 2 == 0))) for i, f in told.items()
        }, cost


def factors(played: Any, setup: Setup) -> list[dict[int, str]]:
    """The factor each device has trained, round by round."""
    layout = load_base(setup.model).layout
    names = {layout.num_projection: "A", layout.num_expansion: "B"}
    return [{k: names[learnt.trained] for k, learnt in info.learnt.items()} for info in played.infos]


def test_rounds_without_any_exchange_count(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Of n rounds m bring two devices to their mean: rho^2 = 1 - m / n, T = 1, 2, 2, 2, 2 after one to five of them."""
    setup = small(2, steps=1)
    played = play(Tad(topology="radio"), setup, rounds=6, air=Sometimes())
    told = factors(played, setup)
    assert ["".join(sorted(set(f.values()))) for f in told] == list("BAABBA")
    assert [{p.name for p in info.plan.phases} for info in played.infos] == 3 * [{"gossip"}, set()]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_who_starts_afresh_goes_with_the_others_from_the_next_round_on(
    scale: float, small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    setup = small(3, steps=1)
    played = play(Tad(topology="radio", phase_scale=scale), setup, rounds=8, fresh={3: [2]})
    without = factors(play(Tad(topology="radio", phase_scale=scale), setup, rounds=8), setup)
    for n, (mine, theirs) in enumerate(zip(factors(played, setup), without, strict=True)):
        assert (n == 3) or mine == theirs
    history = [[(e.src, e.dst) for p in i.plan.phases if p.name == "history" for e in p.edges] for i in played.infos]
    assert history == [[(0, 2)] if n == 3 else [] for n in range(8)]
    assert [i.cost.by_device[1].bytes_sent["control"] for i in played.infos] == [10] * 8  # heads of facts and frame


def test_who_was_away_is_told_what_it_missed(small: Callable[..., Setup]) -> None:
    setup, t = small(3, steps=1), Round(0, 4, 8)
    method = Tad(topology="radio").build(setup)
    rng = np.random.default_rng(0)
    drawn = {n: rng.standard_normal(8).astype(np.float32) for n in "AB"}
    whole = {"met": 4 * np.full((3, 3), 1 / 3), "turn": np.array(1, dtype=np.uint8), "began": np.array(3)}
    late = {"met": 3 * np.full((3, 3), 1 / 3), "turn": np.array(0, dtype=np.uint8), "began": np.array(4)}
    states = {k: DeviceState(id=k, own={**drawn, **(late if k == 1 else whole)}) for k in range(3)}
    facts = {k: method.describe(s, t) for k, s in states.items()}
    assert {k: dict(f.public) for k, f in facts.items()} == {0: {}, 1: {"rounds": 3}, 2: {}}
    near = {k: replace(f, gains={j: 1.0 + (k == 2) for j in facts if j != k}) for k, f in facts.items()}
    phase = method.plan(near, t).phases[0]
    assert [(e.src, e.dst) for e in phase.edges] == [(2, 1)]  # the best link
    (message,) = [m for s in states.values() for m in method.send(s, phase, t)]
    after = method.merge(states[1], [Envelope(phase.edges[0], message.payload)], phase, t)
    assert {n: a.tolist() for n, a in after.own.items()} == {n: a.tolist() for n, a in states[0].own.items()}
    assert method.merge(states[1], [Envelope(phase.edges[0], None)], phase, t) == states[1]
    bad = encode([Section("control", "met", np.eye(2))])
    with pytest.raises(ValueError, match="device 2 sent"):
        method.merge(states[1], [Envelope(phase.edges[0], bad.payload)], phase, t)
    far = {k: replace(f, gains=dict.fromkeys(f.gains, 1e-30)) for k, f in near.items()}
    assert method.plan(far, t).phases == ()  # nothing is charged for what would not arrive


# edge


def test_a_stranger_does_not_count_whatever_the_rounding() -> None:
    """Ten rounds of nine devices, of which the last met nobody: its mean is 1 but for the last bit."""
    rng, met = np.random.default_rng([9, 119]), np.zeros((9, 9))
    for _ in range(int(rng.integers(1, 12))):
        pairs = random_neighbours(range(9), set(complete(range(8))), 3, rng)
        w = matrix(metropolis(pairs, range(9)), range(9))
        np.fill_diagonal(w, 0.0)
        np.fill_diagonal(w, 1.0 - w.sum(axis=1))
        met += w.T @ w
    assert (met * 9 / met.sum())[8, 8] < 1.0
    assert phase_length(met, 1.0, 10) == phase_length(met[:8, :8], 1.0, 10) == 1


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
