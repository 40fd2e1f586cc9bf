"""Every device for itself: the same low-rank adapter as gossip LoRA, never exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..types import DeviceState, Facts, Method, Plan, Round
from .gossip_lora import GossipLora
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Local:
    """Settings of local-only fine-tuning."""

    kind: Literal["local"] = "local"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA in which nobody talks."""
        return replace(GossipLora(learning_rate=self.learning_rate).build(setup), describe=silent, plan=nobody)


def silent(device: DeviceState, t: Round) -> Facts:
    """Nothing is told."""
    return Facts(id=device.id, public={}, columns={}, payload_bits=0)


def nobody(facts: Mapping[int, Facts], t: Round) -> Plan:
    """No transfer at all."""
    return Plan(phases=())
