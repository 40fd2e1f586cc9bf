"""RoLoRA (arXiv 2502.01755): the factors take turns, one is trained and averaged while the other rests.

The first round trains B, since B = 0 leaves A without a gradient. With a server the resting factor is the same
everywhere and the average exact; among neighbours it is only nearly so, and it is not averaged while it rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..topology.overlay import Topology
from ..types import DeviceState, Envelope, Facts, Learnt, Message, Method, Phase, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rolora:
    """Settings of RoLoRA."""

    kind: Literal["rolora"] = "rolora"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA of one factor a round."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(c.build(setup), fit=partial(fit, c=c, setup=setup), describe=describe, send=send, merge=merge)


def turn(t: Round) -> Literal["A", "B"]:
    """The factor whose turn it is.

    >>> [turn(Round(seed=0, index=n, total=3)) for n in range(3)]
    ['B', 'A', 'B']
    """
    return "A" if t.index % 2 else "B"


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the factor whose turn it is."""
    return gossip.fit(device, t, c, setup, turn(t))


def describe(device: DeviceState, t: Round) -> Facts:
    """How much that factor takes."""
    return gossip.describe(device, t, turn(t))


def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """Send that factor."""
    return gossip.send(device, phase, t, turn(t))


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """Average that factor."""
    return gossip.merge(device, inbox, phase, t, turn(t))
