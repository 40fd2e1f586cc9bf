"""LoRA-FAIR (arXiv 2411.14961): factors averaged by a server, which mends B towards the mean update.

The gap is measured by a cosine and lowered by gradient descent, as the authors have it, or by a squared error under a
ridge, which has one minimum in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import matrices_a, matrices_b
from ..config import STRICT
from ..exchange.product import aligned, mended
from ..types import Arrays, DeviceState, Envelope, Facts, Message, Method, Phase, Plan, Round
from .gossip_lora import GossipLora
from .server import collect, describe, halves, means, send, serve, star, told
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fair:
    """Settings of LoRA-FAIR."""

    kind: Literal["fair"] = "fair"
    similarity: Literal["cosine", "ridge"] = "cosine"
    """What brings B nearer: the cosine with the mean update (the authors), or a squared error, in closed form."""
    ridge: Annotated[float, Field(gt=0)] = 0.01
    """Weight lambda of staying near the mean of B: of the distance with a cosine, of its square with a ridge."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA's training with a server's average."""
        return replace(
            GossipLora(learning_rate=self.learning_rate).build(setup),
            describe=announce,
            plan=plan,
            send=hand_in,
            merge=partial(merge, c=self, setup=setup),
        )


def announce(device: DeviceState, t: Round) -> Facts:
    """How much an adapter takes at most."""
    return describe(device, "AB")


def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
    """Up to the server and down again."""
    return star(facts)


def hand_in(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """The own factors, or the server's."""
    return send(device, phase, halves(device.own, "AB"))


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: Fair, setup: Setup) -> DeviceState:
    """The server averages and mends; then all go on from what it says."""
    if phase.name == "up":
        mine = halves(device.own, "AB")
        got: dict[int, Arrays] = {**collect(device, inbox, mine)}
        if not inbox:
            return device
        return serve(device, halves(mean_mended({**got, device.id: mine}, c, setup), "AB"))
    device, news = told(device, inbox)
    return replace(device, own={**device.own, **{name: a.astype(np.float32) for name, a in news.items()}})


def mean_mended(parts: Mapping[int, Arrays], c: Fair, setup: Setup) -> Arrays:
    """The mean A, and the mean B mended layer by layer."""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    mean, ids = means(parts, "AB"), sorted(parts)
    A = [matrices_a(parts[k]["A"].astype(np.float32), layout) for k in ids]
    B = [matrices_b(parts[k]["B"].astype(np.float32), layout) for k in ids]
    nearer = aligned if c.similarity == "cosine" else mended
    weights = [1 / len(ids)] * len(ids)
    made = [nearer([b[n] for b in B], [a[n] for a in A], weights, c.ridge) for n in range(len(layout.shapes))]
    return {"A": mean["A"], "B": np.concatenate([b.ravel() for b in made])}
