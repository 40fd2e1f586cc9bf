"""Which entries of B a device trains and sends, eq. (18), and how a cluster agrees on them (readings R2, R3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..rng import stream
from ..types import Array
from .lowrank import slices

LEVELS = 4
"""Steps of a bid: not wanted, second choice, wanted, wanted most. Two bits a position."""


def quotas(sizes: Sequence[int], density: float) -> Int[np.ndarray, " L"]:
    """Active entries of every B at a uniform density, the summands of (17): round(s d_l r), at least one.

    Raises:
        ValueError: density outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], the share of B that is active; got {density}")
    return np.array([max(1, round(density * n)) for n in sizes])


def magnitude_mask(
    score: Float[np.ndarray, " n"], sizes: Sequence[int], quota: Int[np.ndarray, " L"]
) -> Bool[np.ndarray, " n"]:
    r"""Support of the largest magnitudes of every B, eq. (18).

    .. math::  M_{xy} = 1(|B_{xy}| \ge \tau_s)

    Reading R2: the formula thresholds signed values; the text's "highest" is taken as magnitude. Ties go to the
    earlier position.

    Args:
        score: B after its warm-up (or any score), flat. [sum d r]
        sizes: d_l r of every layer. [L]
        quota: entries to keep in every layer. [L]

    Returns:
        Exactly `quota[l]` active entries in layer l. [sum d r], bool
    """
    mask = np.zeros(score.shape, dtype=bool)
    for cut, keep in zip(slices(sizes), quota, strict=True):
        best = np.argsort(-np.abs(score[cut]), kind="stable")[:keep]
        mask[cut][best] = True
    return mask


def random_mask(sizes: Sequence[int], quota: Int[np.ndarray, " L"], seed: int) -> Bool[np.ndarray, " n"]:
    """A support that ignores magnitudes: the control of R2. Exactly `quota[l]` entries in layer l."""
    score = stream(seed, "mask").random(sum(sizes))
    return magnitude_mask(score + 1.0, sizes, quota)


def bid(score: Float[np.ndarray, " n"], sizes: Sequence[int], quota: Int[np.ndarray, " L"]) -> UInt8[np.ndarray, " n"]:
    """How much a device wants each position, in two bits, from the rank of its magnitude within the layer.

    3: within the first half of the quota; 2: within the quota; 1: within twice the quota; 0: else. Ranks, not
    magnitudes, so that the bids of devices with different losses compare.
    """
    levels = np.zeros(score.shape, dtype=np.uint8)
    for cut, keep in zip(slices(sizes), quota, strict=True):
        order = np.argsort(-np.abs(score[cut]), kind="stable")
        for level, end in ((1, 2 * keep), (2, keep), (3, (keep + 1) // 2)):
            levels[cut][order[:end]] = level
    return levels


def negotiate(
    bids: Mapping[int, Array], sizes: Sequence[int], quota: Mapping[int, Array]
) -> dict[int, Bool[np.ndarray, " n"]]:
    """Masks of a cluster without collisions wherever the densities allow it (reading R3).

    A contested position goes to the device that bids most for it (equal bids: by a keyed draw), losers take
    their next best. Devices and positions rank pairs by the same number, so the stable matching is unique and
    every member finds the same one from the same bids. Where the quotas exceed the positions of a layer, what
    is left over is taken on top of others, best bids first.

    Args:
        bids: levels of `bid` by device. {id: [sum d r]}
        sizes: d_l r of every layer. [L]
        quota: entries each device is owed in every layer. {id: [L]}

    Returns:
        One mask per device with exactly its quota in every layer; pairwise disjoint in a layer whose quotas
        add up to at most d_l r. {id: [sum d r]}
    """
    ids = sorted(bids)
    worth = np.stack([_worth(bids[k], k) for k in ids])  # [M, n], no two equal in a column or a row
    masks = np.zeros(worth.shape, dtype=bool)
    for index, cut in enumerate(slices(sizes)):
        owed = np.array([int(quota[k][index]) for k in ids])
        masks[:, cut] = _match(worth[:, cut], owed)
    return {k: masks[row] for row, k in enumerate(ids)}


def _worth(levels: Array, device: int) -> Float[np.ndarray, " n"]:
    """Level plus a keyed draw in [0, 1): the order in which positions are wanted, without ties."""
    return levels + stream(0, "bid", device).random(levels.shape[0])


def _match(worth: Float[np.ndarray, "M n"], owed: Int[np.ndarray, " M"]) -> Bool[np.ndarray, "M n"]:
    """Stable matching of one layer: every device proposes to its best open positions until it holds its quota."""
    num_devices, num_positions = worth.shape
    holder = np.full(num_positions, -1)
    price = np.full(num_positions, -1.0)
    asked = np.zeros(worth.shape, dtype=bool)
    held = np.zeros(num_devices, dtype=int)
    while True:
        short = [m for m in range(num_devices) if held[m] < owed[m] and not asked[m].all()]
        if not short:
            break
        for m in short:
            open_positions = np.flatnonzero(~asked[m])
            best = open_positions[np.argsort(-worth[m, open_positions])[: owed[m] - held[m]]]
            asked[m, best] = True
            won = best[worth[m, best] > price[best]]
            losers = holder[won]
            np.subtract.at(held, losers[losers >= 0], 1)
            holder[won], price[won] = m, worth[m, won]
            held[m] += won.size
    masks = np.asarray(holder == np.arange(num_devices)[:, None])
    for m in np.flatnonzero(held < owed).tolist():  # more quotas than positions: on top of others
        free = np.flatnonzero(~masks[m])
        masks[m, free[np.argsort(-worth[m, free])[: owed[m] - held[m]]]] = True
    return masks


def pack_bid(levels: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, " b"]:
    """Two bits a position, as bids travel. [ceil(2 n / 8)]"""
    return np.packbits(np.stack([levels >> 1, levels & 1]).astype(bool), axis=None)


def unpack_bid(packed: UInt8[np.ndarray, " b"], num: int) -> UInt8[np.ndarray, " n"]:
    """The levels of a packed bid for `num` positions.

    Raises:
        ValueError: a packed bid of another length.
    """
    if packed.shape[0] != -(-2 * num // 8):
        raise ValueError(f"a bid for {num} positions takes {-(-2 * num // 8)} bytes, got {packed.shape[0]}")
    high, low = np.unpackbits(packed, count=2 * num).reshape(2, num)
    return np.asarray(2 * high + low, dtype=np.uint8)
