"""Fine-tuning of a small matrix between two frozen factors, W0 + s B R A: r^2 numbers a layer (LoRA-SB)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from ..adapters.lowrank import matrices_a, matrices_b
from ..types import Array, Learnt
from .base import Base
from .finetune import rate_at
from .inject import Adapter, checkpointed, holding
from .loss import backward, draw, told
from .settings import TrainSettings
from .tokens import Row


def fit_inner(
    base: Base,
    rows: Sequence[Row],
    frame: tuple[Array, Array],
    core: Array,
    settings: TrainSettings,
    order: np.random.Generator,
    span: range,
) -> tuple[Array, Learnt]:
    r"""Lower the loss of one device on its own rows by AdamW on R alone.

    .. math::  R_l \leftarrow R_l - \eta \nabla_{R_l} F, \quad \nabla_{R_l} F = (\nabla_{R_l A_l} F) A_l^\top

    Args:
        base: the shared frozen model.
        rows: the device's training rows.
        frame: A and B, frozen. [sum r k], [sum d r]
        core: R of every layer, row by row. [L r r]
        settings: steps, batch, learning rate.
        order: draws the batches.
        span: steps of the run from here to its end.

    Returns:
        R after `settings.steps` steps, float32, and the loss at both ends.

    Raises:
        ValueError: a loss that is not finite, or more steps than the run has.
    """
    if len(span) < settings.steps:
        raise ValueError(f"{settings.steps} steps do not fit into the {len(span)} that are left of the run")
    rank, here = base.layout.rank, base.device
    A = [torch.from_numpy(np.array(a, dtype=np.float32)).to(here) for a in matrices_a(frame[0], base.layout)]
    B = [torch.from_numpy(np.array(b, dtype=np.float32)).to(here) for b in matrices_b(frame[1], base.layout)]
    values = torch.from_numpy(np.array(core, dtype=np.float32)).to(here).view(-1, rank, rank).requires_grad_()
    optimiser = torch.optim.AdamW([values], weight_decay=0.0, fused=True)
    losses = list[float]()
    again = checkpointed(base.model, base.slots) if settings.checkpointing else nullcontext()
    with again:
        for step in span[: settings.steps]:
            leaves = [(r @ a).requires_grad_() for r, a in zip(values.detach(), A, strict=True)]
            held = {name: Adapter(leaves[n], B[n], base.scaling) for n, name in enumerate(base.slots)}
            with holding(base.slots, held):
                losses += backward(base, [draw(rows, settings.batch_size, order)], settings.accumulate)
            values.grad = torch.stack([_slope(leaf) @ a.T for leaf, a in zip(leaves, A, strict=True)])
            torch.nn.utils.clip_grad_norm_([values], settings.clip_norm, foreach=False)
            optimiser.param_groups[0]["lr"] = rate_at(settings, step, span.stop)
            optimiser.step()
    return values.detach().cpu().numpy().ravel(), told(losses, values.numel())


def _slope(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
