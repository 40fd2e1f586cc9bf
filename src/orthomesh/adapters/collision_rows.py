"""Collision rates of many groups of devices at once, as rows of an array: expected (19), negotiated (R3), or measured.

A row is all that is known of a group; `join` makes the rows of unions, `rate` only their rates. Rates never fall when
groups grow, which is what clustering rests on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from ..rng import stream
from ..types import Array
from .collision import Triple, join

Over = Literal["mean", "max"]
Indices = Int[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Groups of one device each, and how they unite: join(rows, a, b) and rate(rows, a, b) of rows a with rows b."""

    leaves: Array
    join: Callable[[Array, Indices, Indices], Array]
    rate: Callable[[Array, Indices, Indices], Float[np.ndarray, " N"]]


def expected(densities: Float[np.ndarray, "M L"], sizes: Sequence[int], over: Over = "mean") -> Rows:
    """Rows of triples (p0, p1, p2) for masks that are independent, eq. (19).

    Args:
        densities: share of positions each device holds, in [0, 1]. [M L]
        sizes: d_l r_l, the weights of the layers.
        over: mean over all positions, or the worst layer.

    Returns:
        Leaves (1 - s, s, 0). [M 3 L]

    Raises:
        ValueError: a density outside [0, 1], or not one positive size per layer.

    >>> rows = expected(np.array([[0.5], [0.5]]), [10])
    >>> rows.rate(rows.leaves, np.array([0]), np.array([1])).tolist()
    [0.25]
    """
    weights = _weights(densities, sizes)

    def joined(rows: Array, a: Array, b: Array) -> Array:
        x, y = rows[a], rows[b]
        return np.stack(join(Triple(*x.swapaxes(0, 1)), Triple(*y.swapaxes(0, 1))), axis=1)

    def rate(rows: Array, a: Array, b: Array) -> Array:
        one, several, other = rows[a, 1], rows[a, 2], rows[b, 2]
        one *= rows[b, 1]
        one += several  # p2 = a2 + (1 - a2) b2 + a1 b1
        np.subtract(1.0, several, out=several)
        several *= other
        one += several
        return _over_layers(one, weights, over)

    return Rows(np.stack([1.0 - densities, densities, np.zeros_like(densities)], axis=1), joined, rate)


def negotiated(densities: Float[np.ndarray, "M L"], sizes: Sequence[int], over: Over = "mean") -> Rows:
    """Rows of sums of densities for masks that are agreed on: max(0, sum_i s_i - 1), reading R3.

    Args:
        densities: share of positions each device holds, in [0, 1]. [M L]
        sizes: d_l r_l, the weights of the layers.
        over: mean over all positions, or the worst layer.

    Raises:
        ValueError: a density outside [0, 1], or not one positive size per layer.
    """
    weights = _weights(densities, sizes)

    def rate(rows: Array, a: Array, b: Array) -> Array:
        beyond = np.clip(rows[a] + rows[b] - 1.0, 0.0, 1.0)
        return _over_layers(beyond, weights, over)

    return Rows(densities.astype(np.float64), lambda rows, a, b: rows[a] + rows[b], rate)


def measured(masks: Bool[np.ndarray, "M n"]) -> Rows:
    """Rows of bitmaps (g1, g2): which of some shared positions a group holds at all, and which more than once.

    Correlated masks, as those of devices with the same task, are measured and not assumed to be independent.
    The positions come from `probe`; g2 of a union is g2a or g2b or (g1a and g1b).

    Args:
        masks: of every device at the shared positions, the same for all. [M n]

    Returns:
        Leaves (g1, 0) in words of 64 positions. [M 2 W] The standard error of a rate S is sqrt(S (1 - S) / n).

    Raises:
        ValueError: no position.

    >>> rows = measured(np.array([[True, True, False, False], [False, True, False, True]]))
    >>> rows.rate(rows.leaves, np.array([0]), np.array([1])).tolist()
    [0.25]
    """
    num_devices, n = masks.shape
    if n == 0:
        raise ValueError("a measured collision rate needs at least one position, the masks have none")
    padded = np.zeros((num_devices, -(-n // 64) * 64), dtype=bool)
    padded[:, :n] = masks
    held = np.packbits(padded, axis=1).view(np.uint64)

    def joined(rows: Array, a: Array, b: Array) -> Array:
        x, y = rows[a], rows[b]
        return np.stack([x[:, 0] | y[:, 0], x[:, 1] | y[:, 1] | (x[:, 0] & y[:, 0])], axis=1)

    def rate(rows: Array, a: Array, b: Array) -> Array:
        several = rows[a, 1] | rows[b, 1] | (rows[a, 0] & rows[b, 0])
        return np.asarray(np.bitwise_count(several).sum(axis=1, dtype=np.int64) / n)

    return Rows(np.stack([held, np.zeros_like(held)], axis=1), joined, rate)


def probe(seed: int, sizes: Sequence[int], num_positions: int) -> Int[np.ndarray, " n"]:
    """Positions that all devices look at to measure their collisions, drawn from one shared seed, with replacement.

    Args:
        seed: known to everybody.
        sizes: positions of every layer; they are numbered one layer after the other.
        num_positions: n, how many to draw; a rate near S is found to sqrt(S (1 - S) / n).

    Returns:
        Ascending, in [0, sum of sizes). [n]

    Raises:
        ValueError: nothing to draw, or from nothing.
    """
    if num_positions < 1 or not sizes or min(sizes) < 1:
        raise ValueError(f"a probe draws at least one position from layers of positive size, got {num_positions}")
    return np.sort(stream(seed, "collision probe").integers(0, sum(sizes), num_positions))


def standard_error(rate: float, num_positions: int) -> float:
    """How far a measured rate strays from that of all positions, sqrt(S (1 - S) / n).

    Args:
        rate: S, in [0, 1].
        num_positions: n, how many were drawn.

    Raises:
        ValueError: a rate that is none, or no position.

    >>> standard_error(0.2, 1600)
    0.01
    """
    if not (0.0 <= rate <= 1.0 and num_positions >= 1):
        raise ValueError(f"a standard error needs a rate in [0, 1] and a position, got {rate} and {num_positions}")
    return math.sqrt(rate * (1.0 - rate) / num_positions)


def _over_layers(rates: Array, weights: Array, over: Over) -> Array:
    """One number per row; a row's bits do not depend on how many rows there are."""
    if over == "max":
        return np.asarray(rates.max(axis=1))
    rates *= weights
    return np.asarray(rates.sum(axis=1))


def _weights(densities: Float[np.ndarray, "M L"], sizes: Sequence[int]) -> Float[np.ndarray, " L"]:
    if not np.all((densities >= 0.0) & (densities <= 1.0)):
        raise ValueError("a density is a share of positions in [0, 1]; one is outside or not a number")
    if len(sizes) != densities.shape[1] or not sizes or min(sizes) < 1:
        raise ValueError(f"rates need one positive size for each of {densities.shape[1]} layers, got {list(sizes)}")
    return np.asarray(sizes, dtype=np.float64) / sum(sizes)
