"""ADF-LoRA (arXiv 2511.18291): the factors take turns in training, T rounds each, and both are averaged every round.

Mixing the factor that rests as well keeps it equal among neighbours, which RoLoRA needs a server for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..topology.overlay import Topology
from ..types import DeviceState, Learnt, Method, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup

PHASES = 30
"""Phases of a run where nobody says: the authors' best, 5 rounds of 150."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adf:
    """Settings of ADF-LoRA."""

    kind: Literal["adf"] = "adf"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    phase_length: Annotated[int, Field(ge=1)] | None = None
    """Rounds T until the other factor is trained; none: a thirtieth of the run, at least one."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that trains one factor at a time."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(c.build(setup), fit=partial(fit, phase_length=self.phase_length, c=c, setup=setup))


def trained(t: Round, phase_length: int | None) -> Literal["A", "B"]:
    r"""The factor of the phase a round lies in, B first: number floor(t / T) mod 2.

    >>> "".join(trained(Round(seed=0, index=n, total=6), 2) for n in range(6))
    'BBAABB'
    """
    rounds = phase_length or max(1, round(t.total / PHASES))
    return "A" if t.index // rounds % 2 else "B"


def fit(
    device: DeviceState, t: Round, phase_length: int | None, c: GossipLora, setup: Setup
) -> tuple[DeviceState, Learnt]:
    """Train the factor of this phase."""
    return gossip.fit(device, t, c, setup, trained(t, phase_length))
