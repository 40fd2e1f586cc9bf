"""What a device of the paper's method keeps by name, and the cluster record it makes of it.

own: seed, code, quota, sizes, B; later mask (bits), cluster (ids), sent (values last sent, 16 bit), moment/*.
bank: member/ID/{values, mask, code, seed} of its own cluster, cluster/ID/* records of other clusters.
"""

from __future__ import annotations

import numpy as np

from ..exchange.union import Rule, join
from ..experts.bank import ClusterRecord, get, places
from ..types import Array, Arrays, DeviceState

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


def change(own: Arrays) -> float:
    """Relative change of B since it was last sent, infinite before the first time."""
    if "sent" not in own:
        return float("inf")
    now, sent = values(own).astype(np.float64), own["sent"].astype(np.float64)
    size = float(np.linalg.norm(now))
    return float(np.float32(np.linalg.norm(now - sent) / size)) if size > 0 else 0.0


def holds(device: DeviceState) -> tuple[int, ...]:
    """Devices whose mask, code and seed this one knows, itself included."""
    bank = device.bank
    inside = [k for k in places(bank, "member") if f"member/{k}/mask" in bank]
    beyond = [int(m) for k in places(bank, "cluster") for m in bank[f"cluster/{k}/members"]]
    return tuple(sorted({device.id, *inside, *beyond}))


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
    members[device.id] = {**{n: own[n] for n in STATICS}, "values": own.get("sent", values(own))}
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
        codes=np.stack([members[k]["code"] for k in ids]).astype(np.float32),
    )
