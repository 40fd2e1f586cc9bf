"""Which base model it is, to the last bit: what devices compare before they share adapters of it."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and all bytes of a model's parameters, in order of name.

    Args:
        model: with or without slots for adapters in its layers; the slots' own tensors are no parameters of the base.

    Returns:
        64 hexadecimal digits; one weight more, less or other, and they differ.
    """
    total = hashlib.sha256()
    named = {name.replace(".base.", "."): weight for name, weight in model.named_parameters()}
    for name in sorted(named):
        weight = named[name].detach().cpu().contiguous()
        total.update(f"{name}|{weight.dtype}|{tuple(weight.shape)}|".encode())
        total.update(weight.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
