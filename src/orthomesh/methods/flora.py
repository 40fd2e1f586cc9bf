"""FLoRA (arXiv 2409.05976): adapters stacked, not averaged; their sum goes into the base and all start anew.

The sum of updates is exact, and what everybody must hear grows with the number of devices. The server passes adapters
on one by one, and whoever misses one lacks it in its base from then on. Whoever has told its adapter but hears nobody
folds in its own alone, since the others have folded it in and would do so a second time if it went on; whoever has no
link has told nobody, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..rng import key
from ..types import Array, DeviceState, Envelope, Method, Phase, Round
from .folds import blocks_of, heard, passed_on, with_blocks
from .gossip_lora import GossipLora
from .server import halves
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flora:
    """Settings of FLoRA."""

    kind: Literal["flora"] = "flora"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA through a server, whose sums are folded in."""
        c = GossipLora(learning_rate=self.learning_rate)
        return replace(passed_on(c, setup), merge=partial(merge, setup=setup))


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, setup: Setup) -> DeviceState:
    """Fold the sum in and start anew from B = 0 and a projection of its own, once all relays are through.

    bank: told, until then, on a device that has sent its own adapter. The sum is of that alone if nobody was heard.
    """
    if any(not e.carries for e in phase.outgoing.get(device.id, ())):
        device = replace(device, bank={**device.bank, "told": np.array(1, dtype=np.uint8)})
    device, pairs = heard(device, inbox, phase)
    if phase.name == "relay":
        return device
    bank = dict(device.bank)
    if bank.pop("told", None) is not None and not pairs:
        mine = halves(device.own, "AB")
        pairs = [(mine["A"].astype(np.float32), mine["B"].astype(np.float32))]
    device = replace(device, bank=bank)
    if not pairs:
        return device
    own = {name: a for name, a in device.own.items() if name not in "AB"}
    seed = np.array(key(setup.seed, "restart", t.index, device.id), dtype=np.uint64)
    return replace(device, own=with_blocks({**own, "seed": seed}, [*blocks_of(own), *stacked(pairs)]))


def stacked(pairs: Sequence[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    r"""Blocks whose products add up to the mean update, exactly.

    .. math::  \Delta W = \sum_i p_i B_i A_i = [p_1 B_1, \dots, p_N B_N] [A_1; \dots; A_N], \quad p_i = 1/N

    Args:
        pairs: A_i and B_i; ranks may differ. N of them

    Returns:
        A_i and p_i B_i.

    >>> stacked([(np.ones(1), np.ones(2)), (np.ones(1), 3 * np.ones(2))])[1][1].tolist()
    [1.5, 1.5]
    """
    return [(a, b / len(pairs)) for a, b in pairs]
