"""Our adapter inside an ordinary PEFT and Trainer script: a frozen projection from a seed, a sparse expansion.

What comes out of `get_peft_model(model, LoraConfig(...))` stays a plain LoRA model: its `lora_A` become the seeded
projection (16) and are frozen, its `lora_B` are trained under a mask (18). So `save_pretrained` writes a checkpoint
that any PEFT loads, and `peft_io.import_peft` reads it as an expert whose projection is known by its seed.

Why not a PEFT method of its own: PEFT looks methods up in an enumeration, so that registering one means adding a
member through the enumeration's internals; what it saves loads only where this package was imported first; and the
tuner classes to derive from change between minor versions. Nothing here imports PEFT. The only thing relied on is
what its checkpoints rely on too, the parameters' names: `<layer>.lora_A.<adapter>.weight`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState

from ..adapters.lowrank import Layout, Shape, matrices_a, slices
from ..adapters.mask import magnitude_mask, quotas
from ..adapters.projection import Kind, projection


class Factors(NamedTuple):
    """The LoRA factors of a PEFT model in module order. A: [r, k] each. B: [d, r] each."""

    layout: Layout
    A: list[nn.Parameter]
    B: list[nn.Parameter]


def factors(peft_model: nn.Module) -> Factors:
    """The factors of a model's only LoRA adapter, and their layout, named as in the base model.

    Raises:
        ValueError: no LoRA layer, several adapters, several ranks, parts that are no linear layer's plain factors, or
            factors that are not float32.
    """
    found: dict[str, dict[str, nn.Parameter]] = {}
    adapters: set[str] = set()
    for name, parameter in peft_model.named_parameters():
        if "lora_" not in name:
            continue
        matched = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.([^.]+)\.weight", name)
        if matched is None or parameter.dim() != 2:
            raise ValueError(
                f"parameter {name} is no matrix lora_A or lora_B of a linear layer; use a plain LoraConfig"
            )
        if parameter.dtype != torch.float32:
            raise ValueError(f"parameter {name} is {parameter.dtype}, a seeded projection needs torch.float32")
        found.setdefault(matched[1], {})[matched[2]] = parameter
        adapters.add(matched[3])
    if len(adapters) != 1:
        names = ", ".join(sorted(adapters)) or "none"
        raise ValueError(f"the model must hold one LoRA adapter, as get_peft_model makes it; it has {names}")
    ranks = sorted({pair["A"].shape[0] for pair in found.values()})
    if len(ranks) != 1:
        raise ValueError(f"all layers must share one rank, the model has {ranks}; leave rank_pattern empty")
    shapes = tuple(Shape(n, pair["B"].shape[0], pair["A"].shape[1]) for n, pair in found.items())
    return Factors(Layout(shapes, ranks[0]), [p["A"] for p in found.values()], [p["B"] for p in found.values()])


@torch.no_grad()
def freeze_projections(peft_model: nn.Module, seed: int, kind: Kind = "orthonormal") -> None:
    r"""Make every lora_A the projection of a seed, eq. (16), frozen, and every lora_B zero.

    The same bits as a device of this package has for that seed and layers; the layers count in module order.

    Args:
        peft_model: from `get_peft_model(model, LoraConfig(r, lora_alpha=2 * r, ...))`; changed in place.
        seed: 64-bit seed of the projection.
        kind: as in `adapters.projection.projection`.

    Raises:
        ValueError: as `factors`, or a rank beyond a layer's sides.
    """
    layout, a, b = factors(peft_model)
    for mine, drawn, expansion in zip(a, matrices_a(projection(seed, layout, kind), layout), b, strict=True):
        mine.copy_(torch.from_numpy(drawn))
        mine.requires_grad_(False)
        expansion.zero_()


@torch.no_grad()
def sparsify(peft_model: nn.Module, density: float) -> None:
    r"""Keep the largest entries of every lora_B, eq. (18), zero the others and their gradients from now on.

    .. math::  B \leftarrow M \odot B, \quad \nabla_B \leftarrow M \odot \nabla_B

    With a fresh AdamW, decaying weights or not, masked entries then stay exactly zero. One that has already stepped
    would move them by its momentum: `MaskAfter` clears that too.

    Args:
        peft_model: after a dense warm-up; changed in place, once.
        density: share of every B to keep, in (0, 1].

    Raises:
        ValueError: a density out of range, an untrained or not finite B, or as `factors`.
    """
    for expansion, masked in zip(factors(peft_model).B, _masked(peft_model, density), strict=True):
        _hold(expansion, masked)


class MaskAfter(TrainerCallback):
    """Train B densely for some steps of a Trainer, then under the mask of its largest entries (18).

    The optimiser's moments of masked entries are cleared with them, those of active entries are kept. A run that is
    resumed after the warm-up has its mask again before its first step.
    """

    def __init__(self, steps: int, density: float) -> None:
        """steps: optimiser steps of the dense warm-up, at least one. density: share of every B to keep, in (0, 1].

        Raises:
            ValueError: one of them out of range.
        """
        if steps < 1:
            raise ValueError(f"the dense warm-up takes at least one step, there is no magnitude before; got {steps}")
        quotas((1,), density)
        self.steps = steps
        self.density = density

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Refuse a run that ends before its mask or moves projections; restore the mask of a run that is resumed."""
        if state.max_steps < self.steps:
            raise ValueError(f"training ends after {state.max_steps} steps, before the mask at step {self.steps}")
        if any(projection_a.requires_grad for projection_a in factors(kwargs["model"]).A):
            raise ValueError("lora_A would be trained too; call freeze_projections on the model before it is trained")
        if state.global_step >= self.steps:
            self._mask(kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Mask after the last dense step; after the first masked one, see that the optimiser kept to it."""
        if state.global_step == self.steps:
            self._mask(kwargs["model"], kwargs["optimizer"])
        elif state.global_step == self.steps + 1:
            self._check(kwargs["model"])

    def _mask(self, peft_model: nn.Module, optimiser: Any) -> None:
        for expansion, masked in zip(factors(peft_model).B, _masked(peft_model, self.density), strict=True):
            _hold(expansion, masked)
            for moment in optimiser.state.get(expansion, {}).values():
                if isinstance(moment, Tensor) and moment.shape == expansion.shape:
                    moment.masked_fill_(masked, 0)

    def _check(self, peft_model: nn.Module) -> None:
        layout, _, b = factors(peft_model)
        for name, expansion, quota in zip(layout.names, b, quotas(layout.expansion_sizes, self.density), strict=True):
            if (count := int(expansion.count_nonzero())) > quota:
                raise ValueError(
                    f"layer {name}: the optimiser moved masked entries of B, {count} are active and {quota} should be; "
                    "take one that steps every entry by its own gradients, such as AdamW"
                )


def _masked(peft_model: nn.Module, density: float) -> list[Tensor]:
    """For every B, which entries lie outside the mask of its largest magnitudes. [d, r] each, bool"""
    layout, _, b = factors(peft_model)
    score = np.concatenate([expansion.detach().cpu().numpy().ravel() for expansion in b])
    if not np.isfinite(score).all() or not score.any():
        state = "not finite" if score.any() else "zero, as before any training"
        raise ValueError(f"B is {state}: its magnitudes cannot choose a mask; warm up densely, then mask")
    sizes = layout.expansion_sizes
    masked = torch.from_numpy(~magnitude_mask(score, sizes, quotas(sizes, density)))
    return [masked[cut].view(at.shape).to(at.device) for cut, at in zip(slices(sizes), b, strict=True)]


def _hold(expansion: nn.Parameter, masked: Tensor) -> None:
    """Zero the masked entries, and every gradient of theirs."""
    expansion.data.masked_fill_(masked, 0)
    if expansion.grad is not None:
        expansion.grad.masked_fill_(masked, 0)
    expansion.register_hook(lambda grad: grad.masked_fill(masked.to(grad.device), 0))  # type: ignore[no-untyped-call]
