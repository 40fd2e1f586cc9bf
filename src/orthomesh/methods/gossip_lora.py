"""Gossip LoRA (Dec-LoRA, arXiv 2501.15361): both factors trained and averaged among neighbours, eqs. (5)-(10).

Its relatives train or average one factor only: `fit` takes `factors`, the others `names` of what is sent and averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.aggregation import mix
from ..exchange.payload import Frame, Section, decode, encode
from ..rng import key, stream
from ..topology.overlay import Scene, Topology, overlay
from ..types import (
    Arrays,
    Bank,
    DeviceState,
    Envelope,
    Expert,
    Facts,
    Learnt,
    Message,
    Method,
    Phase,
    Plan,
    Round,
)
from ..wireless.link import max_power_w
from ..wireless.power import broadcast_power_w
from .overlays import gather, in_turns, overlay_phases, passed_on
from .setup import Setup, device_rows

Factors = Literal["A", "B", "AB"]
"""One factor of an adapter, or both."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GossipLora:
    """Settings of gossip LoRA."""

    kind: Literal["gossip_lora"] = "gossip_lora"
    topology: Topology = "random"
    """Who averages with whom: every round anew random neighbours or a random matching among the links that can carry
    the payload, all such links (`radio`), or an overlay, whose edges take the radio path of fewest hops they need."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours a device averages with in a round under `random` (0: all it can reach) and `regular`; peers k of
    `base`, devices it sends to under `el_local` and `el_oracle`, other members of a clique of `d_cliques`."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """The method's functions for one run.

        Raises:
            ValueError: a topology that this number of devices or neighbours does not have.
        """
        _weights(Round(setup.seed, 0, 1), frozenset(), self, setup)
        return Method(
            init=partial(init, setup=setup),
            fit=partial(fit, c=self, setup=setup),
            describe=describe,
            plan=partial(plan, c=self, setup=setup),
            send=send,
            merge=merge,
            bank=bank,
        )


def init(device: int, setup: Setup) -> DeviceState:
    """Nothing yet but the seed of the common starting projection."""
    return DeviceState(id=device, own={"seed": np.array(key(setup.seed, "common-start"), dtype=np.uint64)})


def fit(
    device: DeviceState, t: Round, c: GossipLora, setup: Setup, factors: Factors = "AB"
) -> tuple[DeviceState, Learnt]:
    """Train what `factors` names on the device's own data, eqs. (5)-(6); the optimiser starts afresh every round."""
    from ..models import finetune  # late: the command line reads this file for its settings
    from ..models.base import load_base

    base = load_base(setup.model)
    own = device.own
    if "B" not in own:
        common = projection(int(own["seed"]), base.layout)
        own = {**own, "A": common, "B": np.zeros(base.layout.num_expansion, dtype=np.float32)}
    train = setup.train if c.learning_rate is None else replace(setup.train, learning_rate=c.learning_rate)
    order = stream(t.seed, "batches", t.index, device.id)
    still = np.zeros(own["B"].size, dtype=bool) if factors == "A" else None  # a mask that lets nothing of B move
    start = finetune.Factors(A=own["A"], B=own["B"], active=still, train_projection=factors != "B")
    done, total = t.index * train.steps, t.total * train.steps
    ended, learnt = finetune.fit(base, device_rows(setup, device.id), start, train, order, done=done, total=total)
    return replace(device, own={**own, "A": ended.A, "B": ended.B}), learnt


def describe(device: DeviceState, t: Round, names: Sequence[str] = "AB") -> Facts:
    """Only how much it would send."""
    size = 8 * len(_frame(device, names).payload)
    return Facts(id=device.id, public={}, columns=encode([]).columns, payload_bits=size)


def plan(facts: Mapping[int, Facts], t: Round, c: GossipLora, setup: Setup) -> Plan:
    """Metropolis or equal weights of the topology, and the phases that bring to each what it averages.

    Overlay edges whose ends no radio path joins are left out, their weight stays at home. On a shared band only links
    count that carry the payload within their turns (`overlays.in_turns`).
    """
    ids = sorted(facts)
    limit = max_power_w(setup.radio)
    need = {
        (i, j): broadcast_power_w(facts[i].payload_bits, [facts[i].gains.get(j, math.inf)], setup.radio)
        for i in ids
        for j in ids
        if i != j
    }
    usable = frozenset((i, j) for i in ids for j in ids if i < j and max(need[i, j], need[j, i]) <= limit)

    def made(pairs: frozenset[tuple[int, int]]) -> tuple[Phase, ...]:
        links = {link: need[link] / limit for i, j in pairs for link in ((i, j), (j, i))}
        return overlay_phases(_weights(t, pairs, c, setup), links)

    return Plan(phases=in_turns(made, usable, facts, setup.radio))


def _weights(t: Round, usable: frozenset[tuple[int, int]], c: GossipLora, setup: Setup) -> dict[tuple[int, int], float]:
    scene = Scene(
        ids=tuple(range(setup.num_devices)),
        usable=usable,
        degree=c.num_neighbours,
        labels=dict(enumerate(setup.assignment)),
        seed=t.seed,
        round_index=t.index,
    )
    return overlay(c.topology, scene)


def send(device: DeviceState, phase: Phase, t: Round, names: Sequence[str] = "AB") -> tuple[Message, ...]:
    """The named parts in 16 bit, to all who need it at once; or what is passed on for another."""
    mine = phase.outgoing.get(device.id, ())
    dsts = tuple(e.dst for e in mine)
    if not dsts:
        return ()
    if mine[0].carries:
        return passed_on(device, mine[0].carries, dsts)
    frame = _frame(device, names)
    return (Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns),)


def merge(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, names: Sequence[str] = "AB"
) -> DeviceState:
    """x <- W x for the named parts, eqs. (9)-(10) with weights that add up to one, once all relays are through."""
    device, arrived = gather(device, inbox, phase)
    if phase.name == "relay":
        return device
    got = received(arrived, names)
    mixed = {
        name: mix(device.own[name], {k: (weight, parts[name]) for k, (weight, parts) in got.items()}) for name in names
    }
    return replace(device, own={**device.own, **mixed})


def received(inbox: Sequence[Envelope], names: Sequence[str] = "AB") -> dict[int, tuple[float, Arrays]]:
    """Weight and named parts of every neighbour that arrived, by id.

    Raises:
        ValueError: a message that holds something else.
    """
    got = {e.edge.src: (e.edge.weight, decode(e.payload)) for e in inbox if e.payload is not None}
    for k, (_, parts) in got.items():
        if parts.keys() != set(names):
            raise ValueError(f"device {k} sent {sorted(parts)} where {' and '.join(names)} belong")
    return got


def bank(device: DeviceState) -> Bank:
    """The one adapter the device has."""
    if "B" not in device.own:
        return Bank(experts=())
    return Bank(experts=(Expert(owner=device.id, A=device.own["A"], B=device.own["B"]),))


def _frame(device: DeviceState, names: Sequence[str]) -> Frame:
    return encode([Section("values", name, device.own[name].astype(np.float16)) for name in names])
