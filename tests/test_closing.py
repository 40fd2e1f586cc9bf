"""After the last round: who returns fetches what it missed, who was there does not wait for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ether
import numpy as np
import pytest
from ether import Ether

from orthomesh.closing import Ended, close, last_stage
from orthomesh.engines import peer as engine
from orthomesh.engines.peer import Peer
from orthomesh.engines.wire import Stage
from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.types import (
    Bank,
    DeviceState,
    Edge,
    Envelope,
    Facts,
    Learnt,
    Message,
    Method,
    Phase,
    Plan,
    Round,
)  # fmt: skip
from orthomesh.wireless.air import IdealAir

T = Round(0, 2, 3)
LEARNT = Learnt(first_loss=1, last_loss=1, steps=1, trained=1)


def all_to_all() -> Method:
    """Each sends its number to all others; training adds one to it."""

    def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
        edges = tuple(Edge(i, j) for i in facts for j in facts if i != j)
        return Plan(phases=(Phase(name="x", edges=edges),), clusters=(tuple(facts),))

    def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
        frame = encode([Section("values", "n", device.own["n"])])
        dsts = tuple(e.dst for e in phase.edges if e.src == device.id)
        return (Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns),) if dsts else ()

    def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
        heard = {str(e.edge.src): decode(e.payload)["n"] for e in inbox if e.payload is not None}
        return replace(device, bank={**device.bank, **heard})

    return Method(
        init=lambda k: state(k),
        fit=lambda d, t: (replace(d, own={"n": np.array(d.own["n"] + 1)}), LEARNT),
        describe=lambda d, t: Facts(id=d.id, public={}, columns={"control": 1}, payload_bits=80),
        plan=plan,
        send=send,
        merge=merge,
        bank=lambda d: Bank(experts=()),
    )


def state(k: int, **bank: int) -> DeviceState:
    return DeviceState(id=k, own={"n": np.array(10 * k)}, bank={n: np.array(v) for n, v in bank.items()})


def ended(k: int, label: str = "m", late: bool = False, absent: Sequence[int] = ()) -> Ended:
    return Ended(label, all_to_all(), {k: state(k)}, late=late, absent=set(absent))


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Peer]]:
    air = Ether()
    monkeypatch.setattr(engine, "Links", air.links)

    def make(count: int, of: int, **patience: float) -> list[Peer]:
        patient = replace(ether.PATIENCE, **patience)
        made = [ether.peer(k, of, patience=patient, last=last_stage(2, 3)) for k in range(count)]
        for peer in made:
            for other in made:
                if peer is not other:
                    peer.courier.greet(other.book.me)
        return made

    return make


def closed(made: list[Peer], all_ended: list[list[Ended]]) -> list[list[str]]:
    jobs = [lambda p=p, e=e: list(close(e, p, T, IdealAir())) for p, e in zip(made, all_ended, strict=True)]
    with ThreadPoolExecutor(len(made)) as threads:
        return [f.result() for f in [threads.submit(job) for job in jobs]]


def held(one: Ended) -> dict[int, tuple[int, dict[str, int]]]:
    return {k: (int(d.own["n"]), {n: int(v) for n, v in sorted(d.bank.items())}) for k, d in one.devices.items()}


def test_who_returns_fetches_what_it_missed_and_is_heard_and_alone_trains(peers: Callable[..., list[Peer]]) -> None:
    made = peers(3, 3)
    all_ended = [[ended(k, "one"), ended(k, "two", late=k == 2, absent=[2] if k < 2 else [])] for k in range(3)]
    said = closed(made, all_ended)
    assert [held(e[1]) for e in all_ended] == [
        {0: (0, {"1": 10, "2": 21})}, {1: (10, {"0": 0, "2": 21})}, {2: (21, {"0": 0, "1": 10})},
    ]  # fmt: skip
    assert [held(e[0]) for e in all_ended] == [{k: (10 * k, {})} for k in range(3)]
    assert [(e[0].changed, e[1].changed) for e in all_ended] == [(False, True)] * 3
    stays = ["stays up to 30 s for c, who missed the end", "two: c caught up after the end"]
    assert said == [stays, stays, ["two: caught up with a, b after the end"]]
    assert [p.box.stage for p in made] == [Stage(2, 2)] * 3


def test_a_second_one_that_returns_has_a_visit_of_its_own(peers: Callable[..., list[Peer]]) -> None:
    made = peers(3, 3)
    made[0].begin(Stage(2, 1))  # somebody has been there
    made[1].courier.greet(0)
    made[2].courier.greet(0)
    all_ended: list[list[Any]] = [[ended(0, absent=[2])], [ended(1, absent=[2])], [ended(2, late=True)]]
    closed(made, [*all_ended])
    assert held(all_ended[2][0]) == {2: (21, {"0": 0, "1": 10})}


def test_two_parts_that_ended_apart_find_together_without_training(peers: Callable[..., list[Peer]]) -> None:
    made = peers(3, 3)
    for k in (0, 1):
        made[k].begin(Stage(1, 0))
        made[2].courier.greet(k)
    all_ended = [[ended(0, absent=[2])], [ended(1, absent=[2])], [ended(2, absent=[0, 1])]]
    said = closed(made, all_ended)
    assert [held(e[0]) for e in all_ended] == [
        {0: (0, {"1": 10, "2": 20})}, {1: (10, {"0": 0, "2": 20})}, {2: (20, {"0": 0, "1": 10})},
    ]  # fmt: skip
    assert said[2] == ["m: caught up with a, b after the end"]


def test_nobody_stays_for_nobody_and_nobody_for_ever(peers: Callable[..., list[Peer]]) -> None:
    made = peers(2, 3, linger_s=0.3)
    assert closed(made, [[ended(0)], [ended(1, absent=[2])]]) == [
        [], ["stays up to 0 s for c, who missed the end"],
    ]  # fmt: skip
    assert closed(made[:1], [[ended(0, absent=[2])]]) == [["stays up to 0 s for c, who missed the end"]]


def test_who_returns_to_nobody_says_so(peers: Callable[..., list[Peer]]) -> None:
    one = ended(0, late=True)
    said = closed(peers(1, 3), [[one, ended(0, "other", late=True)]])
    assert said == [["m, other: the others have ended and are gone; this device ends with what it had"]]
    assert held(one) == {0: (0, {})}
