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
from ..types import Method
from .gossip_lora import GossipLora, describe, merge, send
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedSa:
    """Settings of FedSA-LoRA."""

    kind: Literal["fedsa"] = "fedsa"
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours a device averages with in a round, drawn at random; 0: all that it reaches."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that tells its A only."""
        gossip = GossipLora(num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            gossip.build(setup),
            describe=partial(describe, factors="A"),
            send=partial(send, factors="A"),
            merge=partial(merge, factors="A"),
        )
