"""Hard-routing mixture of experts, the paper's upper bound: a perfect router knows the task and asks its own expert.

No method for devices, but an oracle: every device fine-tunes for itself, nothing travels, and the run examines it by
putting each task to the devices that own it. The paper's rows are single-task full-parameter fine-tuning, to the digit;
with `sparse` experts the oracle has adapters of our size, with `lora` or `lori` ones those of the paper's baselines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..types import Method
from .full import Full
from .local import Local, nobody, silent
from .lori import Lori
from .setup import Setup
from .sparse_orthogonal import SparseOrthogonal, unjoined


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HardMoe:
    """Settings of the hard-routing mixture of experts."""

    kind: Literal["hard_moe"] = "hard_moe"
    experts: Literal["full", "sparse", "lora", "lori"] = "full"
    """Every weight of the base trained, as in the paper; a frozen projection and a sparse expansion, as ours; both
    low-rank factors; or LoRI's dense run, mask and sparse run."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Of `sparse` experts, the share of B under a magnitude mask."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's, of `full` experts a sixth of it."""

    def build(self, setup: Setup) -> Method:
        """Devices that learn alone; who is asked is up to the examination."""
        if self.experts == "full":
            return replace(Full(learning_rate=self.learning_rate).build(setup), describe=silent, plan=nobody)
        if self.experts == "lora":
            return Local(learning_rate=self.learning_rate).build(setup)
        if self.experts == "lori":
            return replace(Lori(learning_rate=self.learning_rate).build(setup), describe=silent, plan=nobody)
        c = SparseOrthogonal(density=self.density, masks="independent", learning_rate=self.learning_rate)
        own = partial(unjoined, c=c, setup=setup)
        return replace(c.build(setup), describe=silent, plan=nobody, bank=own)
