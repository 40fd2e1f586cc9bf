"""How much two experts are in each other's way: the angles of (16), the inner product of (28), and what is left.

Theorem 2 states that the weight updates B_i A_i and B_j A_j are orthogonal. That holds in expectation over
independent projections, and says little: in high dimension nearly everything is orthogonal to everything. What a
prompt meets is the sum of both outputs, and expert j's is as loud as expert i's whatever their angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class Interference:
    """What expert j does to expert i, layer by layer.

    gram_ratio: of the projections, [L], in [0, 1]. principal_cosines: of their row spaces, descending, [L r].
    weight_cosine: of the updates B A, [L], in [-1, 1]. output_ratio: loudness of j over that of i on i's
    activations, [L], positive. output_cosine: of the two outputs, [L], in [-1, 1].
    """

    gram_ratio: Float[np.ndarray, " L"]
    principal_cosines: Float[np.ndarray, "L r"]
    weight_cosine: Float[np.ndarray, " L"]
    output_ratio: Float[np.ndarray, " L"]
    output_cosine: Float[np.ndarray, " L"]


def between(
    inputs: Sequence[Float[np.ndarray, "_ _"]],
    B_i: Sequence[Float[np.ndarray, "_ _"]],
    A_i: Sequence[Float[np.ndarray, "_ _"]],
    B_j: Sequence[Float[np.ndarray, "_ _"]],
    A_j: Sequence[Float[np.ndarray, "_ _"]],
) -> Interference:
    """All measures of a pair of experts, one entry per layer.

    Args:
        inputs: what enters each layer on prompts of expert i, one row per token. L matrices [T, k_l]
        B_i: expansions of the expert asked, under their masks. L matrices [d_l, r]
        A_i: its projections. L matrices [r, k_l]
        B_j: expansions of the expert in its way.
        A_j: its projections.

    Returns:
        The measures, in order of layers.

    Raises:
        ValueError: no layer, or not one matrix of each for every layer; what the single measures refuse.
    """
    lengths = [len(x) for x in (inputs, B_i, A_i, B_j, A_j)]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"two experts are compared layer by layer: inputs, B_i, A_i, B_j, A_j hold {lengths} matrices")
    outputs = [functional_interference(*layer) for layer in zip(inputs, B_i, A_i, B_j, A_j, strict=True)]
    return Interference(
        gram_ratio=np.array([gram_ratio(*pair) for pair in zip(A_i, A_j, strict=True)]),
        principal_cosines=np.stack([principal_cosines(*pair) for pair in zip(A_i, A_j, strict=True)]),
        weight_cosine=np.array([weight_cosine(*four) for four in zip(B_i, A_i, B_j, A_j, strict=True)]),
        output_ratio=np.array([ratio for ratio, _ in outputs]),
        output_cosine=np.array([cosine for _, cosine in outputs]),
    )


def gram(A_i: Float[np.ndarray, "r k"], A_j: Float[np.ndarray, "q k"]) -> Float[np.ndarray, "r q"]:
    r"""What (16) and (35) call zero: A_i A_j^T, in double precision.

    The paper prints A_i^T A_j, which is k x k and cannot equal 0_{r x r}; (35) uses this one.

    Args:
        A_i: a projection. [r, k]
        A_j: another, whose rank q may differ. [q, k]

    Returns:
        Inner products of the rows of one with those of the other. [r, q]

    >>> gram(np.array([[1.0, 0.0, 2.0]]), np.array([[3.0, 5.0, 1.0]])).tolist()
    [[5.0]]
    """
    return np.asarray(A_i.astype(np.float64) @ A_j.astype(np.float64).T)


def gram_ratio(A_i: Float[np.ndarray, "r k"], A_j: Float[np.ndarray, "r k"]) -> float:
    r"""How far two projections are from orthogonal, the only sense in which (16) is "about zero".

    .. math::  \lVert A_i A_j^T \rVert_F \,/\, \sqrt{\lVert A_i A_i^T \rVert_F \lVert A_j A_j^T \rVert_F}

    Independent ones come to sqrt(r/k): exactly so in root mean square for orthonormal rows, a factor
    sqrt(1 + (r+1)/k) less for Gaussian entries. At r = 32 that is 0.14 for k = 1536, not 0.

    Args:
        A_i: a projection. [r, k]
        A_j: another. [r, k]

    Returns:
        In [0, 1] up to rounding: 0 where every row of one is orthogonal to every row of the other, 1 where
        A_i^T A_i and A_j^T A_j agree up to scale.

    Raises:
        ValueError: a projection of zeros.
    """
    own = math.sqrt(np.linalg.norm(gram(A_i, A_i)) * np.linalg.norm(gram(A_j, A_j)))
    if not own > 0.0:
        raise ValueError("a projection of zeros has no direction to compare; A must have an entry that is not zero")
    return float(np.linalg.norm(gram(A_i, A_j)) / own)


def principal_cosines(A_i: Float[np.ndarray, "r k"], A_j: Float[np.ndarray, "r k"]) -> Float[np.ndarray, " r"]:
    """Cosines of the principal angles between the row spaces of two projections, after (16).

    The singular values of Q_i^T Q_j, where the columns of Q are an orthonormal basis of the rows of A. For
    orthonormal rows their squares add up to r times the square of `gram_ratio`.

    Args:
        A_i: a projection with independent rows. [r, k]
        A_j: another. [r, k]

    Returns:
        Descending, in [0, 1]; 1 for every direction the two share. [r]

    Raises:
        ValueError: rows that depend on each other.

    >>> principal_cosines(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])).round(6).tolist()
    [0.707107]
    """
    values = np.linalg.svd(_basis(A_i).T @ _basis(A_j), compute_uv=False)
    return np.asarray(np.minimum(values, 1.0))  # rounding may leave a shared direction one unit above 1


def weight_cosine(
    B_i: Float[np.ndarray, "d r"],
    A_i: Float[np.ndarray, "r k"],
    B_j: Float[np.ndarray, "d q"],
    A_j: Float[np.ndarray, "q k"],
) -> float:
    r"""Cosine between two weight updates, what Theorem 2 sets to zero, eqs. (28) and (35).

    .. math::  \frac{\langle B_i A_i, B_j A_j \rangle_F}{\lVert B_i A_i \rVert_F \lVert B_j A_j \rVert_F}, \quad
               \langle B_i A_i, B_j A_j \rangle_F = \operatorname{tr}(B_j^T B_i A_i A_j^T)

    No d x k matrix is formed. Reading: the paper prints <w_i, w_j^T>, whose shapes do not fit, and "= 0"; with
    independent projections of mean zero it is zero in expectation, for any B that do not depend on the other's A.

    Args:
        B_i: an expansion under its mask. [d, r]
        A_i: its projection. [r, k]
        B_j: another expansion. [d, q]
        A_j: its projection. [q, k]

    Returns:
        In [-1, 1] up to rounding.

    Raises:
        ValueError: an update that is zero.
    """
    squares = _inner(B_i, A_i, B_i, A_i), _inner(B_j, A_j, B_j, A_j)
    if not min(squares) > 0.0:
        raise ValueError("an update that is zero has no direction to compare; train B before asking for its cosine")
    return _inner(B_i, A_i, B_j, A_j) / math.sqrt(squares[0] * squares[1])


def functional_interference(
    x: Float[np.ndarray, "T k"],
    B_i: Float[np.ndarray, "d r"],
    A_i: Float[np.ndarray, "r k"],
    B_j: Float[np.ndarray, "d q"],
    A_j: Float[np.ndarray, "q k"],
) -> tuple[float, float]:
    r"""What expert j adds to the answers of expert i on real activations, the interference term of (14).

    .. math::  \frac{\lVert x A_j^T B_j^T \rVert_F}{\lVert x A_i^T B_i^T \rVert_F}, \quad
               \cos(x A_i^T B_i^T, \; x A_j^T B_j^T)

    Theorem 2 does not make the first small: between experts of one size it stays near 1 whatever the angle of
    their projections, and M - 1 others together come to about sqrt(M - 1). A small cosine says that j does not
    point along i's output, not that j is silent. Silencing j takes a choice of the expert.

    Args:
        x: what enters the layer on prompts of expert i, one row per token. [T, k]
        B_i: expansion of the expert asked, under its mask. [d, r]
        A_i: its projection. [r, k]
        B_j: expansion of the expert in its way; of several, side by side. [d, q]
        A_j: its projection; of several, one below the other. [q, k]

    Returns:
        The ratio, positive, and the cosine, in [-1, 1] up to rounding.

    Raises:
        ValueError: an expert whose output on x is zero.
    """
    z_i, z_j = gram(A_i, x), gram(A_j, x)
    square_i, square_j = _inner(B_i, z_i, B_i, z_i), _inner(B_j, z_j, B_j, z_j)
    if not min(square_i, square_j) > 0.0:
        raise ValueError("an expert whose output is zero on all tokens cannot be compared; train B, or give other x")
    return math.sqrt(square_j / square_i), _inner(B_i, z_i, B_j, z_j) / math.sqrt(square_i * square_j)


def _inner(
    B_i: Float[np.ndarray, "d r"],
    A_i: Float[np.ndarray, "r k"],
    B_j: Float[np.ndarray, "d q"],
    A_j: Float[np.ndarray, "q k"],
) -> float:
    """<B_i A_i, B_j A_j>_F through r x q matrices."""
    return float(np.sum(gram(B_i.T, B_j.T) * gram(A_i, A_j)))


def _basis(a: Float[np.ndarray, "r k"]) -> Float[np.ndarray, "k r"]:
    """Orthonormal columns spanning the rows of a projection."""
    if np.linalg.matrix_rank(a) < len(a):
        raise ValueError(f"the {len(a)} rows of a projection depend on each other; principal angles need a full rank")
    return np.asarray(np.linalg.qr(a.astype(np.float64).T).Q)
