"""Passes on a GPU, recorded once and replayed: a step then takes what the GPU needs, not what launching it takes.

A step of a small batch through hundreds of adapted layers is thousands of short kernels, which a host launches more
slowly than a GPU runs them. A CUDA graph launches all of a pass at once. It reads and writes fixed places, so whatever
trains on the GPU lies in the same ones every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .attention import windowed
from .base import Base
from .inject import Held
from .settings import TrainSettings
from .tokens import Batch

COLUMNS, WIDTH = 32, 8
"""Batches are padded to multiples of these, so that few shapes occur."""


class Pass(NamedTuple):
    """A recorded pass: the places it reads a batch from, and where it leaves the losses."""

    graph: Any
    batch: Batch
    counts: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Stage:
    """Where what a device trains lies meanwhile, factors or all weights, and the passes recorded over it.

    theta, grad: trained entries and their gradient. A: the frozen projection, flat, in the model's type; empty where it
    is not. held: what the slots hold. met: shapes of batches that have occurred. passes: by shape.
    """

    theta: Tensor
    grad: Tensor
    A: Tensor
    held: Mapping[str, Held]
    met: set[tuple[int, int, int]] = field(default_factory=set)
    passes: dict[tuple[int, int, int], Pass] = field(default_factory=dict)


def records(base: Base, settings: TrainSettings) -> bool:
    """Whether passes of devices that train in turn are recorded: on a GPU, where nothing is computed twice, and on a
    model that does not cut its attention to windows.

    Args:
        base: the shared model.
        settings: `replay` and `checkpointing`.
    """
    wanted = settings.replay and not settings.checkpointing
    return base.device.type == "cuda" and wanted and not windowed(base.model.config)


def shape_of(batch: Batch) -> tuple[int, int, int]:
    """Rows, columns, and columns that are scored."""
    return (*batch.ids.shape, batch.width)


def replayed(stage: Stage, batch: Batch, counts: Tensor) -> Tensor:
    """Run the recorded pass of a batch's shape; its gradient is added to the stage's.

    Args:
        stage: with such a pass.
        batch: read by it.
        counts: scored tokens of the whole batch, per device. [D]

    Returns:
        Losses, until the next pass of this shape. [D]
    """
    kept = stage.passes[shape_of(batch)]
    for place, new in zip((*kept.batch[:4], kept.counts), (*batch[:4], counts), strict=True):
        if place is not None and new is not None:
            place.copy_(new)
    kept.graph.replay()
    return kept.losses


@contextmanager
def recording(stage: Stage, batch: Batch, counts: Tensor) -> Iterator[tuple[Batch, Tensor, list[Tensor]]]:
    """Record what the block computes as the pass of a batch's shape.

    Nothing is computed meanwhile; replay it to have its outcome. A shape should have run once before, so that all that
    libraries prepare on a first call is there.

    Args:
        stage: gets the pass.
        batch: of the shape.
        counts: scored tokens, per device. [D]

    Yields:
        The batch and counts to read, and a list that takes the losses.
    """
    own = batch._replace(**{name: getattr(batch, name).clone() for name in ("ids", "mask", "positions", "targets")})
    counts, losses = counts.clone(), list[Tensor]()
    pool = next((kept.graph.pool() for kept in stage.passes.values()), None)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        yield own, counts, losses
    stage.passes[shape_of(batch)] = Pass(graph, own, counts, losses[0])
