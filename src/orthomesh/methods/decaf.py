"""DeCAF (arXiv 2505.21382): neighbours average updates B A, not factors; the mean is cut back to rank r.

Averaging B and A apart gives products B_i A_j that nobody trained; the mean of the products has none, but a rank of up
to n r, of which a truncated singular value decomposition keeps the best r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import Layout, matrices_a, matrices_b
from ..config import STRICT
from ..exchange.aggregation import mix
from ..exchange.product import nearest_factors
from ..topology.overlay import Topology
from ..types import Array, Arrays, DeviceState, Envelope, Method, Phase, Round
from .gossip_lora import GossipLora, received
from .overlays import gather
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Decaf:
    """Settings of DeCAF."""

    kind: Literal["decaf"] = "decaf"
    topology: Topology = "random"
    """Who averages with whom, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA with another average."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(c.build(setup), merge=partial(merge, setup=setup))


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, setup: Setup) -> DeviceState:
    """The nearest adapter of rank r to the mean of the neighbourhood's updates, once all relays are through."""
    from ..models.base import load_base

    device, arrived = gather(device, inbox, phase)
    got = received(arrived, "AB")
    if not got:
        return device
    for name in ("A", "B"):  # refuses what does not fit
        mix(device.own[name], {k: (weight, parts[name]) for k, (weight, parts) in got.items()})
    return replace(device, own={**device.own, **mean_update(device.own, got, load_base(setup.model).layout)})


def mean_update(own: Arrays, got: Mapping[int, tuple[float, Arrays]], layout: Layout) -> dict[str, Array]:
    r"""Factors of the device after mixing: per layer the truncated singular value decomposition of

    .. math::  P_i = \sum_j w_{ij} B_j A_j, \quad w_{ii} = 1 - \sum_{j \ne i} w_{ij}

    Args:
        own: the device's A and B.
        got: weight and factors of every neighbour that arrived.
        layout: of the adapter.

    Returns:
        A [sum r k] and B [sum d r], float32.
    """
    others = [got[k] for k in sorted(got)]
    weights = [max(0.0, 1.0 - sum(weight for weight, _ in others)), *(weight for weight, _ in others)]
    a = [matrices_a(parts["A"], layout) for parts in (own, *(parts for _, parts in others))]
    b = [matrices_b(parts["B"], layout) for parts in (own, *(parts for _, parts in others))]
    pairs = [
        nearest_factors(weights, [x[n] for x in b], [x[n] for x in a], layout.rank) for n in range(len(layout.shapes))
    ]
    return {
        "A": np.concatenate([projection.ravel() for _, projection in pairs]),
        "B": np.concatenate([expansion.ravel() for expansion, _ in pairs]),
    }
