"""Weighted averaging of whole vectors among neighbours: the step of gossip methods, eqs. (9)-(10)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ..types import Array


def mix(own: Array, received: Mapping[int, tuple[float, Array]]) -> Float[np.ndarray, " n"]:
    r"""The device's vector after one gossip step, eqs. (9)-(10), what did not arrive weighed at home.

    .. math::  x_i \leftarrow x_i + \sum_{j \in N_i} w_{ij} (x_j - x_i)

    With rows of W adding up to one this is W x; a missing neighbour leaves a row that still adds up to one.

    Args:
        own: the device's vector. [n]
        received: weight and vector of every neighbour that arrived. {id: (w_ij, [n])}

    Returns:
        The mixed vector, float32. [n]

    Raises:
        ValueError: weights outside [0, 1], adding up to more than one, vectors of another length or not finite.
    """
    total = 0.0
    mixed = own.astype(np.float32)
    for k in sorted(received):  # in order of id
        weight, other = received[k]
        if other.shape != own.shape:
            raise ValueError(f"device {k} sent entries of shape {other.shape}, {own.shape} was expected")
        if not np.isfinite(other).all():
            raise ValueError(f"device {k} sent values that are not finite, its training has diverged")
        total += weight
        if not (weight >= 0 and total <= 1 + 1e-9):  # so that NaN is refused too
            raise ValueError(f"mixing weights must be non-negative and add up to at most 1, got {total} with {k}")
        mixed = mixed + np.float32(weight) * (other.astype(np.float32) - own)
    return mixed
