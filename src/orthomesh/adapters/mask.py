"""Which entries of B a device trains and sends, eq. (18), and how a cluster agrees on them (readings R2, R3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from ..rng import stream
from ..types import Array
from .lowrank import slices

Level = Literal["matrix", "layer", "global"]

BITS = 3
"""Bits of a bid for a position."""
STEPS = {
    7: ((3, 1), (2, 1), (3, 2), (1, 1), (2, 3), (1, 2), (1, 4)),
    1: ((3, 2),),
}
"""By number of levels above 0: level n of a bid goes to the best num/den of the quota, n = 1..; 0 to the rest."""


def quotas(sizes: Sequence[int], density: float) -> Int[np.ndarray, " L"]:
    """Active entries of every B at a uniform density, the summands of (17): round(s d_l r), at least one.

    Raises:
        ValueError: density outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], the share of B that is active; got {density}")
    return np.array([max(1, round(density * n)) for n in sizes])


def spans(names: Sequence[str], level: Level) -> Int[np.ndarray, " G"]:
    """How many neighbouring matrices compete for one common quota, reading R2.

    Args:
        names: of the adapted layers, in order. [L]
        level: `matrix`: each has a quota of its own, as in (18). `layer`: those of one transformer block share,
            the block being the first number in a name; names without one share among themselves. `global`: all
            share, as in LoRI.

    Returns:
        Matrices of each group, adding up to L. [G]

    >>> spans(["h.0.q", "h.0.v", "h.1.q", "head"], "layer").tolist()
    [2, 1, 1]
    """
    if level == "matrix":
        return np.ones(len(names), dtype=int)
    blocks = [level == "layer" and next((int(p) for p in name.split(".") if p.isdigit()), -1) for name in names]
    return np.array([len(list(run)) for _, run in groupby(blocks)])


def merged(counts: Integer[np.ndarray, " L"], spans: Integer[np.ndarray, " G"]) -> Int[np.ndarray, " G"]:
    """Sizes or quotas of groups of neighbouring matrices from those of the matrices.

    >>> merged(np.array([4, 6, 10]), np.array([2, 1])).tolist()
    [10, 10]
    """
    width = spans.astype(np.int64)
    return np.asarray(np.add.reduceat(counts.astype(np.int64), np.cumsum(width) - width))


def top_mask(
    score: Float[np.ndarray, " n"], sizes: Sequence[int], quota: Int[np.ndarray, " G"]
) -> Bool[np.ndarray, " n"]:
    r"""Support of the largest scores of every group of matrices, eq. (18).

    .. math::  M_{xy} = 1(score_{xy} \ge \tau_s)

    Reading R2: the formula thresholds signed values of B, its text says "highest". What is scored is up to the
    caller; ties go to the earlier position.

    Args:
        score: larger is better, flat. [sum d r]
        sizes: positions of every group, by default d_l r of every matrix. [G]
        quota: entries to keep in every group. [G]

    Returns:
        Exactly `quota[g]` active entries in group g. [sum d r], bool
    """
    mask = np.zeros(score.shape, dtype=bool)
    for cut, keep in zip(slices(sizes), quota, strict=True):
        mask[cut][_ranked(score[cut])[:keep]] = True
    return mask


def magnitude_mask(
    score: Float[np.ndarray, " n"], sizes: Sequence[int], quota: Int[np.ndarray, " G"]
) -> Bool[np.ndarray, " n"]:
    r"""Support of the largest magnitudes of every B, eq. (18) in reading R2: `top_mask` of |score|.

    .. math::  M_{xy} = 1(|B_{xy}| \ge \tau_s)
    """
    return top_mask(np.abs(score), sizes, quota)


def bid(
    score: Float[np.ndarray, " n"], sizes: Sequence[int], quota: Int[np.ndarray, " G"], levels: int = 7
) -> UInt8[np.ndarray, " n"]:
    """How much a device wants each position, in at most three bits, from the rank of its score within the group.

    Of seven, level 7 goes to the best quarter of the quota, 4 to the rest of the quota that is not in its better two
    thirds, 1 to what lies between twice and three times the quota, 0 to everything beyond (`STEPS`). Ranks, not scores,
    so that the bids of devices with different losses compare.

    Args:
        score: larger is better. [sum d r]
        sizes: positions of every group. [G]
        quota: entries the device is owed in every group. [G]
        levels: above 0, of those in `STEPS`; few say less, and take fewer bits at their entropy.

    Returns:
        Levels in 0..`levels`. [sum d r]
    """
    wanted = np.zeros(score.shape, dtype=np.uint8)
    for cut, keep in zip(slices(sizes), quota.tolist(), strict=True):
        order = _ranked(score[cut])
        for level, (num, den) in enumerate(STEPS[levels], 1):
            wanted[cut][order[: -(-num * keep // den)]] = level
    return wanted


def bid_bits(sizes: Sequence[int], quota: Int[np.ndarray, " G"], levels: int = 7) -> float:
    r"""Entropy of a bid whose groups of matrices are coded together, in bits.

    .. math::  -\sum_\ell n_\ell \log_2 (n_\ell / n)

    with :math:`n_\ell` positions at level l, which the quotas say.

    >>> round(bid_bits((800,), np.array([100])) / 800, 2), round(bid_bits((800,), np.array([50]), 1) / 800, 2)
    (1.92, 0.45)
    """
    beyond = [[min(n, -(-num * k // den)) for num, den in STEPS[levels]] for n, k in zip(sizes, quota, strict=True)]
    held = -np.diff(np.array([sum(sizes), *np.sum(beyond, axis=0), 0], dtype=np.float64))
    held = held[held > 0]
    return float(-(held * np.log2(held / held.sum())).sum()) + 0.0


def _ranked(score: Array) -> Array:
    """Positions from the best down, ties by position.

    For float32 by sorting whole numbers that hold score and position: the same order in a sixth of the time.
    """
    if score.dtype != np.float32:
        return np.argsort(-score, kind="stable")
    bits = (score + np.float32(0)).view(np.uint32)  # adding zero makes -0 what it equals
    falling = np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFFFFFF))
    both = falling.astype(np.uint64) << np.uint64(32) | np.arange(score.size, dtype=np.uint64)
    both.sort()
    return np.asarray(both & np.uint64(0xFFFFFFFF), dtype=np.int64)


def negotiate(
    bids: Mapping[int, Array],
    sizes: Sequence[int],
    quota: Mapping[int, Array],
    taken: Bool[np.ndarray, " n"] | None = None,
) -> dict[int, Bool[np.ndarray, " n"]]:
    """Masks of a cluster without collisions wherever the densities allow it (reading R3).

    A contested position goes to the device that bids most for it (equal bids: by a keyed draw), losers take
    their next best. Devices and positions rank pairs by the same number, so the stable matching is unique and
    every member finds the same one from the same bids. Where the quotas exceed the positions that are free in a
    group, what is left over is taken on top of others, best bids first.

    Args:
        bids: levels of `bid` by device. {id: [sum d r]}
        sizes: positions of every group of matrices. [G]
        quota: entries each device is owed in every group. {id: [G]}
        taken: positions of devices that were there before, which keep them. [sum d r]

    Returns:
        One mask per device with exactly its quota in every group; pairwise disjoint, and off what is taken, in a
        group whose free positions suffice. {id: [sum d r]}
    """
    ids = sorted(bids)
    draws = [stream(0, "bid", k) for k in ids]
    size = bids[ids[0]].shape[0]
    closed = np.zeros(size, dtype=bool) if taken is None else taken
    masks = np.zeros((len(ids), size), dtype=bool)
    for index, cut in enumerate(slices(sizes)):  # level plus a keyed draw in [0, 1): no two equal in a row or a column
        worth = np.stack([bids[k][cut] + draw.random(cut.stop - cut.start) for k, draw in zip(ids, draws, strict=True)])
        _match(worth, np.array([int(quota[k][index]) for k in ids]), closed[cut], masks[:, cut])
    return {k: masks[row] for row, k in enumerate(ids)}


def _match(
    worth: Float[np.ndarray, "M n"],
    owed: Int[np.ndarray, " M"],
    taken: Bool[np.ndarray, " n"],
    masks: Bool[np.ndarray, "M n"],
) -> None:
    """Stable matching of one group: the dearest pairs first, in as many steps as devices fill up. Fills `masks`."""
    lacking, anew = owed.copy(), np.flatnonzero(~taken)
    best, mine = np.empty(taken.shape), np.zeros(masks.shape, dtype=bool)  # who is dearest, of those who lack any
    while (anew.size or mine.any()) and (lacking > 0).any():
        if anew.size == taken.size:
            best, mine = _dearest(worth, lacking > 0)
        else:
            best[anew], mine[:, anew] = _dearest(worth[:, anew], lacking > 0)
        full = _take(best, mine, lacking, masks)
        anew = np.flatnonzero(mine[full]) if full >= 0 else anew[:0]  # what it would have won beyond goes to others
    for m in np.flatnonzero(lacking > 0).tolist():  # more quotas than free positions: on top of others
        rest = np.flatnonzero(~masks[m])
        masks[m, rest[np.argsort(-worth[m, rest])[: lacking[m]]]] = True


def _dearest(worth: Float[np.ndarray, "M n"], among: Bool[np.ndarray, " M"]) -> tuple[Array, Array]:
    """How large the largest of these rows is in every column, and which one it is. [n], [M n]"""
    best, mine = worth[among].max(axis=0), np.zeros(worth.shape, dtype=bool)
    free = np.ones(best.shape, dtype=bool)
    for m in np.flatnonzero(among).tolist():
        mine[m] = (worth[m] == best) & free
        free &= ~mine[m]
    return best, mine


def _take(best: Array, mine: Array, lacking: Array, masks: Bool[np.ndarray, "M n"]) -> int:
    """Give out positions, the dearest first, up to where the first device is full; who that is, -1 for nobody.

    Equal draws of one device, should they ever come, go to the earlier position.
    """
    won = {m: best.take(np.flatnonzero(mine[m])) for m in np.flatnonzero(lacking > 0).tolist()}
    lasts = {m: w.size - int(lacking[m]) for m, w in won.items() if w.size >= lacking[m]}
    ends = {m: float(np.partition(won[m], last)[last]) for m, last in lasts.items()}
    full = max(ends, key=lambda m: ends[m], default=-1)
    over = best > ends[full] if ends else np.ones(best.shape, dtype=bool)
    for m in won:
        chosen = mine[m] & over
        if m == full:
            ties = np.flatnonzero(mine[m] & (best == ends[m]))
            chosen[ties[: lacking[m] - np.count_nonzero(chosen)]] = True
        masks[m] |= chosen
        lacking[m] -= np.count_nonzero(chosen)
        mine[m] &= ~chosen
    return full


def pack_bid(levels: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, " b"]:
    """Three bits a position, highest bits of all positions first, as bids travel. [ceil(3 n / 8)]"""
    planes = np.stack([(levels >> bit) & 1 for bit in reversed(range(BITS))])
    return np.packbits(planes.astype(bool), axis=None)


def unpack_bid(packed: UInt8[np.ndarray, " b"], num: int) -> UInt8[np.ndarray, " n"]:
    """The levels of a packed bid for `num` positions.

    Raises:
        ValueError: a packed bid of another length.
    """
    length = -(-BITS * num // 8)
    if packed.shape[0] != length:
        raise ValueError(f"a bid for {num} positions takes {length} bytes, got {packed.shape[0]}")
    planes = np.unpackbits(packed, count=BITS * num).reshape(BITS, num)
    return np.asarray(sum(plane << bit for bit, plane in zip(reversed(range(BITS)), planes, strict=True)), np.uint8)
