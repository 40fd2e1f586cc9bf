"""A projection that knows its task, eq. (26): A refined with the mean input of its layer (reading R6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from .lowrank import Layout, matrices_a

Refinement = Literal["none", "elementwise", "outer"]


def refine(
    A: Float[np.ndarray, " rk"],
    code: Float[np.ndarray, " K"],
    layout: Layout,
    inputs: Sequence[slice],
    kind: Refinement,
) -> Float[np.ndarray, " rk"]:
    r"""Projections with the task code in them, eq. (26).

    .. math::  A_l \, \mathrm{diag}\big(\sqrt{k_l} \, h_l / \lVert h_l \rVert\big)
               \quad\text{or}\quad A_l \, h_l h_l^T / \lVert h_l \rVert^2

    Reading R6: A h / norm(h) is a vector of r numbers and cannot take A's place. `elementwise` keeps A's shape and
    rank and, on average over its columns, its scale; `outer` is the reading of rank one, in which every input of a
    layer is seen along h alone, and is kept to show what that costs. A code of zeros says nothing and leaves A
    as it is.

    Args:
        A: projections of one device. [sum r k]
        code: its task code as it travels, in 16 bit, so that everybody finds the same bits. [sum k of the inputs]
        layout: the adapted layers.
        inputs: where the input of every layer lies in the code. [L]
        kind: which reading; `none` changes nothing.

    Returns:
        Refined projections, float32. [sum r k]

    Raises:
        ValueError: an input whose width is not its layer's.
    """
    if kind == "none":
        return A
    refined = []
    for name, matrix, cut in zip(layout.names, matrices_a(A, layout), inputs, strict=True):
        h = code[cut].astype(np.float64)
        if h.shape != matrix.shape[1:]:
            raise ValueError(f"layer {name} has {matrix.shape[1]} inputs, its part of the task code {h.size}")
        size = math.sqrt(math.fsum(h * h))  # in one order, whatever the machine
        if size == 0.0:
            refined.append(matrix)
        elif kind == "elementwise":
            refined.append(matrix * (math.sqrt(h.size) * h / size))
        else:
            along = np.array([math.fsum(row * h) for row in matrix])
            refined.append(along[:, None] * h / size**2)
    return np.concatenate([np.ravel(matrix).astype(np.float32) for matrix in refined])
