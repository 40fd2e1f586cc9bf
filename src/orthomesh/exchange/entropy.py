r"""Masks and bids in as many bits as they say: asymmetric numeral systems over symbols of known frequency.

Static masks travel once, so that what they cost is n H2(s) bits for density s, not the n bits of a bitmap. Golomb
codes of the gaps come within 1.5 % of that where 1 - s is close to a root of the golden ratio and lose 4 % at s = 0.38;
range ANS (Duda, arXiv 1311.2540) loses 16 bits a lane whatever s. Lanes run side by side, so that NumPy can keep up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..types import Array
from .recall import recalled

PRECISION = 16
"""Bits of a frequency; states keep between PRECISION and 32."""
LANE_BYTES = 640
"""Bytes of code a lane is opened for: its start wastes 2, that is 0.3 %."""
MAX_LANES = 4096
FEW = 32
"""Lanes up to which it is faster to go symbol by symbol than to have NumPy take all lanes at once."""
ENDS = "a code does not end where its symbols do, it is damaged or of other frequencies"
GROUPS = (8, 4, 2, 1)
"""Neighbouring bits of a mask that make one symbol: the most whose rarest symbols still have a frequency."""
_ONE = 1 << PRECISION
_HEAD = 2
"""Bytes of the number of lanes in front of a code."""


def entropy_bits(density: float) -> float:
    r"""Bits of one position of a random mask.

    .. math::  H_2(s) = -s \log_2 s - (1 - s) \log_2 (1 - s)

    >>> entropy_bits(0.5), round(entropy_bits(0.125), 4), entropy_bits(0.0)
    (1.0, 0.5436, 0.0)
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"a density lies in [0, 1], got {density}")
    return float(-sum(p * np.log2(p) for p in (density, 1.0 - density) if p > 0)) + 0.0


def frequencies(probabilities: Float[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
    """Whole frequencies that add up to 2^16, at least 1 for whatever can occur. [S]

    >>> frequencies(np.array([0.75, 0.25, 0.0])).tolist()
    [49152, 16384, 0]
    """
    possible = probabilities > 0
    counts = np.where(possible, np.maximum(1, np.floor(probabilities * _ONE)), 0).astype(np.int64)
    counts[int(np.argmax(counts))] += _ONE - int(counts.sum())
    return counts


def encode_symbols(symbols: UInt8[np.ndarray, " n"], counts: Int[np.ndarray, " S"]) -> UInt8[np.ndarray, " b"]:
    """Code of symbols whose frequencies the receiver knows; lanes, states and words.

    Args:
        symbols: each below S.
        counts: frequencies that add up to 2^16, as of `frequencies`; none zero that occurs.

    Returns:
        About n times the cross entropy in bits, and some 2 bytes a lane.

    Raises:
        ValueError: a symbol that the frequencies exclude.
    """
    occurs = histogram(symbols)
    used = np.flatnonzero(occurs)
    if used.size and (used[-1] >= counts.size or not counts[used].all()):
        raise ValueError("symbols occur that their frequencies exclude")
    bits = float(-(occurs[used] * np.log2(counts[used] / _ONE)).sum())
    lanes = int(np.clip(bits / 8 // LANE_BYTES, 1, MAX_LANES))
    head = np.array([lanes], dtype="<u2")
    if lanes <= FEW:
        return np.frombuffer(head.tobytes() + _encode_few(symbols, counts, lanes), dtype=np.uint8)
    states, most = _encode_many(symbols, counts, lanes, word := np.empty(symbols.size, dtype="<u2"))
    return np.frombuffer(head.tobytes() + states.astype("<u4").tobytes() + word[most].tobytes(), dtype=np.uint8)


def histogram(symbols: UInt8[np.ndarray, " n"]) -> Int[np.ndarray, " 256"]:
    """How often each of 256 symbols occurs; piece by piece, so that nothing of eight times their size is made.

    >>> histogram(np.array([2, 0, 2], dtype=np.uint8))[:3].tolist()
    [1, 0, 2]
    """
    pieces = (symbols[start : start + _ONE] for start in range(0, symbols.size, _ONE))
    return np.asarray(sum((np.bincount(piece, minlength=256) for piece in pieces), np.zeros(256, dtype=np.int64)))


def _encode_many(symbols: Array, counts: Array, lanes: int, word: Array) -> tuple[Array, Array]:
    """States at the end, and which symbols put a word out; their words go into `word`, beside what is none.

    States fit 32 bits. x / f is a product with 1 / f in double precision, which is off by less than 2^-18; the quotient
    itself lies on a whole number or at least 2^-16 from the next.
    """
    starts = (np.cumsum(counts) - counts).astype(np.uint32)
    reciprocal = 1.0 / np.maximum(counts, 1)
    most = ((counts << PRECISION) - 1).clip(0).astype(np.uint32)  # beyond it a state would not fit any more
    gap = (_ONE - counts).astype(np.uint32)  # (q << 16) + x - q f
    states, full = np.full(lanes, _ONE, dtype=np.uint32), np.empty(symbols.size, dtype=bool)
    for first in range((symbols.size - 1) // lanes * lanes, -1, -lanes):
        part = slice(first, first + lanes)
        now = symbols[part]
        x, out = states[: now.size], full[part]
        np.greater(x, most.take(now), out=out)
        word[part] = x
        x = x >> (out * np.uint8(PRECISION)).astype(np.uint32)
        q = (x * reciprocal.take(now) + 2.0**-18).astype(np.uint32)
        q *= gap.take(now)
        q += x
        q += starts.take(now)
        states[: now.size] = q
    return states, full


def _encode_few(symbols: Array, counts: Array, lanes: int) -> bytes:
    """States and words as `encode_symbols` has them, symbol by symbol: a tenth of the time for one or two lanes."""
    f, starts = counts.tolist(), (np.cumsum(counts) - counts).tolist()
    states, words = [_ONE] * lanes, list[int]()
    for n, s in zip(range(symbols.size - 1, -1, -1), symbols[::-1].tolist(), strict=True):
        x = states[n % lanes]
        if x >= f[s] << PRECISION:
            words.append(x & _ONE - 1)
            x >>= PRECISION
        states[n % lanes] = (x // f[s] << PRECISION) + x % f[s] + starts[s]
    return np.array(states, dtype="<u4").tobytes() + np.array(words[::-1], dtype="<u2").tobytes()


def decode_symbols(code: UInt8[np.ndarray, " b"], counts: Int[np.ndarray, " S"], num: int) -> UInt8[np.ndarray, " n"]:
    """The symbols of a code.

    Args:
        code: from `encode_symbols`.
        counts: the same frequencies.
        num: how many symbols there are.

    Raises:
        ValueError: a code that is cut short, goes on, or was not made with these frequencies.
    """
    lanes = int.from_bytes(code[:_HEAD].tobytes(), "little") if code.size >= _HEAD else 0
    if not 1 <= lanes <= MAX_LANES or code.size < _HEAD + 4 * lanes or code.size % 2:
        raise ValueError(f"a code of {code.size} bytes is cut short or none")
    table = np.repeat(np.arange(counts.size, dtype=np.uint8), counts)
    states = np.frombuffer(code.tobytes(), dtype="<u4", count=lanes, offset=_HEAD).astype(np.int64)
    words = np.frombuffer(code.tobytes(), dtype="<u2", offset=_HEAD + 4 * lanes).astype(np.int64)
    if lanes <= FEW:
        return _decode_few(states.tolist(), words.tolist(), table.tobytes(), counts, num)
    wide, offset = counts[table], np.arange(_ONE) - (np.cumsum(counts) - counts)[table]
    out, at = np.empty(num, dtype=np.uint8), 0
    for first in range(0, num, lanes):
        x = states[: min(lanes, num - first)]
        slot = x & _ONE - 1
        out[first : first + lanes] = table[slot]
        x = wide[slot] * (x >> PRECISION) + offset[slot]
        low = (x < _ONE).nonzero()[0]
        if at + low.size > words.size:
            raise ValueError("a code is cut short")
        x[low] = x[low] << PRECISION | words[at : at + low.size]
        at += low.size
        states[: x.size] = x
    if at != words.size or (states != _ONE).any():
        raise ValueError(ENDS)
    return out


def _decode_few(states: list[int], words: list[int], table: bytes, counts: Array, num: int) -> Array:
    """As `decode_symbols`, symbol by symbol."""
    f, starts = counts.tolist(), (np.cumsum(counts) - counts).tolist()
    out, lanes, rest = bytearray(num), len(states), iter(words)
    for n in range(num):
        x = states[n % lanes]
        slot = x & _ONE - 1
        s = out[n] = table[slot]
        x = f[s] * (x >> PRECISION) + slot - starts[s]
        if x < _ONE:
            word = next(rest, None)
            if word is None:
                raise ValueError("a code is cut short")
            x = x << PRECISION | word
        states[n % lanes] = x
    if next(rest, None) is not None or any(x != _ONE for x in states):
        raise ValueError(ENDS)
    return np.frombuffer(out, dtype=np.uint8)


@recalled
def encode_mask(mask: Bool[np.ndarray, " n"], sizes: Sequence[int] = ()) -> UInt8[np.ndarray, " b"]:
    r"""A mask in n H2(s) bits, each matrix at its own density.

    A matrix of n_l positions and density s_l takes :math:`n_l H_2(s_l)` bits. Densities go ahead in 16 bit: one where
    the matrices do not differ enough to pay for one each.

    Args:
        mask: flat. [n]
        sizes: positions of every matrix, adding up to n; none: all one.

    Returns:
        The number of densities, the densities, the code.
    """
    cuts = tuple(sizes) or (mask.size,)
    if sum(cuts) != mask.size:
        raise ValueError(f"sizes add up to {sum(cuts)}, the mask has {mask.size} positions")
    held = np.array([part.sum() for part in np.split(mask, np.cumsum(cuts)[:-1])])
    whole = entropy_bits(mask.mean()) * mask.size if mask.size else 0.0
    each = sum(n * entropy_bits(k / n) for n, k in zip(cuts, held.tolist(), strict=True) if n)
    if len(cuts) >= 255 or each + (16 + 8 * 8) * (len(cuts) - 1) >= whole:
        cuts, held = (mask.size,), held.sum(keepdims=True)
    told = np.array([_told(int(k), n) for n, k in zip(cuts, held, strict=True)], dtype="<u2")
    parts = [np.array([len(cuts)], dtype=np.uint8), told.view(np.uint8)]
    for part, level in zip(np.split(mask, np.cumsum(cuts)[:-1]), told.tolist(), strict=True):
        group, counts = _model(level)
        if part.size and 0 < level < _ONE - 1:
            code = encode_symbols(_grouped(part, group), counts)
            parts += [np.array([code.size], dtype="<u4").view(np.uint8), code]
    if len(cuts) == 1 and len(parts) == 4:
        del parts[2]  # one code ends where the mask does
    return np.concatenate(parts)


def decode_mask(code: UInt8[np.ndarray, " b"], num: int, sizes: Sequence[int] = ()) -> Bool[np.ndarray, " n"]:
    """The mask of a code.

    Args:
        code: from `encode_mask`.
        num: positions.
        sizes: the same as there.

    Raises:
        ValueError: a code that is cut short, goes on, or does not belong to a mask of these sizes.
    """
    wrong = ValueError(f"a code of {code.size} bytes is no mask of {num} positions, or damaged")
    parts = int(code[0]) if code.size else 0
    cuts = (num,) if parts == 1 else tuple(sizes)
    at = 1 + 2 * parts
    if parts == 0 or len(cuts) != parts or sum(cuts) != num or code.size < at:
        raise wrong
    mask: list[Array] = []
    for n, level in zip(cuts, np.frombuffer(code[1:at].tobytes(), dtype="<u2").tolist(), strict=True):
        if n == 0 or level in (0, _ONE - 1):
            mask.append(np.full(n, level > 0))
            continue
        length = code.size - at
        if parts > 1:
            length, at = int.from_bytes(code[at : at + 4].tobytes(), "little"), at + 4
        if code.size < at + length:
            raise wrong
        group, counts = _model(level)
        symbols = decode_symbols(code[at : at + length], counts, -(-n // group))
        bits = np.unpackbits(symbols[:, None], axis=1)[:, 8 - group :].reshape(-1)
        if bits[n:].any():
            raise wrong
        mask.append(bits[:n].astype(bool))
        at += length
    if at != code.size:
        raise wrong
    return np.concatenate(mask)


def _told(held: int, num: int) -> int:
    """A density in 16 bit: 0 and 65535 for exactly none and all."""
    if held in (0, num):
        return 0 if held == 0 else _ONE - 1
    return int(np.clip(round(held / num * (_ONE - 1)), 1, _ONE - 2))


def _model(level: int) -> tuple[int, Array]:
    """Bits of a symbol and the frequencies of symbols for a density in 16 bit."""
    density = level / (_ONE - 1)
    least = entropy_bits(density)
    group = next((g for g in GROUPS if (1 << g) / _ONE * 1.5 <= 0.002 * g * least), 1)
    ones = np.array([bin(s).count("1") for s in range(1 << group)])
    return group, frequencies(density**ones * (1.0 - density) ** (group - ones))


def _grouped(bits: Array, group: int) -> Array:
    """Symbols of so many neighbouring bits, the last filled up with zeros."""
    padded = np.zeros(-(-bits.size // group) * group, dtype=np.uint8)
    padded[: bits.size] = bits
    return np.asarray(np.packbits(padded.reshape(-1, group), axis=1)[:, 0] >> (8 - group), dtype=np.uint8)


@recalled
def encode_levels(levels: UInt8[np.ndarray, " n"], num_levels: int) -> UInt8[np.ndarray, " b"]:
    """Levels of a bid in about their entropy: how often each occurs in 16 bit, then the code.

    Raises:
        ValueError: a level beyond `num_levels`.
    """
    if levels.size and int(levels.max()) >= num_levels:
        raise ValueError(f"levels lie below {num_levels}, got {int(levels.max())}")
    occurs = histogram(levels)[:num_levels]
    counts = frequencies(occurs / max(1, levels.size)) if levels.size else occurs
    told = np.minimum(counts, _ONE - 1).astype("<u2")
    return np.concatenate([told.view(np.uint8), encode_symbols(levels, counts)]) if levels.size else told.view(np.uint8)


def decode_levels(code: UInt8[np.ndarray, " b"], num_levels: int, num: int) -> UInt8[np.ndarray, " n"]:
    """The levels of a code.

    Raises:
        ValueError: a code that is cut short, goes on, or whose frequencies do not add up.
    """
    head = 2 * num_levels
    if code.size < head or (num == 0) != (code.size == head):
        raise ValueError(f"a code of {code.size} bytes is no bid for {num} positions")
    counts = np.frombuffer(code[:head].tobytes(), dtype="<u2").astype(np.int64)
    if counts.max() == _ONE - 1 and counts.sum() == _ONE - 1:
        counts[int(np.argmax(counts))] = _ONE  # one level throughout
    if num and counts.sum() != _ONE:
        raise ValueError("the frequencies of a bid do not add up")
    return decode_symbols(code[head:], counts, num) if num else np.zeros(0, dtype=np.uint8)
