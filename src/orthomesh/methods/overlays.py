"""Gossip over an overlay: edges that no single radio hop serves are relayed, and every hop is sent and charged.

A device sends its own frame first, in one broadcast to all that need it; then relays pass on what they heard, one
frame per phase and sender, so that a transfer keeps the deadline it was planned for. Only in the last phase does
everybody average, all with what the others had before the round. One hop for all is one phase.

On a shared band the senders of a phase cut the deadline, so which links are of use and who sends hang together:
`in_turns` plans until every link of every phase carries its frame within its turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..exchange.payload import Section, decode, encode
from ..topology.paths import Link, hops, radio_paths
from ..types import Array, DeviceState, Edge, Envelope, Facts, Message, Phase
from ..wireless.access import schedule, turn_radio
from ..wireless.link import Radio, max_power_w
from ..wireless.power import broadcast_power_w

Hop = tuple[int, int, int]
"""(origin, sender, receiver)."""


def overlay_phases(weights: Mapping[tuple[int, int], float], links: Mapping[Link, float]) -> tuple[Phase, ...]:
    """The phases that bring every sender's frame to its receivers along the fewest hops, then the least power.

    Args:
        weights: mixing matrix of the round, by (receiver, sender).
        links: usable links (sender, receiver) with the share of the power limit each needs, in [0, 1].

    Returns:
        `relay` phases, then `gossip`, in which all average; () where nobody can hear anybody. `carries` names the
        origin of what is passed on; a relay's weight is what it gives the origin itself, 0 if it only relays.
        Edges without a path are left out.

    >>> phases = overlay_phases({(2, 0): 0.5, (2, 2): 0.5}, {(0, 1): 0.1, (1, 2): 0.1})
    >>> [(p.name, [(e.src, e.dst, e.weight, e.carries) for e in p.edges]) for p in phases]
    [('relay', [(0, 1, 0.0, ())]), ('gossip', [(1, 2, 0.5, (0,))])]
    """
    edges = sorted((j, i) for (i, j), weight in weights.items() if i != j and weight > 0.0)
    longest = 2 * (1 + len({k for link in links for k in link}))
    cost = {link: 1.0 + share / longest for link, share in links.items()}  # powers never outweigh a hop
    steps = [turn for step in hops(radio_paths(edges, cost)) for turn in _turns(step)]
    return tuple(
        Phase(
            name="gossip" if n == len(steps) - 1 else "relay",
            edges=tuple(sorted(_edge(hop, weights) for hop in step)),
        )
        for n, step in enumerate(steps)
    )


def _turns(step: frozenset[Hop]) -> list[list[Hop]]:
    """Hops of one step in as many turns as the busiest sender has frames: each sends one frame a turn."""
    origins: dict[int, list[int]] = {}
    for origin, sender in sorted({(o, s) for o, s, _ in step}):
        origins.setdefault(sender, []).append(origin)
    turns: list[list[Hop]] = [[] for _ in range(max(map(len, origins.values())))]
    for origin, sender, receiver in sorted(step):
        turns[origins[sender].index(origin)].append((origin, sender, receiver))
    return turns


def _edge(hop: Hop, weights: Mapping[tuple[int, int], float]) -> Edge:
    origin, sender, receiver = hop
    carries = () if sender == origin else (origin,)
    return Edge(sender, receiver, weights.get((receiver, origin), 0.0), carries)


def in_turns(
    make: Callable[[frozenset[Link]], tuple[Phase, ...]],
    usable: frozenset[Link],
    facts: Mapping[int, Facts],
    radio: Radio,
) -> tuple[Phase, ...]:
    """Phases whose every link carries its frame in the turn it gets; on bands of their own those that `make` finds.

    Where some do not, the weaker half of these is taken out and the phases are made again, since with fewer senders
    turns are longer. A relay sends the frame of its origin, so that one counts, not its own. A link once taken out
    stays out, also where turns are long enough for it in the end.

    Args:
        make: phases over usable pairs.
        usable: pairs (i, j), i < j, that carry their own frames both ways within the whole deadline.
        facts: payloads and gains of the round, by device.
        radio: access, deadline, power limit.
    """
    phases = make(usable)
    while lost := _weakest_first(phases, facts, radio):
        usable = usable - set(lost[: -(-len(lost) // 2)])
        phases = make(usable)
    return phases


def _weakest_first(phases: Sequence[Phase], facts: Mapping[int, Facts], radio: Radio) -> list[Link]:
    """Pairs that fail in some phase, by the gain that is seen in it."""
    found: dict[Link, float] = {}
    for phase in phases:
        bits = {e: facts[e.carries[0] if e.carries else e.src].payload_bits for e in phase.edges}
        for e, gain in unheard(bits, facts, radio).items():
            pair = min(e.src, e.dst), max(e.src, e.dst)
            found[pair] = min(gain, found.get(pair, math.inf))
    return sorted(found, key=lambda pair: (found[pair], pair))


def unheard(bits: Mapping[Edge, float], facts: Mapping[int, Facts], radio: Radio) -> dict[Edge, float]:
    """Which edges of a phase will not carry what they are to, and the gains they see.

    Args:
        bits: size of the frame by edge, for all edges of the phase: senders that share a band cut its deadline.
        facts: gains of the round; where one is missing, nothing is known to limit the link.
        radio: access, deadline, power limit.
    """
    turn, counts, part = schedule(list(bits), _gains(facts, radio), radio)
    radios = {group: turn_radio(radio, count) for group, count in counts.items()}
    seen = {e: facts[e.src].gains.get(e.dst, math.inf) * float(part[e.src, e.dst]) for e in bits}
    limit_w = max_power_w(radio)
    return {e: h for e, h in seen.items() if broadcast_power_w(bits[e], [h], radios[turn[e.src][0]]) > limit_w}


def _gains(facts: Mapping[int, Facts], radio: Radio) -> Array:
    """What is known of gains, where it matters to who disturbs whom; 0 elsewhere. [M M]"""
    size = 1 + max((i for k, f in facts.items() for i in (k, *f.gains)), default=0)
    h = np.zeros((size, size))
    if radio.access == "reuse":
        for i, f in facts.items():
            h[i, list(f.gains)] = list(f.gains.values())
    return h


def passed_on(device: DeviceState, carries: tuple[int, ...], dsts: tuple[int, ...]) -> tuple[Message, ...]:
    """What a relay sends: the frame of the origin that `carries` names, as it was heard; nothing if it was lost."""
    raw = device.bank.get(f"heard/{carries[0]}/frame")
    if raw is None:
        return ()
    frame = encode([Section("values", name, array) for name, array in decode(raw.tobytes()).items()])
    return (Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns),)


def gather(device: DeviceState, inbox: Sequence[Envelope], phase: Phase) -> tuple[DeviceState, tuple[Envelope, ...]]:
    """Hold back what arrives while relays are at work; in the last phase hand it all over.

    Args:
        device: with what it has heard before in its bank.
        inbox: of this phase.
        phase: `relay`, or the last one.

    Returns:
        The device, and what it averages now: one envelope per origin, ascending, with its weight; none in a `relay`
        phase. What only passes through is not handed over. After the last phase nothing is left in the bank.
    """
    bank = dict(device.bank)
    for edge, payload, _ in inbox:
        if payload is not None:
            origin = edge.carries[0] if edge.carries else edge.src
            bank[f"heard/{origin}/frame"] = np.frombuffer(payload, dtype=np.uint8)
            bank[f"heard/{origin}/weight"] = np.array(edge.weight)
    if phase.name == "relay":
        return replace(device, bank=bank), ()
    origins = sorted({int(name.split("/")[1]) for name in bank if name.startswith("heard/")})
    weight = {k: float(bank.pop(f"heard/{k}/weight")) for k in origins}
    frames = {k: bank.pop(f"heard/{k}/frame").tobytes() for k in origins}
    arrived = tuple(Envelope(Edge(k, device.id, weight[k]), frames[k]) for k in origins if weight[k] > 0.0)
    return replace(device, bank=bank), arrived
