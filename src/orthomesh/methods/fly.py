"""FlyLoRA (arXiv 2510.08396) among neighbours: a frozen sparse A, and of all ranks only the strongest act on a token.

A quarter of the entries of every row of A are not zero. The strongest ranks are those of largest |a_i x| + d_i, as the
text has it, or of largest a_i x + d_i, as the code that was run has it; d_i, which evens out how often ranks are used,
is a device's own and stays there. A is common, so that the mean of B is the mean of the updates as far as the same
ranks act; what is averaged is B.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..rng import stream
from ..topology.overlay import Topology
from ..types import Bank, DeviceState, Expert, Learnt, Method, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup, device_rows

SCOPES: dict[Literal["magnitude", "value"], Literal["joint", "signed"]] = {"magnitude": "joint", "value": "signed"}
"""What a mixture calls either ranking."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fly:
    """Settings of FlyLoRA."""

    kind: Literal["fly"] = "fly"
    active: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the ranks that act on a token, in training and in answering; 8 of 32 in the paper."""
    ranking: Literal["magnitude", "value"] = "magnitude"
    """Whether the strongest are those of largest magnitude (the authors' text) or of largest value (their code)."""
    balance: Annotated[float, Field(ge=0)] = 1e-3
    """Step u of the biases that even out how often ranks are used; 0: no biases."""
    topology: Topology = "radio"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's. Sparse rows are shorter than orthonormal ones and want more."""

    def build(self, setup: Setup) -> Method:
        """Gossip of B alone."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=self, setup=setup),
            describe=partial(gossip.describe, names="B"),
            send=partial(gossip.send, names="B"),
            merge=partial(gossip.merge, names="B"),
            bank=partial(bank, c=self, setup=setup),
        )


def num_active(share: float, rank: int) -> int:
    """Ranks that act on a token, at least one.

    >>> num_active(0.25, 32), num_active(0.25, 1)
    (8, 1)
    """
    return max(1, round(share * rank))


def fit(device: DeviceState, t: Round, c: Fly, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the columns of B whose ranks act and move the biases; the optimiser starts afresh every round."""
    from ..models import finetune
    from ..models.balance import Balance
    from ..models.base import load_base

    base, own = load_base(setup.model), device.own
    B = own.get("B", np.zeros(base.layout.num_expansion, dtype=np.float32))
    train = setup.train if c.learning_rate is None else replace(setup.train, learning_rate=c.learning_rate)
    A, top_k = projection(int(own["seed"]), base.layout, "sparse"), num_active(c.active, base.layout.rank)
    bias = own.get("bias", np.zeros(len(base.layout.shapes) * base.layout.rank, dtype=np.float32))
    balance = Balance(bias, c.balance) if c.balance else None
    start = finetune.Factors(A=A, B=B, top_k=top_k, scope=SCOPES[c.ranking], balance=balance)
    order = stream(t.seed, "batches", t.index, device.id)
    done, total = t.index * train.steps, t.total * train.steps
    ended, learnt = finetune.fit(base, device_rows(setup, device.id), start, train, order, done=done, total=total)
    moved = {} if ended.balance is None else {"bias": ended.balance.bias}
    return replace(device, own={**own, "B": ended.B, **moved}), learnt


def bank(device: DeviceState, c: Fly, setup: Setup) -> Bank:
    """The one adapter the device has, of which the strongest ranks answer."""
    from ..models.base import load_base

    if "B" not in device.own:
        return Bank(experts=())
    layout, seed = load_base(setup.model).layout, int(device.own["seed"])
    A = projection(seed, layout, "sparse")
    bias = device.own.get("bias")
    expert = Expert(owner=device.id, A=A, B=device.own["B"], seed=seed, kind="sparse", bias=bias)
    return Bank(experts=(expert,), choice="topk", top_k=num_active(c.active, layout.rank), scope=SCOPES[c.ranking])
