"""How a device keeps what it received, eq. (24): one record per cluster, experts read through their masks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..types import Array, Arrays
from .listing import cut, listed

PARTS = {
    "members": ("uint32", 1),
    "values": ("float16 float32", 1),
    "masks": ("uint8", 2),
    "seeds": ("uint64", 1),
    "codes": ("float16", 2),
    "sketches": ("float16 uint8", 2),
    "versions": ("uint32", 1),
}
"""Types and number of dimensions of what is kept of a cluster; float32 and uint8 where it came coded."""


ARRIVED = -1
"""Place of a record while it is compared with those there are."""


@dataclass(frozen=True, kw_only=True)
class ClusterRecord:
    """What a cluster knows: its expansions, joined or kept apart (R5), and per member mask, seed and task code.

    members: ids, ascending. joined: one row for all, [1, sum d r], zero off the support, or one for each member,
    [m, sum d r], zero off its mask; float. masks: [m, sum d r] bool.
    seeds: of the members' projections. codes: [m, sum k], or [m, 0] where nothing goes by them. sketches: of the
    members' tasks, packed; likewise. versions: rounds in which members' values were sent.
    """

    members: tuple[int, ...]
    joined: Array
    masks: Array
    seeds: Array
    codes: Array
    sketches: Array
    versions: Array


def store(record: ClusterRecord) -> dict[str, Array]:
    """The record as named arrays, as a bank keeps them and as they travel: active values in 16 bit, row by row."""
    held = _held(record.masks, len(record.joined))
    return {
        "members": np.array(record.members, dtype=np.uint32),
        "values": record.joined.reshape(-1)[np.flatnonzero(held)].astype(np.float16),
        "masks": np.packbits(record.masks, axis=1),
        "seeds": record.seeds.astype(np.uint64),
        "codes": record.codes.astype(np.float16),
        "sketches": record.sketches.astype(np.float16),
        "versions": record.versions.astype(np.uint32),
    }


def load(arrays: Mapping[str, Array], num_expansion: int, apart: bool = False) -> ClusterRecord:
    """Read a record back, checking that its parts fit together.

    Args:
        arrays: as made by `store`.
        num_expansion: sum d r of the layout.
        apart: whether each member has a row of values of its own (R5 `stack`), or all share one.

    Raises:
        ValueError: a part missing, of another type or size, not finite, or members not in order.
    """
    missing = PARTS.keys() - arrays.keys()
    if missing:
        raise ValueError(f"a cluster's record lacks {', '.join(sorted(missing))}")
    for name, (kind, ndim) in PARTS.items():
        part = arrays[name]
        if part.dtype.name not in kind.split() or part.ndim != ndim:
            kind = kind.replace(" ", " or ")
            raise ValueError(f"{name} of a cluster must be {kind} with {ndim} axes, got {part.dtype} {part.shape}")
    members = tuple(int(k) for k in arrays["members"])
    if not members or list(members) != sorted(set(members)):
        raise ValueError(f"members of a cluster must be named once and in order, got {members}")
    if arrays["masks"].shape != (len(members), -(-num_expansion // 8)):
        raise ValueError(
            f"masks of shape {arrays['masks'].shape} do not fit {len(members)} members and {num_expansion} entries"
        )
    masks = np.unpackbits(arrays["masks"], axis=1, count=num_expansion).view(bool)
    held = _held(masks, len(members) if apart else 1)
    places = np.flatnonzero(held)
    if arrays["values"].shape != places.shape:
        raise ValueError(f"{arrays['values'].shape[0]} values do not fit a support of {places.size}")
    if any(len(arrays[name]) != len(members) for name in ("seeds", "codes", "sketches", "versions")):
        raise ValueError(f"seeds, task codes, sketches or versions do not fit {len(members)} members")
    if not all(np.isfinite(arrays[name]).all() for name in ("values", "codes", "sketches")):
        raise ValueError(f"the record of devices {members} holds values that are not finite")
    joined = np.zeros(held.shape, dtype=np.float32)
    joined.reshape(-1)[places] = arrays["values"]
    return ClusterRecord(
        members=members,
        joined=joined,
        masks=masks,
        seeds=arrays["seeds"],
        codes=arrays["codes"].astype(np.float32),
        sketches=arrays["sketches"],
        versions=arrays["versions"],
    )


def read(record: ClusterRecord, member: int) -> Float[np.ndarray, " n"]:
    """A member's expansion: its own row, or the joined one through its own mask. [sum d r]"""
    row = record.members.index(member)
    own = record.joined[row if len(record.joined) > 1 else 0]
    places = np.flatnonzero(record.masks[row])
    expansion = np.zeros(own.shape, dtype=np.float32)
    expansion[places] += own[places]  # a zero has no sign
    return expansion


def _held(masks: Array, rows: int) -> Array:
    """Where values are kept: on each member's mask, or on the support of all in one row. [rows, sum d r]"""
    return masks if rows == len(masks) else np.asarray(masks.any(axis=0, keepdims=True))


def put(bank: Arrays, place: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """A bank with what is kept at a place, e.g. `cluster/3` or `member/7`, replaced."""
    kept = {name: a for name, a in bank.items() if not name.startswith(f"{place}/")}
    return {**kept, **{f"{place}/{name}": a for name, a in arrays.items()}}


def get(bank: Arrays, place: str) -> dict[str, Array]:
    """The named arrays kept at a place; empty if there are none."""
    prefix = f"{place}/"
    return {name.removeprefix(prefix): a for name, a in bank.items() if name.startswith(prefix)}


def places(bank: Arrays, kind: str) -> tuple[int, ...]:
    """Ids of the places of a kind, `cluster` or `member`, ascending."""
    return tuple(sorted({int(name.split("/")[1]) for name in bank if name.startswith(f"{kind}/")}))


def each(bank: Arrays, kind: str = "") -> dict[int, dict[str, Array]]:
    """What `get` finds at every place of a kind, by id, in one pass; without a kind names begin with the id.

    >>> each({"3/values": np.ones(1), "3/seed": np.ones(1), "1/seed": np.ones(1)}).keys()
    dict_keys([1, 3])
    """
    prefix = f"{kind}/" if kind else ""
    found = dict[str, dict[str, Array]]()
    for name, array in bank.items():
        if name.startswith(prefix):
            place, _, part = name.removeprefix(prefix).partition("/")
            found.setdefault(place, {})[part] = array
    return {k: found[str(k)] for k in sorted(map(int, found))}


def put_each(bank: Arrays, kind: str, places: Mapping[int, Mapping[str, Array]]) -> dict[str, Array]:
    """A bank whose places of a kind are these."""
    kept = {name: a for name, a in bank.items() if not name.startswith(f"{kind}/")}
    return {**kept, **{_name(kind, k, part): a for k, parts in places.items() for part, a in parts.items()}}


def keep_records(bank: Arrays, news: Mapping[int, Mapping[str, Array]]) -> dict[str, Array]:
    """A bank with records of clusters that have arrived, each unless it brings nothing new or half of what it needs.

    A record goes once all its members are in newer ones: a cluster that has grown may go by another id, and one that a
    device has left is known of the others as before. Without what is told once, news go with what is known of their
    members.

    Args:
        bank: what the device has; each of its records is the newest there is of one of its members.
        news: parts of each record, by the id of its cluster.

    Returns:
        The bank; arrays are not copied.
    """
    kept, held = dict(bank), _Held({}, {})
    for name in bank:
        if name.endswith("/members"):
            held.add(int(name.split("/")[1]), bank[name], bank[name.replace("members", "versions")])
    for cluster, parts in sorted(news.items()):
        told, members = dict(parts), parts["members"].tolist()
        shared = {k: record_at(kept, k) for k in held.sharing(members, cluster)}
        if not told.keys() >= PARTS.keys():
            known = [a for a in shared.values() if {*members} <= {*a["members"].tolist()}]
            if not known:
                continue
            told = {**_told_once(known[0], members), **told}
        if not held.lacks(_versions(told)):
            continue
        if [*shared] == [cluster] and held.follows(cluster, told):  # nearly always
            kept.update({_name("cluster", cluster, part): told[part] for part in PARTS})
            held.records[cluster] = told["members"], told["versions"]
            continue
        _put_beside(kept, held, cluster, {ARRIVED: told, **shared})
    return kept


def _put_beside(kept: dict[str, Array], held: _Held, cluster: int, records: Mapping[int, Mapping[str, Array]]) -> None:
    """Put the record that has `ARRIVED` in its place, and those it shares members with beside it, or away."""
    told = records[ARRIVED]
    held.add(ARRIVED, told["members"], told["versions"])
    newest_of = {k: held.newest(k) for k in records}
    for k, record in records.items():
        held.drop(k)
        for part in record if k != ARRIVED else ():
            del kept[_name("cluster", k, part)]
    for k, record in records.items():
        place = held.place(cluster if k == ARRIVED else k, record, newest_of[k])
        if place is not None:
            held.add(place, record["members"], record["versions"])
            kept.update({_name("cluster", place, part): record[part] for part in PARTS})


class _Held(NamedTuple):
    """Which records there are. records: members and versions, by place. places: of the records of each member."""

    records: dict[int, tuple[Array, Array]]
    places: dict[int, tuple[int, ...]]

    def add(self, place: int, members: Array, versions: Array) -> None:
        self.records[place] = members, versions
        ids: list[int] = members.tolist()
        before = {m: self.places[m] for m in ids if m in self.places}
        self.places.update(dict.fromkeys(ids, (place,)))
        self.places.update({m: (*others, place) for m, others in before.items()})

    def drop(self, place: int) -> None:
        for m in self.records.pop(place)[0].tolist():
            self.places[m] = tuple(p for p in self.places[m] if p != place)

    def sharing(self, members: Sequence[int], place: int) -> list[int]:
        """Places of records with one of the members, and this one if there is a record."""
        return sorted({p for m in members for p in self.places.get(m, ())} | ({place} & self.records.keys()))

    def version(self, place: int, member: int) -> int:
        members, versions = self.records[place]
        return int(versions[members.tolist().index(member)])

    def follows(self, place: int, record: Mapping[str, Array]) -> bool:
        """Whether a record has the members of the one there, and none of them older."""
        members, versions = self.records[place]
        return np.array_equal(members, record["members"]) and bool((record["versions"] >= versions).all())

    def lacks(self, versions: Mapping[int, int]) -> bool:
        """Whether of some member nothing as new is there."""
        return any(all(self.version(p, m) < v for p in self.places.get(m, ())) for m, v in versions.items())

    def newest(self, place: int) -> list[int]:
        """Members that a record has the newest values of; of equal ones that of the first place."""
        ids = self.records[place][0].tolist()
        alone = (place,)
        return [
            m
            for m in ids
            if self.places[m] == alone or place == max(self.places[m], key=lambda p: (self.version(p, m), -p))
        ]

    def place(self, name: int, record: Mapping[str, Array], newest_of: Sequence[int]) -> int | None:
        """Where a record goes: by its name, unless that member is newer elsewhere; none where it is newest of none."""
        elsewhere = name not in newest_of and name in record["members"].tolist()
        wanted = newest_of if elsewhere or not newest_of else [name, *newest_of]
        return next((k for k in wanted if k not in self.records), None)


def newest(records: Sequence[ClusterRecord]) -> dict[int, tuple[ClusterRecord, int]]:
    """For every member the record with its newest values, of equal ones the last, and its row in it."""
    found: dict[int, tuple[ClusterRecord, int]] = {}
    for record in records:
        for n, k in enumerate(record.members):
            before = found.get(k)
            if before is None or record.versions[n] >= before[0].versions[before[1]]:
                found[k] = (record, n)
    return found


def _told_once(record: Mapping[str, Array], members: Sequence[int]) -> dict[str, Array]:
    """What is told once of some members of a record; masks are rows of bits or a list of codes."""
    places = record["members"].tolist()
    rows, masks = [places.index(m) for m in members], record["masks"]
    once = {name: record[name][rows] for name in ("seeds", "codes", "sketches") if len(record[name]) == len(places)}
    each_mask = cut(masks, len(places)) if masks.ndim == 1 else masks
    chosen = [each_mask[n] for n in rows]
    return {**record, **once, "masks": listed(chosen) if masks.ndim == 1 else np.stack(chosen)}


def record_at(bank: Arrays, cluster: int) -> dict[str, Array]:
    """The parts of a cluster's record; empty if there is none."""
    return {part: bank[name] for part in PARTS if (name := f"cluster/{cluster}/{part}") in bank}


def _versions(record: Arrays) -> dict[int, int]:
    return dict(zip(record["members"].tolist(), record["versions"].tolist(), strict=True))


def _name(kind: str, place: int, part: str) -> str:
    """Every device of a process has the same names, so that they are kept once."""
    return sys.intern(f"{kind}/{place}/{part}")
