"""FedSA-LoRA (arXiv 2410.01463): both factors are trained, A alone is averaged, every device keeps its own B.

A is taken to hold what tasks have in common, B what is a device's own; the exchange costs half of gossip LoRA's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..topology.overlay import Topology
from ..types import Method
from .gossip_lora import GossipLora, describe, merge, send
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedSa:
    """Settings of FedSA-LoRA."""

    kind: Literal["fedsa"] = "fedsa"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that tells its A only."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            describe=partial(describe, names="A"),
            send=partial(send, names="A"),
            merge=partial(merge, names="A"),
        )
