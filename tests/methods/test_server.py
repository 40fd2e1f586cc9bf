"""A server among the devices: who serves, over which links, and what becomes of what is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.fair import Fair
from orthomesh.methods.fedex import FedEx
from orthomesh.methods.flasc import Flasc
from orthomesh.methods.server import (
    behind,
    collect,
    describe,
    hub,
    init,
    means,
    send,
    serve,
    serves_alone,
    star,
    through,
    told,
)
from orthomesh.methods.setup import Setup
from orthomesh.methods.slora import SLora
from orthomesh.methods.soft import Soft
from orthomesh.types import DeviceState, Edge, Envelope, Facts, Phase, Round
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


def test_only_those_least_behind_may_serve() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-12, (1, 2): 1e-9}), 3)
    late = {k: replace(f, public={"behind": np.array(n)}) for (k, f), n in zip(made.items(), (4, 2, 3), strict=True)}
    assert hub(made) == hub(late) == hub({**late, 0: made[0], 1: made[1]}) == 1
    assert hub({**made, 1: late[1]}) == 0
    assert hub({**late, 2: made[2]}) == 2


def test_a_device_says_how_far_behind_it_is_and_only_then(small: Callable[..., Setup]) -> None:
    setup = small(2)
    device = init(0, setup)
    assert behind(device, Round(0, 0, 5), setup) == {}
    assert behind(device, Round(0, 3, 5), setup) == {"behind": 3}
    assert behind(device, Round(0, 3, 5), small(1)) == {}  # nobody to be behind of
    heard = replace(device, own={**device.own, "version": np.array(3)})
    assert behind(heard, Round(0, 3, 5), setup) == {}
    assert behind(DeviceState(id=0, own={}), Round(0, 3, 5), setup) == {}  # of a run from before


def test_a_server_to_which_nobody_sends_knows_itself() -> None:
    device, down = DeviceState(id=0, own={}), Phase(name="down", edges=(Edge(0, 1),))
    assert serves_alone(device, down)
    assert not serves_alone(serve(device, {"A": np.ones(2)}), down)
    assert not serves_alone(DeviceState(id=1, own={}), down)
    assert not serves_alone(device, Phase(name="up", edges=(Edge(0, 1),)))


def test_everybody_s_frame_reaches_everybody_through_the_server() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-12, (1, 2): 1e-6}), 3)
    phases = through(made, Radio()).phases
    assert [p.name for p in phases] == ["relay", "relay", "gossip"]
    assert [(e.src, e.dst, e.carries) for e in phases[0].edges] == [(0, 1, ()), (1, 0, ()), (1, 2, ()), (2, 1, ())]
    assert [(e.src, e.dst, e.carries) for e in (*phases[1].edges, *phases[2].edges)] == [(1, 2, (0,)), (1, 0, (2,))]


def test_a_device_out_of_reach_is_left_out() -> None:
    made = facts(both({(0, 1): 1e-6, (0, 2): 1e-19, (1, 2): 1e-19}), 3)
    assert {k for p in through(made, Radio()).phases for e in p.edges for k in e[:2]} == {0, 1}


def test_on_a_shared_band_the_server_takes_as_many_as_it_has_turns_for() -> None:
    """1 Mbit each over 1 MHz: with three senders in a second a link takes a gain of 7e-6, with two 3e-6."""
    radio = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0, access="tdma")
    made = facts(both({(0, 1): 5e-6, (0, 2): 4e-6, (1, 2): 1e-9}), 3)
    made = {k: replace(f, payload_bits=10**6) for k, f in made.items()}
    own = through(made, replace(radio, access="dedicated")).phases
    assert [p.name for p in own] == ["relay", "relay", "gossip"]
    (phase,) = through(made, radio).phases
    assert [(e.src, e.dst) for e in phase.edges] == [(0, 1), (1, 0)]


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


# reference


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (FedEx(), "AB"), (Fair(), "A"), (SLora(), "AB"), (Soft(slack=0.0), "AB"),
        (Flasc(up=1.0, down=1.0, ranking="together"), "AB"),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)  # fmt: skip
def test_a_lost_upload_is_out_of_the_mean_and_nobody_else(
    settings: Any, names: str, small: Callable[..., Setup]
) -> None:
    """Of four devices one is not heard: the mean is over three, for itself as well; not a fourth of them less."""
    setup, t = small(4, steps=1), Round(0, 0, 1)
    method = settings.build(setup)
    states = {k: method.fit(method.init(k), t)[0] for k in range(4)}
    rng = np.random.default_rng(0)
    for k, state in states.items():  # entries far apart, as one step does not make them
        drawn = {n: rng.standard_normal(state.own[n].size).astype(np.float32) for n in "AB"}
        states[k] = replace(state, own={**state.own, **drawn})
    before, lost = states, 3
    for phase in method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases:
        sent = {m.src: m.payload for s in states.values() for m in method.send(s, phase, t)}
        boxes = {
            k: [Envelope(e, None if e.src == lost else sent.get(e.src)) for e in phase.edges if e.dst == k]
            for k in states
        }
        states = {k: method.merge(s, boxes[k], phase, t) for k, s in states.items()}
    for name in names:
        mean = np.mean([before[k].own[name] for k in range(4) if k != lost], axis=0)
        for k in range(3):
            np.testing.assert_allclose(states[k].own[name], mean, atol=4e-3)  # in 16 bit


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
