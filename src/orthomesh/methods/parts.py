"""What a device of the paper's method keeps by name, and the cluster record it makes of it.

own: seed, code, quota, sizes, B, moment/*; later mask (bits), masked (round it was agreed on), cluster (ids), sent
(values last sent, 16 bit), version (round of that).
bank: member/ID/{values, version, mask, code, seed} of its own cluster, cluster/ID/* records of other clusters.
"""

from __future__ import annotations

import numpy as np

from ..exchange.union import Rule, join
from ..experts.bank import ClusterRecord, get, places
from ..types import Array, Arrays, DeviceState, Round

STATICS = ("mask", "code", "seed")
"""What is told once about a member; its values follow."""


def unpack(bits: Array, size: int) -> Array:
    """A mask from its bits. [size], bool"""
    return np.unpackbits(bits, count=size).astype(bool)


def under_mask(own: Arrays, mask: Array) -> dict[str, Array]:
    """The device's parts once its mask is known: B off the mask is zero, moments are kept for active entries."""
    moments = {name: a[mask] if a.shape == mask.shape else a for name, a in own.items() if name.startswith("moment/")}
    return {**own, **moments, "B": np.where(mask, own["B"], np.float32(0)), "mask": np.packbits(mask)}


def values(own: Arrays) -> Array:
    """Active entries of B as they travel, in 16 bit. [n active]"""
    active = own["B"][unpack(own["mask"], own["B"].size)]
    return np.asarray(active, dtype=np.float16)


def change(own: Arrays, t: Round) -> float:
    """Relative change of B since it was last sent: infinite before the first time, -1 while it is not worth sending.

    What a negotiated mask has left of a dense warm-up is worth little before it was trained under the mask, so it
    waits a round unless there is none.
    """
    waiting = "mask" not in own or int(own.get("masked", -1)) == t.index
    if waiting and not t.is_last:
        return -1.0
    if "sent" not in own:
        return float("inf")
    now, sent = values(own).astype(np.float64), own["sent"].astype(np.float64)
    size = float(np.linalg.norm(now))
    return float(np.float32(np.linalg.norm(now - sent) / size)) if size > 0 else 0.0


def holds(device: DeviceState) -> Array:
    """Whose experts the device has, itself included, and which version of each: (id, version) rows by id. [n, 2]

    A version is the number of the round in which the values were sent; 0 before the first time.
    """
    bank = device.bank
    versions = {k: int(bank[f"member/{k}/version"]) for k in places(bank, "member")}
    for k in places(bank, "cluster"):
        record = get(bank, f"cluster/{k}")
        versions |= {int(m): int(v) for m, v in zip(record["members"], record["versions"], strict=True)}
    versions[device.id] = int(device.own.get("version", 0))
    return np.array(sorted(versions.items()), dtype=np.uint32)


def member_parts(src: int, known: Arrays, parts: Arrays, size: int) -> dict[str, Array]:
    """What is known of a member once its message is added to what it told before.

    Raises:
        ValueError: values that are not finite, or do not fit the member's mask.
    """
    joined = {**known, **parts}
    if "mask" not in joined:
        return {}  # its mask was lost on the way; values alone are of no use
    if joined["mask"].shape != (-(-size // 8),) or joined["values"].shape != (int(unpack(joined["mask"], size).sum()),):
        raise ValueError(f"device {src} sent {joined['values'].size} values that do not fit its mask")
    if not np.isfinite(joined["values"]).all():
        raise ValueError(f"device {src} sent values that are not finite, its training has diverged")
    return joined


def cluster_record(device: DeviceState, rule: Rule) -> ClusterRecord:
    """What the device knows of its own cluster, itself included, joined by the rule of R5.

    A device stands in its own record with what it last sent, so that all members hold the same record.
    """
    own, size = device.own, device.own["B"].size
    known = {k: get(device.bank, f"member/{k}") for k in places(device.bank, "member")}
    members = {k: a for k, a in known.items() if "values" in a}
    me = {**{n: own[n] for n in STATICS}, "values": own.get("sent", values(own))}
    members[device.id] = {**me, "version": own.get("version", np.array(0, dtype=np.uint32))}
    ids = tuple(sorted(members))
    masks = {k: unpack(members[k]["mask"], size) for k in ids}
    full = {}
    for k in ids:
        full[k] = np.zeros(size, dtype=np.float32)
        full[k][masks[k]] = members[k]["values"]
    return ClusterRecord(
        members=ids,
        joined=join(full, masks, rule),
        masks=np.stack([masks[k] for k in ids]),
        seeds=np.array([members[k]["seed"] for k in ids], dtype=np.uint64),
        versions=np.array([members[k]["version"] for k in ids], dtype=np.uint32),
        codes=np.stack([members[k]["code"] for k in ids]).astype(np.float32),
    )
