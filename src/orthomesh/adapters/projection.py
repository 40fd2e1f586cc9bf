"""The frozen projection A, eq. (16): drawn from a 64-bit seed, never trained, never sent (reading R1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from ..rng import stream
from .lowrank import Layout

Kind = Literal["orthonormal", "gaussian"]


def projection(seed: int, layout: Layout, kind: Kind = "orthonormal") -> Float[np.ndarray, " rk"]:
    r"""All projections of one device from its seed alone, eq. (16); (28) holds for them in expectation.

    .. math::  A_l = Q^T, \quad QR = G, \quad G_{xy} \sim \mathcal N(0, 1)

    Rows are orthonormal, so that the magnitude of an entry of B is its weight in the update and
    A_i A_j^T is small for independent seeds, of order sqrt(r/k) against A_i A_i^T. Reading R1: the paper draws
    N(0, 1) entries; `gaussian` is that divided by sqrt(k), the same mathematics at a usable learning rate.

    Args:
        seed: 64-bit seed of the device's projection; what its neighbours are told instead of A.
        layout: the adapted layers.
        kind: `orthonormal` rows, or independent `gaussian` entries of variance 1/k.

    Returns:
        The matrices A_l, [r, k_l], flat one after the other, float32. [sum r k]
    """
    parts: list[np.ndarray] = []
    for index, shape in enumerate(layout.shapes):
        g = stream(seed, "projection", index).standard_normal((shape.in_features, layout.rank))
        rows = _orthonormal(g).T if kind == "orthonormal" else g.T / np.sqrt(shape.in_features)
        parts.append(rows.astype(np.float32).ravel())
    return np.concatenate(parts)


def _orthonormal(g: Float[np.ndarray, "k r"]) -> Float[np.ndarray, "k r"]:
    """Orthonormal columns spanning those of `g`; signs fixed by a positive diagonal of R, so that Q is unique."""
    q, r = np.linalg.qr(g)
    return np.asarray(q * np.sign(np.diag(r)))
