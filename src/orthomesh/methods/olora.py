"""O-LoRA's penalty (arXiv 2310.14152) among devices, eq. (12): each keeps its A orthogonal to those it has heard.

The paper prints A_i A_i^T where it must be A_i A_j^T, summed over the others. Adapters are exchanged in full, since the
penalty needs every A, which the paper holds against it; nothing is averaged, and all answer together, added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..experts.bank import get, places
from ..rng import key, stream
from ..topology.overlay import Topology
from ..types import Bank, DeviceState, Envelope, Expert, Learnt, Method, Phase, Round
from . import merged
from .gossip_lora import GossipLora
from .setup import Setup, device_rows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OLora:
    """Settings of O-LoRA's penalty."""

    kind: Literal["olora"] = "olora"
    penalty: Annotated[float, Field(ge=0)] = 0.5
    """lambda, weight of ||A_i A_j^T||^2 for every other device; 0.5 in the authors' code."""
    topology: Topology = "radio"
    """Who hears whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that keeps apart what it hears."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours)
        return replace(c.build(setup), fit=partial(fit, c=self, setup=setup), merge=merge, bank=bank)


def fit(device: DeviceState, t: Round, c: OLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train both factors under the penalty; the optimiser starts afresh every round."""
    from ..models import finetune
    from ..models.base import load_base
    from ..models.penalty import Penalty

    base, own = load_base(setup.model), device.own
    if "B" not in own:
        zeros = np.zeros(base.layout.num_expansion, dtype=np.float32)
        own = {**own, "A": projection(key(setup.seed, "device", device.id), base.layout), "B": zeros}
    train = setup.train if c.learning_rate is None else replace(setup.train, learning_rate=c.learning_rate)
    penalty = Penalty(between=c.penalty, others=own.get("others"))
    start = finetune.Factors(A=own["A"], B=own["B"], train_projection=True, penalty=penalty)
    order = stream(t.seed, "batches", t.index, device.id)
    done, total = t.index * train.steps, t.total * train.steps
    ended, learnt = finetune.fit(base, device_rows(setup, device.id), start, train, order, done=done, total=total)
    return replace(device, own={**own, "A": ended.A, "B": ended.B}), learnt


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """Keep every adapter that has arrived, and their A where training sees them.

    Raises:
        ValueError: factors of another size, or not finite.
    """
    after = merged.merge(device, inbox, phase, t)
    known = places(after.bank, "member")
    if not known:
        return after
    others = np.stack([get(after.bank, f"member/{k}")["A"].astype(np.float32) for k in sorted(known)])
    return replace(after, own={**after.own, "others": others})


def bank(device: DeviceState) -> Bank:
    """The own adapter and all that were heard, added up."""
    if "B" not in device.own:
        return Bank(experts=())
    known = {k: get(device.bank, f"member/{k}") for k in places(device.bank, "member")}
    pairs = {k: (parts["A"].astype(np.float32), parts["B"].astype(np.float32)) for k, parts in known.items()}
    pairs[device.id] = device.own["A"], device.own["B"]
    experts = tuple(Expert(owner=k, A=pairs[k][0], B=pairs[k][1]) for k in sorted(pairs))
    return Bank(experts=experts, choice="topk" if len(experts) > 1 else "only", top_k=0)
