"""ConLoRA (public code only): A is frozen and common, B alone is trained and averaged by gossip, Metropolis weights.

The public code takes the first device's A for all; here all draw it from one seed, which costs nothing and is the same.
What is left of FFA-LoRA when nobody reaches everybody, and of gossip LoRA without the cross terms of two averages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..topology.overlay import Topology
from ..types import Method
from .ffa import Ffa
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConLora:
    """Settings of ConLoRA."""

    kind: Literal["conlora"] = "conlora"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """FFA-LoRA among neighbours."""
        return Ffa(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate).build(
            setup
        )
