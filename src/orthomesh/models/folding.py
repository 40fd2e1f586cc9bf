"""One expert folded into a copy of the adapted weights, so that an answer grows at the base model's own price.

An adapter beside a layer costs two thin products and their overhead at every token. Where all rows of a batch have the
same expert, W0 + s B A is worked out once and used instead of W0. The base's weights stay where and as they are, so
nothing has to be taken out again; the price is one copy of the adapted weights, whatever the number of experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .inject import AdaptedLinear, Adapter, Folded

FOLD_AFTER = 4
"""Tokens of an answer after which an expert is folded: folding costs about as much as five, on a CPU."""


class Fold(NamedTuple):
    """What is folded in. expert: its number. held: its layers. made_of: which weights of the base it was made of."""

    expert: int
    held: dict[str, Folded]
    made_of: tuple[tuple[int, int], ...]


@torch.inference_mode(False)  # what is made in that mode could not be written over outside of it
@torch.no_grad()
def fold(expert: int, slots: Mapping[str, AdaptedLinear], own: Mapping[str, Adapter], scratch: Fold | None) -> Fold:
    r"""Weights with one expert in them, eq. (3).

    .. math::  W = W_0 + s B A

    In 16 bit the sum is rounded once, so that an answer may differ from the unfolded one where two tokens are as good
    as equally likely; in 32 bit it is the same to about 1e-6.

    Args:
        expert: its number.
        slots: the adapted layers; nothing of them is changed.
        own: the expert's matrices in the type of the weights and where they are. A: [r, k]  B: [d, r]
        scratch: an earlier fold, whose memory is written over; none: as much as the adapted weights take is taken anew.

    Returns:
        The fold. [d, k] a layer
    """
    held = {}
    for name, slot in slots.items():
        W0, (A, B, scale) = slot.base.weight, own[name]
        out = None if scratch is None else scratch.held[name].weight
        if out is None or out.dtype != W0.dtype or out.device != W0.device:
            out = torch.empty_like(W0)
        held[name] = Folded(torch.addmm(W0, B, A, alpha=scale, out=out))
    return Fold(expert, held, _state(slots))


def holds(kept: Fold | None, expert: int, slots: Mapping[str, AdaptedLinear]) -> bool:
    """Whether a fold is of this expert, and of the weights as they are now."""
    return kept is not None and kept.expert == expert and kept.made_of == _state(slots)


def _state(slots: Mapping[str, AdaptedLinear]) -> tuple[tuple[int, int], ...]:
    """Where the base's weights are and how often they were written to; weights of inference mode are not counted."""
    weights: list[Tensor] = [slot.base.weight for slot in slots.values()]
    return tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
