"""The paper's method: frozen projections, sparse expansions, clusters, and an implicit mixture of experts.

Sections IV-B (16)-(19), IV-C steps 1-4 (24)(25), IV-D (26)(29). Defaults take our readings R1-R7, R9, R12;
`paper_reading` takes the paper's side of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.mask import bid, magnitude_mask, negotiate, pack_bid, quotas, unpack_bid
from ..adapters.projection import Kind, projection
from ..config import STRICT
from ..exchange.payload import Section, decode, encode
from ..exchange.union import Rule
from ..experts.bank import get, load, places, put, read, store
from ..experts.taskcode import task_code
from ..rng import key, stream
from ..types import (
    Array,
    Arrays,
    Bank,
    Column,
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
from .clusters import Limits, exchange_phases, form, pairs_within
from .parts import change, cluster_record, holds, member_parts, under_mask, unpack, values
from .setup import Setup, device_rows

CODE_PROMPTS = 32
"""Prompts whose layer inputs are averaged into a task code: the paper's small batch."""
COLUMN_OF: Mapping[str, Column] = {
    "members": "control",
    "versions": "control",
    "values": "values",
    "masks": "mask",
    "seeds": "one_off",
    "codes": "codes",
}
"""What the parts of a cluster's record are charged to."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SparseOrthogonal:
    """Settings of the paper's method; each names the reading it chooses."""

    kind: Literal["sparse_orthogonal"] = "sparse_orthogonal"
    density: Annotated[float, Field(gt=0, le=1)] = 0.125
    """Share of B that is active, uniform over layers (the paper's sparsity rate s)."""
    projection: Kind = "orthonormal"
    """R1: rows of A orthonormal, or independent Gaussian entries of variance 1/k."""
    score: Literal["magnitude", "random"] = "magnitude"
    """R2: what the mask keeps: the largest entries of B after the warm-up, or any (control)."""
    warmup_steps: Annotated[int, Field(ge=1)] | None = None
    """R2: dense steps before the mask; none: the whole first round."""
    masks: Literal["negotiated", "independent"] = "negotiated"
    """R3: agreed on inside a cluster so that none collide where densities allow, or each device for itself."""
    max_collision: Annotated[float, Field(ge=0, le=1)] = 0.1
    """S_max: largest collision rate a cluster may reach."""
    aggregation: Rule = "union"
    """R5: entries divided by the number of their holders and read through masks, or plain mean (24)."""
    exchange: Literal["changed", "every"] = "changed"
    """R12: values travel when they have changed enough, and in the last round; or every round."""
    change: Annotated[float, Field(ge=0)] = 0.5
    """R12: enough is this relative change since they were last sent."""
    cast: Literal["broadcast", "unicast"] = "broadcast"
    """R9: one transmission to the whole cluster, or one to each member."""
    choice: Literal["nearest", "topk"] = "nearest"
    """R7: one expert per prompt by task code, or top-k over all experts' ranks per token (29)."""
    top_k: Annotated[int, Field(ge=0)] = 16
    """R7: ranks kept per token by `topk`; 0 keeps all."""
    gated: bool = False
    """R6: under `topk`, scale each expert's ranks by the cosine with its task code (27)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """The method's functions for one run.

        Raises:
            ValueError: a warm-up longer than a round.
        """
        if (self.warmup_steps or 0) > setup.train.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} exceed the {setup.train.steps} steps of a round (train.steps)"
            )
        return Method(
            init=partial(init, setup=setup),
            fit=partial(fit, c=self, setup=setup),
            describe=describe,
            plan=partial(plan, c=self, setup=setup),
            send=partial(send, c=self),
            merge=partial(merge, c=self),
            bank=partial(bank, c=self, setup=setup),
        )


def paper_reading() -> SparseOrthogonal:
    """The paper's side of every reading, wherever it is well-formed."""
    return SparseOrthogonal(
        projection="gaussian",
        warmup_steps=1,
        masks="independent",
        max_collision=0.25,
        aggregation="mean",
        exchange="every",
        cast="unicast",
        choice="topk",
        gated=True,
    )


def init(device: int, setup: Setup) -> DeviceState:
    """Nothing but the seed of the device's projection, eq. (16)."""
    return DeviceState(id=device, own={"seed": np.array(key(setup.seed, "device", device), dtype=np.uint64)})


def fit(device: DeviceState, t: Round, c: SparseOrthogonal, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Warm up densely, find the mask (18), then train B under it, eq. (6); A stays what the seed makes it."""
    from ..models.answer import prompt_means  # late: the command line reads this file for its settings
    from ..models.base import load_base

    base = load_base(setup.model)
    own = device.own
    if "B" not in own:
        rows = device_rows(setup, device.id)[:CODE_PROMPTS]
        own = {
            **own,
            "code": task_code(prompt_means(base, rows)).astype(np.float16),
            "B": np.zeros(base.layout.num_expansion, dtype=np.float32),
            "quota": quotas(base.layout.expansion_sizes, c.density).astype(np.uint32),
            "sizes": np.array(base.layout.expansion_sizes, dtype=np.uint32),
        }
    steps = setup.train.steps
    warmup = 0 if "mask" in own else c.warmup_steps or steps
    if warmup:
        own, learnt = _train(own, device.id, t, warmup, c, setup)
        if c.masks == "negotiated":
            return replace(device, own=own), learnt  # the mask waits for the cluster's bids
        own = under_mask(own, magnitude_mask(_score(own, c), *_shape(own)))
        if warmup == steps:
            return replace(device, own=own), learnt
    own, rest = _train(own, device.id, t, steps - warmup, c, setup)
    if warmup:
        rest = replace(rest, first_loss=learnt.first_loss, steps=steps)
    return replace(device, own=own), rest


def _train(own: Arrays, device: int, t: Round, steps: int, c: SparseOrthogonal, setup: Setup) -> tuple[Arrays, Learnt]:
    """Some steps on B, dense before there is a mask, with the optimiser's moments carried along."""
    from ..models.base import load_base
    from ..models.finetune import Factors
    from ..models.finetune import fit as finetune

    base = load_base(setup.model)
    active = unpack(own["mask"], own["B"].size) if "mask" in own else None
    start = Factors(
        A=projection(int(own["seed"]), base.layout, c.projection),
        B=own["B"],
        active=active,
        moments={n.removeprefix("moment/"): a for n, a in own.items() if n.startswith("moment/")},
    )
    train = replace(setup.train, steps=steps, learning_rate=c.learning_rate or setup.train.learning_rate)
    order = stream(t.seed, "batches", t.index, device, int(active is None))
    ended, learnt = finetune(base, device_rows(setup, device), start, train, order)
    return {**own, "B": ended.B, **{f"moment/{n}": a for n, a in ended.moments.items()}}, learnt


def describe(device: DeviceState, t: Round) -> Facts:
    """Densities until it has a cluster, then the cluster; what it already holds, and how much has changed."""
    own = device.own
    public: dict[str, Array] = {"have": holds(device), "change": np.array(change(own, t), dtype=np.float32)}
    if "cluster" in own:
        public["cluster"] = own["cluster"]
    else:
        public["density"] = (own["quota"] / own["sizes"]).astype(np.float32)
        public["sizes"] = own["sizes"]
    told = encode([Section("control", name, array) for name, array in public.items()])
    size = 16 * int(own["quota"].sum()) + own["B"].size + 16 * own["code"].size + 2048
    return Facts(id=device.id, public=public, columns=told.columns, payload_bits=size)


def plan(facts: Mapping[int, Facts], t: Round, c: SparseOrthogonal, setup: Setup) -> Plan:
    """Steps 1-4 of IV-C: cluster once, agree on masks, exchange inside clusters, hand records on between them."""
    limits = Limits(max_collision=c.max_collision, negotiated=c.masks == "negotiated", cast=c.cast, radio=setup.radio)
    unclustered = {k: f for k, f in facts.items() if "cluster" not in f.public}
    formed = {
        tuple(int(m) for m in f.public["cluster"] if int(m) in facts) for k, f in facts.items() if k not in unclustered
    }
    new = form(unclustered, limits)
    clusters = tuple(sorted({*formed, *new}))
    phases: tuple[Phase, ...] = ()
    if new:  # singletons too find their mask here, so the phase is there even without edges
        phases = (Phase(name="masks", edges=pairs_within(new)),)
    latest = {k: t.index + 1 if travels(float(f.public["change"]), t, c) else _version(f) for k, f in facts.items()}
    return Plan(phases=phases + exchange_phases(facts, clusters, latest, limits), clusters=clusters)


def _version(device: Facts) -> int:
    """Version of the values a device sent last."""
    return next(int(version) for k, version in device.public["have"] if int(k) == device.id)


def travels(changed: float, t: Round, c: SparseOrthogonal) -> bool:
    """Whether values are worth sending now, given their `change` (R12)."""
    if changed < 0:
        return False
    return c.exchange == "every" or changed >= c.change or (t.is_last and changed > 0)


def send(device: DeviceState, phase: Phase, t: Round, c: SparseOrthogonal) -> tuple[Message, ...]:
    """Bids for positions, own values, or the records of clusters; what is told once travels where it is lacking."""
    mine = [e for e in phase.edges if e.src == device.id]
    messages = []
    for carries in sorted({e.carries for e in mine}):
        edges = [e for e in mine if e.carries == carries]
        if phase.name == "masks":
            sections = _bid_parts(device.own, c) if "mask" not in device.own else []
        elif phase.name == "intra":
            sections = _own_parts(_marked(device.own, t, c), any(e.fresh for e in edges))
        else:
            sections = _records(device, carries, any(e.fresh for e in edges), c)
        if sections:
            frame = encode(sections)
            dsts = tuple(e.dst for e in edges)
            messages.append(Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns))
    return tuple(messages)


def _own_parts(own: Arrays, fresh: bool) -> list[Section]:
    """The values last sent, or sent now for the first time; with mask, code and seed where they are lacking."""
    parts = [Section("values", "values", own["sent"]), Section("control", "version", own["version"])]
    if fresh:
        parts += [Section("mask", "mask", own["mask"]), Section("codes", "code", own["code"])]
        parts.append(Section("one_off", "seed", own["seed"]))
    return parts


def _records(device: DeviceState, carries: tuple[int, ...], fresh: bool, c: SparseOrthogonal) -> list[Section]:
    """Records of the clusters named, as far as the device has them; without what is told once if all know it."""
    sections = []
    for cluster in carries:
        if cluster == int(device.own["cluster"][0]):
            parts = store(cluster_record(device, c.aggregation))
        else:
            parts = get(device.bank, f"cluster/{cluster}")
        for name, array in parts.items():
            if fresh or name in ("values", "members", "versions"):
                sections.append(Section(COLUMN_OF[name], f"{cluster}/{name}", array))
    return sections


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: SparseOrthogonal) -> DeviceState:
    """Find the mask from all bids, keep what members sent, keep the records of other clusters."""
    arrived = [(e.edge.src, decode(e.payload)) for e in inbox if e.payload is not None]
    if phase.name == "masks":
        return _with_cluster(device, dict(arrived), phase, t, c)
    bank = dict(device.bank)
    for src, parts in arrived:
        if phase.name == "intra":
            known = member_parts(src, get(bank, f"member/{src}"), parts, device.own["B"].size)
            bank = put(bank, f"member/{src}", known)
            continue
        for cluster in sorted({int(name.split("/")[0]) for name in parts}):
            known, news = get(bank, f"cluster/{cluster}"), _record(parts, cluster)
            complete = news.keys() >= COLUMN_OF.keys()  # else it goes with the masks of the same members told before
            if complete or (known and np.array_equal(known["members"], news["members"])):
                bank = put(bank, f"cluster/{cluster}", {**known, **news})
    own = _marked(device.own, t, c) if phase.name == "intra" else device.own
    return replace(device, own=own, bank=bank)


def _marked(own: Arrays, t: Round, c: SparseOrthogonal) -> Arrays:
    """The device's parts with what it sends this round noted as sent, if it sends something new."""
    if not travels(change(own, t), t, c):
        return own
    return {**own, "sent": values(own), "version": np.array(t.index + 1, dtype=np.uint32)}


def _with_cluster(
    device: DeviceState, arrived: Mapping[int, Arrays], phase: Phase, t: Round, c: SparseOrthogonal
) -> DeviceState:
    """The device once it knows whom it is with, and which positions are its own."""
    own = device.own
    members = sorted({device.id, *(e.src for e in phase.edges if e.dst == device.id)})
    if "mask" not in own:
        sizes, quota = _shape(own)
        bids = {k: unpack_bid(parts["bid"], own["B"].size) for k, parts in arrived.items()}
        owed = {k: parts["quota"].astype(int) for k, parts in arrived.items()}
        bids[device.id], owed[device.id] = bid(_score(own, c), sizes, quota), quota
        masked = np.array(t.index, dtype=np.uint32)
        own = {**under_mask(own, negotiate(bids, sizes, owed)[device.id]), "masked": masked}
    return replace(device, own={**own, "cluster": np.array(members, dtype=np.uint32)})


def _bid_parts(own: Arrays, c: SparseOrthogonal) -> list[Section]:
    levels = bid(_score(own, c), *_shape(own))
    return [Section("one_off", "bid", pack_bid(levels)), Section("one_off", "quota", own["quota"])]


def _score(own: Arrays, c: SparseOrthogonal) -> Array:
    """What the mask ranks: B after its warm-up, or a draw that ignores it (R2)."""
    if c.score == "magnitude":
        return own["B"]
    return stream(int(own["seed"]), "random-mask").random(own["B"].size)


def _shape(own: Arrays) -> tuple[tuple[int, ...], Array]:
    """Sizes of the layers and how many entries the device is owed in each."""
    return tuple(int(n) for n in own["sizes"]), own["quota"].astype(int)


def _record(parts: Arrays, cluster: int) -> Arrays:
    """What a message says about one cluster."""
    prefix = f"{cluster}/"
    return {name.removeprefix(prefix): a for name, a in parts.items() if name.startswith(prefix)}


def bank(device: DeviceState, c: SparseOrthogonal, setup: Setup) -> Bank:
    """All experts the device holds, eq. (24): its own cluster's and those of the records it received."""
    from ..models.base import load_base

    own = device.own
    if "mask" not in own:
        return Bank(experts=())
    layout = load_base(setup.model).layout
    others = [load(get(device.bank, f"cluster/{k}"), layout.num_expansion) for k in places(device.bank, "cluster")]
    experts = [
        Expert(
            owner=member,
            A=projection(int(record.seeds[row]), layout, c.projection),
            B=read(record, member) if c.aggregation == "union" else record.joined,
            code=record.codes[row],
        )
        for record in (cluster_record(device, c.aggregation), *others)
        for row, member in enumerate(record.members)
    ]
    experts.sort(key=lambda e: e.owner)
    return Bank(experts=tuple(experts), choice=c.choice, top_k=c.top_k, gated=c.gated)


def unjoined(device: DeviceState, c: SparseOrthogonal, setup: Setup) -> Bank:
    """Only what the device itself has trained, as it trained it: what an oracle answers with."""
    from ..models.base import load_base

    if "B" not in device.own:
        return Bank(experts=())
    A = projection(int(device.own["seed"]), load_base(setup.model).layout, c.projection)
    return Bank(experts=(Expert(owner=device.id, A=A, B=device.own["B"]),))
