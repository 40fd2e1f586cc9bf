"""Adapters in a model: every adapted linear layer gets a slot that holds nothing, one adapter, or a mixture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, final

import torch.nn.functional as F
from torch import Tensor, nn

from ..experts.mixture import Mixture, mix


class Adapter(NamedTuple):
    """One adapter of one layer, eq. (2). A: [r, k]  B: [d, r]. scale: alpha / r, or 1 where A already has it."""

    A: Tensor
    B: Tensor
    scale: float = 1.0


Held: TypeAlias = Adapter | Mixture | None


@final
class AdaptedLinear(nn.Module):
    """x -> W0 x + scale B (A x), eqs. (2), (3), or a mixture, eq. (29); what it holds is swapped from outside."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.held: Held = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., k] -> [..., d]"""
        y: Tensor = self.base(x)
        if self.held is None:
            return y
        if isinstance(self.held, Mixture):
            return y + mix(x, self.held)
        z = F.linear(x, self.held.A)
        if self.held.scale != 1.0:
            z = z * self.held.scale
        return y + F.linear(z, self.held.B)


def adapt(model: nn.Module, names: tuple[str, ...]) -> dict[str, AdaptedLinear]:
    """Replace the named linear layers of a model by empty slots around them.

    Args:
        model: changed in place; its weights stay the same objects.
        names: full module names.

    Returns:
        The slots by name.

    Raises:
        ValueError: a name that is no linear layer.
    """
    slots: dict[str, AdaptedLinear] = {}
    for name in names:
        parent = model.get_submodule(name.rpartition(".")[0])
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"layer {name} is a {type(linear).__name__}, only linear layers can be adapted")
        slots[name] = AdaptedLinear(linear)
        setattr(parent, name.rpartition(".")[2], slots[name])
    return slots


@contextmanager
def holding(slots: Mapping[str, AdaptedLinear], held: Mapping[str, Held]) -> Iterator[None]:
    """Fill the slots for the length of a block; afterwards the model is the untouched base again."""
    try:
        for name, slot in slots.items():
            slot.held = held.get(name)
        yield
    finally:
        for slot in slots.values():
            slot.held = None


@contextmanager
def watching(slots: Mapping[str, AdaptedLinear], names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Inputs of the named layers in the last forward pass, for the length of a block. {name: [N, T, k]}"""
    seen: dict[str, Tensor] = {}
    hooks = [slots[n].register_forward_pre_hook(lambda _, args, n=n: seen.update({n: args[0]})) for n in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
