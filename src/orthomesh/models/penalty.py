"""Penalties that keep low-rank factors orthogonal, as data: their gradients are added to that of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters.lowrank import Layout, slices
from ..types import Array


@dataclass(frozen=True, kw_only=True)
class Penalty:
    r"""Weights of two penalties on the factors of one device.

    .. math::  R = \lambda \sum_l \big(\lVert \mathrm{off}(A_l A_l^\top) \rVert^2 +
               \lVert \mathrm{off}(B_l^\top B_l) \rVert^2\big) + \mu \sum_{j, l} \lVert A_l A_{j,l}^\top \rVert^2

    with off the entries beside the diagonal. The first keeps the ranks of one adapter apart (SOFT), the second an
    adapter from others, eq. (12) with A_i A_j^T where it prints A_i A_i^T (O-LoRA).

    within: lambda. between: mu. others: A_j of the others, [n, sum r k], or None.
    """

    within: float = 0.0
    between: float = 0.0
    others: Array | None = None


def add_slopes(penalty: Penalty, layout: Layout, theta: Tensor, grad: Tensor) -> None:
    r"""Add the penalty's gradient to that of the loss, in place; mu's is that of eq. (12).

    .. math::  \nabla_A = 4 \lambda \, \mathrm{off}(A A^\top) A + 2 \mu \sum_j A A_j^\top A_j, \quad
               \nabla_B = 4 \lambda \, B \, \mathrm{off}(B^\top B)

    Args:
        penalty: weights, and A_j.
        layout: of the adapter.
        theta: B and A, one after the other. [sum d r + sum r k]
        grad: of the loss, in the same order; changed.
    """
    num_b, r = layout.num_expansion, layout.rank
    told = None if penalty.others is None else torch.from_numpy(penalty.others).to(theta)
    cuts = zip(layout.shapes, slices(layout.expansion_sizes), slices(layout.projection_sizes), strict=True)
    for shape, at_b, at_a in cuts:
        moved = slice(num_b + at_a.start, num_b + at_a.stop)
        B, A = theta[at_b].view(shape.out_features, r), theta[moved].view(r, shape.in_features)
        if penalty.within:
            grad[at_b] += (4 * penalty.within * B @ _off(B.T @ B)).flatten()
            grad[moved] += (4 * penalty.within * _off(A @ A.T) @ A).flatten()
        if told is not None and penalty.between:
            others = told[:, at_a].reshape(-1, shape.in_features)
            grad[moved] += (2 * penalty.between * (A @ others.T) @ others).flatten()


def _off(square: Tensor) -> Tensor:
    """Without its diagonal."""
    return square - torch.diag(torch.diagonal(square))
