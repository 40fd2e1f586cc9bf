"""The implicit mixture of experts, eq. (29): all projections compete per token, the k strongest ranks answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Experts of one layer, side by side. R = M r joint ranks.

    A: projections stacked. [R, k]  B: expansions side by side. [d, R]
    code: unit task codes, or None for no gate. [M, k]  top_k: ranks kept per token, 0 for all.
    """

    A: Tensor
    B: Tensor
    code: Tensor | None
    top_k: int


def mix(x: Tensor, layer: Mixture) -> Tensor:
    r"""Output of all experts for each token after the strongest ranks were chosen, eq. (29) with (27).

    .. math::  y = \sum_i B_i \, \mathrm{topk}\big(g_i(x) A_i x\big), \quad g_i = \cos(h_i, x)

    Readings R6, R7: the gate is the factor of (27) made bounded; "largest" is by magnitude, over the ranks of
    all experts together, per token.

    Args:
        x: layer input. [..., k]
        layer: the experts.

    Returns:
        What is added to the frozen layer's output. [..., d]
    """
    z = F.linear(x, layer.A)
    if layer.code is not None:
        gate = F.linear(F.normalize(x, dim=-1), layer.code)
        z = z * gate.repeat_interleave(z.shape[-1] // gate.shape[-1], dim=-1)
    if 0 < layer.top_k < z.shape[-1]:
        kept = z.abs().topk(layer.top_k, dim=-1).indices
        z = torch.zeros_like(z).scatter(-1, kept, z.gather(-1, kept))
    return F.linear(z, layer.B)
