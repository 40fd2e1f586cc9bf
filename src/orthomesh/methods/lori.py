"""LoRI (arXiv 2504.07448) on devices that meet at random: a dense run finds a global mask, a sparse run starts anew.

A comes from a seed and rests, each device's own. The dense run trains all of B; the largest tenth of |B| over all
layers together is the mask; the sparse run starts from B = 0 under it, with the same A (the authors' code draws another
one, so that the mask's columns lose their meaning). What is exchanged is kept apart and merged for answering only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.mask import magnitude_mask, quotas
from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.merging import cat, linear
from ..exchange.payload import Section, decode, encode
from ..experts.bank import get, places, put
from ..rng import key, stream
from ..topology.overlay import Topology
from ..types import (
    Array,
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
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .parts import fixed_bits, unpack
from .setup import Setup, device_rows

STATICS = ("seed", "mask", "masked")
"""What is told once: seed of A, mask, and the round it was found in."""
DIRECT = ("random", "matching", "radio")
"""Topologies that keep to radio links."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lori:
    """Settings of LoRI."""

    kind: Literal["lori"] = "lori"
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of B under the mask, over all layers together."""
    dense_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of a device's steps that the dense run takes; nothing is exchanged before it has ended."""
    merging: Literal["cat", "linear"] = "cat"
    """How adapters answer together: side by side, or both factors added up as peft's `linear` does."""
    total_weight: Annotated[float, Field(gt=0)] = 1.2
    """Weights of the merged adapters together; the authors give 0.4 to each of three, 0.3 to each of four."""
    topology: Topology = "random"
    """Whom a device sends to, among those that hear it: `random`, `matching` or `radio`, as in `gossip_lora`."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Most neighbours under `random`; 0: all."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW in the sparse run; none: the run's."""
    dense_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """In the dense run, the authors take a tenth; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """The method's functions for one run.

        Raises:
            ValueError: a topology whose edges need relays.
        """
        if self.topology not in DIRECT:
            raise ValueError(
                f"topology {self.topology} may need relays, and lori keeps what neighbours send instead of averaging "
                f"it, so that relays would keep it too; take one of {', '.join(DIRECT)}"
            )
        return Method(
            init=partial(init, setup=setup),
            fit=partial(fit, c=self, setup=setup),
            describe=partial(describe, c=self),
            plan=partial(plan, c=self, setup=setup),
            send=send,
            merge=merge,
            bank=partial(bank, c=self, setup=setup),
        )


def init(device: int, setup: Setup) -> DeviceState:
    """Nothing but the seed of the device's projection."""
    return DeviceState(id=device, own={"seed": np.array(key(setup.seed, "device", device), dtype=np.uint64)})


def dense_steps(share: float, steps: int, t: Round) -> int:
    """Steps of the dense run: a share of all, at least one, with at least one left for the sparse run.

    Raises:
        ValueError: a run of a single step.
    """
    total = steps * t.total
    if total < 2:
        raise ValueError("lori needs a dense and a sparse run, so at least two steps; train.steps or rounds is too low")
    return min(max(1, round(share * total)), total - 1)


def fit(device: DeviceState, t: Round, c: Lori, setup: Setup) -> tuple[DeviceState, Learnt]:
    """The steps of this round: of the dense run, of the sparse run, or the end of one and the start of the other.

    A device that has missed all of the dense run makes up for it with the same share of its first round.
    """
    from ..models.base import load_base  # late: the command line reads this file for its settings

    layout, steps = load_base(setup.model).layout, setup.train.steps
    own: dict[str, Array] = {"B": np.zeros(layout.num_expansion, dtype=np.float32), **device.own}
    turn = dense_steps(c.dense_share, steps, t)
    first, end = t.index * steps, (t.index + 1) * steps
    late = first >= turn and "mask" not in own and not own["B"].any()
    dense = range(max(1, min(round(c.dense_share * steps), steps - 1))) if late else range(first, min(end, turn))
    sparse = range(max(first + (len(dense) if late else 0), turn) - turn, end - turn)
    told = []
    if dense:
        own, learnt = _train(own, device.id, t, (dense, dense.stop if late else turn), c, setup)
        told.append(learnt)
    if end > turn and "mask" not in own:
        own = masked(own, c.density, t)
    if sparse:
        own, learnt = _train(own, device.id, t, (sparse, steps * t.total - turn), c, setup)
        told.append(learnt)
    return replace(device, own=own), replace(told[-1], first_loss=told[0].first_loss, steps=steps)


def masked(own: Arrays, density: float, t: Round) -> dict[str, Array]:
    r"""The device's parts at the start of the sparse run: the global magnitude mask, and B = 0.

    .. math::  M = 1(|B| \ge \tau), \quad \tau: the largest `density` of all layers together
    """
    size = own["B"].size
    mask = magnitude_mask(own["B"], (size,), quotas((size,), density))
    kept = {name: a for name, a in own.items() if not name.startswith("moment/")}
    found: Arrays = {"mask": np.packbits(mask), "masked": np.array(t.index, dtype=np.uint32)}
    return {**kept, **found, "B": np.zeros_like(own["B"])}


def _train(
    own: Arrays, device: int, t: Round, span: tuple[range, int], c: Lori, setup: Setup
) -> tuple[dict[str, Array], Learnt]:
    """Some steps of the dense run, or of the sparse one; `span` has them and the length of that run."""
    from ..models import finetune
    from ..models.base import load_base

    base, (steps, total) = load_base(setup.model), span
    active = unpack(own["mask"], own["B"].size) if "mask" in own else None
    moments = {name.removeprefix("moment/"): a for name, a in own.items() if name.startswith("moment/")}
    start = finetune.Factors(A=projection(int(own["seed"]), base.layout), B=own["B"], active=active, moments=moments)
    rate = (c.dense_learning_rate if active is None else c.learning_rate) or setup.train.learning_rate
    train = replace(setup.train, steps=len(steps), learning_rate=rate)
    order = stream(t.seed, "batches", t.index, device, int(active is None))
    rows = device_rows(setup, device)
    ended, learnt = finetune.fit(base, rows, start, train, order, done=steps.start, total=total)
    return {**own, "B": ended.B, **{f"moment/{name}": a for name, a in ended.moments.items()}}, learnt


def describe(device: DeviceState, t: Round, c: Lori) -> Facts:
    """Whose masks the device knows, and the round its own was found in: (id, round) rows by id."""
    own, size = device.own, device.own["B"].size
    known = {k: a for k in places(device.bank, "member") if "mask" in (a := get(device.bank, f"member/{k}"))}
    public = {"have": np.array([(k, int(a["masked"])) for k, a in known.items()], dtype=np.uint32).reshape(-1, 2)}
    public |= {"masked": own["masked"]} if "masked" in own else {}
    told = encode([Section("control", name, a) for name, a in public.items()])
    bits = fixed_bits(size, 0) + 16 * int(quotas((size,), c.density)[0])
    return Facts(id=device.id, public=public, columns=told.columns, payload_bits=bits)


def plan(facts: Mapping[int, Facts], t: Round, c: Lori, setup: Setup) -> Plan:
    """A random graph among the links that can carry it, once there are sparse values; masks go where they lack."""
    if (t.index + 1) * setup.train.steps <= dense_steps(c.dense_share, setup.train.steps, t):
        return Plan(phases=())
    made = gossip.plan(facts, t, GossipLora(topology=c.topology, num_neighbours=c.num_neighbours), setup)
    have = {k: {(int(i), int(n)) for i, n in f.public["have"]} for k, f in facts.items()}
    found = {k: int(f.public["masked"]) for k, f in facts.items()}
    return Plan(
        phases=tuple(
            replace(p, edges=tuple(e._replace(fresh=(e.src, found[e.src]) not in have[e.dst]) for e in p.edges))
            for p in made.phases
        )
    )


def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """Active values in 16 bit to all neighbours at once; seed and mask too if one of them lacks those."""
    mine = phase.outgoing.get(device.id, ())
    if not mine:
        return ()
    own = device.own
    active = own["B"][unpack(own["mask"], own["B"].size)]
    sections = [Section("values", "values", active.astype(np.float16))]
    if any(e.fresh for e in mine):
        sections += [Section("mask" if name == "mask" else "one_off", name, own[name]) for name in STATICS]
    frame = encode(sections)
    dsts = tuple(e.dst for e in mine)
    return (Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns),)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """Keep what neighbours sent beside what they told before; the device's own B goes on by itself.

    Raises:
        ValueError: values that are not finite, or do not fit the sender's mask.
    """
    bank, size = dict(device.bank), device.own["B"].size
    for edge, payload, _ in inbox:
        if payload is None:
            continue
        parts = {**get(bank, f"member/{edge.src}"), **decode(payload)}
        if not parts.keys() >= set(STATICS):
            continue  # seed and mask were lost on the way, values alone are of no use
        if parts["mask"].shape != (-(-size // 8),) or parts["values"].size != unpack(parts["mask"], size).sum():
            raise ValueError(f"device {edge.src} sent {parts['values'].size} values that do not fit its mask")
        if not np.isfinite(parts["values"]).all():
            raise ValueError(f"device {edge.src} sent values that are not finite, its training has diverged")
        bank = put(bank, f"member/{edge.src}", parts)
    return replace(device, bank=bank)


def bank(device: DeviceState, c: Lori, setup: Setup) -> Bank:
    """Its own adapter and all it has received, merged with equal weights."""
    from ..models.base import load_base

    own = device.own
    if "B" not in own:
        return Bank(experts=())
    layout = load_base(setup.model).layout
    members = {k: get(device.bank, f"member/{k}") for k in places(device.bank, "member")}
    found = {k: (projection(int(a["seed"]), layout), _whole(a, own["B"].size)) for k, a in members.items()}
    found[device.id] = (projection(int(own["seed"]), layout), own["B"])
    ids = sorted(found)
    if len(ids) == 1:
        return Bank(experts=(Expert(owner=device.id, A=found[device.id][0], B=own["B"]),))
    weights = [c.total_weight / len(ids)] * len(ids)
    if c.merging == "linear":
        A, B = linear([found[k] for k in ids], weights)
        return Bank(experts=(Expert(owner=device.id, A=A, B=B),))
    pairs = cat([found[k] for k in ids], weights)
    experts = tuple(Expert(owner=k, A=A, B=B) for k, (A, B) in zip(ids, pairs, strict=True))
    return Bank(experts=experts, choice="topk", top_k=0)  # all ranks of all answer together


def _whole(parts: Arrays, size: int) -> Array:
    """A neighbour's B from its active values, zero off its mask. [sum d r]"""
    B = np.zeros(size, dtype=np.float32)
    B[unpack(parts["mask"], size)] = parts["values"]
    return B
