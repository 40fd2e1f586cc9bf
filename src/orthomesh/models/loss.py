"""The loss of fine-tuning, eq. (1), and its gradient, whatever is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Learnt
from .attention import attending, seen, sound
from .base import Base
from .packing import ROWS, Packed, logits_where_scored, pack, packs
from .replay import COLUMNS, WIDTH, Stage, recording, replayed, shape_of
from .tokens import Batch, Row, collate, logits_before_targets


def draw(rows: Sequence[Row], size: int, order: np.random.Generator) -> list[Row]:
    """A batch of rows, drawn with replacement."""
    return [rows[int(n)] for n in order.integers(len(rows), size=size)]


def backward(base: Base, batches: Sequence[Sequence[Row]], num_parts: int, stage: Stage | None = None) -> list[float]:
    """Per device, mean negative log-likelihood of its targets' tokens; leaves its gradient in what asks for one.

    The mean is over all tokens of the batch however many parts it is read in.

    Args:
        base: the model, with whatever is trained in place.
        batches: one per device, all of one length.
        num_parts: parts a batch is read in.
        stage: where what is trained lies on a GPU, so that passes can be recorded and replayed; None: nowhere special.

    Returns:
        One loss per device, >= 0.

    Raises:
        ValueError: a loss that is not finite.
    """
    counts = torch.tensor([sum(len(row.target) for row in rows) for rows in batches], device=base.device)
    total = torch.zeros(len(batches), device=base.device)
    parts = np.array_split(np.arange(len(batches[0])), num_parts)
    if len(batches) == 1 and packs(base, [(row.prompt, row.target) for row in batches[0]]):
        with attending(base.model, ROWS):
            for part in parts:
                total += _packed(base, pack(base, [(batches[0][n].prompt, batches[0][n].target) for n in part]), counts)
        return _finite(total.tolist())
    with attending(base.model, sound(base.model, base.device)):
        for part in parts:
            pairs = [(rows[n].prompt, rows[n].target) for rows in batches for n in part]
            batch = collate(base, pairs, *((1, 1) if stage is None else (COLUMNS, WIDTH)))
            total += _pass(base, batch, counts) if stage is None else _staged(base, batch, counts, stage)
    return _finite(total.tolist())


def _pass(base: Base, batch: Batch, counts: Tensor) -> Tensor:
    """A pass forward and backward: each device's share of its loss. [D]"""
    if batch.mask is not None and base.device.type == "cuda" and sound(base.model, base.device) is None:
        batch = batch._replace(mask=seen(batch.mask, base.dtype))
    logits = logits_before_targets(base, batch).flatten(0, 1).float()
    each = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=-100, reduction="none")
    losses = each.view(counts.numel(), -1).sum(1) / counts
    losses.sum().backward()  # type: ignore[no-untyped-call]
    return losses.detach()


def _packed(base: Base, packed: Packed, counts: Tensor) -> Tensor:
    """The same of rows without padding, of one device. [1]"""
    logits = logits_where_scored(base, packed).float()
    loss = F.cross_entropy(logits, packed.targets, reduction="sum") / counts
    loss.sum().backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _staged(base: Base, batch: Batch, counts: Tensor, stage: Stage) -> Tensor:
    """The same; a shape's first pass runs as it is, its second is recorded, and from then on it is replayed."""
    shape = shape_of(batch)
    if batch.mask is None:  # one recording serves padded batches and whole ones
        batch = batch._replace(mask=torch.ones_like(batch.ids))
    if shape not in stage.met:
        stage.met.add(shape)
        return _pass(base, batch, counts)
    if shape not in stage.passes:
        with recording(stage, batch, counts) as (own, scored, losses):
            losses.append(_pass(base, own, scored))
    return replayed(stage, batch, counts)


def _finite(losses: list[float]) -> list[float]:
    for loss in losses:
        if not math.isfinite(loss):
            raise ValueError(f"the loss became {loss}; a lower train.learning_rate may help")
    return losses


def told(losses: Sequence[float], trained: int) -> Learnt:
    """What a course of losses is worth telling: means over its first and its last tenth.

    >>> told([4.0, 2.0, 1.0], 7)
    Learnt(first_loss=4.0, last_loss=1.0, steps=3, trained=7)
    """
    tenth = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))
    return Learnt(first_loss=first, last_loss=last, steps=len(losses), trained=trained)
