"""Task sketches: a few numbers from which every device can tell one task's prompts from another's (reading R7).

The vectors of (26) are means of layer inputs; nearest-mean choices fail where tasks overlap, since a few directions
of wide spread drown the ones that tell. Knowing how prompts of a task scatter mends that, but a k x k matrix
is too much to exchange. A random projection to m numbers, the same on every device, keeps angles and distances
to about 1/sqrt(m) (Johnson-Lindenstrauss), and mean and covariance of m = 64 numbers are 4 kB.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..rng import stream
from ..types import Array, TaskSketch

REACH_QUANTILE = 0.99
"""Share of a task's own prompts that lie within its reach."""
SHRINK = 0.03
"""How far the eigenvalues of a covariance are drawn to their mean."""


def sketch(means: Float[np.ndarray, "N K"], widths: Sequence[int], size: int) -> Float[np.ndarray, "N m"]:
    r"""Points of prompts in a space of few dimensions that all devices share.

    .. math::  z_n = R \, \big[ x_{n1} / \lVert x_{n1} \rVert , \dots, x_{nI} / \lVert x_{nI} \rVert \big], \quad
               R_{ij} = \pm 1

    Each input is brought to length one first, so that none outweighs the others. The signs of R are raw bits of a
    counter-based generator under a fixed key, the same on every machine and never sent.

    Args:
        means: mean over each prompt's tokens of the inputs that are read, one after the other. [N, sum k]
        widths: k of every input.
        size: m.

    Returns:
        One point a prompt; zero where a prompt's inputs are zero. [N, m]

    Raises:
        ValueError: widths that do not add up, or numbers that are not finite.
    """
    if sum(widths) != means.shape[1]:
        raise ValueError(f"inputs of widths {tuple(widths)} need {sum(widths)} numbers a prompt, got {means.shape[1]}")
    if not np.isfinite(means).all():
        raise ValueError("a prompt's layer inputs hold values that are not finite, the base model overflowed")
    parts = np.split(means.astype(np.float64), np.cumsum(widths)[:-1], axis=1)
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    unit = [part / np.where(length > 0, length, 1.0) for part, length in zip(parts, lengths, strict=True)]
    return np.asarray(np.concatenate(unit, axis=1) @ _signs(size, means.shape[1]).T)


@functools.lru_cache(maxsize=2)
def _signs(rows: int, columns: int) -> Float[np.ndarray, "rows columns"]:
    words = stream(0, "sketch").bit_generator.random_raw(-(-rows * columns // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=rows * columns, bitorder="little")
    signs = 2.0 * bits.reshape(rows, columns) - 1.0
    signs.flags.writeable = False  # shared by all who ask
    return signs


def task_sketch(points: Float[np.ndarray, "N m"]) -> TaskSketch:
    r"""What a device tells of its task: mean, covariance and reach of its prompts' points.

    The reach is measured on one half of the prompts under mean and covariance of the other, both ways, as the 99th
    percentile of d^2 = (z - mu)^T C^-1 (z - mu) over its mean, so that heavy tails are known to who refuses strangers.
    Prompts fewer than two for each of the m numbers say too little of where the next will lie, so their reach is
    longer by that factor.

    Args:
        points: of the device's own prompts. [N, m]

    Returns:
        The sketch, float32; with one prompt, or equal ones, the covariance is zero and the reach 1.

    Raises:
        ValueError: no prompts.
    """
    num = points.shape[0]
    if num == 0:
        raise ValueError("a task sketch needs at least one prompt, there are none")
    mean, covariance = _moments(points)
    return TaskSketch(mean.astype(np.float32), covariance.astype(np.float32), _reach(points))


def _moments(points: Float[np.ndarray, "N m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Mean and covariance, taken from the first point on: equal points leave exact zeros, no rounding that scatters."""
    apart = points - points[0]
    middle = apart.mean(axis=0)
    around = apart - middle
    return points[0] + middle, np.asarray(around.T @ around / max(1, len(points) - 1))


def _reach(points: Float[np.ndarray, "N m"]) -> float:
    halves = points[::2], points[1::2]
    if len(halves[1]) < 2:
        return 1.0
    far = []
    for seen, kept in (halves, halves[::-1]):
        mean, covariance = _moments(seen)
        far.append(squared_distance(kept, mean, metric(covariance)))
    both = np.concatenate(far)
    if not both.mean() > 0:
        return 1.0
    few = max(1.0, 2 * points.shape[1] / points.shape[0])
    return float(few * np.quantile(both, REACH_QUANTILE) / both.mean())


class Metric(NamedTuple):
    """A covariance as distances need it: directions, and the variance along each, all positive. [m, m], [m]"""

    directions: Array
    variances: Array


def metric(covariance: Float[np.ndarray, "m m"]) -> Metric:
    r"""Eigenvectors of a covariance, and its eigenvalues drawn a little to their mean.

    .. math::  \lambda_j \leftarrow \max\big( (1 - s) \lambda_j + s \bar\lambda, \; s \bar\lambda \big)

    With s = 0.03 it has an inverse where prompts are fewer than numbers, or 16 bit made an eigenvalue negative. A zero
    covariance, where nothing scatters, counts as the identity.
    """
    values, directions = np.linalg.eigh(covariance.astype(np.float64))
    mean = max(float(values.mean()), 0.0)
    if mean == 0.0:
        return Metric(directions, np.ones_like(values))
    return Metric(directions, np.maximum((1 - SHRINK) * values + SHRINK * mean, SHRINK * mean))


def squared_distance(
    points: Float[np.ndarray, "N m"], mean: Float[np.ndarray, " m"], scatter: Metric
) -> Float[np.ndarray, " N"]:
    """Squared Mahalanobis distance of points from a mean. [N], >= 0"""
    along = (points - mean) @ scatter.directions
    return np.asarray((along**2 / scatter.variances).sum(axis=1))


def mean_distance(covariance: Float[np.ndarray, "m m"], scatter: Metric) -> float:
    """What the squared distance is on average for points of the given covariance, tr(C^-1 Sigma). >= 0"""
    along = np.einsum("ij,ik,kj->j", scatter.directions, covariance, scatter.directions)
    return float(np.maximum(along / scatter.variances, 0.0).sum())


def sketch_size(size: int) -> int:
    """Numbers that a packed sketch of m numbers takes: m + m (m + 1) / 2 + 1.

    >>> sketch_size(64)
    2145
    """
    return size + size * (size + 1) // 2 + 1


def pack(told: TaskSketch) -> Float[np.ndarray, " n"]:
    """A sketch as it travels: mean, upper triangle of the covariance and reach, 16 bit. [m + m (m + 1) / 2 + 1]

    Raises:
        ValueError: numbers that 16 bit cannot hold.
    """
    upper = told.covariance[np.triu_indices(told.mean.size)]
    with np.errstate(over="ignore"):
        packed = np.concatenate([told.mean, upper, [told.reach]]).astype(np.float16)
    if not np.isfinite(packed).all():
        raise ValueError("a task sketch holds numbers beyond 65504, the largest of 16 bit")
    return packed


def unpack(packed: Array) -> TaskSketch:
    """Read a packed sketch back.

    Raises:
        ValueError: a length no sketch has, values that are not finite, or variances or a reach below zero.
    """
    size = int(np.sqrt(2 * packed.size)) - 1
    if packed.ndim != 1 or size < 1 or size + size * (size + 1) // 2 + 1 != packed.size:
        raise ValueError(f"numbers of shape {packed.shape} are no task sketch; one of m = 64 has 2145 in a row")
    numbers = packed.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("a task sketch holds values that are not finite")
    covariance = np.zeros((size, size), dtype=np.float32)
    covariance[np.triu_indices(size)] = numbers[size:-1]
    covariance = covariance + np.triu(covariance, 1).T
    if (np.diag(covariance) < 0).any() or numbers[-1] < 0:
        raise ValueError("a task sketch holds a variance or a reach below zero")
    return TaskSketch(numbers[:size], covariance, float(numbers[-1]))
