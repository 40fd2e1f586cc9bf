"""FedALT (arXiv 2503.11880): a device's own adapter is never overwritten; the mean of the others rests beside it.

Closest exact version, labelled: the authors train a mixer that weighs own and others token by token, here their part
has a constant weight. The mean of the others is one of factors, A and B apart, as in the original.
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
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Message, Method, Phase, Plan, Round
from .fair import announce
from .folds import bank, fit, with_blocks
from .gossip_lora import GossipLora
from .server import collect, halves, means, send, serve, star, told
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedAlt:
    """Settings of FedALT with a constant mixer."""

    kind: Literal["fedalt"] = "fedalt"
    others: Annotated[float, Field(gt=0)] = 0.5
    """Weight of the mean of the others; the own adapter has weight one."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA's training on top of what the others have."""
        c = GossipLora(learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup),
            describe=announce,
            plan=plan,
            send=hand_in,
            merge=partial(merge, others=self.others),
            bank=partial(bank, setup=setup),
        )


def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
    """Up to the server and down again."""
    return star(facts)


def hand_in(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """The own factors; from the server the mean of those that arrived, and whose they were."""
    return send(device, phase, halves(device.own, "AB"), {"members": "control"})


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, others: float) -> DeviceState:
    """The server averages; then each takes itself out of the mean and keeps the rest beside its own."""
    mine = halves(device.own, "AB")
    if phase.name == "up":
        got: dict[int, Arrays] = {**collect(device, inbox, mine)}
        if not inbox:
            return device
        got[device.id] = mine
        members = np.array(sorted(got), dtype=np.uint32)
        return serve(device, {**halves(means(got, "AB"), "AB"), "members": members})
    device, news = told(device, inbox)
    if not news:
        return device
    rest = without(news, device.id, mine)
    return device if rest is None else replace(device, own=with_blocks(device.own, [(rest[0], others * rest[1])]))


def without(news: Arrays, device: int, mine: Arrays) -> tuple[Array, Array] | None:
    r"""Mean factors of the others from the mean of all, A and B; none where there is no other.

    .. math::  X^R_i = (N \bar X - X_i) / (N - 1)

    >>> all_ = {"A": np.array([2.0]), "B": np.array([4.0]), "members": np.array([0, 1])}
    >>> without(all_, 1, {"A": np.array([3.0]), "B": np.array([5.0])})
    (array([1.], dtype=float32), array([3.], dtype=float32))
    """
    count = news["members"].size
    if device not in news["members"]:
        return news["A"].astype(np.float32), news["B"].astype(np.float32)
    if count < 2:
        return None
    A, B = ((count * news[n].astype(np.float32) - mine[n].astype(np.float32)) / (count - 1) for n in "AB")
    return np.asarray(A, dtype=np.float32), np.asarray(B, dtype=np.float32)
