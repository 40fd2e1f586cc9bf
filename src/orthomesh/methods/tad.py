"""TAD-LoRA (arXiv 2602.00451): ADF-LoRA whose phases last as long as the graph needs to mix.

The theory behind it sets T of the order of 1 / sqrt(1 - rho), rho the share of a disagreement that survives a round.
Every device sees the mixing weights of all in the plan, so it measures rho on the graphs there were and all agree.
Whoever was not there, or starts afresh, says so in its facts and is told by one that has seen more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..exchange.payload import Section, decode, encode
from ..topology.mixing import slem
from ..topology.overlay import Topology
from ..types import Array, Arrays, DeviceState, Edge, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .overlays import unheard
from .server import frame
from .setup import Setup

HISTORY = ("met", "turn", "began")
"""What a device must know to train what the others do: the graphs there were, the factor, and since when."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tad:
    """Settings of TAD-LoRA."""

    kind: Literal["tad"] = "tad"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    phase_scale: Annotated[float, Field(gt=0)] = 1.0
    """Constant before 1 / sqrt(1 - rho), which the theory leaves open."""
    longest: Annotated[int, Field(ge=1)] = 10
    """Longest phase, rounds; it is what a graph gets that stays in parts, whose rho is 1."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that trains one factor at a time and watches how it mixes."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=self, gossip_c=c, setup=setup),
            describe=describe,
            plan=partial(plan, c=c, setup=setup),
            send=send,
            merge=partial(merge, num_devices=setup.num_devices),
        )


def fit(device: DeviceState, t: Round, c: Tad, gossip_c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the factor of this phase, B in the first; a new phase begins once the last was long enough."""
    own = device.own
    turn, began = int(own.get("turn", 0)), int(own.get("began", t.index))
    if t.index - began >= phase_length(seen(own, t.index, setup.num_devices), c.phase_scale, c.longest):
        turn, began = 1 - turn, t.index
    own = {**own, "turn": np.array(turn, dtype=np.uint8), "began": np.array(began, dtype=np.uint32)}
    return gossip.fit(replace(device, own=own), t, gossip_c, setup, "A" if turn else "B")


def seen(own: Arrays, rounds: int, num_devices: int) -> Float[np.ndarray, "n n"]:
    """Sum of W^T W over so many rounds: where nobody exchanged anything W was the identity. [n, n]

    >>> seen({"met": np.full((2, 2), 0.5)}, 2, 2).tolist()
    [[1.5, 0.5], [0.5, 1.5]]
    """
    met: Array = own.get("met", np.zeros((num_devices, num_devices)))
    return met + (rounds - exchanges(own)) * np.eye(num_devices)


def exchanges(own: Arrays) -> int:
    """Rounds whose graph the device has seen: rows of W add up to one, so the entries of W^T W to their number."""
    return round(float(own["met"].sum()) / len(own["met"])) if "met" in own else 0


def describe(device: DeviceState, t: Round) -> Facts:
    """How much it would send; and how many rounds it has seen, where those are not all there were."""
    facts = gossip.describe(device, t)
    if exchanges(device.own) == t.index:
        return facts
    public = {"rounds": np.array(exchanges(device.own), dtype=np.uint32)}
    return replace(
        facts, public=public, columns=encode([Section("control", name, a) for name, a in public.items()]).columns
    )


def plan(facts: Mapping[int, Facts], t: Round, c: GossipLora, setup: Setup) -> Plan:
    """`history` first, to those who have seen fewer rounds than others, where there are any; then gossip.

    It comes over the best link from one who has seen the most, where that can carry it. Rounds without any exchange are
    missing everywhere alike, and nothing is told of them.
    """
    made = gossip.plan(facts, t, c, setup)
    rounds = {k: int(facts[k].public.get("rounds", t.index)) for k in sorted(facts)}
    knowing = [k for k, n in rounds.items() if n == max(rounds.values())]
    edges = []
    for j in (k for k in rounds if k not in knowing):
        edges.append(Edge(min(knowing, key=lambda i: (-facts[i].gains.get(j, math.inf), i)), j))
    bits = 2048 + 64 * setup.num_devices**2
    lost = unheard(dict.fromkeys(edges, bits), facts, setup.radio)
    told = tuple(sorted(e for e in edges if e not in lost))
    return replace(made, phases=(Phase(name="history", edges=told), *made.phases)) if told else made


def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """Both factors as gossip sends them; or what the device has seen, to those who have not."""
    if phase.name != "history":
        return gossip.send(device, phase, t)
    dsts = tuple(e.dst for e in phase.outgoing.get(device.id, ()))
    if not dsts:
        return ()
    return (frame(device.id, dsts, {n: device.own[n] for n in HISTORY}, dict.fromkeys(HISTORY, "control")),)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, num_devices: int) -> DeviceState:
    """Average both factors, and add this round's W^T W to those of the rounds before once all relays are through."""
    if phase.name == "history":
        return _told(device, inbox, num_devices)
    before = device.own.get("mixing", np.zeros((num_devices, num_devices)))
    weights = with_edges(before, phase.edges)
    after = gossip.merge(device, inbox, phase, t)
    own = {name: a for name, a in after.own.items() if name != "mixing"}
    if phase.name == "relay":
        return replace(after, own={**own, "mixing": weights})
    np.fill_diagonal(weights, 1.0 - weights.sum(axis=1))
    met = own.get("met", np.zeros_like(weights)) + weights.T @ weights
    return replace(after, own={**own, "met": met})


def _told(device: DeviceState, inbox: Sequence[Envelope], num_devices: int) -> DeviceState:
    """The device with what it was told of the rounds so far."""
    for edge, payload, _ in inbox:
        if payload is not None:
            parts = decode(payload)
            shapes = {name: a.shape for name, a in parts.items()}
            if shapes != dict(zip(HISTORY, ((num_devices, num_devices), (), ()), strict=True)):
                raise ValueError(f"device {edge.src} sent {sorted(parts)} where {', '.join(HISTORY)} belong")
            device = replace(device, own={**device.own, **parts})
    return device


def with_edges(weights: Float[np.ndarray, "n n"], edges: Sequence[Edge]) -> Float[np.ndarray, "n n"]:
    """W off its diagonal with the edges of one more phase; what is relayed counts for whom it comes from. [n, n]"""
    made = weights.copy()
    for edge in edges:
        made[edge.dst, edge.carries[0] if edge.carries else edge.src] = edge.weight
    return made


def phase_length(met: Float[np.ndarray, "n n"], scale: float, longest: int) -> int:
    r"""Rounds a phase lasts, from the graphs there were.

    .. math::  T = c / \sqrt{1 - \rho}, \quad \rho^2 = \lVert \overline{W^\top W} - 1 1^\top / n \rVert_2

    rounded, at least 1. rho is the factor by which a disagreement shrinks in a round, in the mean over rounds, those in
    which nobody exchanged anything included; devices that never met anybody do not count.

    Args:
        met: sum of W^T W over the rounds so far. [n, n]
        scale: c.
        longest: T where the formula gives more, or rho is 1.

    >>> phase_length(np.full((4, 4), 0.25), 1.0, 10)  # all average with all: rho = 0
    1
    >>> phase_length(np.eye(4), 1.0, 10)
    10
    """
    there = np.flatnonzero(np.where(np.eye(len(met), dtype=bool), 0.0, met).sum(axis=1) > 0)
    if there.size == 0:
        return longest
    mean = met * len(met) / met.sum()
    rho = math.sqrt(slem(mean[np.ix_(there, there)]))
    if 1 - rho < (scale / longest) ** 2:
        return longest
    return max(1, round(scale / math.sqrt(1 - rho)))
