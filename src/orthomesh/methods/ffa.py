"""FFA-LoRA (arXiv 2403.12313): A is frozen and common to all, B alone is trained and averaged over everybody in reach.

Since all share A, the average of B is the average of the updates, sum_i p_i B_i A: nothing is lost to cross terms, and
half of the bytes of gossip LoRA travel. With masks it is `sparse_orthogonal` under `seeds: common, aggregation: mean`.
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
from .gossip_lora import GossipLora, describe, fit, merge, send
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ffa:
    """Settings of FFA-LoRA."""

    kind: Literal["ffa"] = "ffa"
    topology: Topology = "radio"
    """Who averages with whom, as in `gossip_lora`; `radio`, all who reach each other, is as near to a server as it
    gets."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA of B alone."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup, factors="B"),
            describe=partial(describe, names="B"),
            send=partial(send, names="B"),
            merge=partial(merge, names="B"),
        )
