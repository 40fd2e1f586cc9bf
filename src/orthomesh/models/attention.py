"""Which code computes attention while something is trained: on a GPU the one whose gradients are numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


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


def sound(device: torch.device) -> str | None:
    """The way of computing attention whose gradients are finite under padding, none where the model's own is.

    Padding on the left leaves rows that see no token at all. On a CPU fused attention makes zeros of them; on an
    H100, in bfloat16, its backward pass (torch 2.11) made NaN of some batches, where plain attention did not.

    >>> sound(torch.device("cpu")), sound(torch.device("cuda"))
    (None, 'eager')
    """
    return "eager" if device.type == "cuda" else None
