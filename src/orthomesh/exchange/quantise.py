r"""Values in 16, 8, 4 or 3 bits: the largest magnitude of every block sets its scale, residuals are remembered.

Zero-point free and symmetric: codes -127..127 or -7..7 times a scale in bfloat16 for each 64, that is 8.25 and 4.25
bits a value; codes -5..5 for each 256 at their entropy, which is 3.2 bits for a trained B under its mask. What was
coded once codes to the same bits again, so that who passes values on neither loses nor adds anything.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..rng import stream
from ..types import Array
from .entropy import decode_levels, encode_levels

Precision = Literal["float16", "bfloat16", "int8", "int4", "int3"]
"""How values travel."""
BLOCK = {"int8": 64, "int4": 64, "int3": 256}
"""Neighbouring values that share a scale."""
TOP = {"int8": 127, "int4": 7, "int3": 5}
"""Largest code."""
_LEAST = np.float32(2.0**-118)
"""Smallest scale; the product with any code is a normal number."""


class Told(NamedTuple):
    """code: values as they travel. sent: what receivers read from it. residual: what is still owed. [n] each"""

    code: UInt8[np.ndarray, " b"]
    sent: Float32[np.ndarray, " n"]
    residual: Float32[np.ndarray, " n"]


def num_bytes(num: int, precision: Precision) -> int:
    """Bytes of so many values; of `int3`, whose codes are at their entropy, the most it can be.

    >>> [num_bytes(128, p) for p in ("float16", "bfloat16", "int8", "int4", "int3")]
    [256, 256, 132, 68, 91]
    """
    if precision in ("float16", "bfloat16"):
        return 2 * num
    codes = {"int8": num, "int4": -(-num // 2), "int3": -(-11 * num // 25) + 32}  # log2(11) / 8 is below 0.44
    return 2 * -(-num // BLOCK[precision]) + codes[precision]


def quantise(
    values: Float[np.ndarray, " n"], precision: Precision, draw: np.random.Generator | None = None
) -> UInt8[np.ndarray, " b"]:
    r"""Values as they travel.

    .. math::  s_b = \mathrm{bf16}\big( \max_{i \in b} |v_i| / q \big), \quad c_i = \mathrm{round}(v_i / s_b),
               \quad q = 127, 7, 5

    Rounded to the nearest, the error is at most :math:`s_b (1/2 + q 2^{-9})`, and coding what was read changes nothing.

    Args:
        values: finite.
        precision: of each.
        draw: where to take random rounding from, which is right on average and wrong by up to a whole step; none:
            to the nearest.

    Returns:
        Scales of all blocks, then codes. [num_bytes], or up to that many of `int3`

    Raises:
        ValueError: values that are not finite, or beyond what the precision holds.
    """
    v = np.asarray(values, dtype=np.float32)
    if not np.isfinite(v).all():
        raise ValueError("values that travel must be finite, these have diverged")
    if precision == "float16":
        with np.errstate(over="ignore"):
            half = v.astype("<f2")
        if not np.isfinite(half).all():
            raise ValueError("values beyond 65504 do not fit float16")
        return half.view(np.uint8)
    if precision == "bfloat16":
        return _bfloat16(v).view(np.uint8)
    top = TOP[precision]
    width = BLOCK[precision]
    blocks = np.zeros((-(-v.size // width), width), dtype=np.float32)
    blocks.ravel()[: v.size] = v
    largest = np.abs(blocks).max(axis=1)
    scales = _bfloat16(np.where(largest > 0, np.maximum(largest / np.float32(top), _LEAST), np.float32(0)))
    step = np.where(scales > 0, _widened(scales), np.float32(1))
    ratio = blocks / step[:, None]
    codes = np.rint(ratio) if draw is None else np.floor(ratio + draw.random(ratio.shape, dtype=np.float32))
    raised = (np.clip(codes, -top, top).ravel()[: v.size] + top).astype(np.uint8)
    if precision == "int3":
        raised = encode_levels(raised, 2 * top + 1)
    elif precision == "int4":
        even = np.zeros(-(-raised.size // 2) * 2, dtype=np.uint8)
        even[: raised.size] = raised
        raised = even[::2] | even[1::2] << np.uint8(4)
    return np.concatenate([scales.view(np.uint8), raised])


def dequantise(code: UInt8[np.ndarray, " b"], precision: Precision, num: int) -> Float32[np.ndarray, " n"]:
    """Values that were received. [num], float32

    Raises:
        ValueError: a code of another length, scales that are negative or not finite, codes that nothing codes to.
    """
    length, least = num_bytes(num, precision), 2 * -(-num // BLOCK.get(precision, 1))
    right = code.size == length if precision != "int3" else least <= code.size <= length
    if code.dtype != np.uint8 or code.ndim != 1 or not right:
        raise ValueError(f"{num} values of {precision} take {length} bytes, got {code.shape}")
    raw = code.tobytes()
    if precision in ("float16", "bfloat16"):
        wide = (
            np.frombuffer(raw, "<f2").astype(np.float32)
            if precision == "float16"
            else _widened(np.frombuffer(raw, "<u2"))
        )
        if not np.isfinite(wide).all():
            raise ValueError("values that are not finite were received")
        return np.asarray(wide, dtype=np.float32)
    num_blocks, top = -(-num // BLOCK[precision]), TOP[precision]
    scales = _widened(np.frombuffer(raw, "<u2", count=num_blocks))
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError("scales that are negative or not finite were received")
    codes = np.frombuffer(raw, np.uint8, offset=2 * num_blocks)
    if precision == "int4":
        codes = np.stack([codes & 15, codes >> 4], axis=1).ravel()
        if codes[num:].any():
            raise ValueError("codes follow the last value")
        codes = codes[:num]
    elif precision == "int3":
        codes = decode_levels(codes, 2 * top + 1, num)
    if codes.size and int(codes.max()) > 2 * top:
        raise ValueError(f"a code beyond {top} was received")
    with np.errstate(over="ignore"):
        values = (codes.astype(np.float32) - top) * np.repeat(scales, BLOCK[precision])[:num]
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite were received")
    return np.asarray(values, dtype=np.float32)


def tell(
    values: Float[np.ndarray, " n"],
    residual: Float[np.ndarray, " n"] | None,
    precision: Precision,
    key: tuple[int, int, int] | None = None,
) -> Told:
    r"""Values with error feedback: what the last telling left out is added, what this one leaves out is kept.

    .. math::  y_t = Q(v_t + e_t), \quad e_{t+1} = v_t + e_t - y_t

    so that :math:`\sum_t y_t = \sum_t v_t - e_{T+1}`: what is told adds up to the truth but for one step.

    Args:
        values: now.
        residual: e_t; none: zero.
        precision: how they travel.
        key: seed, round and device of random rounding; none: to the nearest.
    """
    owed = np.asarray(values, dtype=np.float32) + (np.float32(0) if residual is None else residual)
    draw = None if key is None else stream(key[0], "rounding", *key[1:])
    code = quantise(owed, precision, draw)
    sent = dequantise(code, precision, owed.size)
    return Told(code, sent, np.asarray(owed - sent, dtype=np.float32))


def tell_change(values: Float[np.ndarray, " n"], known: Float[np.ndarray, " n"], precision: Precision) -> Told:
    r"""The change since values were last told, for receivers who have all that was told before.

    .. math::  y_t = Q(v_t - \hat v_t), \quad \hat v_{t+1} = \hat v_t + y_t

    The residual is remembered by itself, in what receivers are known to have (CHOCO, arXiv 1902.00340).

    Args:
        values: now.
        known: what receivers have.
        precision: how the change travels.

    Returns:
        The code of the change; `sent` is what receivers have afterwards.
    """
    code = quantise(np.asarray(values, dtype=np.float32) - known, precision)
    sent = np.asarray(known + dequantise(code, precision, values.size), dtype=np.float32)
    return Told(code, sent, np.asarray(values - sent, dtype=np.float32))


def _bfloat16(values: Array) -> Array:
    """Nearest bfloat16, ties to even, as its bits. [n], little-endian uint16"""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    if ((rounded & np.uint64(0x7F80)) == 0x7F80).any():
        raise ValueError("values do not fit bfloat16")
    return rounded.astype("<u2")


def _widened(bits: Array) -> Array:
    """float32 of bfloat16's bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
