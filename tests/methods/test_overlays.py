"""Gossip over overlay edges that take several radio hops: everything arrives, is charged, and averages as W says."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.engines.inprocess import InProcess
from orthomesh.methods.gossip_lora import GossipLora, merge, plan, send
from orthomesh.methods.overlays import gather, overlay_phases
from orthomesh.methods.server import through
from orthomesh.methods.setup import Setup
from orthomesh.topology.mixing import matrix
from orthomesh.topology.overlay import Scene, Topology, overlay
from orthomesh.types import Cost, DeviceState, Edge, Envelope, Facts, Message, Phase, Plan, Round
from orthomesh.wireless.air import IdealAir, SimulatedAir
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

T = Round(0, 2, 4)
# 0 dBm, noise 1e-9 W: 1 bit/s/Hz over a gain of 1e-6 takes all of the power, so neighbours on the line reach each other
RADIO = Radio(
    noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.1, min_efficiency_bps_per_hz=1.0, bandwidth_hz=1e6
)
LAST = Edge(1, 5, 0.5, (0,))
NAMES: tuple[Topology, ...] = get_args(Topology)


def line(n: int) -> Channel:
    """Devices 100 m apart in a row, so that one reaches only the next: gain 100^-3 is 1e-6."""
    places = tuple((100.0 * i, 0.0) for i in range(n))
    return Channel(exponent=3.0, reference_loss_db=0.0, fading="none", positions_m=places)


def states(n: int) -> dict[int, DeviceState]:
    rng = np.random.default_rng(n)  # small integers: exact in 16 bit
    return {
        k: DeviceState(id=k, own={name: rng.integers(-8, 8, 3).astype(np.float32) for name in ("A", "B")})
        for k in range(n)
    }


def play(n: int, made: Plan, air: IdealAir | SimulatedAir) -> tuple[dict[int, DeviceState], Cost]:
    """The part of a round after the plan, as `run_round` has it."""
    devices, cost, engine = states(n), Cost(), InProcess(n)
    for phase in made.phases:
        sent = [m for d in devices.values() for m in send(d, phase, T)]
        outbox, spent = air.transmit(sent, phase, T)
        inbox = engine.exchange(outbox, phase, T)
        devices = {k: merge(d, inbox[k], phase, T) for k, d in devices.items()}
        cost += spent
    return devices, cost


def planned(topology: Topology, n: int, tiny_setup: Setup, degree: int = 1) -> tuple[Plan, np.ndarray, SimulatedAir]:
    air = SimulatedAir(channel=line(n), radio=RADIO, seed=0, num_devices=n)
    setup = replace(tiny_setup, radio=RADIO, assignment=("zelk",) * n)
    told = {k: Facts(id=k, public={}, columns={}, payload_bits=8 * 61) for k in range(n)}
    c = GossipLora(topology=topology, num_neighbours=degree)
    facts, _ = air.announce(told, T)
    usable = frozenset((i, i + 1) for i in range(n - 1))
    scene = Scene(
        ids=tuple(range(n)), usable=usable, degree=degree, labels=dict.fromkeys(range(n), "zelk"), seed=0, round_index=2
    )
    return plan(facts, T, c, setup), matrix(overlay(topology, scene), range(n)), air


def test_a_ring_on_a_line_on_paper(tiny_setup: Setup) -> None:
    """Four in a row: the closing edge 0-3 takes three hops each way."""
    made, _, air = planned("ring", 4, tiny_setup)
    third = 1 / 3
    own = [Edge(0, 1, third), Edge(1, 0, third), Edge(1, 2, third)]
    own += [Edge(2, 1, third), Edge(2, 3, third), Edge(3, 2, third)]
    first, second, third_ = made.phases
    assert first == Phase(name="relay", edges=tuple(own))
    assert second.edges == (Edge(1, 2, 0.0, (0,)), Edge(2, 1, 0.0, (3,)))
    assert third_ == Phase(name="gossip", edges=(Edge(1, 0, third, (3,)), Edge(2, 3, third, (0,))))
    _, cost = play(4, made, air)
    size = 5 + 2 * (4 + 1 + 1 + 2 * 3)  # on paper, as in the test of gossip LoRA
    assert [cost.by_device[k].total_bytes for k in range(4)] == [size, 3 * size, 3 * size, size]
    assert cost.elapsed_s == pytest.approx(3 * 8 * size / 1e6)
    assert sum(s.lost for s in cost.by_device.values()) == 0


def test_two_frames_through_one_relay_are_two_phases() -> None:
    """Three leaves around a hub that is no part of the overlay."""
    weights = {(i, j): 1 / 3 for i in (1, 2, 3) for j in (1, 2, 3)}
    links = {link: 0.5 for k in (1, 2, 3) for link in ((0, k), (k, 0))}
    phases = overlay_phases(weights, links)
    assert [p.name for p in phases] == ["relay", "relay", "relay", "gossip"]
    assert [{e.carries for e in p.edges} for p in phases] == [{()}, {(1,)}, {(2,)}, {(3,)}]
    assert all(e.src == 0 and e.weight == 1 / 3 for p in phases[1:] for e in p.edges)


def test_fewer_hops_come_before_less_power() -> None:
    links = {(0, 2): 1.0, (0, 1): 0.01, (1, 2): 0.01}
    (phase,) = overlay_phases({(2, 0): 0.5, (2, 2): 0.5}, links)
    assert phase.edges == (Edge(0, 2, 0.5),)


@pytest.mark.parametrize("topology", NAMES)
@pytest.mark.parametrize("n", [4, 8])
def test_over_any_radio_that_connects_all_a_round_is_w_times_x(topology: Topology, n: int, tiny_setup: Setup) -> None:
    made, w, air = planned(topology, n, tiny_setup)
    ideal, _ = play(n, made, IdealAir())
    real, _ = play(n, made, air)
    for name in ("A", "B"):
        x = np.stack([s.own[name] for s in states(n).values()])
        np.testing.assert_allclose(np.stack([s.own[name] for s in ideal.values()]), w @ x, atol=1e-5)
        np.testing.assert_array_equal(*(np.stack([s.own[name] for s in got.values()]) for got in (ideal, real)))
    assert all(s.bank == {} for s in real.values())


@pytest.mark.parametrize("access", ["dedicated", "tdma", "reuse"])
@pytest.mark.parametrize("topology", ["random", "radio", "matching", "ring", "star", "through"])
def test_all_that_is_planned_arrives_however_the_band_is_shared(topology: Any, access: Any, tiny_setup: Setup) -> None:
    """1 Mbit in 1 s at 1 MHz, so that a few turns need the links that are near; of two sizes, so that relays matter."""
    n, radio = 7, Radio(access=access)
    setup = replace(tiny_setup, radio=radio, assignment=("zelk",) * n)
    planned = 0
    for seed in range(4):
        air = SimulatedAir(channel=Channel(radius_m=200.0), radio=radio, seed=seed, num_devices=n)
        bits = {k: 8 * (100_000 + 40_000 * (k % 2)) for k in range(n)}
        told = {k: Facts(id=k, public={}, columns={}, payload_bits=bits[k]) for k in range(n)}
        facts, _ = air.announce(told, T)
        made = through(facts, radio) if topology == "through" else plan(facts, T, GossipLora(topology=topology), setup)
        for phase in made.phases:
            out = []
            for i, edges in phase.outgoing.items():
                size = bits[edges[0].carries[0] if edges[0].carries else i] // 8
                dsts = tuple(e.dst for e in edges)
                out.append(Message(src=i, dsts=dsts, payload=b"\0" * size, columns={"values": size}))
            kept, _ = air.transmit(out, phase, T)
            planned += len(phase.edges)
            assert [m.dsts for m in kept] == [m.dsts for m in out]
    assert planned > 8


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 7), data=st.data())
def test_every_edge_of_a_phase_is_usable_and_sent_once_per_sender(n: int, data: st.DataObject) -> None:
    everybody = list(permutations(range(n), 2))
    links = dict.fromkeys(data.draw(st.lists(st.sampled_from(everybody), unique=True)), 0.5)
    pairs = data.draw(st.lists(st.sampled_from(everybody), unique=True))
    for phase in overlay_phases(dict.fromkeys(pairs, 0.1), links):
        assert {(e.src, e.dst) for e in phase.edges} <= links.keys()
        assert len({(e.src, e.dst) for e in phase.edges}) == len(phase.edges)
        for k in range(n):
            assert len({e.carries for e in phase.edges if e.src == k}) <= 1


def test_what_a_relay_did_not_get_it_does_not_pass_on() -> None:
    phase = Phase(name="gossip", edges=(Edge(1, 2, 0.5, (0,)),))
    relay, _ = gather(states(3)[1], [Envelope(Edge(0, 1, 0.0), None)], Phase(name="relay", edges=(Edge(0, 1, 0.0),)))
    assert send(relay, phase, T) == ()
    after = merge(states(3)[2], [Envelope(phase.edges[0], None)], phase, T)
    np.testing.assert_array_equal(after.own["A"], states(3)[2].own["A"])  # its weight stays at home


def test_a_relay_keeps_the_frame_but_does_not_average_it() -> None:
    d = states(2)
    first, last = (Phase(name=name, edges=(edge,)) for name, edge in (("relay", Edge(0, 1, 0.0)), ("gossip", LAST)))
    (message,) = send(d[0], first, T)
    holding, arrived = gather(d[1], [Envelope(first.edges[0], message.payload)], first)
    assert arrived == ()
    (passed,) = send(holding, last, T)
    assert (passed.payload, passed.columns) == (message.payload, message.columns)
    after, arrived = gather(holding, [], last)
    assert arrived == ()
    assert after.bank == {}


def test_two_parts_of_a_network_average_apart(tiny_setup: Setup) -> None:
    links = {link: 0.5 for pair in ((0, 1), (2, 3)) for link in (pair, pair[::-1])}
    phases = overlay_phases(dict.fromkeys(permutations(range(4), 2), 0.25), links)
    assert {(e.src, e.dst) for p in phases for e in p.edges} == links.keys()
    assert overlay_phases({(0, 1): 0.5, (0, 0): 0.5, (1, 1): 1.0}, {}) == ()


@pytest.mark.parametrize(
    ("c", "said"),
    [
        (GossipLora(topology="hypercube"), "a power of two"),
        (GossipLora(topology="regular", num_neighbours=3), "no graph of 3 devices"),
        (GossipLora(topology="base", num_neighbours=0), "at least one peer"),
        (GossipLora(topology="el_local", num_neighbours=3), "cannot send"),
    ],
)
def test_what_this_number_of_devices_does_not_have_is_refused_before_the_run(
    c: GossipLora, said: str, tiny_setup: Setup
) -> None:
    with pytest.raises(ValueError, match=said):
        c.build(replace(tiny_setup, assignment=("zelk",) * 3))
