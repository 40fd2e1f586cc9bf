"""Mixtures that choose per token and per layer: the implicit mixture of eq. (29), and rules like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ARROW_EXPERTS = 3
"""Experts that share a token under `arrow`, as its authors have it."""


@dataclass(frozen=True)
class Mixture:
    """Experts of one layer, side by side. R = M r joint ranks, num = M.

    A: projections stacked. [R, k]  B: expansions side by side. [d, R]  code: unit task codes, None for no gate. [M, k]
    rule: `topk` keeps the strongest ranks, `norm` and `arrow` weigh whole experts. top_k: ranks kept per token, 0 for
    all. scope: strongest by magnitude among all experts' ranks together (`joint`) or within each (`expert`), or by
    value among all (`signed`). prints: what `norm` and `arrow` compare by: B_i^T B_i [M, r, r], or directions [M, k];
    of `mixer` its weights G. [M, k]
    usual: mean and spread of ||B_i A_i x|| on each expert's own data, by which `norm` compares; None: as it is. [M, 2]
    bias: of `topk`, added to how strong a rank is, for the choice alone; None for none. [R]
    counts: a place that adds up how many tokens each rank was chosen for; None where nobody asks. [R]
    """

    A: Tensor
    B: Tensor
    code: Tensor | None
    top_k: int
    num: int = 1
    scope: Literal["joint", "expert", "signed"] = "joint"
    rule: Literal["topk", "norm", "arrow", "mixer"] = "topk"
    prints: Tensor | None = None
    usual: Tensor | None = None
    bias: Tensor | None = None
    counts: Tensor | None = None


def mix(x: Tensor, layer: Mixture) -> Tensor:
    r"""Output of all experts for each token after the strongest ranks or experts were chosen, eq. (29) with (27).

    .. math::  y = \sum_i B_i \, \mathrm{topk}\big(g_i(x) A_i x\big), \quad g_i = \cos(h_i, x)

    Readings R6, R7: the gate is the factor of (27) made bounded. "Largest" is by magnitude over the ranks of all
    experts together, per token; `signed` is the formula to the letter. A `bias` evens out how often ranks are chosen
    (FlyLoRA, arXiv 2510.08396): |z| + d decides, or z + d where `signed`. `norm` sends a token to the expert with the
    largest ||B_i A_i x|| (SpectR, arXiv 2504.03454; SEQR, arXiv 2509.18093, computes the same from smaller matrices);
    `arrow` mixes three by a softmax of |v_i x|, v_i the strongest input direction of B_i A_i (arXiv 2405.11157);
    `mixer` all by softmax(G x), G trained (FedALT, arXiv 2503.11880).

    Args:
        x: layer input. [..., k]
        layer: the experts.

    Returns:
        What is added to the frozen layer's output. [..., d]
    """
    z = F.linear(x, layer.A)
    if layer.rule != "topk":
        assert layer.prints is not None
        ranks = torch.unflatten(z, -1, (layer.num, -1))
        return F.linear((ranks * _shares(x, ranks, layer).unsqueeze(-1)).flatten(-2), layer.B)
    if layer.code is not None:
        gate = F.linear(F.normalize(x, dim=-1), layer.code)
        z = z * gate.repeat_interleave(z.shape[-1] // gate.shape[-1], dim=-1)
    return F.linear(_strongest(z, layer), layer.B.to(z.dtype))


def _shares(x: Tensor, ranks: Tensor, layer: Mixture) -> Tensor:
    """How much of each expert a token gets, from its inputs and its ranks [..., M, r]. [..., M]"""
    assert layer.prints is not None
    if layer.rule == "norm":
        strength = torch.einsum("...mr,mrs,...ms->...m", ranks, layer.prints, ranks)
        if layer.usual is not None:
            strength = (strength.clamp(min=0).sqrt() - layer.usual[:, 0]) / layer.usual[:, 1]
        return F.one_hot(strength.argmax(-1), strength.shape[-1]).to(ranks.dtype)
    if layer.rule == "mixer":
        return F.linear(x, layer.prints).softmax(-1)
    score = F.linear(x, layer.prints).abs()
    best = score.topk(min(ARROW_EXPERTS, score.shape[-1]), dim=-1)
    return torch.zeros_like(score).scatter(-1, best.indices, best.values.softmax(-1))


def _strongest(z: Tensor, layer: Mixture) -> Tensor:
    """The ranks that answer; the others are zero."""
    groups = torch.unflatten(z, -1, (layer.num if layer.scope == "expert" else 1, -1))
    if not 0 < layer.top_k < groups.shape[-1]:
        return z
    keys = groups if layer.scope == "signed" else groups.abs()
    if layer.bias is not None:
        keys = keys + layer.bias.view(groups.shape[-2:])
    kept = keys.topk(layer.top_k, dim=-1).indices
    if layer.counts is not None:
        chosen = torch.zeros_like(groups, dtype=layer.counts.dtype).scatter(-1, kept, 1.0)
        layer.counts.add_(chosen.flatten(-2).flatten(end_dim=-2).sum(0))
    return torch.zeros_like(groups).scatter(-1, kept, groups.gather(-1, kept)).flatten(-2)
