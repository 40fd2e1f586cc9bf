"""Ranks that compete for a token are used alike: a bias of each, moved by how often it was chosen (FlyLoRA)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..types import Array


class Balance(NamedTuple):
    """Where a device's biases stand and how far a step moves them.

    bias: added to how strong a rank is, for the choice alone; in units of A x, layer by layer. [L r]  step: u > 0.
    """

    bias: Array
    step: float


class Loads(NamedTuple):
    """Places on the model's device that every layer reads its biases from and adds its choices to.

    bias: in units of `scale` A x, as the layers have it. [L, r]  counts: tokens each rank was chosen for. [L, r]
    step: u, in units of A x.
    """

    bias: Tensor
    counts: Tensor
    step: float
    scale: float = 1.0


def loads_of(balance: Balance, rank: int, scale: float, device: torch.device) -> Loads:
    """A device's biases laid where its layers read them; nothing was chosen yet."""
    bias = torch.tensor(balance.bias, dtype=torch.float32, device=device).view(-1, rank).mul_(scale)
    return Loads(bias, torch.zeros_like(bias), balance.step, scale)


def rebalance(loads: Loads) -> None:
    r"""Move the biases after a step by what was chosen in it, and forget the choices.

    .. math::  d_i \leftarrow d_i + u \, \mathrm{sign}(\bar c - c_i)

    Rank by rank and layer by layer; c_i counts the tokens rank i was chosen for, padding too (FlyLoRA, arXiv
    2510.08396, whose code counts so). Compared as r c_i with the sum of all, which is exact.

    Args:
        loads: changed in place.

    >>> loads = Loads(torch.zeros(1, 3), torch.tensor([[4.0, 2.0, 0.0]]), step=0.5)
    >>> rebalance(loads)
    >>> loads.bias.tolist(), loads.counts.tolist()
    ([[-0.5, 0.0, 0.5]], [[0.0, 0.0, 0.0]])
    """
    counts = loads.counts
    lacking = torch.sign(counts.sum(-1, keepdim=True) - counts.shape[-1] * counts)
    loads.bias.add_(lacking, alpha=loads.scale * loads.step)
    counts.zero_()


def balance_of(loads: Loads) -> Balance:
    """The biases where they stand now, in units of A x again; shares nothing with the places."""
    return Balance((loads.bias / loads.scale).flatten().cpu().numpy(), loads.step)
