"""A server among the devices: who serves, over which links, and what becomes of what is lost."""

from __future__ import annotations

import numpy as np
import pytest

from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.server import collect, describe, hub, means, send, serve, star, through, told
from orthomesh.types import DeviceState, Edge, Envelope, Facts, Phase
from orthomesh.wireless.link import Radio


def facts(gains: dict[tuple[int, int], float], count: int, **public: np.ndarray) -> dict[int, Facts]:
    heard = {k: {j: g for (i, j), g in gains.items() if i == k} for k in range(count)}
    return {k: Facts(id=k, public={}, columns={}, payload_bits=10_000, gains=heard[k]) for k in range(count)}


def both(gains: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    return {**gains, **{(j, i): g for (i, j), g in gains.items()}}


# example


def test_the_best_worst_link_serves() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-12, (1, 2): 1e-9}), 3)
    assert hub(made) == 1
    up, down = star(made).phases
    assert [(e.src, e.dst) for e in up.edges] == [(0, 1), (2, 1)]
    assert [(e.src, e.dst) for e in down.edges] == [(1, 0), (1, 2)]
    assert [(e.src, e.dst) for e in star(made, [2]).phases[0].edges] == [(2, 1)]


def test_the_weaker_direction_counts_and_who_serves_goes_on() -> None:
    gains = both({(0, 1): 1e-6, (0, 2): 1e-9, (1, 2): 1e-8}) | {(2, 1): 1e-15}
    made = facts(gains, 3)
    assert hub(made) == 0
    assert hub({**made, 2: Facts(id=2, public={"serves": np.array(1)}, columns={}, payload_bits=8)}) == 2


def test_everybody_s_frame_reaches_everybody_through_the_server() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-12, (1, 2): 1e-6}), 3)
    phases = through(made, Radio()).phases
    assert [p.name for p in phases] == ["relay", "relay", "gossip"]
    assert [(e.src, e.dst, e.carries) for e in phases[0].edges] == [(0, 1, ()), (1, 0, ()), (1, 2, ()), (2, 1, ())]
    assert [(e.src, e.dst, e.carries) for e in (*phases[1].edges, *phases[2].edges)] == [(1, 2, (0,)), (1, 0, (2,))]


def test_a_device_out_of_reach_is_left_out() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-19, (1, 2): 1e-19}), 3)
    assert {k for p in through(made, Radio()).phases for e in p.edges for k in e[:2]} == {0, 1}


# law


def test_the_server_hears_itself_as_the_others_hear_it() -> None:
    device = DeviceState(id=0, own={"A": np.ones(3, dtype=np.float32)})
    edge, back = Edge(1, 0), Edge(0, 1)
    parts = {"A": np.array([0.0, 1.0, 4.0], dtype=np.float16)}
    frame = encode([Section("values", "A", parts["A"])])
    got = collect(device, [Envelope(edge, frame.payload)], parts)
    mean = means({**got, 0: device.own}, "A")["A"]
    np.testing.assert_allclose(mean, [0.5, 1.0, 2.5])
    served = serve(device, {"A": mean.astype(np.float16)})
    (message,) = send(served, Phase(name="down", edges=(back,)), {})
    other, heard = told(DeviceState(id=1, own={}), [Envelope(back, message.payload)])
    after, same = told(served, [])
    np.testing.assert_array_equal(heard["A"], same["A"])
    assert after.bank == other.bank == {}


def test_what_is_announced_bounds_any_frame() -> None:
    rng = np.random.default_rng(0)
    device = DeviceState(id=0, own={name: rng.standard_normal(5000).astype(np.float32) for name in "AB"})
    up = Phase(name="up", edges=(Edge(0, 1),))
    (message,) = send(device, up, {n: a.astype(np.float16) for n, a in device.own.items()})
    assert 8 * len(message.payload) <= describe(device, "AB").payload_bits < 9.2 * len(message.payload)


# edge


def test_nobody_to_serve() -> None:
    assert star(facts({}, 1)).phases == through(facts({}, 1), Radio()).phases == ()
    device = DeviceState(id=1, own={"A": np.ones(2)})
    assert told(device, [Envelope(Edge(0, 1), None)]) == (device, {})
    assert collect(device, [Envelope(Edge(0, 1), None)], device.own) == {}


@pytest.mark.parametrize(("value", "size", "why"), [(1.0, 3, "of sizes"), (np.inf, 2, "not finite")])
def test_what_does_not_fit_is_refused(value: float, size: int, why: str) -> None:
    device = DeviceState(id=0, own={})
    frame = encode([Section("values", "A", np.full(size, value, dtype=np.float16))])
    with pytest.raises(ValueError, match=why):
        collect(device, [Envelope(Edge(1, 0), frame.payload)], {"A": np.ones(2)})
