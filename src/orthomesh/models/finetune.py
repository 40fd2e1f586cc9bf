"""Local fine-tuning of a device, eqs. (5)-(6): AdamW on the active entries of B, and of A where it is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..adapters.lowrank import slices
from ..experts.mixture import Mixture
from ..types import Array, Arrays, Learnt
from .balance import Balance, Loads, balance_of, loads_of, rebalance
from .base import Base
from .inject import Adapter, Held, checkpointed, holding
from .loss import backward, draw, told
from .penalty import Penalty, add_slopes
from .replay import Stage, records
from .settings import TrainSettings
from .tokens import Row

LEAST_RATE = 0.1
"""Where a cosine schedule ends, as a share of the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a device trains and where its optimiser stands.

    A: without scaling. [sum r k]  B: [sum d r]. active: mask of B's trained entries, None for all. [sum d r]
    train_projection: whether A is trained too. moments: optimiser state by name, empty before the first step.
    saliency: sum over all steps so far of B's absolute gradient before it is clipped, if it is wanted. [sum d r]
    top_k: strongest ranks that act on a token, 0 for all; with a frozen A. scope: strongest by magnitude, or by value
    (`signed`). balance: what has ranks chosen alike often, or None. penalty: on both factors, where both move.
    """

    A: Array
    B: Array
    active: Array | None = None
    train_projection: bool = False
    moments: Arrays = field(default_factory=dict)
    saliency: Array | None = None
    top_k: int = 0
    scope: Literal["joint", "signed"] = "joint"
    balance: Balance | None = None
    penalty: Penalty | None = None


@dataclass(frozen=True)
class Job:
    """One device's part: its training rows, where it starts, how it trains, and what draws its batches."""

    rows: Sequence[Row]
    start: Factors
    settings: TrainSettings
    order: np.random.Generator


def fit(
    base: Base,
    rows: Sequence[Row],
    start: Factors,
    settings: TrainSettings,
    order: np.random.Generator,
    *,
    done: int = 0,
    total: int | None = None,
) -> tuple[Factors, Learnt]:
    r"""Lower the loss (1) of one device on its own rows, eq. (6), and eq. (5) where A is trained.

    .. math::  B \leftarrow B - \eta \, M \odot \nabla_B F

    with AdamW's step for the plain one. The optimiser sees and remembers active entries only; a frozen A gets no
    gradient.

    Args:
        base: the shared frozen model.
        rows: the device's training rows.
        start: where to start from; not changed.
        settings: steps, batch, learning rate.
        order: draws the batches.
        done: steps of the run before this call; moves the learning rate along its schedule.
        total: steps of the whole run; None: those of this call.

    Returns:
        The factors after `settings.steps` steps, and the loss at both ends.

    Raises:
        ValueError: a loss that is not finite, more steps than the run has, a saliency under a mask, strongest ranks
            with a trained A, a balance without ranks that compete, or a penalty without a trained A.
    """
    return train(base, [Job(rows, start, settings, order)], done, settings.steps if total is None else total)[0]


def rate_at(settings: TrainSettings, step: int, total: int) -> float:
    r"""Learning rate of a step of the run.

    .. math::  \eta_t = \eta \, \big(f + (1 - f) \, (1 + \cos(\pi t / T)) / 2\big), \quad f = 0.1

    where the schedule is a cosine, else eta.

    Args:
        settings: eta and the schedule.
        step: t, from 0.
        total: T.

    >>> rates = TrainSettings(learning_rate=1.0, schedule="cosine")
    >>> [round(rate_at(rates, t, 4), 6) for t in (0, 2, 4)]
    [1.0, 0.55, 0.1]
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    falling = (1 + math.cos(math.pi * step / total)) / 2
    return settings.learning_rate * (LEAST_RATE + (1 - LEAST_RATE) * falling)


def adapters(base: Base, A: Array, B: Array) -> dict[str, Adapter]:
    """Flat factors as one adapter per slot in the model's dtype, scaling folded into A."""
    a = _views(torch.from_numpy(base.scaling * A).to(base.device, base.dtype), base, "A")
    flat = torch.from_numpy(np.ascontiguousarray(B, dtype=np.float32))
    b = _views(flat.to(base.device, base.dtype), base, "B")
    return {name: Adapter(a[n], b[n]) for n, name in enumerate(base.slots)}


def train(base: Base, jobs: Sequence[Job], done: int, total: int) -> list[tuple[Factors, Learnt]]:
    """Fine-tune devices of equal settings side by side, their batches one after the other in each forward pass.

    Args:
        base: the shared frozen model.
        jobs: what each device does; one is enough.
        done: steps of the run before this call.
        total: steps of the whole run.

    Returns:
        Per device, what `fit` returns for it.
    """
    settings = jobs[0].settings
    if not 0 <= done <= total - settings.steps:
        raise ValueError(f"{settings.steps} steps after {done} do not fit into a run of {total}")
    _check_extras(jobs)
    num = base.layout.num_expansion + base.layout.num_projection * jobs[0].start.train_projection
    stage = _stage(base, jobs)
    theta = torch.zeros(num * len(jobs), device=base.device) if stage is None else stage.theta
    grad = torch.zeros_like(theta) if stage is None else stage.grad
    learners = [_learner(job.start, theta, grad, _places(base, n, len(jobs))) for n, job in enumerate(jobs)]
    loads = _loads(base, jobs[0].start)
    held = _leaves(base, theta, grad, jobs, loads) if stage is None else stage.held
    losses: list[list[float]] = []
    again = checkpointed(base.model, base.slots) if settings.checkpointing else nullcontext()
    with holding(base.slots, held), again:
        for step in range(done, done + settings.steps):
            grad.zero_()
            batches = [draw(job.rows, settings.batch_size, job.order) for job in jobs]
            losses.append(backward(base, batches, settings.accumulate, stage))
            if jobs[0].start.penalty is not None:
                add_slopes(jobs[0].start.penalty, base.layout, theta, grad)
            for learner in learners:
                _step(learner, rate_at(settings, step, total), settings.clip_norm)
            if loads is not None:
                rebalance(loads)
    return [_ended(job.start, learners[n], [step[n] for step in losses], loads) for n, job in enumerate(jobs)]


def _check_extras(jobs: Sequence[Job]) -> None:
    """What only a single device can have, and only with a frozen or with a trained A."""
    first = jobs[0].start
    if first.top_k and (first.train_projection or len(jobs) > 1):
        raise ValueError("ranks compete for a token (top_k) where one device trains B under a frozen A, only there")
    if first.balance is not None and not first.top_k:
        raise ValueError("only ranks that compete for a token (top_k) can be chosen alike often (balance)")
    if first.penalty is not None and not (first.train_projection and len(jobs) == 1):
        raise ValueError("a penalty on both factors needs one device that trains both of them")


def _stage(base: Base, jobs: Sequence[Job]) -> Stage | None:
    """Where a device's factors lie on a GPU, a frozen A laid there; None where passes are not recorded.

    Those that count choices of ranks are not: they are padded to few shapes, and what is padding would count.
    """
    start = jobs[0].start
    if len(jobs) > 1 or start.balance is not None or not records(base, jobs[0].settings):
        return None
    kind = (start.train_projection, start.top_k, start.scope)
    if kind not in base.stages:
        base.stages[kind] = _placed(base, start)
    stage: Stage = base.stages[kind]
    if not start.train_projection:
        stage.A.copy_(_frozen(base, start))
    return stage


def _placed(base: Base, start: Factors) -> Stage:
    """Places that stay, and every layer's A and B as views of them."""
    layout = base.layout
    theta = torch.zeros(layout.num_expansion + layout.num_projection * start.train_projection, device=base.device)
    grad = torch.zeros_like(theta)
    frozen = 0 if start.train_projection else layout.num_projection
    A = torch.zeros(frozen, device=base.device, dtype=base.dtype)
    if start.train_projection:
        return Stage(theta, grad, A, _both(base, theta, grad))
    return Stage(theta, grad, A, _expansions(base, theta, grad, _views(A, base, "A", 1), start))


def _loads(base: Base, start: Factors) -> Loads | None:
    """Places for biases and choices of ranks, where ranks are to be chosen alike often."""
    return None if start.balance is None else loads_of(start.balance, base.layout.rank, base.scaling, base.device)


@dataclass(frozen=True)
class _Learner:
    """A device's trained entries and their optimiser.

    theta, grad: what the layers read and the gradient they leave, of all devices. moving: where in them the device's
    trained entries lie, None for everywhere. values: those entries; theta itself where they lie everywhere.
    saliency: summed absolute gradient of B.
    """

    theta: Tensor
    grad: Tensor
    moving: Tensor | None
    values: Tensor
    optimiser: torch.optim.Optimizer
    saliency: Tensor | None


def _places(base: Base, index: int, count: int) -> Array | None:
    """Where in what the layers read the entries of device number `index` of `count` lie.

    One device: everywhere, None. Several: layer by layer, in each layer device by device.
    """
    if count == 1:
        return None
    sizes = base.layout.expansion_sizes
    firsts = count * np.cumsum((0, *sizes[:-1]))
    return np.concatenate([first + index * size + np.arange(size) for first, size in zip(firsts, sizes, strict=True)])


def _learner(start: Factors, theta: Tensor, grad: Tensor, places: Array | None) -> _Learner:
    """A device's start laid out for the layers; what moves of it, and the optimiser where it stood."""
    if start.saliency is not None and start.active is not None:
        raise ValueError("a saliency ranks all entries of B, so it is gathered before a mask is found, not under one")
    begun = np.concatenate([start.B, start.A]) if start.train_projection else start.B
    flat = torch.from_numpy(begun.astype(np.float32)).to(theta.device)
    if places is None:
        theta.copy_(flat)
    else:
        theta[torch.from_numpy(places)] = flat
    where = _moving(start, places)
    moving = None if where is None else torch.from_numpy(where).to(theta.device)
    values = (theta if moving is None else theta.index_select(0, moving)).detach().requires_grad_()
    values.grad = grad if moving is None else torch.empty_like(values)
    optimiser = torch.optim.AdamW([values], weight_decay=0.0, fused=True)
    if start.moments:
        state = {name: torch.from_numpy(np.array(value)).to(theta.device) for name, value in start.moments.items()}
        optimiser.state[values] = state
    saliency = (
        None
        if start.saliency is None
        else torch.from_numpy(np.array(start.saliency, dtype=np.float32)).to(theta.device)
    )
    return _Learner(theta, grad, moving, values, optimiser, saliency)


def _moving(start: Factors, places: Array | None) -> Array | None:
    """Where the trained entries of a device lie, None for everywhere."""
    if start.active is None:
        return places
    rest = start.A.size if start.train_projection else 0
    if places is None:
        return np.concatenate([np.flatnonzero(start.active), np.arange(start.B.size, start.B.size + rest)])
    return np.concatenate([places[: start.B.size][start.active], places[start.B.size :]])


def _leaves(base: Base, theta: Tensor, grad: Tensor, jobs: Sequence[Job], loads: Loads | None) -> dict[str, Held]:
    """Every layer's matrices as leaves that view `theta`, their gradients as views of `grad`; a frozen A as it is."""
    if jobs[0].start.train_projection:
        return _both(base, theta, grad)
    each = [_views(_frozen(base, job.start), base, "A") for job in jobs]
    a = [same[0].unsqueeze(0) if len(jobs) == 1 else torch.stack(same) for same in zip(*each, strict=True)]
    return _expansions(base, theta, grad, a, jobs[0].start, loads)


def _frozen(base: Base, start: Factors) -> Tensor:
    """A where the model is and in its type; ranks that compete have the scaling in them, other adapters beside them."""
    flat = torch.from_numpy(np.require(start.A, np.float32, "W")).to(base.device, base.dtype)
    return base.scaling * flat if start.top_k else flat


def _both(base: Base, theta: Tensor, grad: Tensor) -> dict[str, Held]:
    """A and B of one device, both trained."""
    num_b = base.layout.num_expansion
    a, b = _views(theta[num_b:], base, "A"), _views(theta[:num_b], base, "B")
    _sloped([*a, *b], [*_views(grad[num_b:], base, "A"), *_views(grad[:num_b], base, "B")])
    return {name: Adapter(a[n], b[n], base.scaling) for n, name in enumerate(base.slots)}


def _expansions(
    base: Base, theta: Tensor, grad: Tensor, a: Sequence[Tensor], start: Factors, loads: Loads | None = None
) -> dict[str, Held]:
    """B of as many devices as every A is of, trained; under `top_k`, which one device can have, ranks compete.

    a: [D, r, k] each
    """
    count = None if start.top_k else a[0].shape[0]
    b = _views(theta, base, "B", count)
    _sloped(b, _views(grad, base, "B", count))
    if start.top_k:
        alone = [Mixture(a[n][0], b[n], None, start.top_k, scope=start.scope) for n in range(len(b))]
        if loads is not None:
            alone = [replace(m, bias=loads.bias[n], counts=loads.counts[n]) for n, m in enumerate(alone)]
        return dict(zip(base.slots, alone, strict=True))
    return {name: Adapter(a[n], b[n], base.scaling) for n, name in enumerate(base.slots)}


def _sloped(leaves: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
    """Leaves of a backward pass whose gradients add up in places of their own."""
    for leaf, slope in zip(leaves, slopes, strict=True):
        leaf.requires_grad_().grad = slope


def _views(flat: Tensor, base: Base, factor: str, count: int | None = None) -> list[Tensor]:
    """The matrices A_l, [r, k], or B_l, [d, r], of a flat vector, or of `count` devices, sharing its memory."""
    layout = base.layout
    sizes = layout.projection_sizes if factor == "A" else layout.expansion_sizes
    sides = [(layout.rank, s.in_features) if factor == "A" else (s.out_features, layout.rank) for s in layout.shapes]
    if count is None:
        return [flat[cut].view(side) for cut, side in zip(slices(sizes), sides, strict=True)]
    cuts = slices([count * size for size in sizes])
    return [flat[cut].view(count, *side) for cut, side in zip(cuts, sides, strict=True)]


def _step(learner: _Learner, rate: float, clip_norm: float) -> None:
    """One step of AdamW on what moves."""
    values, moving = learner.values, learner.moving
    if moving is not None:
        torch.index_select(learner.grad, 0, moving, out=values.grad)
    if learner.saliency is not None and values.grad is not None:  # without a mask B's entries come first
        learner.saliency.add_(values.grad[: learner.saliency.numel()].abs())
    torch.nn.utils.clip_grad_norm_([values], clip_norm, foreach=False)
    learner.optimiser.param_groups[0]["lr"] = rate
    learner.optimiser.step()
    if moving is not None:
        learner.theta.scatter_(0, moving, values.detach())


def _ended(start: Factors, learner: _Learner, losses: Sequence[float], loads: Loads | None) -> tuple[Factors, Learnt]:
    """Where the device stands now, in arrays that share nothing with other devices; means over tenths of the steps."""
    trained = learner.values.detach().cpu().numpy().copy()
    active = slice(None) if start.active is None else start.active
    B = np.array(start.B, dtype=np.float32)
    B[active] = trained[: B[active].size]
    factors = replace(
        start,
        B=B,
        A=trained[B[active].size :] if start.train_projection else start.A,
        moments={name: value.cpu().numpy() for name, value in learner.optimiser.state[learner.values].items()},
        saliency=None if learner.saliency is None else learner.saliency.cpu().numpy(),
        balance=None if loads is None else balance_of(loads),
    )
    return factors, told(losses, learner.values.numel())
