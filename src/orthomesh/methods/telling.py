"""What a device of the paper's method tells whom, and what it keeps of what it hears, steps 1-4 of IV-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..adapters.mask import merged, spans
from ..exchange.intercluster import is_due
from ..exchange.payload import Section, decode, encode
from ..exchange.quantise import tell, tell_change
from ..experts.bank import each, get, keep_records, put_each, record_at
from ..types import Array, Arrays, Column, DeviceState, Edge, Envelope, Facts, Forming, Message, Phase, Plan, Round
from ..wireless.link import max_power_w
from .agreement import agree, offer
from .clusters import Limits, agreement, arrange, exchange_phases, has_parted, power_w, talk
from .coding import bid_payload_bits, coded, is_coarse, opened, payload_bits, record
from .detours import detours
from .parts import STATICS, agreed, change, fixed_bits, holds, member_parts, shape, unpack, values
from .pooling import averaged, groups
from .setup import Setup
from .shortage import CHARGED, room_of, telling, whole, with_room
from .sparse_orthogonal import SparseOrthogonal

COLUMN_OF: Mapping[str, Column] = {
    "members": "control",
    "versions": "control",
    "values": "values",
    "masks": "mask",
    "seeds": "one_off",
    "codes": "codes",
    "sketches": "codes",
}
"""What the parts of a cluster's record are charged to."""
NOBODY = np.array(0, dtype=np.uint32)
"""A version that nobody has."""
OWN_COLUMN: Mapping[str, Column] = {
    **CHARGED,
    "version": "control",
    "change": "values",
    "base": "control",
    "mask": "mask",
    "code": "codes",
    "sketch": "codes",
    "seed": "one_off",
}
"""What the parts of a device's own message are charged to."""


def describe(device: DeviceState, t: Round, c: SparseOrthogonal) -> Facts:
    """Densities, what the device already holds, how much has changed, and its cluster and masks once it has them.

    Before that, where devices with one task are looked for (R11), its task code and how far chance moves it.
    """
    own = device.own
    sizes, quota = shape(own)
    public: dict[str, Array] = {
        "have": holds(device),
        "change": np.array(change(own, t, c.masks == "negotiated"), dtype=np.float32),
        "density": (quota / np.array(sizes)).astype(np.float32),
    }
    if "cluster" in own:
        public |= {name: own[name] for name in ("cluster", "masked")}
        public |= {} if c.pool is None else {"seed": own["seed"]}
        public |= {"masks": agreed(device)} if c.masks == "negotiated" else {}
    elif c.pool is not None:
        public |= {"code": own["code"], "error": own["error"]}
    told = encode([Section("codes" if n in ("code", "error") else "control", n, a) for n, a in public.items()])
    size = payload_bits(own, quota, c)
    if "mask" not in own:
        size = max(size, bid_payload_bits(own, c))
    return Facts(id=device.id, public=public, columns=told.columns, payload_bits=size)


def _limits(c: SparseOrthogonal, setup: Setup) -> Limits:
    """What a cluster must keep to."""
    from ..models.base import load_base  # late: the command line reads methods for their settings

    layout = load_base(setup.model).layout
    sizes = merged(np.array(layout.expansion_sizes), spans(layout.names, c.level))
    return Limits(
        max_collision=c.max_collision,
        negotiated=c.masks == "negotiated",
        cast=c.cast,
        radio=setup.radio,
        sizes=tuple(sizes.tolist()),
        solver=c.clustering,
        overhear=c.overhear,
    )


def form(facts: Mapping[int, Facts], t: Round, c: SparseOrthogonal, setup: Setup) -> Forming | None:
    """Who finds its cluster by the protocol without a server: all, once, where its result is what `plan` would find.

    It is for greedy mergers of single devices, each with a band of its own. The other solvers search among whole
    partitions, which nobody who sees only neighbours can; groups of R11 are found from all task codes; with turns a
    price needs the radio of a whole cluster. Who comes when clusters are there is given a place by `plan`.
    """
    alone = c.clustering == "agnes" and c.pool is None and setup.radio.access == "dedicated"
    if not alone or any("cluster" in f.public for f in facts.values()):
        return None
    return talk(facts, _limits(c, setup))


def plan(facts: Mapping[int, Facts], t: Round, c: SparseOrthogonal, setup: Setup) -> Plan:
    """Steps 1-4 of IV-C: cluster once, agree on masks, exchange inside clusters, hand records on between them."""
    from ..models.base import load_base  # late: the command line reads methods for their settings

    base, limits = load_base(setup.model), _limits(c, setup)
    new = {k: facts[k] for k in sorted(facts) if "cluster" not in facts[k].public}
    units: tuple[tuple[int, ...], ...] = tuple((k,) for k in new)
    if c.pool is not None:
        most_w = max_power_w(setup.radio)
        units = groups(new, base.widths, c.pool, lambda members: power_w(facts, members, limits) <= most_w)
    clusters = arrange(facts, units, limits)
    phases: tuple[Phase, ...] = ()
    parted = has_parted(facts, clusters)
    if new or parted:  # singletons too find their mask here, so the phase is there even without edges
        phases = (replace(agreement(clusters, units), clusters=clusters if parted else ()),)
    latest = {k: t.index + 1 if travels(float(f.public["change"]), t, c) else _version(f) for k, f in facts.items()}
    begin = tuple((unit[0], k) for unit in units for k in unit[1:])  # from what the first of their group has
    across = is_due(t.index, t.total, c.inter_every)
    exchanges = exchange_phases(facts, clusters, latest, limits, begin, across)
    if c.on_infeasible != "drop_link":
        exchanges = tuple(with_room(p, facts, setup.radio) if p.name == "intra" else p for p in exchanges)
    if c.detour and t.is_last:
        over = detours(exchanges[0], clusters, facts, limits)
        exchanges = (exchanges[0], *((over,) if over.edges else ()), *exchanges[1:])
    phases += exchanges
    return Plan(phases=phases, clusters=clusters)


def _version(device: Facts) -> int:
    """Version of the values a device sent last."""
    return int(dict(device.public["have"].tolist())[device.id])


def travels(changed: float, t: Round, c: SparseOrthogonal) -> bool:
    """Whether values are worth sending now, given their `change` (R12)."""
    if changed < 0 or (c.exchange == "last" and not t.is_last):
        return False
    return c.exchange == "every" or changed >= c.change or (t.is_last and changed > 0)


def send(device: DeviceState, phase: Phase, t: Round, c: SparseOrthogonal) -> tuple[Message, ...]:
    """Bids for positions, own values, or the records of clusters; what is told once travels where it is lacking."""
    mine = phase.outgoing.get(device.id, ())
    messages = []
    for carries in sorted({e.carries for e in mine}):
        edges = [e for e in mine if e.carries == carries]
        if phase.name == "masks":
            sections = offer(device, carries, c)
        elif phase.name == "intra":
            own, told = _marked(device, phase, t, c)
            sections = _own_parts(own, told, _told_once(edges), c)
        elif phase.name == "detour":
            sections = _handed_on(device, carries, _told_once(edges), c)
        else:
            sections = _records(device, carries, any(e.fresh for e in edges), c)
        if sections:
            frame = encode(sections)
            dsts = tuple(e.dst for e in edges)
            messages.append(Message(src=device.id, dsts=dsts, payload=frame.payload, columns=frame.columns))
    return tuple(messages)


def _told_once(edges: Sequence[Edge]) -> tuple[str, ...]:
    """What some receiver of one message lacks of what is told once; a mask that all found from the bids is not told."""
    fresh = [e for e in edges if e.fresh]
    return tuple(name for name in STATICS if fresh and not (name == "mask" and all(e.masked for e in fresh)))


def _own_parts(own: Arrays, told: Arrays, once: Sequence[str], c: SparseOrthogonal) -> list[Section]:
    """The values last sent, or what is told now; with what is told once where it is lacking."""
    parts: Arrays = {**(told or {"values": own["sent"]}), "version": own["version"], **{n: own[n] for n in once}}
    return [Section(OWN_COLUMN[name], name, array) for name, array in coded(parts, own["sizes"], c).items()]


def _handed_on(
    device: DeviceState, carries: tuple[int, ...], once: Sequence[str], c: SparseOrthogonal
) -> list[Section]:
    """Values of other members, as far as the device has them, in the very bits they came in."""
    sections = []
    for member in carries:
        known: Arrays = get(device.bank, f"member/{member}")
        if "values" in known:
            parts = coded({name: known[name] for name in ("values", "version", *once)}, device.own["sizes"], c)
            sections += [Section(OWN_COLUMN[name], f"{member}/{name}", a) for name, a in parts.items()]
    return sections


def _records(device: DeviceState, carries: tuple[int, ...], fresh: bool, c: SparseOrthogonal) -> list[Section]:
    """Records of the clusters named, as far as the device has them; without what is told once if all know it."""
    sections = []
    for cluster in carries:
        parts: Arrays = record(device, c) if cluster in device.own["cluster"] else record_at(device.bank, cluster)
        for name, array in parts.items():
            if fresh or name in ("values", "members", "versions"):
                sections.append(Section(COLUMN_OF[name], f"{cluster}/{name}", array))
    return sections


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: SparseOrthogonal) -> DeviceState:
    """Find the mask from all bids, keep what members sent, keep the records of other clusters."""
    if phase.name == "masks":
        return agree(device, inbox, phase, t, c)
    heard = [(e.src, decode(payload)) for e, payload, _ in inbox if payload is not None]
    bank = device.bank
    if phase.name == "intra":
        bank = _with_members(bank, heard, device.own, c)
    elif phase.name == "detour":
        bank = _with_members(bank, [told for _, parts in heard for told in each(parts).items()], device.own, c)
    else:
        for _, parts in heard:
            bank = keep_records(bank, each(parts))
    after = replace(device, bank=bank)
    if phase.name == "intra":
        after = replace(after, own=_marked(device, phase, t, c)[0])
        after = replace(after, own=averaged(after, t))
    return after


def _with_members(bank: Arrays, told: Sequence[tuple[int, Arrays]], own: Arrays, c: SparseOrthogonal) -> Arrays:
    """A bank with what members have told."""
    if not told:
        return bank
    held, size = each(bank, "member"), own["B"].size
    for member, parts in told:
        known = held.get(member, {})
        news = opened(member, parts, known, own["sizes"], c)
        held[member] = member_parts(member, known, whole(member, news, known, size), size)
    return put_each(bank, "member", held)


def _marked(device: DeviceState, phase: Phase, t: Round, c: SparseOrthogonal) -> tuple[Arrays, Arrays]:
    """The device's parts with what it sends this round noted as sent, and what goes out of it if that is new."""
    own, mine = device.own, phase.outgoing.get(device.id, ())
    if not travels(change(own, t, c.masks == "negotiated"), t, c):
        if mine and "base" in own and not _codes_alike(own["sent"], c):
            return {**own, "base": NOBODY}, {}  # who is told it again reads something else than the others
        return own, {}
    if c.deltas is not None:
        return _changed(own, mine, t, c)
    if is_coarse(c):
        active = own["B"][unpack(own["mask"], own["B"].size)]
        step = tell(active, own.get("owed") if "group" in own else None, c.values)
        owed = {"owed": step.residual} if "group" in own else {}
        now = np.array(t.index + 1, dtype=np.uint32)
        return {**own, **owed, "sent": step.sent, "version": now}, {"values": step.sent}
    room = room_of(device.id, phase, fixed_bits(own["B"].size, own["code"].size + own["sketch"].size))
    told = telling(own, values(own), room, c.on_infeasible)
    marked = {**own, "sent": told.sent, "version": np.array(t.index + 1, dtype=np.uint32)}
    if c.on_infeasible == "partial":
        marked["start"] = np.array(told.start, dtype=np.uint32)
    return marked, told.parts


def _codes_alike(sent: Array, c: SparseOrthogonal) -> bool:
    """Whether values that were told, told whole, are read as they are."""
    return np.array_equal(tell(sent, None, c.values).sent, sent)


def _changed(own: Arrays, mine: Sequence[Edge], t: Round, c: SparseOrthogonal) -> tuple[Arrays, Arrays]:
    """The same with `deltas`: a change, where all who are told have exactly what it counts from, else whole values.

    own/base: version that all who have it read alike, so that a change may count from it.
    """
    assert c.deltas is not None
    active, now = own["B"][unpack(own["mask"], own["B"].size)], np.array(t.index + 1, dtype=np.uint32)
    base = int(own.get("base", NOBODY))
    if mine and base and all(e.held == base and not e.fresh for e in mine):
        step = tell_change(active, own["sent"], c.deltas)
        told: Arrays = {"change": step.code, "base": own["base"]}
    else:
        step = tell(active, None, c.values)
        told = {"values": step.sent}
    return {**own, "sent": step.sent, "version": now, "base": now}, told
