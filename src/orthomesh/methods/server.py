"""A server among the devices: whoever has the best worst link serves, and its links are charged like any other.

Two ways to go through it. `star`: everybody sends `up`, the server makes one thing of it and sends that `down` to all.
`through`: it only passes on, so that everybody hears everybody, every hop a frame with a deadline of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..exchange.payload import Section, decode, encode
from ..experts.bank import get, put
from ..types import Array, Arrays, Column, DeviceState, Edge, Envelope, Facts, Message, Phase, Plan, Round
from ..wireless.link import Radio, max_power_w
from ..wireless.power import broadcast_power_w
from . import gossip_lora as gossip
from .overlays import in_turns, overlay_phases
from .setup import Setup


def hub(facts: Mapping[int, Facts]) -> int:
    """The device that serves: the one that says it does already, else the one with the best worst link, then least id.

    A link is as good as its weaker direction. Where devices say that they are `behind`, only those least so may serve.

    >>> far, near = {1: 1e-9, 2: 1e-9}, {0: 1e-9, 2: 1e-6}
    >>> told = {k: Facts(id=k, public={}, columns={}, payload_bits=8) for k in range(3)}
    >>> hub({0: replace(told[0], gains=far), 1: replace(told[1], gains=near), 2: replace(told[2], gains={1: 1e-6})})
    0
    """
    serving = [k for k in sorted(facts) if "serves" in facts[k].public]
    if serving:
        return serving[0]
    late = {k: int(f.public.get("behind", 0)) for k, f in facts.items()}
    latest = [k for k in facts if late[k] == min(late.values())]

    def worst(i: int) -> float:
        others = [j for j in facts if j != i]
        return min((min(_gain(facts, i, j), _gain(facts, j, i)) for j in others), default=math.inf)

    return min(latest, key=lambda i: (-worst(i), i))


def _gain(facts: Mapping[int, Facts], i: int, j: int) -> float:
    return facts[i].gains.get(j, math.inf)


def star(facts: Mapping[int, Facts], joins: Sequence[int] | None = None) -> Plan:
    """Everybody, or those that join, to the server, and the server to everybody.

    Args:
        facts: of all.
        joins: ids that send; None: all. The server's own part takes no air.

    Returns:
        Phases `up` and `down`; none where there is only one device.
    """
    if len(facts) < 2:
        return Plan(phases=())
    centre = hub(facts)
    leaves = [k for k in sorted(facts) if k != centre]
    up = tuple(Edge(k, centre) for k in leaves if joins is None or k in joins)
    down = tuple(Edge(centre, k) for k in leaves)
    return Plan(phases=(Phase(name="up", edges=up), Phase(name="down", edges=down)))


def through(facts: Mapping[int, Facts], radio: Radio) -> Plan:
    """Everybody's frame to everybody, in two hops over the server, over links that can carry it both ways.

    On a shared band they carry it within their turns (`overlays.in_turns`).

    Returns:
        `relay` phases, one for each frame that the server passes on, and `gossip`, the last; for `overlays.gather`.
    """
    if len(facts) < 2:
        return Plan(phases=())
    centre, limit = hub(facts), max_power_w(radio)
    need = {
        (i, j): broadcast_power_w(facts[i].payload_bits, [_gain(facts, i, j)], radio) / limit
        for k in sorted(facts)
        for i, j in ((k, centre), (centre, k))
        if k != centre
    }
    usable = frozenset((i, j) for i, j in need if i < j and max(need[i, j], need[j, i]) <= 1.0)

    def made(pairs: frozenset[tuple[int, int]]) -> tuple[Phase, ...]:
        links = {link: need[link] for i, j in pairs for link in ((i, j), (j, i))}
        return overlay_phases({(i, j): 1.0 / len(facts) for i in facts for j in facts}, links)

    return Plan(phases=in_turns(made, usable, facts, radio))


def largest_bits(own: Arrays, names: Sequence[str]) -> int:
    """Most bits that a frame of the named parts takes in 16 bit, whatever is in them."""
    return 2048 + 16 * sum(own[name].size for name in names)


def describe(device: DeviceState, names: Sequence[str], public: Arrays | None = None) -> Facts:
    """How much it would send, and what else all are to know."""
    told = encode([Section("control", name, a) for name, a in (public or {}).items()])
    bits = largest_bits(device.own, names)
    return Facts(id=device.id, public=dict(public or {}), columns=told.columns, payload_bits=bits)


def init(device: int, setup: Setup) -> DeviceState:
    """What all begin with in round 0: nothing but the seed of the common start, and version 0 of the server's word.

    own: version, the first round that the device has gone into with the server's latest word.
    """
    begun = gossip.init(device, setup)
    return replace(begun, own={**begun.own, "version": np.array(0, dtype=np.uint32)})


def behind(device: DeviceState, t: Round, setup: Setup) -> dict[str, Array]:
    """The fact of how many rounds a device has gone into without the server's latest word; no fact where none.

    Whoever starts anew is behind by all rounds so far. States of runs from before there were versions have none, and
    count as up to date.
    """
    late = t.index - int(device.own.get("version", t.index))
    return {"behind": np.array(late, dtype=np.uint32)} if late and setup.num_devices > 1 else {}


def frame(src: int, dsts: tuple[int, ...], parts: Arrays, columns: Mapping[str, Column] | None = None) -> Message:
    """One message of named parts; what `columns` does not name is values."""
    made = encode([Section((columns or {}).get(name, "values"), name, a) for name, a in parts.items()])
    return Message(src=src, dsts=dsts, payload=made.payload, columns=made.columns)


def send(
    device: DeviceState, phase: Phase, mine: Arrays, columns: Mapping[str, Column] | None = None
) -> tuple[Message, ...]:
    """`up`: what is the device's own; `down`: what the server has put by with `serve`."""
    dsts = tuple(e.dst for e in phase.outgoing.get(device.id, ()))
    parts = mine if phase.name == "up" else get(device.bank, "served")
    return (frame(device.id, dsts, parts, columns),) if dsts and parts else ()


def collect(device: DeviceState, inbox: Sequence[Envelope], like: Arrays) -> dict[int, Arrays]:
    """What the server has of everybody by id; nothing on other devices.

    Args:
        device: any.
        inbox: of the `up` phase; empty for all but the server, and for a server that nobody sends to.
        like: what every message holds; None of it may be of another size or not finite.

    Returns:
        Parts of those that arrived. The server's own are not among them.

    Raises:
        ValueError: a message that does not fit, or is not finite.
    """
    got = {e.edge.src: decode(e.payload) for e in inbox if e.payload is not None}
    for k, parts in got.items():
        if {n: a.shape for n, a in parts.items()} != {n: a.shape for n, a in like.items()}:
            raise ValueError(f"device {k} sent {sorted(parts)} of sizes that are not those of {sorted(like)} here")
        if not all(np.isfinite(a).all() for a in parts.values()):
            raise ValueError(f"device {k} sent values that are not finite, its training has diverged")
    return dict(sorted(got.items()))


def serve(device: DeviceState, parts: Arrays) -> DeviceState:
    """The server with what it will send down."""
    return replace(device, bank=put(device.bank, "served", parts))


def serves_alone(device: DeviceState, phase: Phase) -> bool:
    """Whether a device is to send down though nobody had to send anything up: what it says is its own part's alone."""
    return phase.name == "down" and device.id in phase.outgoing and not get(device.bank, "served")


def told(device: DeviceState, inbox: Sequence[Envelope]) -> tuple[DeviceState, Arrays]:
    """What the server has said, the same on all that heard it and on itself; nothing where it was lost."""
    served = get(device.bank, "served")
    if served:
        return replace(device, bank=put(device.bank, "served", {})), served
    heard = [decode(e.payload) for e in inbox if e.payload is not None]
    return device, heard[0] if heard else {}


def halves(own: Arrays, names: Sequence[str]) -> dict[str, Array]:
    """Parts in 16 bit, as they travel."""
    return {name: own[name].astype(np.float16) for name in names}


def means(parts: Mapping[int, Arrays], names: Sequence[str]) -> dict[str, Array]:
    """Plain means of named parts, float32: every device weighs the same."""
    ids = sorted(parts)
    return {n: np.mean([parts[k][n].astype(np.float64) for k in ids], axis=0).astype(np.float32) for n in names}
