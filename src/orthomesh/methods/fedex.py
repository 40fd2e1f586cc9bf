"""FedEx-LoRA (arXiv 2410.09432): factors averaged apart, and what that misses of the mean update put into the base.

The residual is a d x k matrix of rank at most (N - 1) r. It is never formed on its way: everybody hears all adapters,
as many bytes as mean and residual in factors would take, and finds both from them; a device keeps N r columns and rows
a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..types import Array, DeviceState, Envelope, Method, Phase, Round
from .folds import blocks_of, heard, passed_on, with_blocks
from .gossip_lora import GossipLora
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedEx:
    """Settings of FedEx-LoRA."""

    kind: Literal["fedex"] = "fedex"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA through a server, with the residual folded in."""
        return replace(passed_on(GossipLora(learning_rate=self.learning_rate), setup), merge=merge)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """Take the mean factors and fold the residual in, once all relays are through."""
    device, pairs = heard(device, inbox, phase)
    if not pairs:
        return device
    mean, rest = split(pairs)
    own = {**device.own, "A": mean[0].astype(np.float32), "B": mean[1].astype(np.float32)}
    return replace(device, own=with_blocks(own, [*blocks_of(own), *rest]))


def split(pairs: Sequence[tuple[Array, Array]]) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
    r"""The mean factors, and blocks of what their product misses.

    .. math::  \sum_i p_i B_i A_i - \bar B \bar A = \sum_i p_i (B_i - \bar B)(A_i - \bar A), \quad p_i = 1/N

    Args:
        pairs: A_i and B_i. N of them

    Returns:
        The means of A and B, and N blocks whose products add up to the residual.

    >>> mean, rest = split([(np.array([1.0]), np.array([1.0])), (np.array([3.0]), np.array([3.0]))])
    >>> mean, float(sum(a @ b for a, b in rest))  # (1 + 9) / 2 - 2 * 2
    ((array([2.]), array([2.])), 1.0)
    """
    A, B = (np.mean([pair[n].astype(np.float64) for pair in pairs], axis=0) for n in (0, 1))
    return (A, B), [(a - A, (b - B) / len(pairs)) for a, b in pairs]
