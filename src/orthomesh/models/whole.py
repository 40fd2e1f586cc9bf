"""Full-parameter fine-tuning: every weight of the base moves, and what a device keeps is how far each has moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from ..types import Array, Learnt
from .base import Base
from .finetune import rate_at
from .inject import checkpointed
from .loss import backward, draw, told
from .replay import Stage, records
from .settings import TrainSettings
from .tokens import Row


def fit_whole(
    base: Base,
    rows: Sequence[Row],
    change: Array,
    settings: TrainSettings,
    order: np.random.Generator,
    span: range,
    active: Array | None = None,
) -> tuple[Array, Learnt]:
    r"""Lower the loss of one device on its own rows by AdamW on all weights of the base, tied ones once, or on some.

    .. math::  \theta \leftarrow \theta - \eta \nabla_\theta F, \quad \theta = \theta_0 + \Delta

    Working memory beside the base: 20 bytes a parameter (weights, their start, gradient, two moments), 4 more where the
    base is in 16 bit. Trained weights and moments are float32 throughout. Afterwards the base is as it was.
    On a GPU the places of weights and gradient stay where passes over them were recorded (`train.replay`).

    Args:
        base: the shared model.
        rows: the device's training rows.
        change: Delta so far, flat in the order of the model's parameters. [P]
        settings: steps, batch, learning rate.
        order: draws the batches.
        span: steps of the run from here to its end.
        active: which weights move; None: all. [P] bool

    Returns:
        Delta after `settings.steps` steps, float32, and the loss at both ends.

    Raises:
        ValueError: a loss that is not finite, more steps than the run has, or a change of another size.
    """
    if len(span) < settings.steps:
        raise ValueError(f"{settings.steps} steps do not fit into the {len(span)} that are left of the run")
    begun, stage = _weights(base), _stage(base) if records(base, settings) else None
    values = begun + _fitting(base, change)
    worn = values.to(base.dtype) if stage is None else stage.theta.copy_(values)
    values = (worn if worn.dtype == values.dtype else values).detach().requires_grad_()
    grad, losses = torch.zeros_like(worn) if stage is None else stage.grad, list[float]()
    optimiser = torch.optim.AdamW([values], weight_decay=0.0, fused=True)
    moving = None if active is None else torch.from_numpy(np.array(active, dtype=bool)).to(base.device)
    again = checkpointed(base.model, base.slots) if settings.checkpointing else nullcontext()
    with _wearing(base, worn, grad), again:
        for step in span[: settings.steps]:
            grad.zero_()
            losses += backward(base, [draw(rows, settings.batch_size, order)], settings.accumulate, stage)
            values.grad = grad.to(values.dtype)  # the same tensor where the types are one
            if moving is not None:
                values.grad *= moving
            torch.nn.utils.clip_grad_norm_([values], settings.clip_norm, foreach=False)
            optimiser.param_groups[0]["lr"] = rate_at(settings, step, span.stop)
            optimiser.step()
            if worn.dtype != values.dtype:
                worn.copy_(values.detach())
    return (values.detach() - begun).cpu().numpy(), told(
        losses, values.numel() if active is None else int(active.sum())
    )


def _stage(base: Base) -> Stage:
    """Places on a GPU for all weights and their gradient, the same ones every time."""
    if "whole" not in base.stages:
        places = torch.zeros(base.num_parameters, device=base.device, dtype=base.dtype)
        base.stages["whole"] = Stage(places, torch.zeros_like(places), places[:0], {})
    stage: Stage = base.stages["whole"]
    return stage


@contextmanager
def wearing(base: Base, change: Array) -> Iterator[None]:
    """The model with all its weights changed for the length of a block; afterwards it is the untouched base again.

    A pass recorded on a GPU reads weights where they lay then. Those of the base are put aside meanwhile, those that
    are recorded in the block go with it.

    Args:
        base: the shared model.
        change: what is added to its weights, flat. [P]

    Raises:
        ValueError: a change of another size.
    """
    worn = (_weights(base) + _fitting(base, change)).to(base.dtype)
    aside = dict(base.stages)
    base.stages.clear()
    try:
        with _wearing(base, worn, None):
            yield
    finally:
        base.stages.clear()
        base.stages.update(aside)


def change_of(base: Base, updates: Sequence[Array]) -> Array:
    """A change of the adapted layers alone as one of all weights, which `wearing` takes.

    Args:
        base: the shared model.
        updates: of every adapted layer, in the layout's order, all scaling in it. [d, k] each

    Returns:
        The change, zero at all other weights, float32. [P]
    """
    at = {id(slot.base.weight): update for slot, update in zip(base.slots.values(), updates, strict=True)}
    flat = np.zeros(base.num_parameters, dtype=np.float32)
    start = 0
    for p in base.model.parameters():
        if id(p) in at:
            flat[start : start + p.numel()] = at[id(p)].ravel()
        start += p.numel()
    return flat


def updates_of(base: Base, change: Array) -> list[Array]:
    """What a change of all weights does to the adapted layers, in the layout's order. [d, k] each

    Args:
        base: the shared model.
        change: flat. [P]
    """
    found, start = {}, 0
    for p in base.model.parameters():
        found[id(p)] = change[start : start + p.numel()].reshape(p.shape)
        start += p.numel()
    return [found[id(slot.base.weight)] for slot in base.slots.values()]


def _weights(base: Base) -> Tensor:
    """All weights of the base in a row, float32. [P]"""
    return torch.cat([p.detach().flatten().float() for p in base.model.parameters()])


def _fitting(base: Base, change: Array) -> Tensor:
    if change.shape != (base.num_parameters,):
        raise ValueError(f"a change of shape {change.shape} does not fit the {base.num_parameters} weights of the base")
    return torch.from_numpy(np.array(change, dtype=np.float32)).to(base.device)


@contextmanager
def _wearing(base: Base, flat: Tensor, grad: Tensor | None) -> Iterator[None]:
    """The model's parameters as views of `flat`, and their gradients of `grad`, where they are trained."""
    parameters = list(base.model.parameters())
    own = [p.data for p in parameters]
    sizes = [p.numel() for p in parameters]
    try:
        for p, part in zip(parameters, torch.split(flat, sizes), strict=True):
            p.data = part.view(p.shape)
        if grad is not None:
            for p, part in zip(parameters, torch.split(grad, sizes), strict=True):
                p.requires_grad_().grad = part.view(p.shape)
        yield
    finally:
        for p, data in zip(parameters, own, strict=True):
            p.requires_grad_(False).grad = None
            p.data = data
