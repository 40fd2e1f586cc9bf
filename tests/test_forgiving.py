"""What a device insists on and what it puts aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from orthomesh.forgiving import forgiving
from orthomesh.types import Bank, DeviceState, Edge, Envelope, Facts, Learnt, Method, Phase, Plan, Round

T = Round(0, 0, 2)


def picky() -> Method:
    """A method that reads numbers from others and raises on anything else."""

    def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
        assert all(f.payload_bits >= 0 for f in facts.values())
        total = sum(int(f.public["n"]) for f in facts.values())  # KeyError without it
        return Plan(phases=(), clusters=(tuple(facts), (total,)))

    def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
        return replace(device, bank={str(e.edge.src): np.array(int(e.payload)) for e in inbox if e.payload is not None})  # type: ignore[arg-type]

    learnt = Learnt(first_loss=1, last_loss=1, steps=1, trained=1)
    return Method(
        init=lambda k: DeviceState(id=k, own={}),
        fit=lambda d, t: (d, learnt),
        describe=lambda d, t: facts(d.id),
        plan=plan,
        send=lambda d, p, t: (),
        merge=merge,
        bank=lambda d: Bank(experts=()),
    )


def facts(k: int, **public: int) -> Facts:
    return Facts(id=k, public={n: np.array(v) for n, v in public.items()}, columns={}, payload_bits=0)


def test_what_a_method_cannot_read_is_put_aside() -> None:
    said: list[str] = []
    method = forgiving(picky(), 0, said.append)
    everybody = {0: facts(0, n=1), 1: facts(1, m=1), 2: facts(2, n=5)}
    assert method.plan(everybody, T).clusters == ((0, 2), (6,))
    inbox = [Envelope(Edge(1, 0), b"12"), Envelope(Edge(2, 0), b"noise"), Envelope(Edge(3, 0), None)]
    merged = method.merge(DeviceState(id=0, own={}), inbox, Phase(name="x", edges=()), T)
    assert dict(merged.bank) == {"1": 12}
    assert [s.split(" cannot")[0] for s in said] == ["facts of [1]", "messages of [2] in phase x"]


def test_what_a_device_itself_gets_wrong_is_raised() -> None:
    method = forgiving(picky(), 0, lambda said: None)
    with pytest.raises(KeyError):
        method.plan({0: facts(0)}, T)
