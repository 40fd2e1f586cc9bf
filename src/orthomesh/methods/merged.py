"""Merging adapters that were trained alone: they travel once, at the end, and every device merges what it has heard.

A baseline for whatever lets devices work together while they train: `cat` adds updates up, TIES elects signs, DARE
drops at random, KnOTS merges in a common basis.
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
from ..exchange.merging import dare, knots, ties
from ..experts.bank import get, places, put
from ..rng import stream
from ..topology.overlay import Topology
from ..types import Array, Arrays, Bank, DeviceState, Envelope, Expert, Facts, Method, Phase, Plan, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora, received
from .overlays import gather
from .setup import Setup

Rule = Literal["cat", "ties", "dare", "knots"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Merged:
    """Settings of merging after training."""

    kind: Literal["merged"] = "merged"
    rule: Rule = "ties"
    """How adapters become one: `cat`, their mean; `ties`; `dare`, the mean of what a random draw leaves; `knots`, TIES
    in a common basis."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of an update that `ties`, `dare` and `knots` keep."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the merged update, which is a mean of those merged."""
    topology: Topology = "radio"
    """Who hears whose adapter, as in `gossip_lora`: by default all who reach each other."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA that talks once and averages nothing."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours, learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            plan=partial(plan, c=c, setup=setup),
            merge=merge,
            bank=partial(bank, c=self, setup=setup),
        )


def plan(facts: Mapping[int, Facts], t: Round, c: GossipLora, setup: Setup) -> Plan:
    """Nothing before the last round; then everybody's adapter to all whom the topology gives it."""
    return gossip.plan(facts, t, c, setup) if t.is_last else Plan(phases=())


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """Keep what arrived beside the own adapter.

    Raises:
        ValueError: factors of another size, or not finite.
    """
    device, arrived = gather(device, inbox, phase)
    bank = device.bank
    for k, (_, parts) in received(arrived).items():
        if any(parts[name].shape != device.own[name].shape for name in "AB"):
            raise ValueError(f"device {k} sent factors of another size than {device.id} has")
        if not all(np.isfinite(parts[name]).all() for name in "AB"):
            raise ValueError(f"device {k} sent values that are not finite, its training has diverged")
        bank = put(bank, f"member/{k}", parts)
    return replace(device, bank=bank)


def bank(device: DeviceState, c: Merged, setup: Setup) -> Bank:
    """The own adapter, or all that the device has heard merged into a change of the adapted layers."""
    from ..models.base import load_base
    from ..models.whole import change_of

    members: dict[int, Arrays] = {k: get(device.bank, f"member/{k}") for k in places(device.bank, "member")}
    if not members:
        return gossip.bank(device)
    members[device.id] = device.own
    base, none = load_base(setup.model), np.zeros(0, dtype=np.float32)
    made = [base.scaling * c.scale * update for update in merged(members, c, base.layout, setup.seed)]
    return Bank(experts=(Expert(owner=device.id, A=none, B=none, weights=change_of(base, made)),))


def merged(members: Mapping[int, Arrays], c: Merged, layout: Layout, seed: int) -> list[Array]:
    """The mean update of every layer under the rule, without scaling.

    Args:
        members: A and B by device.
        c: rule and density.
        layout: of the adapters.
        seed: of the draws of `dare`.

    Returns:
        One matrix a layer. [d, k] each
    """
    ids = sorted(members)
    A = {k: matrices_a(members[k]["A"].astype(np.float32), layout) for k in ids}
    B = {k: matrices_b(members[k]["B"].astype(np.float32), layout) for k in ids}
    ones, equal = [1.0] * len(ids), [1.0 / len(ids)] * len(ids)
    made = []
    for n in range(len(layout.shapes)):
        a, b = [A[k][n] for k in ids], [B[k][n] for k in ids]
        if c.rule == "knots":
            basis, blocks = knots(b, a, ones, c.density)
            made.append(basis @ blocks)
            continue
        updates = [y @ x for y, x in zip(b, a, strict=True)]
        if c.rule == "ties":
            made.append(ties(updates, ones, c.density))
        elif c.rule == "dare":
            made.append(dare(updates, equal, c.density, [stream(seed, "dare", k, n) for k in ids]))
        else:
            made.append(np.mean(updates, axis=0))
    return made
