"""Adapters of several tasks merged into what one model wears: `cat` and `linear`, with the semantics of peft."""

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
