r"""What a device of the paper's method tells, in fewer bits (R8): quantised values, masks and bids at their entropy.

Arrays are coded when they are sent and read when they arrive; records of clusters stay coded in a bank, one code for
each member where values are coarse, so that who passes them on sends the very bytes that the member made. `own` and
`member` keep plain arrays; values there are what receivers read, which codes to the same bits again.
"""

from __future__ import annotations

import math

import numpy as np

from ..adapters.mask import BITS, bid, bid_bits, pack_bid, unpack_bid
from ..exchange.entropy import decode_levels, decode_mask, encode_levels, encode_mask, entropy_bits
from ..exchange.quantise import dequantise, num_bytes, quantise
from ..exchange.recall import recalled
from ..exchange.union import join
from ..experts.bank import ClusterRecord, load, store
from ..experts.listing import cut, listed
from ..types import Array, Arrays, DeviceState
from .parts import by_entry, by_run, cluster_record, every_run, fixed_bits, shape, unpack
from .sparse_orthogonal import SparseOrthogonal


def is_coarse(c: SparseOrthogonal) -> bool:
    """Whether values travel otherwise than in 16 bit as they are."""
    return c.values != "float16" or c.deltas is not None


def payload_bits(own: Arrays, quota: Array, c: SparseOrthogonal) -> int:
    """Size of what a device sends when its values are new to somebody."""
    size, active = own["B"].size, int(quota.sum())
    told = -(-8 * (own["code"].nbytes + own["sketch"].nbytes) // 16)
    mask = size if c.mask_code == "raw" else math.ceil(1.02 * entropy_bits(active / size) * size / c.run)
    return fixed_bits(mask, told) + 8 * num_bytes(active, c.values)


def bid_payload_bits(own: Arrays, c: SparseOrthogonal) -> int:
    """Size of a device's bid, with what else a group's first tells with it."""
    sizes, quota = every_run(*shape(own), c.run)
    levels = BITS * sum(sizes) if c.mask_code == "raw" else math.ceil(1.02 * bid_bits(sizes, quota, c.bid_levels))
    return levels + 16 * own["code"].size + 32 * quota.size + 2048


def code_bid(levels: Array, c: SparseOrthogonal) -> Array:
    """A bid as it travels."""
    return pack_bid(levels) if c.mask_code == "raw" else encode_levels(levels, c.bid_levels + 1)


def read_bid(code: Array, num: int, c: SparseOrthogonal) -> Array:
    """The levels of a bid for `num` runs.

    Raises:
        ValueError: no bid for as many.
    """
    return unpack_bid(code, num) if c.mask_code == "raw" else decode_levels(code, c.bid_levels + 1, num)


def wish(score: Array, sizes: tuple[int, ...], quota: Array, c: SparseOrthogonal) -> Array:
    """Levels of a device's bid for runs of neighbouring entries, from its score of entries."""
    return bid(by_run(score, c.run), sizes, quota, c.bid_levels)


def code_mask(packed: Array, sizes: Array, c: SparseOrthogonal) -> Array:
    """A mask as it travels, from its bits."""
    if c.mask_code == "raw":
        return packed
    runs = unpack(packed, int(sizes.sum()))[:: c.run]
    return encode_mask(runs, _runs(sizes, c))


def read_mask(code: Array, sizes: Array, c: SparseOrthogonal) -> Array:
    """The bits of a mask that arrived.

    Raises:
        ValueError: no mask of this layout.
    """
    if c.mask_code == "raw":
        return code
    return _read(code, _runs(sizes, c), c.run)


@recalled
def _read(code: Array, cuts: tuple[int, ...], run: int) -> Array:
    """The bits of a mask; they take an eighth of the mask, so that those of large models are kept as well."""
    return np.packbits(by_entry(decode_mask(code, sum(cuts), cuts), run))


def _runs(sizes: Array, c: SparseOrthogonal) -> tuple[int, ...]:
    return every_run(tuple(sizes.tolist()), sizes, c.run)[0]


def code_sketch(packed: Array, size: int) -> Array:
    """A packed sketch of m numbers: mean and reach in 16 bit as they are, the covariance in 8 with scales. [b]"""
    kept = np.concatenate([packed[:size], packed[-1:]]).astype("<f2")
    return np.concatenate([kept.view(np.uint8), quantise(packed[size:-1].astype(np.float32), "int8")])


def read_sketch(told: Array) -> Array:
    """A packed sketch of what was told, coded or plain. [m + m (m + 1) / 2 + 1]

    Raises:
        ValueError: a length no sketch has, or numbers that are not finite.
    """
    if told.dtype != np.uint8:
        return told
    size = next((m for m in range(1, 513) if _sketch_bytes(m) == told.size), 0)
    if not size:
        raise ValueError(f"{told.size} bytes are no task sketch")
    kept = np.frombuffer(told[: 2 * size + 2].tobytes(), "<f2").astype(np.float32)
    upper = dequantise(told[2 * size + 2 :], "int8", size * (size + 1) // 2)
    return np.concatenate([kept[:-1], upper, kept[-1:]])


def _sketch_bytes(size: int) -> int:
    return 2 * size + 2 + num_bytes(size * (size + 1) // 2, "int8")


def coded(parts: Arrays, sizes: Array, c: SparseOrthogonal) -> dict[str, Array]:
    """What a device tells its cluster, as it travels."""
    out = dict(parts)
    if "values" in parts and is_coarse(c):
        out["values"] = quantise(parts["values"], c.values)
    if "mask" in parts:
        out["mask"] = code_mask(parts["mask"], sizes, c)
    return out


def opened(src: int, parts: Arrays, known: Arrays, sizes: Array, c: SparseOrthogonal) -> dict[str, Array]:
    """A member's message as plain arrays; without its values where its mask is not known.

    A change is added to what it counts from; without that, it is as if nothing had come.

    Raises:
        ValueError: parts that are no codes of this layout.
    """
    out = dict(parts)
    try:
        if "mask" in parts:
            out["mask"] = read_mask(parts["mask"], sizes, c)
        if not is_coarse(c):
            return out
        mask = out.get("mask", known.get("mask"))
        if "change" in out:
            return _with_change(out, known, c)
        code = out.pop("values")
        if mask is not None:
            out["values"] = dequantise(code, c.values, int(unpack(mask, int(sizes.sum())).sum()))
    except (KeyError, ValueError) as error:
        raise ValueError(f"device {src} sent values or a mask that cannot be read: {error}") from None
    return out


def _with_change(parts: Arrays, known: Arrays, c: SparseOrthogonal) -> dict[str, Array]:
    """What a member's message that holds a change comes to."""
    if c.deltas is None or "values" not in known or int(known["version"]) != int(parts["base"]):
        return {}
    step = dequantise(parts["change"], c.deltas, known["values"].size)
    return {"values": np.asarray(known["values"] + step, dtype=np.float32), "version": parts["version"]}


def record(device: DeviceState, c: SparseOrthogonal) -> dict[str, Array]:
    """The record of the device's own cluster as it travels: joined; where values are coarse, each member by itself."""
    coarse = is_coarse(c)
    r = cluster_record(device, "stack" if coarse else c.aggregation)
    out = store(r)
    if c.sketch_bits == 8:
        out["sketches"] = r.sketches
    if coarse:
        values = [quantise(row[mask], c.values) for row, mask in zip(r.joined, r.masks, strict=True)]
        out["values"] = listed(values) if c.values == "int3" else np.concatenate(values)
    if c.mask_code == "entropy":
        out["masks"] = listed([code_mask(packed, device.own["sizes"], c) for packed in out["masks"]])
    return out


def read_record(parts: Arrays, sizes: Array, c: SparseOrthogonal) -> ClusterRecord:
    """A record that arrived, joined by the rule of R5.

    Raises:
        ValueError: parts that do not fit together, or are no codes of this layout.
    """
    num = int(sizes.sum())
    members = parts["members"].size if "members" in parts else 0
    packed = parts.get("masks", np.zeros(0, dtype=np.uint8))
    if c.mask_code == "entropy":
        packed = np.stack([read_mask(code, sizes, c) for code in cut(packed, members)])
    if not is_coarse(c):
        return load({**parts, **({"masks": packed} if "masks" in parts else {})}, num, c.aggregation == "stack")
    if packed.ndim != 2 or packed.shape[1] != -(-num // 8) or "values" not in parts:
        raise ValueError(f"masks of shape {packed.shape} do not fit {members} members and {num} entries")
    held = [int(n) for n in np.unpackbits(packed, axis=1, count=num).sum(axis=1)]
    codes = cut(parts["values"], members, None if c.values == "int3" else [num_bytes(n, c.values) for n in held])
    values = [dequantise(code, c.values, n) for code, n in zip(codes, held, strict=True)]
    r = load({**parts, "masks": packed, "values": np.concatenate(values)}, num, apart=True)
    rows = dict(zip(r.members, r.joined, strict=True))
    joined = join(rows, dict(zip(r.members, r.masks, strict=True)), c.aggregation)
    return ClusterRecord(**{**{n: getattr(r, n) for n in r.__dataclass_fields__}, "joined": joined})
