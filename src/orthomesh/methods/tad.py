"""TAD-LoRA (arXiv 2602.00451): ADF-LoRA whose phases last as long as the graph needs to mix.

The theory behind it sets T of the order of 1 / sqrt(1 - rho), rho the share of a disagreement that survives a round.
Every device sees the mixing weights of all in the plan, so it measures rho on the graphs there were and all agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..topology.mixing import slem
from ..topology.overlay import Topology
from ..types import DeviceState, Edge, Envelope, Learnt, Method, Phase, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup


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
            merge=partial(merge, num_devices=setup.num_devices),
        )


def fit(device: DeviceState, t: Round, c: Tad, gossip_c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the factor of this phase, B in the first; a new phase begins once the last was long enough."""
    own = device.own
    turn, began = int(own.get("turn", 0)), int(own.get("began", t.index))
    length = phase_length(own["met"], c.phase_scale, c.longest) if "met" in own else c.longest
    if t.index - began >= length:
        turn, began = 1 - turn, t.index
    own = {**own, "turn": np.array(turn, dtype=np.uint8), "began": np.array(began, dtype=np.uint32)}
    return gossip.fit(replace(device, own=own), t, gossip_c, setup, "A" if turn else "B")


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, num_devices: int) -> DeviceState:
    """Average both factors, and add this round's W^T W to those of the rounds before once all relays are through."""
    before = device.own.get("mixing", np.zeros((num_devices, num_devices)))
    weights = with_edges(before, phase.edges)
    after = gossip.merge(device, inbox, phase, t)
    own = {name: a for name, a in after.own.items() if name != "mixing"}
    if phase.name == "relay":
        return replace(after, own={**own, "mixing": weights})
    np.fill_diagonal(weights, 1.0 - weights.sum(axis=1))
    met = own.get("met", np.zeros_like(weights)) + weights.T @ weights
    return replace(after, own={**own, "met": met})


def with_edges(weights: Float[np.ndarray, "n n"], edges: Sequence[Edge]) -> Float[np.ndarray, "n n"]:
    """W off its diagonal with the edges of one more phase; what is relayed counts for whom it comes from. [n, n]"""
    made = weights.copy()
    for edge in edges:
        made[edge.dst, edge.carries[0] if edge.carries else edge.src] = edge.weight
    return made


def phase_length(met: Float[np.ndarray, "n n"], scale: float, longest: int) -> int:
    r"""Rounds a phase lasts, from the graphs there were.

    .. math::  T = c / \sqrt{1 - \rho}, \quad \rho^2 = \lVert \overline{W^\top W} - 1 1^\top / n \rVert_2

    rounded, at least 1. rho is the factor by which a disagreement shrinks in a round, in the mean over rounds; devices
    that never met anybody do not count.

    Args:
        met: sum of W^T W over the rounds so far. [n, n]
        scale: c.
        longest: T where the formula gives more, or rho is 1.

    >>> phase_length(np.full((4, 4), 0.25), 1.0, 10)  # all average with all: rho = 0
    1
    >>> phase_length(np.eye(4), 1.0, 10)
    10
    """
    mean = met * len(met) / met.sum()
    there = np.flatnonzero(np.diag(mean) < 1)
    if there.size == 0:
        return longest
    rho = math.sqrt(slem(mean[np.ix_(there, there)]))
    if 1 - rho < (scale / longest) ** 2:
        return longest
    return max(1, round(scale / math.sqrt(1 - rho)))
