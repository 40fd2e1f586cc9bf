"""Fed-SB (arXiv 2502.15436): a small matrix R between two frozen factors is all that is trained and averaged.

W0 + s B R A with A and B common to all, so that the mean of R is the mean of the updates, exactly, for r^2 numbers a
layer. The authors take A and B from a decomposition of the first gradients of the whole model (LoRA-SB); here they are
drawn from a seed, orthonormal rows and orthonormal columns, and nothing of them travels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import Layout, Shape, matrices_a
from ..adapters.projection import projection
from ..config import STRICT
from ..models.settings import TrainSettings
from ..rng import key, stream
from ..topology.overlay import Topology
from ..types import Array, Bank, DeviceState, Expert, Learnt, Method, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .setup import Setup, device_rows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedSb:
    """Settings of Fed-SB."""

    kind: Literal["fedsb"] = "fedsb"
    topology: Topology = "radio"
    """Who averages with whom, as in `gossip_lora`; `radio`, all who reach each other, is as near to a server as it
    gets."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip of R alone."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours)
        train = replace(setup.train, learning_rate=self.learning_rate or setup.train.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, train=train, setup=setup),
            describe=partial(gossip.describe, names="R"),
            send=partial(gossip.send, names="R"),
            merge=partial(gossip.merge, names="R"),
            bank=partial(bank, setup=setup),
        )


def frame(seed: int, layout: Layout) -> tuple[Array, Array]:
    """A with orthonormal rows and B with orthonormal columns, flat. [sum r k], [sum d r]"""
    turned = Layout(tuple(Shape(s.name, s.in_features, s.out_features) for s in layout.shapes), layout.rank)
    wide = matrices_a(projection(key(seed, "other-side"), turned), turned)
    return projection(seed, layout), np.concatenate([b.T.ravel() for b in wide])


def fit(device: DeviceState, t: Round, train: TrainSettings, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train R, at first zero, on the device's own data; the optimiser starts afresh every round."""
    from ..models.base import load_base
    from ..models.inner import fit_inner

    base, own = load_base(setup.model), device.own
    core = own.get("R", np.zeros(len(base.slots) * base.layout.rank**2, dtype=np.float32))
    order = stream(t.seed, "batches", t.index, device.id)
    span = range(t.index * train.steps, t.total * train.steps)
    sides = frame(int(own["seed"]), base.layout)
    core, learnt = fit_inner(base, device_rows(setup, device.id), sides, core, train, order, span)
    return replace(device, own={**own, "R": core}), learnt


def bank(device: DeviceState, setup: Setup) -> Bank:
    """The one adapter the device has, R A and B."""
    from ..models.base import load_base

    if "R" not in device.own:
        return Bank(experts=())
    layout = load_base(setup.model).layout
    A, B = frame(int(device.own["seed"]), layout)
    cores = device.own["R"].reshape(-1, layout.rank, layout.rank)
    inner = [core @ a for core, a in zip(cores, matrices_a(A, layout), strict=True)]
    return Bank(experts=(Expert(owner=device.id, A=np.concatenate([a.ravel() for a in inner]), B=B),))
