"""How a device keeps what it received, eq. (24): one record per cluster, experts read through their masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..types import Array, Arrays

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
        "values": record.joined[held].astype(np.float16),
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
    masks = np.unpackbits(arrays["masks"], axis=1, count=num_expansion).astype(bool)
    held = _held(masks, len(members) if apart else 1)
    if arrays["values"].shape != (int(held.sum()),):
        raise ValueError(f"{arrays['values'].shape[0]} values do not fit a support of {int(held.sum())}")
    if any(len(arrays[name]) != len(members) for name in ("seeds", "codes", "sketches", "versions")):
        raise ValueError(f"seeds, task codes, sketches or versions do not fit {len(members)} members")
    if not all(np.isfinite(arrays[name]).all() for name in ("values", "codes", "sketches")):
        raise ValueError(f"the record of devices {members} holds values that are not finite")
    joined = np.zeros(held.shape, dtype=np.float32)
    joined[held] = arrays["values"]
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
    return np.asarray(np.where(record.masks[row], own, np.float32(0)))


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
