"""The nearest adapter of rank r to a weighted sum of adapters, from their factors alone (DeCAF, LoRA-FAIR)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..types import Array


def nearest_factors(
    weights: Sequence[float], B: Sequence[Array], A: Sequence[Array], rank: int
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r k"]]:
    r"""Factors of the best approximation of rank r to a weighted sum of low-rank updates.

    .. math::  P = \sum_j w_j B_j A_j = [\sqrt{w_j} B_j]_j \, [\sqrt{w_j} A_j]_j = Q_B (R_B R_A^\top) Q_A^\top, \quad
               B = Q_B U \Sigma^{1/2}, \; A = \Sigma^{1/2} V^\top Q_A^\top

    with U S V^T the truncated singular value decomposition of the small core R_B R_A^T, n r x n r for n updates. P, a
    d x k matrix, is never formed.

    Args:
        weights: w_j >= 0. [n]
        B: expansions. n of [d, r_j]
        A: projections. n of [r_j, k]
        rank: r, of the result.

    Returns:
        B and A, float32; their product is the matrix of rank r nearest to P (Eckart and Young). Directions beyond the
        rank of P are zero. [d, r], [r, k]

    Raises:
        ValueError: a negative weight.

    >>> one = np.ones((2, 1)), np.ones((1, 3))
    >>> b, a = nearest_factors([0.25, 0.75], [one[0], 3 * one[0]], [one[1], one[1]], 1)
    >>> (b @ a).round(3).tolist()
    [[2.5, 2.5, 2.5], [2.5, 2.5, 2.5]]
    """
    if min(weights) < 0:
        raise ValueError(f"weights of a sum of adapters must not be negative, got {min(weights)}")
    roots = np.sqrt(np.asarray(weights, dtype=np.float64))
    tall = np.concatenate([w * b.astype(np.float64) for w, b in zip(roots, B, strict=True)], axis=1)
    wide = np.concatenate([w * a.astype(np.float64).T for w, a in zip(roots, A, strict=True)], axis=1)
    (q_b, r_b), (q_a, r_a) = np.linalg.qr(tall), np.linalg.qr(wide)
    u, sigma, v = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = min(rank, sigma.size)
    half = np.sqrt(sigma[:kept])
    expansion, projection = np.zeros((tall.shape[0], rank)), np.zeros((rank, wide.shape[0]))
    expansion[:, :kept] = q_b @ (u[:, :kept] * half)
    projection[:kept] = (half[:, None] * v[:kept]) @ q_a.T
    return expansion.astype(np.float32), projection.astype(np.float32)


def with_signs(
    B: Float[np.ndarray, "d r"], A: Float[np.ndarray, "r k"]
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r k"]]:
    r"""The same product from factors whose signs do not depend on who has decomposed it.

    .. math::  B A = (B S)(S A), \quad S = \operatorname{diag}(\pm 1)

    with the signs under which of every column of B the entry of largest magnitude is positive, as in
    `directions.leading`. Factors that are averaged one by one need it, products do not.

    Args:
        B: expansion. [d, r]
        A: projection. [r, k]

    >>> with_signs(np.array([[1.0, 1.0], [-2.0, 3.0]]), np.ones((2, 1)))[1].tolist()
    [[-1.0], [1.0]]
    """
    largest = np.take_along_axis(B, np.abs(B).argmax(axis=0)[None], axis=0)[0]
    signs = np.where(largest < 0, -1.0, 1.0).astype(B.dtype)
    return B * signs, A * signs[:, None]


def mended(B: Sequence[Array], A: Sequence[Array], weights: Sequence[float], ridge: float) -> Float[np.ndarray, "d r"]:
    r"""B that brings the mean A nearest to the weighted sum of updates, and stays near the mean B (LoRA-FAIR).

    .. math::  \arg\min_X \lVert \Delta W - X \bar A \rVert^2 + \lambda \lVert X - \bar B \rVert^2 =
               (\Delta W \bar A^\top + \lambda \bar B)(\bar A \bar A^\top + \lambda I)^{-1}

    with the update sum_i w_i B_i A_i, which is never formed, and means of weights w_i.

    Args:
        B: expansions. n of [d, r]
        A: projections. n of [r, k]
        weights: w_i, adding up to one. [n]
        ridge: lambda > 0.

    Returns:
        X, float32. [d, r]

    Raises:
        ValueError: a ridge that is not positive.

    >>> mended([np.ones((2, 1))], [np.ones((1, 3))], [1.0], 0.5).tolist()
    [[1.0], [1.0]]
    """
    if not ridge > 0.0:
        raise ValueError(f"the ridge of a mended B must be positive, got {ridge}")
    mean_b, mean_a, update = _means(B, A, weights)
    square = mean_a @ mean_a.T + ridge * np.eye(len(mean_a))
    return np.linalg.solve(square, (update + ridge * mean_b).T).T.astype(np.float32)


def aligned(
    B: Sequence[Array], A: Sequence[Array], weights: Sequence[float], weight: float, steps: int = 100
) -> Float[np.ndarray, "d r"]:
    r"""B that turns its product with the mean A towards the weighted sum of updates (LoRA-FAIR).

    .. math::  \arg\min_X \; 1 - \cos(\Delta W, X \bar A) + \lambda \lVert X - \bar B \rVert, \quad
               \Delta W = \sum_i w_i B_i A_i

    by gradient descent from the mean B. Cosine and norm are those of the matrices as vectors, and the norm is not
    squared, as printed; where it has no slope, at the mean B, it counts as flat. The authors name SGD but neither its
    rate nor its steps: the rate is one over the curvature of the cosine at the mean B, and is halved whenever a step
    would not lower the objective, so that it falls from step to step.

    All happens in the space that the columns of (sum_i w_i B_i A_i) A^T and of the mean B span, in 2 r numbers a column
    instead of d; the d x k matrices are never formed.

    Args:
        B: expansions. n of [d, r]
        A: projections. n of [r, k]
        weights: w_i, adding up to one. [n]
        weight: lambda >= 0.
        steps: tries; at most so many steps.

    Returns:
        X, float32; the mean B where either side of the cosine is zero. [d, r]

    Raises:
        ValueError: a negative weight.

    >>> aligned([np.ones((2, 1))], [np.ones((1, 3))], [1.0], 0.5).round(6).tolist()
    [[1.0], [1.0]]
    """
    if not weight >= 0.0:
        raise ValueError(f"the weight of staying near the mean B must not be negative, got {weight}")
    mean_b, mean_a, update = _means(B, A, weights)
    span, inner = np.linalg.qr(np.concatenate([update, mean_b], axis=1))
    target, begun = np.split(inner, 2, axis=1)
    square, length = mean_a @ mean_a.T, _length(B, A, weights)
    reach = np.sqrt((begun @ square * begun).sum())
    if not (length > 0.0 and reach > 0.0):
        return mean_b.astype(np.float32)
    x, (value, slope) = begun, _unlikeness(begun, target / length, square, begun, weight)
    rate = reach**2 / np.linalg.eigvalsh(square)[-1]
    for _ in range(steps):
        new = x - rate * slope
        met = _unlikeness(new, target / length, square, begun, weight)
        if met[0] < value:
            x, (value, slope) = new, met
        else:
            rate /= 2
    return np.asarray(span @ x, dtype=np.float32)


def _unlikeness(x: Array, target: Array, square: Array, begun: Array, weight: float) -> tuple[float, Array]:
    """One minus the cosine, and the weighted distance from where it began; the slope of both together.

    x, begun: [s, r]. target: unit update times A^T. [s, r]  square: A A^T. [r, r]
    """
    reach = np.sqrt((x @ square * x).sum())
    away = float(np.linalg.norm(x - begun))
    if not reach > 0.0:
        return float("inf"), np.zeros_like(x)
    cosine = float((target * x).sum() / reach)
    slope = (cosine / reach * (x @ square) - target) / reach
    slope = slope + weight * (x - begun) / away if away > 0.0 else slope
    return 1.0 - cosine + weight * away, slope


def _length(B: Sequence[Array], A: Sequence[Array], weights: Sequence[float]) -> float:
    """Frobenius norm of the weighted sum of updates, from the factors."""
    tall = np.concatenate([w * b.astype(np.float64) for w, b in zip(weights, B, strict=True)], axis=1)
    wide = np.concatenate([a.astype(np.float64) for a in A])
    return float(np.sqrt(max(0.0, float(((tall.T @ tall) * (wide @ wide.T)).sum()))))


def _means(B: Sequence[Array], A: Sequence[Array], weights: Sequence[float]) -> tuple[Array, Array, Array]:
    """Mean B, mean A, and the weighted sum of updates times the mean A transposed. [d, r], [r, k], [d, r]"""
    b, a = [x.astype(np.float64) for x in B], [x.astype(np.float64) for x in A]
    mean_b = sum((w * x for w, x in zip(weights, b, strict=True)), np.zeros_like(b[0]))
    mean_a = sum((w * x for w, x in zip(weights, a, strict=True)), np.zeros_like(a[0]))
    update = sum((w * y @ (x @ mean_a.T) for w, y, x in zip(weights, b, a, strict=True)), np.zeros_like(b[0]))
    return mean_b, mean_a, update
