"""Fine-tuning of one adapter beside another that rests, and of a mixer that weighs both for every token (FedALT)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..adapters.lowrank import matrices_a, matrices_b, slices
from ..experts.mixture import Mixture
from ..types import Array, Learnt
from .base import Base
from .finetune import rate_at
from .inject import checkpointed, holding
from .loss import backward, draw, told
from .settings import TrainSettings
from .tokens import Row


class Mixed(NamedTuple):
    """What a device trains. A: without scaling. [sum r k]  B: [sum d r]  mixer: two rows a layer. [2, sum k]"""

    A: Array
    B: Array
    mixer: Array


def fit_mixed(
    base: Base,
    rows: Sequence[Row],
    start: Mixed,
    rest: tuple[Array, Array],
    settings: TrainSettings,
    order: np.random.Generator,
    span: range,
) -> tuple[Mixed, Learnt]:
    r"""Lower the loss of one device on its own rows by AdamW on its adapter and its mixer.

    .. math::  y = W_0 x + s \, (\alpha_1 B A x + \alpha_2 B^R A^R x), \quad \alpha = \mathrm{softmax}(G x)

    Args:
        base: the shared frozen model.
        rows: the device's training rows.
        start: where to start from; not changed.
        rest: A and B of what rests. [sum r k], [sum d r]
        settings: steps, batch, learning rate.
        order: draws the batches.
        span: steps of the run from here to its end.

    Returns:
        All three after `settings.steps` steps, float32, and the loss at both ends.

    Raises:
        ValueError: a loss that is not finite, or more steps than the run has.
    """
    if len(span) < settings.steps:
        raise ValueError(f"{settings.steps} steps do not fit into the {len(span)} that are left of the run")
    sizes = [part.size for part in start]
    values = torch.from_numpy(np.concatenate([part.ravel() for part in start]).astype(np.float32)).to(base.device)
    values.requires_grad_().grad = torch.zeros_like(values)
    optimiser = torch.optim.AdamW([values], weight_decay=0.0, fused=True)
    losses = list[float]()
    again = checkpointed(base.model, base.slots) if settings.checkpointing else nullcontext()
    with again:
        for step in span[: settings.steps]:
            now = Mixed(*np.split(values.detach().cpu().numpy(), np.cumsum(sizes)[:-1]))
            held = mixed(base, now._replace(mixer=now.mixer.reshape(2, -1)), rest)
            with holding(base.slots, held):
                losses += backward(base, [draw(rows, settings.batch_size, order)], settings.accumulate)
            values.grad = torch.cat([slope.float().flatten() for slope in _slopes(base, list(held.values()))])
            torch.nn.utils.clip_grad_norm_([values], settings.clip_norm, foreach=False)
            optimiser.param_groups[0]["lr"] = rate_at(settings, step, span.stop)
            optimiser.step()
    A, B, mixer = np.split(values.detach().cpu().numpy().copy(), np.cumsum(sizes)[:-1])
    return Mixed(A, B, mixer.reshape(2, -1)), told(losses, values.numel())


def mixed(base: Base, own: Mixed, rest: tuple[Array, Array]) -> dict[str, Mixture]:
    """Both adapters of every layer side by side under the mixer; leaves of their own, that ask for gradients."""
    layout = base.layout
    cuts = slices([shape.in_features for shape in layout.shapes])
    wide = zip(matrices_a(own.A, layout), matrices_a(rest[0], layout), strict=True)
    tall = zip(matrices_b(own.B, layout), matrices_b(rest[1], layout), strict=True)

    def leaf(matrix: Array) -> Tensor:
        return torch.from_numpy(np.array(matrix, np.float32)).to(base.device, base.dtype).requires_grad_()

    return {
        name: Mixture(
            A=leaf(base.scaling * np.concatenate(a)), B=leaf(np.concatenate(b, axis=1)), code=None, top_k=0,
            num=2, rule="mixer", prints=leaf(own.mixer[:, cut]),
        )
        for name, a, b, cut in zip(base.slots, wide, tall, cuts, strict=True)
    }  # fmt: skip


def _slopes(base: Base, layers: Sequence[Mixture]) -> Iterator[Tensor]:
    """Gradients in the order of `Mixed`: the own half of A and of B, and both rows of the mixer."""
    rank = base.layout.rank
    yield from (base.scaling * _slope(layer.A)[:rank] for layer in layers)
    yield from (_slope(layer.B)[:, :rank] for layer in layers)
    for row in (0, 1):
        for layer in layers:
            assert layer.prints is not None
            yield _slope(layer.prints)[row]


def _slope(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad
