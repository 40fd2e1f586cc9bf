"""Adapters of several tasks merged into what one model wears.

`cat`, `linear`, `ties` and `dare` have the semantics of peft; `knots` is that of its authors (arXiv 2410.19735), found
from the factors alone. `ties` and `dare` act on whole updates: on factors they would join B of one device with A of
another, and the sign of a factor means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..types import Array

Pair = tuple[Array, Array]
"""Flat A [sum r k] and B [sum d r] of one adapter."""


def cat(pairs: Sequence[Pair], weights: Sequence[float]) -> list[Pair]:
    r"""Adapters side by side, ranks one after the other: the weighted sum of updates, exactly.

    .. math::  \Delta W = \sum_i w_i B_i A_i

    Args:
        pairs: A_i and B_i. n of them
        weights: w_i, of any sign. [n]

    Returns:
        A_i and w_i B_i, which add up where all answer together.

    >>> cat([(np.ones(1), np.ones(1))], [0.5])
    [(array([1.]), array([0.5]))]
    """
    return [(a, np.asarray(b * b.dtype.type(w))) for (a, b), w in zip(pairs, weights, strict=True)]


def linear(
    pairs: Sequence[Pair], weights: Sequence[float]
) -> tuple[Float[np.ndarray, " rk"], Float[np.ndarray, " dr"]]:
    r"""Both factors added up, each with the root of the weight, as peft's `linear` does.

    .. math::  A = \sum_i \sqrt{w_i} A_i, \quad B = \sum_i \sqrt{w_i} B_i, \quad
               B A = \sum_i w_i B_i A_i + \sum_{i \ne j} \sqrt{w_i w_j} B_i A_j

    The second sum is what nobody trained. It is small where the A_i are independent and as large as the first where
    they are one: n adapters of weight w that share A come to w A n sum_i B_i, n times what `cat` gives.

    Args:
        pairs: A_i and B_i, all of one rank. n of them
        weights: w_i >= 0. [n]

    Returns:
        A and B of one adapter of the same rank.

    Raises:
        ValueError: a negative weight, of which there is no root.
    """
    if min(weights) < 0:
        raise ValueError(f"linear merging takes roots of weights and {min(weights)} is negative; cat takes any")
    roots = np.sqrt(np.asarray(weights, dtype=np.float32))
    a = sum((root * a for root, (a, _) in zip(roots, pairs, strict=True)), np.zeros_like(pairs[0][0]))
    b = sum((root * b for root, (_, b) in zip(roots, pairs, strict=True)), np.zeros_like(pairs[0][1]))
    return a, b


def ties(updates: Sequence[Array], weights: Sequence[float], density: float) -> Float[np.ndarray, "d k"]:
    r"""Updates trimmed, their signs elected, and the mean of those that agree (TIES, arXiv 2306.01708).

    .. math::  \gamma = \mathrm{sgn} \sum_i \hat U_i, \quad
               U = \sum_{i \in S} w_i \hat U_i / |S|, \quad S = \{i : \mathrm{sgn}\, \hat U_i = \gamma \ne 0\}

    entry by entry, with U^ the largest magnitudes of U. As in peft, weights have no say in signs, and the mean is over
    as many as agree.

    Args:
        updates: U_i. n of [d, k]
        weights: w_i. [n]
        density: share of every update that is kept, in (0, 1].

    Returns:
        The merged update, zero where nothing was kept or the signs cancel. [d, k]

    Raises:
        ValueError: a density outside (0, 1].

    >>> ties([np.array([[4.0, 1.0]]), np.array([[-2.0, 3.0]])], [1.0, 1.0], 1.0).tolist()
    [[4.0, 2.0]]
    """
    kept = np.stack([np.where(_largest(u, density), u, 0) for u in updates])
    agree = (np.sign(kept) == np.sign(kept.sum(axis=0))) & (kept != 0)
    total = np.tensordot(np.asarray(weights), kept * agree, axes=1)
    return np.asarray(total / np.maximum(agree.sum(axis=0), 1))


def dare(
    updates: Sequence[Array], weights: Sequence[float], density: float, draws: Sequence[np.random.Generator]
) -> Float[np.ndarray, "d k"]:
    r"""Entries dropped at random, the rest scaled up, and added up (DARE, arXiv 2311.03099).

    .. math::  U = \sum_i w_i \, m_i \odot U_i / s, \quad m_i \sim \mathrm{Bernoulli}(s)

    which is the weighted sum in the mean over draws.

    Args:
        updates: U_i. n of [d, k]
        weights: w_i. [n]
        density: share s that is kept, in (0, 1].
        draws: one generator an update.

    Returns:
        The merged update. [d, k]

    Raises:
        ValueError: a density outside (0, 1].
    """
    _check(density)
    total = np.zeros(updates[0].shape)
    for update, w, rng in zip(updates, weights, draws, strict=True):
        total += w * np.where(rng.random(update.shape) < density, update, 0) / density
    return total


def knots(
    B: Sequence[Array], A: Sequence[Array], weights: Sequence[float], density: float
) -> tuple[Float[np.ndarray, "d R"], Float[np.ndarray, "R k"]]:
    r"""Updates turned into one common basis and merged there by `ties` (KnOTS).

    .. math::  [B_1 A_1, \dots, B_n A_n] = U \Sigma [V_1, \dots, V_n]^\top, \quad
               \Delta W = U \, \mathrm{ties}(\Sigma V_1^\top, \dots, \Sigma V_n^\top)

    The decomposition is that of a core of n r x n r, between the Q of the stacked B and those of every A^T.

    Args:
        B: expansions. n of [d, r_i]
        A: projections. n of [r_i, k]
        weights: w_i. [n]
        density: share of every block that is kept, in (0, 1].

    Returns:
        U, orthonormal columns, and the merged blocks; R is the rank of all updates together, at most sum r_i.

    Raises:
        ValueError: a density outside (0, 1].
    """
    q_b, r_b = np.linalg.qr(np.concatenate(B, axis=1).astype(np.float64))
    turned = [np.linalg.qr(a.astype(np.float64).T) for a in A]
    ends = np.cumsum([a.shape[0] for a in A])
    core = np.concatenate(
        [r_b[:, end - len(r.T) : end] @ r.T for end, (_, r) in zip(ends, turned, strict=True)], axis=1
    )
    u, sigma, v = np.linalg.svd(core, full_matrices=False)
    held = sigma > max(core.shape) * np.finfo(np.float64).eps * sigma[:1].sum()
    blocks = np.split(sigma[held, None] * v[held], np.cumsum([q.shape[1] for q, _ in turned])[:-1], axis=1)
    merged = ties([block @ q.T for block, (q, _) in zip(blocks, turned, strict=True)], weights, density)
    return (q_b @ u[:, held]).astype(np.float32), merged.astype(np.float32)


def _check(density: float) -> None:
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], the share of every update that is kept; got {density}")


def _largest(update: Array, density: float) -> Array:
    """Where the largest magnitudes lie, max(1, floor(s n)) of them as in peft; ties go to the earlier entry."""
    _check(density)
    mask = np.zeros(update.size, dtype=bool)
    mask[np.argsort(-np.abs(update), axis=None, kind="stable")[: max(1, int(density * update.size))]] = True
    return mask.reshape(update.shape)
