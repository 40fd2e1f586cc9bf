"""The round with a toy method whose numbers fit on paper: who is called when, with what, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from orthomesh.engines.inprocess import InProcess
from orthomesh.round import exchange, run_round, train
from orthomesh.types import (
    Bank,
    Cost,
    DeviceState,
    Edge,
    Envelope,
    Facts,
    Learnt,
    Link,
    Message,
    Method,
    Phase,
    Plan,
    Round,
    Spend,
)

T = Round(seed=0, index=3, total=5)


def state(k: int, x: float, **bank: float) -> DeviceState:
    return DeviceState(id=k, own={"x": np.array([x])}, bank={n: np.array([v]) for n, v in bank.items()})


def value(device: DeviceState) -> float:
    return float(device.own["x"][0])


@dataclass
class Toy:
    """Fit adds one; every phase sends x along its edges; merge adds what arrives and notes it in the bank."""

    phases: tuple[Phase, ...]
    calls: list[str] = field(default_factory=list)
    banks_seen: list[int] = field(default_factory=list)

    def method(self) -> Method:
        return Method(
            init=lambda k: state(k, 0.0),
            fit=self.fit,
            describe=self.describe,
            plan=self.plan,
            send=self.send,
            merge=self.merge,
            bank=lambda device: Bank(experts=()),
        )

    def fit(self, device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
        self.calls.append(f"fit {device.id}")
        self.banks_seen.append(len(device.bank))
        x = value(device) + 1
        return state(device.id, x), Learnt(first_loss=x, last_loss=x, steps=1, trained=1)

    def describe(self, device: DeviceState, t: Round) -> Facts:
        self.calls.append(f"describe {device.id}")
        return Facts(id=device.id, public={"x": device.own["x"]}, columns={"control": 2}, payload_bits=64)

    def plan(self, facts: Mapping[int, Facts], t: Round) -> Plan:
        self.calls.append(f"plan {sorted(facts)}")
        return Plan(phases=self.phases)

    def send(self, device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
        self.calls.append(f"send {phase.name} {device.id}")
        dsts = tuple(e.dst for e in phase.edges if e.src == device.id)
        payload = device.own["x"].tobytes()
        return (Message(src=device.id, dsts=dsts, payload=payload, columns={"values": 8}),) if dsts else ()

    def merge(self, device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
        self.calls.append(f"merge {phase.name} {device.id}")
        got = {e.edge.src: np.frombuffer(e.payload)[0] for e in inbox if e.payload is not None}
        bank = {**device.bank, **{f"{phase.name}/{k}": np.array([x]) for k, x in got.items()}}
        return replace(device, own={"x": device.own["x"] + sum(got.values())}, bank=bank)


@dataclass(frozen=True)
class Air:
    """One second and one joule a message, half a second for facts; transfers to device `deaf` are lost."""

    deaf: int = -1

    def announce(self, facts: Mapping[int, Facts], t: Round) -> tuple[dict[int, Facts], Cost]:
        return dict(facts), Cost({k: Spend(bytes_sent=dict(f.columns)) for k, f in facts.items()}, 0.5)

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        spent = {m.src: Spend(bytes_sent=dict(m.columns), energy_j=1.0) for m in outbox}
        return [replace(m, dsts=tuple(j for j in m.dsts if j != self.deaf)) for m in outbox], Cost(spent, 1.0)


FIRST = Phase(name="first", edges=(Edge(0, 1),))
SECOND = Phase(name="second", edges=(Edge(1, 0), Edge(1, 2)))


def test_phases_follow_one_another_and_see_what_the_last_one_did() -> None:
    toy = Toy((FIRST, SECOND))
    after, info = run_round(T, {k: state(k, 10.0 * k) for k in range(3)}, toy.method(), Air(), InProcess(3))
    # fitted: 1, 11, 21; first: 1 has 11 + 1 = 12; second: 0 has 1 + 12, 2 has 21 + 12
    assert {k: value(d) for k, d in after.items()} == {0: 13.0, 1: 12.0, 2: 33.0}
    assert info.index == 3
    assert info.links == (Link("first", 0, 1, True), Link("second", 1, 0, True), Link("second", 1, 2, True))
    assert {k: i.last_loss for k, i in info.learnt.items()} == {0: 1.0, 1: 11.0, 2: 21.0}


def test_the_order_of_a_round() -> None:
    toy = Toy((FIRST,))
    run_round(T, {k: state(k, 0.0) for k in range(2)}, toy.method(), Air(), InProcess(2))
    assert toy.calls == [
        *("fit 0", "fit 1", "describe 0", "describe 1", "plan [0, 1]"),
        *("send first 0", "send first 1", "merge first 0", "merge first 1"),
    ]


def test_between_the_halves_of_a_round_nothing_has_been_told() -> None:
    toy = Toy((FIRST, SECOND))
    start = {k: replace(state(k, 10.0 * k), bank={"old": np.array([7.0])}) for k in range(3)}
    states, learnt = train(T, start, toy.method(), InProcess(3))
    assert {k: value(d) for k, d in states.items()} == {0: 1.0, 1: 11.0, 2: 21.0}
    assert toy.calls == ["fit 0", "fit 1", "fit 2"]
    assert toy.banks_seen == [0, 0, 0]
    assert [d.bank for d in states.values()] == [d.bank for d in start.values()]
    after, info = exchange(T, states, learnt, toy.method(), Air(), InProcess(3))
    assert {k: value(d) for k, d in after.items()} == {0: 13.0, 1: 12.0, 2: 33.0}
    assert info.learnt == learnt
    assert {k: value(d) for k, d in states.items()} == {0: 1.0, 1: 11.0, 2: 21.0}  # still what it was


def test_costs_of_facts_and_phases_add_up() -> None:
    toy = Toy((FIRST, SECOND))
    _, info = run_round(T, {k: state(k, 0.0) for k in range(3)}, toy.method(), Air(), InProcess(3))
    assert info.cost.elapsed_s == 0.5 + 1.0 + 1.0
    assert info.cost.by_device[0] == Spend(bytes_sent={"control": 2, "values": 8}, energy_j=1.0)
    assert info.cost.by_device[1] == Spend(bytes_sent={"control": 2, "values": 8}, energy_j=1.0)
    assert info.cost.by_device[2] == Spend(bytes_sent={"control": 2})


def test_fit_never_sees_the_bank_and_the_bank_is_not_lost() -> None:
    toy = Toy((FIRST,))
    start = {0: state(0, 0.0, old=5.0), 1: state(1, 0.0, old=6.0)}
    after, _ = run_round(T, start, toy.method(), Air(), InProcess(2))
    assert toy.banks_seen == [0, 0]
    assert {n: float(a[0]) for n, a in after[1].bank.items()} == {"old": 6.0, "first/0": 1.0}
    assert {n: float(a[0]) for n, a in after[0].bank.items()} == {"old": 5.0}


def test_a_lost_transfer_is_an_empty_envelope_and_a_link_that_did_not_arrive() -> None:
    toy = Toy((SECOND,))
    after, info = run_round(T, {k: state(k, 0.0) for k in range(3)}, toy.method(), Air(deaf=2), InProcess(3))
    assert {k: value(d) for k, d in after.items()} == {0: 2.0, 1: 1.0, 2: 1.0}
    assert info.links == (Link("second", 1, 0, True), Link("second", 1, 2, False))


def test_an_edge_over_which_nobody_sends_is_no_lost_transfer() -> None:
    toy = Toy((SECOND,))
    quiet = replace(toy.method(), send=lambda device, phase, t: ())
    after, info = run_round(T, {k: state(k, 0.0) for k in range(3)}, quiet, Air(), InProcess(3))
    assert {k: value(d) for k, d in after.items()} == {0: 1.0, 1: 1.0, 2: 1.0}
    assert info.links == ()


def test_a_phase_without_edges_still_lets_everybody_merge() -> None:
    toy = Toy((Phase(name="alone", edges=()),))
    run_round(T, {k: state(k, 0.0) for k in range(2)}, toy.method(), Air(), InProcess(2))
    assert [c for c in toy.calls if c.startswith("merge")] == ["merge alone 0", "merge alone 1"]


def test_without_phases_nothing_is_sent_or_merged() -> None:
    toy = Toy(())
    after, info = run_round(T, {0: state(0, 4.0)}, toy.method(), Air(), InProcess(1))
    assert value(after[0]) == 5.0
    assert info.links == ()
    assert [c.split()[0] for c in toy.calls] == ["fit", "describe", "plan"]


def test_given_states_are_not_changed() -> None:
    start = {k: state(k, 1.0, old=2.0) for k in range(3)}
    run_round(T, start, Toy((FIRST, SECOND)).method(), Air(), InProcess(3))
    assert all(value(d) == 1.0 and list(d.bank) == ["old"] for d in start.values())


def test_what_a_method_finds_wrong_reaches_the_caller() -> None:
    def fail(device: DeviceState, t: Round) -> tuple[DeviceState, Learnt]:
        raise ValueError(f"device {device.id} has no data")

    method = replace(Toy(()).method(), fit=fail)
    with pytest.raises(ValueError, match="device 0 has no data"):
        run_round(T, {0: state(0, 0.0)}, method, Air(), InProcess(1))
