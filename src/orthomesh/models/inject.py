"""Adapters in a model: every adapted linear layer gets a slot that holds nothing, one adapter or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias, final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..experts.mixture import Mixture, mix
from .product import adapted


class Adapter(NamedTuple):
    """One adapter of one layer, eq. (2), or those of D devices whose batches lie one after the other.

    A: [r, k] or [D, r, k]  B: [d, r] or [D, d, r]. scale: alpha / r, or 1 where A already has it.
    """

    A: Tensor
    B: Tensor
    scale: float = 1.0


class Folded(NamedTuple):
    """A layer's weights with one adapter in them, W0 + scale B A, eq. (3). weight: [d, k]"""

    weight: Tensor


Held: TypeAlias = Adapter | Mixture | Folded | None


@final
class AdaptedLinear(nn.Module):
    """x -> W0 x + scale B (A x), eqs. (2), (3), or a mixture, eq. (29); what it holds is swapped from outside."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.held: Held = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., k] -> [..., d]"""
        held = self.held
        if isinstance(held, Adapter) and not held.A.requires_grad:
            return adapted(x, self.base, *held)
        if isinstance(held, Folded):
            return F.linear(x, held.weight, self.base.bias)
        y: Tensor = self.base(x)
        if held is None:
            return y
        if isinstance(held, Mixture):
            return y + mix(x, held)
        z = F.linear(x, held.A.to(x.dtype)) * held.scale
        return y + F.linear(z, held.B.to(x.dtype))


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


def block_of(name: str) -> str | None:
    """The transformer block a module lies in: its full name up to the first number, None where it has none.

    >>> block_of("model.layers.3.mlp.up_proj"), block_of("lm_head")
    ('model.layers.3', None)
    """
    parts = name.split(".")
    number = next((n for n, part in enumerate(parts) if part.isdigit()), None)
    return None if number is None else ".".join(parts[: number + 1])


@contextmanager
def checkpointed(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Transformer blocks of the named layers keep only their input and run again backward, while the context lasts.

    What transformers offers for this acts in training mode alone, which a frozen model is never in.
    """
    blocks = [model.get_submodule(b) for b in dict.fromkeys(block_of(name) for name in names) if b is not None]
    if not blocks:
        raise ValueError("train.checkpointing: no adapted layer lies in a numbered transformer block; set it to false")
    try:
        for block in blocks:
            again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            vars(block)["forward"] = again  # found before the class's own
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


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
