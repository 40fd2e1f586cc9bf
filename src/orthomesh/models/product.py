"""The product of an adapted linear layer, eqs. (2), (3), whose A is frozen: a backward pass owes x and B, nothing else.

Autograd on x -> W0 x + s B A x, with A trained, keeps x, makes a gradient of A, and walks over the [tokens, d] output
twice more to scale the adapter and add it. Here only z = s A x, [tokens, r], is kept, and a product does the adding.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MERGED_FROM = 2.0
"""Tokens, in units of d k / (d + k), from which merged weights are the faster form; measured on a CPU."""


def form(tokens: int, out_features: int, in_features: int, dtype: torch.dtype) -> Literal["merged", "apart"]:
    r"""How to compute an adapted layer: a function of sizes alone, so that the same run takes the same path.

    `merged`: W = W0 + s B A, once forward and once more backward; 4 d k r operations whatever the number of tokens,
    and two passes over W0. `apart`: s B A x is added to W0 x, A^T B^T dy to W0^T dy; 2 r (2 d + k) operations a
    token. Merged from

    .. math::  T (d + k) \ge 2 \, d k

    on; below, the copy of W0 costs more than it saves. Both grow with r alike. In 16 bit a small update would drown
    in the rounding of W0, so there it is always `apart`.

    Args:
        tokens: T, rows of x that share one adapter.
        out_features: d.
        in_features: k.
        dtype: of x and W0.

    >>> form(720, 96, 96, torch.float32), form(128, 704, 256, torch.float32), form(720, 96, 96, torch.bfloat16)
    ('merged', 'apart', 'apart')
    """
    wide = torch.finfo(dtype).bits >= 32
    enough = tokens * (out_features + in_features) >= MERGED_FROM * out_features * in_features
    return "merged" if wide and enough else "apart"


def adapted(x: Tensor, linear: nn.Linear, A: Tensor, B: Tensor, scale: float) -> Tensor:
    r"""Output of a frozen linear layer under an adapter whose A is frozen too, eqs. (2), (3).

    .. math::  y = W_0 x + b_0 + s B A x, \quad dx = W_0^\top dy + s A^\top B^\top dy, \quad dB = s \, dy \, (A x)^\top

    Args:
        x: layer input; its first axis falls into D equal parts where there are D adapters. [N, ..., k]
        linear: the frozen layer, W0 and b0. W0: [d, k]
        A: in the dtype of x. [r, k], or [D, r, k] for D devices at once
        B: float32 or the dtype of x. [d, r], or [D, d, r]
        scale: s.

    Returns:
        [N, ..., d], under autocast in its type, as of any linear layer. A backward pass gives gradients of x and of B,
        each if it is asked for.
    """
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:  # which autocast leaves alone
        kind = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            return adapted(x.to(kind), linear, A.to(kind), B, scale)
    factors = (A, B) if A.dim() == 3 else (A.unsqueeze(0), B.unsqueeze(0))
    if torch.is_grad_enabled() and (x.requires_grad or B.requires_grad):
        y: Tensor = _Adapted.apply(x, *factors, linear, scale)  # type: ignore[no-untyped-call]
        return y
    return _forward(x, *factors, linear, scale)[0]


class _Adapted(torch.autograd.Function):
    """`adapted` for autograd. A: [D, r, k]  B: [D, d, r]. Of the activations, only z is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, linear: nn.Linear, scale: float) -> Tensor:
        y, z = _forward(x, A, B, linear, scale)
        ctx.save_for_backward(A, B, z)
        ctx.weight, ctx.scale = linear.weight, scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        A, B, z = ctx.saved_tensors
        parts = dy.reshape(A.shape[0], -1, dy.shape[-1])
        dx = dB = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(parts, A, B, ctx.weight.to(dy.dtype), ctx.scale).view(*dy.shape[:-1], -1)
        if ctx.needs_input_grad[2]:
            dB = torch.bmm(parts.mT, z).to(B.dtype)
        return dx, None, dB, None, None


def _forward(x: Tensor, A: Tensor, B: Tensor, linear: nn.Linear, scale: float) -> tuple[Tensor, Tensor]:
    """y and z = s A x. [N, ..., d], [D, T, r]"""
    parts = x.reshape(A.shape[0], -1, x.shape[-1])
    z = torch.bmm(parts, A.mT)
    z = z if scale == 1.0 else z.mul_(scale)
    weight, bias = linear.weight.to(x.dtype), None if linear.bias is None else linear.bias.to(x.dtype)
    if _merges(parts, weight):
        W = _merged(weight, A, B, scale).mT
        y = torch.bmm(parts, W) if bias is None else torch.baddbmm(bias, parts, W)
    else:
        y = F.linear(parts, weight, bias).baddbmm_(z, B.to(x.dtype).mT)
    return y.view(*x.shape[:-1], -1), z


def _input_gradient(dy: Tensor, A: Tensor, B: Tensor, weight: Tensor, scale: float) -> Tensor:
    """dx of D parts. [D, T, d] -> [D, T, k]"""
    if _merges(dy, weight):
        return torch.bmm(dy, _merged(weight, A, B, scale))
    return torch.matmul(dy, weight).baddbmm_(torch.bmm(dy, B.to(dy.dtype)), A, alpha=scale)


def _merges(parts: Tensor, weight: Tensor) -> bool:
    out_features, in_features = weight.shape
    return form(parts.shape[1], out_features, in_features, parts.dtype) == "merged"


def _merged(weight: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """W0 + s B A of every adapter. [D, d, k]"""
    return torch.baddbmm(weight.expand(A.shape[0], -1, -1), B, A, alpha=scale)
