"""Gossip LoRA with top-k messages and error feedback, in the form of CHOCO-SGD (arXiv 1902.00340).

Compressing what devices have would break their consensus. Everybody keeps for each neighbour, and for itself, a copy
that all neighbours of that device share; messages are the largest entries of how far the device is from its copy, so
that what was left out comes up again. A device that has missed messages is told, before the next, the entries of the
copy that have changed since, as they are, so that copies stay equal to the bit.

A copy has the version of the last message in it, one more than the number of its round; it stays what it is where
nobody is addressed. Entries that last changed up to a version are right in every copy of that version or a later one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.payload import Section, decode, encode
from ..exchange.sparse import COLUMN_OF, HEAD_BITS, kept, most_bits, opened, packed
from ..experts.bank import get, places, put
from ..types import Array, Arrays, DeviceState, Edge, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from ..wireless.link import Radio
from . import gossip_lora as gossip
from .flasc import flat
from .gossip_lora import GossipLora
from .overlays import unheard
from .server import frame
from .setup import Setup

REFRESH = "refresh-"
"""Phases in which those who missed messages are told what has changed, numbered from 1."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Choco:
    """Settings of CHOCO gossip with top-k."""

    kind: Literal["choco"] = "choco"
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of all entries of A and B that a message holds."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """gamma, how far a device moves towards the copies of its neighbours; smaller for smaller densities."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA among all in reach, with messages of another kind."""
        c = GossipLora(topology="radio", learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup),
            describe=partial(describe, c=self),
            plan=partial(plan, c=self, gossip_c=c, setup=setup),
            send=partial(send, c=self),
            merge=partial(merge, c=self, setup=setup),
        )


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train all entries; the copies stay where they are, at first at the common start.

    own/began: the last round before which neighbours may have copies that this state knows nothing of, since the device
    was new in it or had been away.
    """
    own = device.own
    trained, learnt = gossip.fit(device, t, c, setup)
    found: Arrays = {"round": np.array(t.index, dtype=np.uint32)}
    if int(own.get("round", -2)) + 1 < t.index or "copy" not in own:
        found = {**found, "began": found["round"]}
    if "copy" not in own:
        start, none = common(own, setup), np.array(0, dtype=np.uint32)
        found = {**found, "copy": start, "changed": np.zeros(start.size, dtype=np.uint32), "version": none}
    return replace(trained, own={**trained.own, **found}), learnt


def common(own: Arrays, setup: Setup) -> Array:
    """Where everybody starts: what a copy is before the first message. [n]"""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    return np.concatenate([projection(int(own["seed"]), layout), np.zeros(layout.num_expansion, dtype=np.float32)])


def describe(device: DeviceState, t: Round, c: Choco) -> Facts:
    """The version of its copy, and of those it has of others: (id, version) rows by id; `began` unless that is 0."""
    have = [(k, int(get(device.bank, f"copy/{k}")["version"])) for k in places(device.bank, "copy")]
    public = {"version": device.own["version"], "have": np.array(have, dtype=np.uint32).reshape(-1, 2)}
    public |= {"began": device.own["began"]} if device.own["began"] else {}
    columns = encode([Section("control", name, a) for name, a in public.items()]).columns
    size = flat(device.own).size
    return Facts(id=device.id, public=public, columns=columns, payload_bits=most_bits(size, c.density))


def plan(facts: Mapping[int, Facts], t: Round, c: Choco, gossip_c: GossipLora, setup: Setup) -> Plan:
    """`refresh-1`, `refresh-2`, ... to those who missed messages, if any did; then `gossip` among all in reach.

    Whom a refresh would not reach is left out of `gossip` too, its weight stays at home.
    """
    phases = gossip.plan(facts, t, gossip_c, setup).phases
    have = {k: {int(i): int(n) for i, n in f.public["have"]} for k, f in facts.items()}
    version = {k: int(f.public["version"]) for k, f in facts.items()}
    edges = [e._replace(held=have[e.dst].get(e.src, 0)) for p in phases for e in p.edges]
    stale = [e for e in edges if e.held != version[e.src]]
    if not stale:
        return Plan(phases=phases)
    held = {i: [e.held for e in stale if e.src == i] for i in {e.src for e in stale}}
    since = {i: _since(held[i], version[i], int(facts[i].public.get("began", 0))) for i in sorted(held)}
    size = _size(setup)  # a message changes so many entries, and there was one a round at most
    owed = {i: min(size, (version[i] - n) * kept(size, c.density)) for i, n in since.items()}
    told = refreshes([e._replace(held=since[e.src]) for e in stale], owed, facts, size, setup.radio)
    left = {e[:2] for e in stale} - {e[:2] for p in told for e in p.edges}
    rest = [replace(p, edges=tuple(e for e in p.edges if e[:2] not in left)) for p in phases]
    return Plan(phases=(*told, *(p for p in rest if p.edges)))


def _since(held: Sequence[int], version: int, began: int) -> int:
    """The oldest version among the receivers; 0, the common start, where one is of another life or an unknown time."""
    return min(held) if began < min(held) and max(held) <= version else 0


def _size(setup: Setup) -> int:
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    return layout.num_projection + layout.num_expansion


def refreshes(
    stale: Sequence[Edge], owed: Mapping[int, int], facts: Mapping[int, Facts], size: int, radio: Radio
) -> tuple[Phase, ...]:
    """Phases that bring copies up to date: in one frame where all who lack something of a sender can hear that.

    Else in pieces of the size of a message, a phase each, since that is what links of `gossip` carry. Edges that do not
    carry even a piece are left out.

    Args:
        stale: edges whose receivers lack messages, `held` the version from which on they are told.
        owed: most entries that a sender has to tell.
        facts: payloads and gains of the round.
        size: entries of a copy.
        radio: what links carry.

    Returns:
        Phases; `room_bits` of their edges is what a frame may take.
    """
    cut: set[int] = set()
    while True:
        room = {i: facts[i].payload_bits if i in cut else HEAD_BITS + size + 32 * n for i, n in owed.items()}
        count = {i: -(-n // _entries(room[i], size)) or 1 for i, n in owed.items()}
        made = [
            tuple(e._replace(room_bits=float(room[e.src])) for e in stale if n < count[e.src])
            for n in range(max((count[e.src] for e in stale), default=0))
        ]
        lost = [e for edges in made for e in unheard({e: room[e.src] for e in edges}, facts, radio)]
        if not lost:
            return tuple(Phase(name=f"{REFRESH}{n + 1}", edges=edges) for n, edges in enumerate(made))
        out = {e[:2] for e in lost if e.src in cut}
        stale = [e for e in stale if e[:2] not in out]
        cut |= {e.src for e in lost}


def _entries(room_bits: float, size: int) -> int:
    """How many entries of a copy a frame of a refresh holds, at least one; in 32 bit, half of those of a message."""
    return max(1, (int(room_bits) - HEAD_BITS - size) // 32)


def send(device: DeviceState, phase: Phase, t: Round, c: Choco) -> tuple[Message, ...]:
    """The largest entries of how far the device is from its copy; or what has changed in the copy itself, as it is."""
    mine = phase.outgoing.get(device.id, ())
    dsts = tuple(e.dst for e in mine)
    if not dsts:
        return ()
    own = device.own
    if phase.name.startswith(REFRESH):
        parts = piece(own, mine, int(phase.name.removeprefix(REFRESH)))
        return (frame(device.id, dsts, parts, {**COLUMN_OF, "piece": "control"}),) if parts else ()
    parts = {**packed(flat(own) - own["copy"], c.density), "version": own["version"]}
    return (frame(device.id, dsts, parts, COLUMN_OF),)


def piece(own: Arrays, edges: Sequence[Edge], number: int) -> Arrays:
    """One piece of the entries of the copy that have changed since a version, `held` of all edges.

    Returns:
        mask and values, float32; version of the copy; number of the piece, how many there are, and since which version.
        Nothing where there are fewer.
    """
    since, room = edges[0].held, _entries(edges[0].room_bits, own["copy"].size)
    owed = np.flatnonzero(own["changed"] > since)
    total = -(-owed.size // room) or 1
    if number > total:
        return {}
    mask = np.zeros(own["copy"].size, dtype=bool)
    mask[owed[(number - 1) * room : number * room]] = True
    which = np.array([number, total, since], dtype=np.uint32)
    return {"mask": np.packbits(mask), "values": own["copy"][mask], "version": own["version"], "piece": which}


def refreshed(known: Arrays, parts: Arrays, start: Array, src: int) -> Arrays:
    """A neighbour's copy with a piece of what has changed; it has the new version once all pieces are there, in order.

    Args:
        known: copy and version, and of a refresh that is under way what was heard last.
        parts: of `piece`.
        start: the common start. [n]
        src: the neighbour.

    Raises:
        ValueError: a piece that is none, of another size, or not finite.
    """
    if {"piece", "version"} - parts.keys() or parts["piece"].shape != (3,) or parts["version"].shape != ():
        raise ValueError(f"device {src} sent {sorted(parts)} where a piece of its copy belongs")
    number, total, since = (int(n) for n in parts["piece"])
    version = int(parts["version"])
    if number == 1 and since == 0:
        known = _unheard_of(start)
    heard = [version, total, since, number - 1]
    if int(known["version"]) < since or (number > 1 and known.get("heard", np.zeros(0)).tolist() != heard):
        return known
    told = opened(parts, start.size, src)
    copy = np.where(np.unpackbits(parts["mask"], count=start.size).astype(bool), told, known["copy"])
    if number == total:
        return {"copy": copy, "version": parts["version"]}
    return {"copy": copy, "version": known["version"], "heard": np.array([version, total, since, number])}


def merge(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: Choco, setup: Setup
) -> DeviceState:
    r"""Bring copies up to date, then move towards them.

    .. math::  \hat x_j \leftarrow \hat x_j + q_j, \quad q_j = \mathrm{top}_k(x_j - \hat x_j), \quad
               x_i \leftarrow x_i + \gamma \sum_j w_{ij} (\hat x_j - \hat x_i)

    A neighbour whose message was lost is left out of the sum; a device that nobody is to hear keeps its copy.

    Raises:
        ValueError: a copy or a message of another size, or not finite.
    """
    own, bank, now = device.own, device.bank, np.array(t.index + 1, dtype=np.uint32)
    got = {e.edge.src: (e.edge.weight, decode(e.payload)) for e in inbox if e.payload is not None}
    known = {k: get(bank, f"copy/{k}") or _unheard_of(common(own, setup)) for k in sorted(got)}
    if phase.name.startswith(REFRESH):
        for k, copy in known.items():
            bank = put(bank, f"copy/{k}", refreshed(copy, got[k][1], common(own, setup), k))
        return replace(device, bank=bank)
    if device.id in phase.outgoing:
        own = _said(own, now, c, device.id)
    pull = np.zeros(own["copy"].size, dtype=np.float32)
    for k, (weight, parts) in sorted(got.items()):
        if int(known[k]["version"]) != int(parts["version"]):
            continue  # the refresh was lost too; the next one comes before the next message
        copy = known[k]["copy"] + opened(parts, pull.size, k)
        bank = put(bank, f"copy/{k}", {"copy": copy, "version": now})
        pull += np.float32(weight) * (copy - own["copy"])
    x, num_a = flat(own) + np.float32(c.step) * pull, own["A"].size
    return replace(device, own={**own, "A": x[:num_a], "B": x[num_a:]}, bank=bank)


def _unheard_of(start: Array) -> Arrays:
    """The copy of a neighbour before its first message."""
    return {"copy": start, "version": np.array(0, dtype=np.uint32)}


def _said(own: Arrays, now: Array, c: Choco, device: int) -> Arrays:
    """The device's parts after its message, which is in its copy whether or not it arrives."""
    parts = packed(flat(own) - own["copy"], c.density)
    copy = own["copy"] + opened(parts, own["copy"].size, device)
    mask = np.unpackbits(parts["mask"], count=copy.size).astype(bool)
    return {**own, "copy": copy, "changed": np.where(mask, now, own["changed"]), "version": now}
