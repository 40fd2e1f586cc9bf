"""Settings of the base model and of local fine-tuning; free of torch, so that the command line reads them fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT

EMBEDDED = "embedded"
TINY = Path(__file__).parent / "tiny"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSettings:
    """Which frozen base model all devices share, and where its adapters sit."""

    source: str = EMBEDDED
    """`embedded`, a directory with a Hugging Face causal language model, or a name on the hub."""
    layers: tuple[str, ...] = ()
    """Last part of the names of the linear layers to adapt; empty: those known for the model's family."""
    rank: Annotated[int, Field(ge=1)] = 16
    """Rank r of every adapter."""
    scaling: Annotated[float, Field(gt=0)] = 2.0
    """alpha / r, the factor on B A."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Most tokens of prompt and answer together; longer prompts lose their beginning, and the run says so. None:
    the model's context, at most 256."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the base model's weights and of what it computes; trained factors and their optimiser stay in float32."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    """Where the model computes: `cpu`, `cuda`, or `cuda:1` for the second of several. Results are the same to the last
    bit only on the same kind of device."""
    first_block: Annotated[int, Field(ge=0)] = 0
    """Adapters sit on transformer blocks from this one on, counted from 0; the blocks below stay shared by all
    experts, so that a choice made from what they compute costs no second pass."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainSettings:
    """Local fine-tuning of one device in one round, eq. (6)."""

    steps: Annotated[int, Field(ge=1)] = 24
    """Optimiser steps a round."""
    batch_size: Annotated[int, Field(ge=1)] = 24
    """Examples a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """Of AdamW; sparse frozen-A adapters want about ten times that of dense ones at large scale."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient of a step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts a step's examples are read in, one after the other; their gradients add up to that of the whole batch."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate over all steps of a run; `cosine` ends at a tenth of it."""
    replay: bool = True
    """On a GPU: whether a pass over a batch of some shape is recorded once and replayed from then on, where devices
    train in turn. Several times faster for small batches; keeps the memory of a pass."""
    checkpointing: bool = False
    """Whether activations inside a transformer block are computed again backward instead of kept."""

    def __post_init__(self) -> None:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} exceeds batch_size {self.batch_size}, and every part needs an example"
            )
