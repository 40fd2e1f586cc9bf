"""One round of decentralised fine-tuning. Knows no torch, no sockets, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .exchange.framing import framing_bytes
from .types import (
    Air,
    Cost,
    DeviceState,
    Engine,
    Facts,
    Learnt,
    Link,
    Message,
    Method,
    Round,
    RoundInfo,
)


def run_round(
    t: Round, devices: Mapping[int, DeviceState], method: Method, air: Air, engine: Engine
) -> tuple[dict[int, DeviceState], RoundInfo]:
    """Advance the devices this process hosts by one communication round, steps 1-4 of IV-C.

    A simulation hosts every device, a phone hosts one; the code is the same. Only `engine` knows where
    compute runs and how bytes move, only `air` knows what a transmission costs and whether it arrives.

    Args:
        t: which round.
        devices: state of the hosted devices, by id.
        method: what the devices do.
        air: what the radio allows.
        engine: where compute runs.

    Returns:
        The new states by id, and what the round is worth telling.
    """
    return exchange(t, *train(t, devices, method, engine), method, air, engine)


def train(
    t: Round, devices: Mapping[int, DeviceState], method: Method, engine: Engine
) -> tuple[dict[int, DeviceState], dict[int, Learnt]]:
    """The first half of a round: every device learns by itself, and has not told anybody yet.

    Returns:
        The states by id, what others sent before still beside them, and what fine-tuning is worth telling.
    """
    alone = {k: replace(d, bank={}) for k, d in devices.items()}  # what others sent is not trained on
    fitted = engine.map(method.fit, alone, t)  # local fine-tuning, eq. 6
    states = {k: replace(state, bank=devices[k].bank) for k, (state, _) in fitted.items()}
    return states, {k: info for k, (_, info) in fitted.items()}


def exchange(
    t: Round,
    devices: Mapping[int, DeviceState],
    learnt: Mapping[int, Learnt],
    method: Method,
    air: Air,
    engine: Engine,
) -> tuple[dict[int, DeviceState], RoundInfo]:
    """The second half: devices that have trained tell each other, and join what they hear.

    Returns:
        As `run_round`, of which this is the rest.
    """
    facts = {k: method.describe(d, t) for k, d in devices.items()}
    facts, cost = air.announce(facts, t)  # what a device tells everybody is not free
    heard, said, framing = _talk(engine.share(facts, t), method, air, engine, t)  # where clusters are not planned
    plan = method.plan(heard, t)  # pure: every device finds the same plan
    links, cost = list[Link](), cost + said
    for phase in plan.phases:  # inside clusters, then between them
        sent = [m for d in devices.values() for m in method.send(d, phase, t)]
        outbox, spent = air.transmit(sent, phase, t)  # power, rate, delay, outage
        inbox = engine.exchange(_with_lost(sent, outbox), phase, t)  # the only line that moves payloads
        links += [Link(phase.name, e.src, e.dst, p is not None) for box in inbox.values() for e, p, said in box if said]
        devices = {k: method.merge(d, inbox[k], phase, t) for k, d in devices.items()}
        cost += spent
    framing = {k: n + framing.get(k, 0) for k, n in framing_bytes(plan, len(heard), devices).items()}
    return dict(devices), RoundInfo(
        index=t.index, plan=plan, learnt=learnt, cost=cost, links=tuple(links), framing=framing
    )


def _talk(
    facts: Mapping[int, Facts], method: Method, air: Air, engine: Engine, t: Round
) -> tuple[Mapping[int, Facts], Cost, Mapping[int, int]]:
    """Facts with the clusters that devices have agreed on, where the method has them do so; cost and framing of it.

    Nobody knows yet who is near, so what is said goes out as facts do.
    """
    forming = method.form(facts, t)
    if forming is None:
        return facts, Cost(), {}
    formed = engine.form(forming, t)
    told = {k: Facts(id=k, public={}, columns={"control": n}, payload_bits=0) for k, n in formed.told.items()}
    home = {k: members for members in formed.clusters for k in members}
    _, cost = air.announce(told, t)
    return {k: replace(f, agreed=home.get(k, ())) for k, f in facts.items()}, cost, formed.framing


def _with_lost(sent: Sequence[Message], outbox: Sequence[Message]) -> list[Message]:
    """Messages with whom the air kept them from, so that receivers can tell what is lost from what was not said."""
    return [
        replace(got, lost=tuple(k for k in m.dsts if k not in got.dsts)) for m, got in zip(sent, outbox, strict=True)
    ]
