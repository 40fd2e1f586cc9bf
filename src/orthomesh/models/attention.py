"""What a token sees while something is trained on a GPU, so that every gradient is a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def attending(model: Any, implementation: str | None) -> Iterator[None]:
    """Have a model of transformers compute attention another way for a while.

    Args:
        model: the model.
        implementation: as transformers names it, e.g. `eager`; none changes nothing.
    """
    if implementation is None:
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def windowed(config: Any) -> bool:
    """Whether some layers of a model see the last tokens only, so that one mask does not serve all.

    Args:
        config: of a model of transformers.
    """
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any("sliding" in kind or "chunked" in kind for kind in kinds)
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def sound(model: Any, device: torch.device) -> str | None:
    """The way of computing attention whose gradients are finite under padding, none where the model's own is.

    On a GPU `seen` mends the mask; where layers have windows of their own it cannot, and attention is computed plainly.

    Args:
        model: of transformers.
        device: where it computes.
    """
    return "eager" if device.type == "cuda" and windowed(model.config) else None


def seen(mask: Tensor, dtype: torch.dtype) -> Tensor:
    r"""What is added to attention scores so that a token sees those before it, and padding sees itself.

    .. math::  m_{ij} = 0 \text{ where } j = i \text{, or } j < i \text{ is no padding; else the least number}

    Padding on the left leaves rows that see no token at all. On a CPU fused attention makes zeros of them; on an H100,
    in bfloat16, its backward pass (torch 2.11) made NaN of some batches. What padding comes to is read by nobody.

    Args:
        mask: 1 where there is a token, 0 for padding. [N, T]
        dtype: of the model.

    Returns:
        [N, 1, T, T]

    >>> seen(torch.tensor([[0, 1, 1]]), torch.float32)[0, 0].eq(0).int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    columns = torch.arange(mask.shape[1], device=mask.device)
    before = (columns[:, None] > columns) & (mask[:, None, :] > 0)
    sees = before | (columns[:, None] == columns)
    return torch.zeros_like(sees, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min).unsqueeze(1)
