"""The gradient of the adapted matrices themselves, as full fine-tuning would take its first step by it (LoRA-SB)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
from torch import Tensor

from ..adapters.lowrank import slices
from ..types import Array
from .base import Base
from .inject import checkpointed
from .loss import backward
from .settings import TrainSettings
from .tokens import Row


def first_gradient(base: Base, rows: Sequence[Row], settings: TrainSettings) -> Array:
    r"""Mean gradient of every adapted matrix over some rows, at the untouched base.

    .. math::  G_l = \nabla_{W_{0, l}} F = \sum_t \delta_{l, t} x_{l, t}^\top

    with the loss of fine-tuning, eq. (1): the mean over all tokens of the rows' targets. Where the model computes there
    is one layer's matrix at a time, which leaves as soon as it is whole. Afterwards the base is as it was.

    Args:
        base: the shared model, its slots empty.
        rows: any number of examples, read in parts as large as those of training.
        settings: batch size and its parts; whether activations are computed again.

    Returns:
        G of every adapted layer, row by row, float32. [sum d k]

    Raises:
        ValueError: no rows, or a loss that is not finite.
    """
    if not rows:
        raise ValueError("a gradient needs at least one row to be taken over, got none")
    weights = [slot.base.weight for slot in base.slots.values()]
    sizes = [w.numel() for w in weights]
    flat = np.zeros(sum(sizes), dtype=np.float32)
    hooks = []
    num_parts = min(len(rows), -(-len(rows) * settings.accumulate // settings.batch_size))
    again = checkpointed(base.model, base.slots) if settings.checkpointing else nullcontext()
    try:
        for w, cut in zip(weights, slices(sizes), strict=True):
            leave = partial(_leave, into=flat[cut])
            hooks.append(w.requires_grad_().register_post_accumulate_grad_hook(leave))  # type: ignore[no-untyped-call]
        with again:
            backward(base, [rows], num_parts)
    finally:
        for hook in hooks:
            hook.remove()
        for w in weights:
            w.requires_grad_(False).grad = None
    return flat


def _leave(weight: Tensor, into: Array) -> None:
    assert weight.grad is not None
    into += weight.grad.float().cpu().numpy().ravel()
    weight.grad = None
