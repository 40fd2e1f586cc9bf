"""Four answers to a payload that does not fit within deadline and power: fewer links, fewer entries, fewer bits, or
what fits now and the rest later.

The first shapes the topology; the others are for fades, where the links are planned already. All work from what Lemma 1
leaves, `power.payload_limit_bits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from .link import Radio
from .power import Cast, is_feasible

Answer = Literal["drop_link", "lower_sparsity", "quantise", "partial"]


def drop_links(bits: int | float, gains: Mapping[int, float], radio: Radio, cast: Cast) -> tuple[int, ...]:
    """The most receivers a device can plan for: the n strongest, n as large as power allows.

    Power grows with n (the worst gain falls, and in unicast the band is split further), so the best set is a prefix
    of the sorted gains, found by bisection.

    Args:
        bits: size of the payload.
        gains: linear power gain by receiver.
        radio: the settings.
        cast: one transmission for all, or one each.

    Returns:
        Ids, ascending; unlike `power.served` the band is split among those kept only.

    >>> drop_links(1e5, {1: 1e-9, 2: 1e-20, 3: 1e-8}, Radio(), "unicast")
    (1, 3)
    """
    ranked = sorted(gains, key=lambda j: (-gains[j], j))
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high + 1) // 2
        fits = is_feasible(bits, [gains[j] for j in ranked[:middle]], radio, cast)
        low, high = (middle, high) if fits else (low, middle - 1)
    return tuple(sorted(ranked[:low]))


def lower_densities(densities: Float[np.ndarray, " L"], bits: float, limit_bits: float) -> Float[np.ndarray, " L"]:
    """Densities that fit: all scaled by Q_max / Q, where the payload is proportional to them.

    Args:
        densities: s_l in [0, 1].
        bits: payload at these densities, > 0.
        limit_bits: payload that fits, >= 0.

    Returns:
        s_l, not above what they were.

    Raises:
        ValueError: a payload that is not positive, or a negative limit.

    >>> lower_densities(np.array([0.5, 0.25]), 4e6, 2e6).tolist()
    [0.25, 0.125]
    """
    _check(bits, limit_bits)
    return np.asarray(densities * min(1.0, limit_bits / bits))


def largest(importance: Float[np.ndarray, " n"], count: int) -> Bool[np.ndarray, " n"]:
    """Which entries to send when not all can be: the most important, the earlier of equals.

    >>> largest(np.array([1.0, 3.0, 2.0, 3.0]), 2).tolist()
    [False, True, False, True]
    """
    kept = np.zeros(len(importance), dtype=bool)
    kept[np.argsort(-importance, kind="stable")[: max(0, count)]] = True
    return kept


def bits_that_fit(num_values: int, limit_bits: float, offered: Sequence[int] = (16, 8, 4, 2)) -> int | None:
    """The most bits a value can have, of those on offer; None where even the fewest are too many.

    >>> bits_that_fit(1000, 9000.0), bits_that_fit(1000, 1000.0)
    (8, None)
    """
    return max((b for b in offered if b * num_values <= limit_bits), default=None)


class Quantised(NamedTuple):
    """Values on a uniform grid: value = scale * code, codes in -(2^(b-1) - 1) .. 2^(b-1) - 1."""

    codes: Int[np.ndarray, " n"]
    scale: float


def quantise(values: Float[np.ndarray, " n"], bits: int) -> Quantised:
    """Values rounded to b bits around 0; the largest magnitude is on the grid.

    Args:
        values: finite.
        bits: b, 2 to 16.

    Returns:
        Codes and the grid; |value - scale * code| <= scale / 2.

    Raises:
        ValueError: bits outside 2..16, or a value that is not finite.

    >>> quantise(np.array([-1.0, 0.2, 0.5]), 2).codes.tolist()
    [-1, 0, 0]
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"a value takes 2 to 16 bits, got {bits}")
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("a value is not finite, its training has diverged")
    top = 2 ** (bits - 1) - 1
    scale = float(np.abs(exact).max(initial=0.0)) / top or 1.0
    return Quantised(np.rint(exact / scale).astype(np.int32), scale)


def dequantise(quantised: Quantised) -> Float[np.ndarray, " n"]:
    """The values receivers make of codes. [n]"""
    return quantised.scale * quantised.codes.astype(np.float64)


class Part(NamedTuple):
    """What of a payload goes now: entries start..stop of n, and where the next part begins."""

    start: int
    stop: int
    next: int


def partial(num_values: int, start: int, room_bits: float, value_bits: int = 16) -> Part:
    """As many entries as fit, from where the last part ended; once through, from the beginning again.

    What was not sent stays in the difference between what a device has and what it has told, so that nothing is
    lost for good (error feedback).

    Args:
        num_values: n.
        start: where the last part ended, 0..n.
        room_bits: bits that fit.
        value_bits: of one entry.

    Returns:
        The part; empty where nothing fits.

    Raises:
        ValueError: a start outside the payload, or a negative room.

    >>> partial(10, 8, 80.0)
    Part(start=8, stop=10, next=0)
    """
    if not 0 <= start <= num_values or not room_bits >= 0.0:
        raise ValueError(f"a part starts within 0..{num_values} with room >= 0, got {start} and {room_bits}")
    start = 0 if start == num_values else start
    fits = num_values if room_bits == math.inf else int(room_bits // value_bits)
    stop = min(num_values, start + fits)
    return Part(start, stop, 0 if stop == num_values else stop)


class Told(NamedTuple):
    """What a device tells of its values. kept: which entries go out, [n]; values: what receivers make of them, of the
    entries kept; bits: of each."""

    kept: Bool[np.ndarray, " n"]
    values: Shaped[np.ndarray, " k"]
    bits: int


def tell(
    values: Float[np.ndarray, " n"], known: Float[np.ndarray, " n"], limit_bits: float, answer: Answer, start: int = 0
) -> Told | None:
    """What of its values a device tells when `limit_bits` are left for them.

    Everything in 16 bits where it fits. Else by the answer: nothing (`drop_link`); the entries that have changed most,
    n bits saying which (`lower_sparsity`); all in fewer bits (`quantise`); those from `start` on (`partial`).

    Args:
        values: what it has.
        known: what receivers have from it, zeros where nothing.
        limit_bits: what the links carry, less what travels besides.
        answer: to a payload that does not fit.
        start: where the last part ended.

    Returns:
        What is told; None where nothing of use fits.

    Raises:
        ValueError: a negative limit.

    >>> told = tell(np.array([1.0, 5.0, 2.0]), np.zeros(3), 20.0, "lower_sparsity")
    >>> told.kept.tolist(), told.values.tolist()
    ([False, True, False], [5.0])
    """
    n = len(values)
    _check(1.0, limit_bits)
    if 16 * n <= limit_bits:
        return Told(np.ones(n, dtype=bool), values, 16)
    if answer == "lower_sparsity":
        kept = largest(np.abs(values.astype(np.float64) - known), int((limit_bits - n) // 16))
        return Told(kept, values[kept], 16) if kept.any() else None
    if answer == "quantise":
        bits = bits_that_fit(n, limit_bits - 64)  # a scale goes with them
        return None if bits is None else Told(np.ones(n, dtype=bool), dequantise(quantise(values, bits)), bits)
    if answer == "partial":
        part = partial(n, start, max(0.0, limit_bits - 64))  # a start and a stop go with it
        kept = np.zeros(n, dtype=bool)
        kept[part.start : part.stop] = True
        return Told(kept, values[kept], 16) if kept.any() else None
    return None


def _check(bits: float, limit_bits: float) -> None:
    if not (bits > 0.0 and limit_bits >= 0.0):
        raise ValueError(f"a payload has bits > 0 and a limit >= 0, got {bits} and {limit_bits}")
