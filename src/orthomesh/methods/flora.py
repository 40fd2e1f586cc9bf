"""FLoRA (arXiv 2409.05976): adapters stacked, not averaged; their sum goes into the base and all start anew.

The sum of updates is exact, and what everybody must hear grows with the number of devices. The server passes adapters
on one by one, and whoever misses one lacks it in its base from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..rng import key
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Method, Phase, Plan, Round
from .folds import bank, blocks_of, fit, with_blocks
from .gossip_lora import GossipLora, received
from .overlays import gather
from .server import describe, halves, through
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
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup),
            describe=announce,
            plan=partial(plan, setup=setup),
            merge=partial(merge, setup=setup),
            bank=partial(bank, setup=setup),
        )


def announce(device: DeviceState, t: Round) -> Facts:
    """How much an adapter takes at most."""
    return describe(device, "AB")


def plan(facts: Mapping[int, Facts], t: Round, setup: Setup) -> Plan:
    """Everybody's adapter to everybody, over the server."""
    return through(facts, setup.radio)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, setup: Setup) -> DeviceState:
    """Fold the sum in and start anew from B = 0 and a projection of its own, once all relays are through."""
    device, pairs = heard(device, inbox, phase)
    if not pairs:
        return device
    own = {name: a for name, a in device.own.items() if name not in "AB"}
    seed = np.array(key(setup.seed, "restart", t.index, device.id), dtype=np.uint64)
    return replace(device, own=with_blocks({**own, "seed": seed}, [*blocks_of(own), *stacked(pairs)]))


def heard(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase
) -> tuple[DeviceState, list[tuple[Array, Array]]]:
    """A and B of all who arrived, its own among them, in 16 bit and in order of id; none while relays are at work.

    Raises:
        ValueError: factors of another size, or not finite.
    """
    device, arrived = gather(device, inbox, phase)
    got: dict[int, Arrays] = {k: parts for k, (_, parts) in received(arrived).items()}
    for k, parts in got.items():
        if any(parts[name].shape != device.own[name].shape for name in "AB"):
            raise ValueError(f"device {k} sent factors of another size than {device.id} has")
        if not all(np.isfinite(parts[name]).all() for name in "AB"):
            raise ValueError(f"device {k} sent values that are not finite, its training has diverged")
    if got:
        got[device.id] = halves(device.own, "AB")
    return device, [(got[k]["A"].astype(np.float32), got[k]["B"].astype(np.float32)) for k in sorted(got)]


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
