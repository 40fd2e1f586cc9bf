"""What a device of the paper's method keeps by name, and the cluster record it makes of it.

own: seed, code, sketch, quota and sizes of every matrix, spans (matrices that share a quota), B, moment/*; error (R11)
and saliency (R2) where wanted; bid (as it travels) until there is a mask; later mask (bits), masked (round it was found
in), cluster (ids), group (ids of devices with the same adapter), sent (values last sent, as receivers read them),
version (round of that), owed (what coarse values have left out, for groups).
bank: member/ID/* of its own cluster: the mask that its bid led to, later what it told: values, version, mask, code,
sketch, seed. cluster/ID/*: records of other clusters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..adapters.mask import merged
from ..exchange.union import Rule, join_active, support
from ..experts.bank import ClusterRecord, each
from ..types import Array, Arrays, DeviceState, Round

STATICS = ("mask", "code", "sketch", "seed")
"""What is told once about a member; its values follow."""


def unpack(bits: Array, size: int) -> Array:
    """A mask from its bits. [size], bool"""
    return np.unpackbits(bits, count=size).view(bool)


def cuts_of(base: Any) -> tuple[slice, ...]:
    """Where the input of every layer of a `models.base.Base` lies in a task code. [L]"""
    starts = dict(zip(base.inputs, np.cumsum((0, *base.widths)).tolist(), strict=False))
    widths = dict(zip(base.inputs, base.widths, strict=True))
    first = [base.source[name] for name in base.slots]
    return tuple(slice(starts[name], starts[name] + widths[name]) for name in first)


def shape(own: Arrays) -> tuple[tuple[int, ...], Array]:
    """Positions of every group of matrices, and how many of them the device is owed. [G] each"""
    sizes, quota = merged(own["sizes"], own["spans"]), merged(own["quota"], own["spans"])
    return tuple(sizes.tolist()), quota


def every_run(sizes: tuple[int, ...], quota: Array, run: int) -> tuple[tuple[int, ...], Array]:
    """Runs of every group, and how many of them the device is owed: rounded down, but at least one. [G] each

    Rounded down, so that densities that add up to 1 leave no collision.

    Raises:
        ValueError: a matrix that does not divide into runs.

    >>> every_run((64, 128), np.array([8, 16]), 8)
    ((8, 16), array([1, 2]))
    """
    if run == 1:
        return sizes, quota
    if any(n % run for n in sizes):
        raise ValueError(f"run {run} must divide the entries of every B, that is {sorted(set(sizes))}")
    return tuple(n // run for n in sizes), np.maximum(1, quota.astype(np.int64) // run)


def by_run(score: Array, run: int) -> Array:
    """Scores of runs of neighbouring positions: the sum over each. [sum d r / run]"""
    return score if run == 1 else np.asarray(score.reshape(-1, run).sum(axis=1))


def by_entry(mask: Array, run: int) -> Array:
    """A mask of runs as one of entries."""
    return mask if run == 1 else np.repeat(mask, run)


def fixed_bits(num_expansion: int, num_told: int) -> int:
    """What travels beside a device's values when they are new to somebody: mask, what is told of its task, heads."""
    return num_expansion + 16 * num_told + 2048


def under_mask(own: Arrays, bits: Array, t: Round) -> dict[str, Array]:
    """The device's parts once its mask is known, as bits: B off it is zero, moments are kept for active entries.

    `quota` becomes what each matrix has got out of its group's.
    """
    size = own["B"].size
    active = np.flatnonzero(unpack(bits, size))
    moments = {name: a[active] if a.shape == (size,) else a for name, a in own.items() if name.startswith("moment/")}
    ends = np.cumsum(own["sizes"].astype(np.int64))
    B = np.zeros_like(own["B"], dtype=np.float32)
    B[active] = own["B"][active]
    held = {
        "B": B,
        "mask": bits,
        "masked": np.array(t.index, dtype=np.uint32),
        "quota": np.diff(np.searchsorted(active, ends), prepend=0).astype(np.uint32),
    }
    return {**{name: a for name, a in own.items() if name not in ("saliency", "bid")}, **moments, **held}


def values(own: Arrays) -> Array:
    """Active entries of B as they travel, in 16 bit. [n active]"""
    active = own["B"][np.flatnonzero(unpack(own["mask"], own["B"].size))]
    return np.asarray(active, dtype=np.float16)


def change(own: Arrays, t: Round, negotiated: bool) -> float:
    """Relative change of B since it was last sent: infinite before the first time, -1 while it is not worth sending.

    What a negotiated mask has left of a dense warm-up is worth little before it was trained under the mask, so it
    waits a round unless there is none; the others of a group (R11) begin from it, so its first does not wait. They
    average every round: for them any change is enough.
    """
    new = "mask" not in own or (negotiated and int(own["masked"]) == t.index)
    if new and not t.is_last and ("group" not in own or "moment/step" not in own):
        return -1.0
    if "sent" not in own or "group" in own:
        return float("inf")
    now, sent = values(own).astype(np.float64), own["sent"].astype(np.float64)
    size = float(np.linalg.norm(now))
    return float(np.float32(np.linalg.norm(now - sent) / size)) if size > 0 else 0.0


def holds(device: DeviceState) -> Array:
    """Whose experts the device has, itself included, and which version of each: (id, version) rows by id. [n, 2]

    A version is the number of the round in which the values were sent; 0 before the first time.
    """
    bank = device.bank
    versions = {k: int(a["version"]) for k, a in each(bank, "member").items() if "version" in a}
    for record in each(bank, "cluster").values():
        for k, version in zip(record["members"].tolist(), record["versions"].tolist(), strict=True):
            versions[k] = max(version, versions.get(k, version))
    versions[device.id] = int(device.own.get("version", 0))
    return np.array(sorted(versions.items()), dtype=np.uint32)


def taken(device: DeviceState, members: Iterable[int]) -> Array:
    """Positions held by those of the members whose masks the device knows, itself included. [sum d r], bool"""
    known = {**each(device.bank, "member"), device.id: device.own}
    told = {k: known[k]["mask"] for k in {*members, device.id} if "mask" in known.get(k, {})}
    return support({k: unpack(mask, device.own["B"].size) for k, mask in told.items()})


def agreed(device: DeviceState) -> Array:
    """A digest of the masks that the device takes itself and the members of its cluster to have. [], uint64

    Who come to the same need not tell each other theirs.
    """
    masks = {k: a.get("mask") for k, a in each(device.bank, "member").items()}
    told = hashlib.sha256()
    for k, mask in sorted({**masks, device.id: device.own["mask"]}.items()):
        told.update(k.to_bytes(4, "little") + (b"" if mask is None else mask.tobytes()))
    return np.array(int.from_bytes(told.digest()[:8], "little"), dtype=np.uint64)


def member_parts(src: int, known: Arrays, parts: Arrays, size: int) -> dict[str, Array]:
    """What is known of a member once its message is added to what it told before.

    Raises:
        ValueError: values that are not finite, or do not fit the member's mask.
    """
    joined = {**known, **parts}
    if not joined.keys() >= set(STATICS):
        return dict(known)  # what is told once was lost on the way; values alone are of no use
    if joined["mask"].shape != (-(-size // 8),) or joined["values"].shape != (_held(joined["mask"], size),):
        raise ValueError(f"device {src} sent {joined['values'].size} values that do not fit its mask")
    if not np.isfinite(joined["values"]).all():
        raise ValueError(f"device {src} sent values that are not finite, its training has diverged")
    return joined


def _held(mask: Array, size: int) -> int:
    """Entries of a mask from its bits; those that fill the last byte do not count."""
    spare = int(mask[-1]) & (1 << -size % 8) - 1 if size else 0
    return int(np.bitwise_count(mask).sum(dtype=np.int64)) - spare.bit_count()


def _told(device: DeviceState) -> dict[int, Arrays]:
    """What every member of the device's cluster has told, with itself as it stands in what others know."""
    own, members = device.own, each(device.bank, "member")
    told: dict[int, Arrays] = {k: a for k, a in members.items() if "values" in a}
    me = {**{n: own[n] for n in STATICS}, "values": own.get("sent", values(own))}
    told[device.id] = {**me, "version": own.get("version", np.array(0, dtype=np.uint32))}
    return told


def made_of(device: DeviceState) -> bytes:
    """A digest of what the device's bank of experts is made from: its cluster's parts and the records of others.

    Members of one cluster have the same where nothing was lost. Of two that differ the experts may still be alike.
    """
    total = hashlib.sha256()
    held = _told(device) if "mask" in device.own else {}
    parts = {("member", k, name): a for k, told in held.items() for name, a in told.items() if name != "version"}
    for k, record in each(device.bank, "cluster").items():
        parts |= {("cluster", k, name): a for name, a in record.items() if name != "versions"}
    for place in sorted(parts):
        array = parts[place]
        total.update(f"{place}{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.digest()


def cluster_record(device: DeviceState, rule: Rule) -> ClusterRecord:
    """What the device knows of its own cluster, itself included, joined by the rule of R5.

    A device stands in its own record with what it last sent, so that all members hold the same record.
    """
    members, size = _told(device), device.own["B"].size
    ids = tuple(sorted(members))
    masks = np.unpackbits(np.stack([members[k]["mask"] for k in ids]), axis=1, count=size).view(bool)
    return ClusterRecord(
        members=ids,
        joined=join_active({k: members[k]["values"] for k in ids}, dict(zip(ids, masks, strict=True)), rule),
        masks=masks,
        seeds=np.array([members[k]["seed"] for k in ids], dtype=np.uint64),
        versions=np.array([members[k]["version"] for k in ids], dtype=np.uint32),
        codes=np.stack([members[k]["code"] for k in ids]).astype(np.float32),
        sketches=np.stack([members[k]["sketch"] for k in ids]),
    )
