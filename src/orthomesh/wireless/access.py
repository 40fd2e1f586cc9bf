"""Who transmits when, and what disturbs whom: turns on one band, and turns shared by those far apart, eq. (8).

In a shared band a turn lasts its part of the deadline, so that a phase keeps (11a) as a whole. A device does not
receive while it transmits (half duplex).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..types import Edge
from ..units import from_db
from .link import Radio, max_power_w, noise_w

Turn = tuple[int, int]
"""Which group of devices a sender shares the band with, and when it is its turn among them."""


def turns(edges: Sequence[Edge], gains: Float[np.ndarray, "M M"], radio: Radio) -> dict[int, Turn]:
    """Group and turn of every sender of a phase; a function of what is planned, not of who asks.

    Dedicated: each sender is a group of its own. tdma: those connected by edges, e.g. the members of a cluster, share
    the band and go one after the other in order of id. reuse: all share it, and those that do not disturb each other
    have the same turn: a colouring of the conflict graph, most conflicts first (Welsh and Powell).

    Args:
        edges: of the phase.
        gains: linear power gains of the round, [M M].
        radio: access and protection.

    Returns:
        By sender; groups and turns count from 0.
    """
    senders = sorted({e.src for e in edges})
    if radio.access == "dedicated":
        return {i: (n, 0) for n, i in enumerate(senders)}
    if radio.access == "reuse":
        return {i: (0, colour) for i, colour in colours(conflicts(edges, gains, radio.protection_db)).items()}
    group = _components(edges)
    order: dict[int, int] = {}
    found = {}
    for i in senders:
        found[i] = (group[i], order.get(group[i], 0))
        order[group[i]] = found[i][1] + 1
    return found


def num_turns(turn: Mapping[int, Turn]) -> dict[int, int]:
    """How many turns each group has."""
    return {group: 1 + max(t for g, t in turn.values() if g == group) for group, _ in turn.values()}


def turn_radio(radio: Radio, count: int) -> Radio:
    """The radio as one of so many turns on a shared band sees it: the deadline is cut into equal parts.

    >>> turn_radio(Radio(deadline_s=3.0, access="tdma"), 3).deadline_s
    1.0
    """
    return radio if count == 1 else replace(radio, deadline_s=radio.deadline_s / count)


def schedule(
    edges: Sequence[Edge], gains: Float[np.ndarray, "M M"], radio: Radio
) -> tuple[dict[int, Turn], dict[int, int], Float[np.ndarray, "M M"]]:
    """How the senders of a phase share their band: what the air does, and what a plan can foresee.

    Args:
        edges: of the phase.
        gains: linear power gains of the round, [M M]; only `reuse` looks at them.
        radio: access and protection.

    Returns:
        Turn of every sender, number of turns of every group, and what interference leaves of each gain, <= 1. [M M]
    """
    turn = turns(edges, gains, radio)
    if radio.access != "reuse":
        return turn, num_turns(turn), np.ones_like(gains)
    seen = disturbed(turn, gains, radio)
    return turn, num_turns(turn), np.divide(seen, gains, out=np.ones_like(gains), where=gains > 0.0)


def conflicts(edges: Sequence[Edge], gains: Float[np.ndarray, "M M"], protection_db: float) -> dict[int, set[int]]:
    """Which senders must not have the same turn.

    Two senders conflict where one of them receives from the other, where they share a receiver, and where a receiver
    of one hears it less than `protection_db` above the other.

    Args:
        edges: of the phase.
        gains: linear power gains, [M M].
        protection_db: how much better a receiver must hear its own sender.

    Returns:
        For every sender those it conflicts with; symmetric.
    """
    receivers: dict[int, set[int]] = {}
    for e in edges:
        receivers.setdefault(e.src, set()).add(e.dst)
    ratio = from_db(protection_db)
    graph: dict[int, set[int]] = {i: set() for i in sorted(receivers)}
    for i in graph:
        for k in graph:
            if i != k and any(
                r == k or r in receivers[k] or gains[i, r] < ratio * gains[k, r] for r in sorted(receivers[i])
            ):
                graph[i].add(k)
                graph[k].add(i)
    return graph


def colours(graph: Mapping[int, set[int]]) -> dict[int, int]:
    """Greedy colouring: nodes in order of falling degree, then id, each with the least colour its neighbours lack.

    >>> colours({0: {1}, 1: {0, 2}, 2: {1}})
    {1: 0, 0: 1, 2: 1}
    """
    chosen: dict[int, int] = {}
    for i in sorted(graph, key=lambda k: (-len(graph[k]), k)):
        taken = {chosen[k] for k in graph[i] if k in chosen}
        chosen[i] = min(set(range(len(graph) + 1)) - taken)
    return chosen


def sinr(
    power_w: Mapping[int, float], sender: int, receiver: int, gains: Float[np.ndarray, "M M"], noise_w: float
) -> float:
    """Signal over noise and what all others who transmit at the same time add, p_i h_ij / (sigma^2 + sum_k p_k h_kj).

    Args:
        power_w: of everybody who transmits in this turn, the sender included, W.
        sender: i.
        receiver: j.
        gains: linear power gains, [M M].
        noise_w: sigma^2, W.

    Returns:
        Linear, >= 0.
    """
    disturbing = sum(p * float(gains[k, receiver]) for k, p in sorted(power_w.items()) if k != sender)
    return power_w[sender] * float(gains[sender, receiver]) / (noise_w + disturbing)


def disturbed(turn: Mapping[int, Turn], gains: Float[np.ndarray, "M M"], radio: Radio) -> Float[np.ndarray, "M M"]:
    """Gains as links see them that share their turn: divided by (sigma^2 + I) / sigma^2.

    Others are taken at their power limit, so that what is promised holds whatever they send, and nobody needs to know
    their powers; Lemma 1 then holds as it stands.

    Args:
        turn: of every sender.
        gains: linear power gains, [M M].
        radio: power limit, noise.

    Returns:
        [M M], not symmetric, never above the gains; equal to them where nobody else of the turn is heard.
    """
    seen = gains.copy()
    noise = noise_w(radio, radio.bandwidth_hz)
    for i, mine in turn.items():
        others = sorted(k for k, theirs in turn.items() if theirs == mine and k != i)
        if others:
            interference_w = max_power_w(radio) * gains[others].sum(axis=0)
            seen[i] = gains[i] * (noise / (noise + interference_w))  # a share <= 1 first: rounding then adds nothing
    return seen


def _components(edges: Sequence[Edge]) -> dict[int, int]:
    """Number of the connected component of every device an edge touches."""
    root: dict[int, int] = {}

    def find(k: int) -> int:
        while root.setdefault(k, k) != k:
            k = root[k]
        return k

    for e in edges:
        a, b = find(e.src), find(e.dst)
        root[max(a, b)] = min(a, b)
    return {k: find(k) for k in sorted(root)}
