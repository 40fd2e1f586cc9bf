"""Local fine-tuning of one device, eqs. (5)-(6): AdamW on the active entries of B, and of A where it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..adapters.lowrank import slices
from ..types import Array, Arrays, Learnt
from .base import Base
from .inject import Adapter, holding
from .settings import TrainSettings
from .tokens import Row, collate, logits_before_targets


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a device trains and where its optimiser stands.

    A: without scaling. [sum r k]  B: [sum d r]. active: mask of B's trained entries, None for all. [sum d r]
    train_projection: whether A is trained too. moments: optimiser state by name, empty before the first step.
    """

    A: Array
    B: Array
    active: Array | None = None
    train_projection: bool = False
    moments: Arrays = field(default_factory=dict)


def fit(
    base: Base, rows: Sequence[Row], start: Factors, settings: TrainSettings, order: np.random.Generator
) -> tuple[Factors, Learnt]:
    r"""Lower the loss (1) of one device on its own rows, eq. (6), and eq. (5) where A is trained.

    .. math::  B \leftarrow B - \eta \, M \odot \nabla_B F

    with AdamW's step for the plain one. The optimiser sees and remembers active entries only.

    Args:
        base: the shared frozen model.
        rows: the device's training rows.
        start: where to start from; not changed.
        settings: steps, batch, learning rate.
        order: draws the batches.

    Returns:
        The factors after `settings.steps` steps, and the loss at both ends.

    Raises:
        ValueError: a loss that is not finite.
    """
    theta = torch.from_numpy(np.concatenate([start.B, start.A]).astype(np.float32))
    grad = torch.zeros(theta.numel() if start.train_projection else start.B.size)
    held = _leaves(base, theta, grad, start)
    moving = _moving(start)
    values = theta[moving].clone().requires_grad_()
    optimiser = torch.optim.AdamW([values], lr=settings.learning_rate, weight_decay=0.0, foreach=False)
    _restore(optimiser, values, start.moments)
    losses: list[float] = []
    with holding(base.slots, held):
        for _ in range(settings.steps):
            grad.zero_()
            picked = order.integers(len(rows), size=settings.batch_size)
            losses.append(_backward(base, [rows[int(n)] for n in picked]))
            values.grad = grad[moving].clone()
            torch.nn.utils.clip_grad_norm_([values], settings.clip_norm, foreach=False)
            optimiser.step()
            theta[moving] = values.detach()
    if not np.isfinite(losses).all():
        raise ValueError(f"the loss became {losses[-1]}; a lower train.learning_rate may help")
    num_b = start.B.size
    moments = {name: value.numpy() for name, value in optimiser.state[values].items()}
    ended = replace(start, B=theta[:num_b].numpy(), A=theta[num_b:].numpy(), moments=moments)
    return ended, _learnt(losses, values.numel())


def adapters(base: Base, A: Array, B: Array) -> dict[str, Adapter]:
    """Flat factors as one adapter per slot, scaling folded into A."""
    a = _views(torch.from_numpy(base.scaling * A), base, "A")
    b = _views(torch.from_numpy(np.ascontiguousarray(B, dtype=np.float32)), base, "B")
    return {name: Adapter(a[n], b[n]) for n, name in enumerate(base.slots)}


def _leaves(base: Base, theta: Tensor, grad: Tensor, start: Factors) -> dict[str, Adapter]:
    """Every layer's matrices as leaves that view `theta`, their gradients as views of `grad`."""
    num_b = start.B.size
    if not start.train_projection:  # frozen: its scaling can be folded in, a step saves a product
        a = _views(theta[num_b:] * base.scaling, base, "A")
        scale = 1.0
    else:
        a = _views(theta[num_b:], base, "A")
        scale = base.scaling
        for leaf, slope in zip(a, _views(grad[num_b:], base, "A"), strict=True):
            leaf.requires_grad_().grad = slope
    b = _views(theta[:num_b], base, "B")
    for leaf, slope in zip(b, _views(grad[:num_b], base, "B"), strict=True):
        leaf.requires_grad_().grad = slope
    return {name: Adapter(a[n], b[n], scale) for n, name in enumerate(base.slots)}


def _views(flat: Tensor, base: Base, factor: str) -> list[Tensor]:
    """The matrices A_l, [r, k], or B_l, [d, r], of a flat vector, sharing its memory."""
    layout = base.layout
    sizes = layout.projection_sizes if factor == "A" else layout.expansion_sizes
    sides = [(layout.rank, s.in_features) if factor == "A" else (s.out_features, layout.rank) for s in layout.shapes]
    return [flat[cut].view(side) for cut, side in zip(slices(sizes), sides, strict=True)]


def _moving(start: Factors) -> Tensor | slice:
    """Where in [B; A] the trained entries lie."""
    num = start.B.size + (start.A.size if start.train_projection else 0)
    if start.active is None:
        return slice(0, num)
    chosen = np.flatnonzero(start.active)
    return torch.from_numpy(np.concatenate([chosen, np.arange(start.B.size, num)]))


def _restore(optimiser: torch.optim.Optimizer, values: Tensor, moments: Arrays) -> None:
    if moments:
        optimiser.state[values] = {name: torch.from_numpy(np.array(value)) for name, value in moments.items()}


def _backward(base: Base, rows: Sequence[Row]) -> float:
    """Mean negative log-likelihood of the targets' tokens; leaves its gradient in the leaves."""
    batch = collate(base, [(r.prompt, r.target) for r in rows])
    logits = logits_before_targets(base, batch)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _learnt(losses: Sequence[float], trained: int) -> Learnt:
    """Means over the first and the last tenth of the steps, at least one step."""
    end = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:end])), float(np.mean(losses[-end:]))
    return Learnt(first_loss=first, last_loss=last, steps=len(losses), trained=trained)
