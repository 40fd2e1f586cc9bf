"""Gossip LoRA: who averages with whom, what travels, and what is left when it does not arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.adapters.projection import projection
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.methods.gossip_lora import GossipLora, bank, describe, init, merge, plan, send
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import DeviceState, Edge, Envelope, Facts, Phase, Plan, Round
from orthomesh.wireless.link import Radio

T = Round(seed=3, index=1, total=4)
# 0 dBm, noise 1e-9 W in 1 MHz, 1 s: a payload of 1 Mbit takes 1e-9 / gain W, so it needs a gain of 1e-6
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
SETUP = Setup(
    seed=0,
    assignment=("zelk",) * 9,
    model=ModelSettings(),
    train=TrainSettings(),
    tasks=TaskSettings(),
    radio=RADIO,
)


def facts(gains: np.ndarray, bits: int = 10**6) -> dict[int, Facts]:
    n = len(gains)
    return {
        i: Facts(
            id=i,
            public={},
            columns={},
            payload_bits=bits,
            gains={j: float(gains[i, j]) for j in range(n) if j != i},
        )
        for i in range(n)
    }


def device(k: int, a: list[float], b: list[float]) -> DeviceState:
    return DeviceState(id=k, own={"A": np.array(a, dtype=np.float32), "B": np.array(b, dtype=np.float32)})


def edges_of(made: Plan) -> tuple[Edge, ...]:
    return made.phases[0].edges if made.phases else ()


# example


def test_only_links_that_carry_the_payload_both_ways_are_used() -> None:
    gains = np.full((3, 3), 1e-5)
    gains[0, 2] = 0.9e-6  # one way is a little too weak
    gains[1, 2] = gains[2, 1] = 1.1e-6
    pairs = {(e.src, e.dst) for e in edges_of(plan(facts(gains), T, GossipLora(num_neighbours=0), SETUP))}
    assert pairs == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_on_a_shared_band_a_link_must_carry_the_payload_within_its_turn() -> None:
    """1 Mbit in a third of a second takes 3 bit/s/Hz, thus 7e-6; in half a second 3e-6."""
    gains = np.full((3, 3), 5e-6)
    gains[0, 2] = gains[2, 0] = 4e-6
    shared = replace(SETUP, radio=replace(RADIO, access="tdma"))
    for few, left in ((9e-6, {(0, 1)}), (2e-6, {(1, 2)})):
        gains[0, 1] = gains[1, 0] = few
        pairs = {(e.src, e.dst) for e in edges_of(plan(facts(gains), T, GossipLora(num_neighbours=0), shared))}
        assert pairs == left | {(j, i) for i, j in left}
    made = plan(facts(np.full((3, 3), 7.1e-6)), T, GossipLora(num_neighbours=0), shared)
    assert len(edges_of(made)) == 6


def test_a_relay_must_carry_the_frame_of_whom_it_relays() -> None:
    """Device 0 has 2 Mbit, which take a gain of 3e-6; the link from 1 to 2 is enough for 1 and 2 only."""
    gains = np.full((3, 3), 1e-9)
    gains[0, 1] = gains[1, 0] = 1e-5
    gains[1, 2] = gains[2, 1] = 2e-6
    setup, c = replace(SETUP, assignment=("zelk",) * 3), GossipLora(topology="complete")
    told = facts(gains)
    assert {e.carries for p in plan(told, T, c, setup).phases for e in p.edges} == {(), (0,), (2,)}
    told[0] = replace(told[0], payload_bits=2 * 10**6)
    assert {(e.src, e.dst, e.carries) for e in edges_of(plan(told, T, c, setup))} == {(0, 1, ()), (1, 0, ())}


def test_where_no_gain_is_known_nothing_limits_the_link() -> None:
    unknown = {k: replace(f, gains={}) for k, f in facts(np.ones((3, 3))).items()}
    made = plan(unknown, T, GossipLora(num_neighbours=0), SETUP)
    assert len(edges_of(made)) == 6
    assert {e.weight for e in edges_of(made)} == {1 / 3}
    for access in ("tdma", "reuse"):
        shared = replace(SETUP, radio=replace(RADIO, access=access))
        assert plan(unknown, T, GossipLora(num_neighbours=0), shared) == made


def test_nobody_in_reach_means_no_phase() -> None:
    assert plan(facts(np.full((3, 3), 1e-9)), T, GossipLora(), SETUP) == Plan(phases=())
    assert plan(facts(np.ones((1, 1))), T, GossipLora(), SETUP) == Plan(phases=())


def test_both_factors_travel_at_once_to_all_neighbours_in_16_bit() -> None:
    phase = Phase(name="gossip", edges=(Edge(0, 1), Edge(0, 2), Edge(1, 0)))
    me = device(0, [1.0, 1 / 3], [-2.0])
    (message,) = send(me, phase, T)
    assert (message.src, message.dsts) == (0, (1, 2))
    arrays = decode(message.payload)
    assert {n: a.dtype.name for n, a in arrays.items()} == {"A": "float16", "B": "float16"}
    np.testing.assert_array_equal(arrays["A"], np.array([1.0, 1 / 3], dtype=np.float16))
    assert 8 * len(message.payload) == describe(me, T).payload_bits
    assert message.columns == {"values": len(message.payload) - 5, "control": 5}
    assert send(device(2, [0.0, 0.0], [0.0]), phase, T) == ()


def test_merging_by_hand() -> None:
    payload = send(device(1, [3.0], [7.0]), Phase(name="gossip", edges=(Edge(1, 0),)), T)[0].payload
    inbox = [Envelope(Edge(1, 0, 0.25), payload), Envelope(Edge(2, 0, 0.5), None)]
    after = merge(device(0, [1.0], [-1.0]), inbox, Phase(name="gossip", edges=()), T)
    assert after.own["A"].tolist() == [1.0 + 0.25 * 2.0]  # what did not arrive keeps its weight at home
    assert after.own["B"].tolist() == [-1.0 + 0.25 * 8.0]


def test_all_devices_start_from_one_projection(tiny_setup: Setup) -> None:
    layout = load_base(tiny_setup.model).layout
    states = [GossipLora().build(tiny_setup).init(k) for k in range(3)]
    assert len({int(s.own["seed"]) for s in states}) == 1
    slow = replace(tiny_setup, train=replace(tiny_setup.train, learning_rate=1e-12))
    method = GossipLora().build(slow)
    after, learnt = method.fit(states[1], Round(0, 0, 1))
    np.testing.assert_allclose(after.own["A"], projection(int(states[0].own["seed"]), layout), atol=1e-10)
    assert np.abs(after.own["B"]).max() < 1e-10
    assert learnt.trained == layout.num_projection + layout.num_expansion
    assert init(0, replace(tiny_setup, seed=1)).own["seed"] != states[0].own["seed"]


# law


@given(
    st.integers(2, 7),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 50),
)
def test_a_plan_is_a_symmetric_doubly_stochastic_step_among_usable_links(
    n: int, num_neighbours: int, seed: int, index: int
) -> None:
    gains = 10.0 ** np.random.default_rng(seed).uniform(-7, -5, (n, n))
    gains = np.minimum(gains, gains.T)
    made = plan(facts(gains), Round(seed, index, 60), GossipLora(num_neighbours=num_neighbours), SETUP)
    edges = edges_of(made)
    w = np.zeros((n, n))
    for e in edges:
        w[e.dst, e.src] = e.weight
        assert gains[e.src, e.dst] >= 1e-6
    np.testing.assert_array_equal(w, w.T)
    assert (w.sum(axis=1) <= 1 + 1e-12).all()
    assert ((w > 0).sum(axis=1) <= (num_neighbours or n)).all()
    usable = {(i, j) for i in range(n) for j in range(i) if gains[i, j] >= 1e-6}
    room = (w > 0).sum(axis=1) < (num_neighbours or n)
    assert not [(i, j) for i, j in usable if room[i] and room[j] and w[i, j] == 0]  # nobody who could is left out


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_without_loss_the_mean_of_the_network_is_kept(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = {k: device(k, rng.integers(-8, 8, 3).tolist(), rng.integers(-8, 8, 2).tolist()) for k in range(n)}
    made = plan(facts(np.ones((n, n))), Round(seed, 0, 1), GossipLora(num_neighbours=2), SETUP)
    after = dict(states)
    for phase in made.phases:
        payloads = {k: send(s, phase, T)[0].payload for k, s in states.items() if send(s, phase, T)}
        for k, s in states.items():
            inbox = [Envelope(e, payloads[e.src]) for e in sorted(phase.edges) if e.dst == k]
            after[k] = merge(s, inbox, phase, T)
    for name in ("A", "B"):  # small integers are exact in 16 bit
        before, now = (np.sum([s.own[name] for s in x.values()], axis=0) for x in (states, after))
        np.testing.assert_allclose(now, before, atol=1e-4)


# edge


def test_an_adapter_that_does_not_fit_is_refused_by_sender() -> None:
    payload = send(device(1, [3.0, 4.0], [7.0]), Phase(name="gossip", edges=(Edge(1, 0),)), T)[0].payload
    with pytest.raises(ValueError, match="device 1 sent"):
        merge(device(0, [1.0], [1.0]), [Envelope(Edge(1, 0, 0.5), payload)], Phase(name="gossip", edges=()), T)


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(ValueError, match="frame"):
        merge(device(0, [1.0], [1.0]), [Envelope(Edge(1, 0, 0.5), b"noise")], Phase(name="gossip", edges=()), T)


def test_facts_cost_the_head_of_a_frame_only() -> None:
    told = describe(device(0, [1.0], [1.0]), T)
    assert told.public == {}
    assert dict(told.columns) == {"control": len(encode([]).payload)} == {"control": 5}


def test_without_training_there_is_nothing_to_answer_with(tiny_setup: Setup) -> None:
    assert bank(init(0, tiny_setup)).experts == ()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="num_neighbours"):
        GossipLora(num_neighbours=-1)


def test_payload_on_paper() -> None:
    """Five bytes of head, then per factor 13 of section head, 1 of name, 8 of shape, and two per entry."""
    own = {"A": np.array([0.1, -0.7, 0.3], dtype=np.float32), "B": np.array([0.9], dtype=np.float32)}
    phase = Phase(name="gossip", edges=(Edge(0, 1, 0.5),))
    (message,) = send(DeviceState(id=0, own=own), phase, Round(0, 0, 1))
    assert len(message.payload) == 5 + 2 * (4 + 1 + 1) + 2 * 3 + 2 * 1


def test_a_payload_that_is_no_pair_of_factors_is_refused() -> None:
    device = DeviceState(id=0, own={"A": np.zeros(3, dtype=np.float32), "B": np.zeros(1, dtype=np.float32)})
    edge, t = Edge(1, 0, 0.5), Round(0, 0, 1)
    nan = encode([Section("values", n, np.full(k, np.nan, dtype=np.float16)) for n, k in (("A", 3), ("B", 1))])
    half = encode([Section("values", "A", np.zeros(3, dtype=np.float16))])
    for payload, said in ((nan.payload, "device 1 sent values that are not finite"), (half.payload, "where A and B")):
        with pytest.raises(ValueError, match=said):
            merge(device, [Envelope(edge, payload)], Phase(name="gossip", edges=(edge,)), t)
