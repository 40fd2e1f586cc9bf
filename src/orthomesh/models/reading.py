"""What the first blocks of the untouched base see of a prompt: all that a choice of expert looks at (reading R7).

A choice that reads the whole base costs a second prefill. Most of what tells tasks apart is there after the first
block, so the pass that reads a prompt ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .inject import AdaptedLinear, block_of


class _Enough(Exception):
    """Ends a forward pass whose rest nobody needs."""


def block_number(name: str) -> int | None:
    """Number of the transformer block a module belongs to, the first number in its name; none outside of blocks.

    >>> block_number("model.layers.3.self_attn.q_proj"), block_number("lm_head")
    (3, None)
    """
    block = block_of(name)
    return None if block is None else int(block.rpartition(".")[2])


def reading_points(model: nn.Module, blocks: int) -> tuple[str, ...]:
    """Linear layers whose inputs are read: one for every distinct input of the first blocks.

    Args:
        model: a causal language model of transformers, adapted or not.
        blocks: how many blocks; 0 reads the first layer's input only, the embeddings.

    Returns:
        Module names in the order they are reached.

    Raises:
        ValueError: more blocks than the model has.
    """
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | AdaptedLinear)]
    numbered = {n: b for n in linear if (b := block_number(n)) is not None}
    depth = 1 + max(numbered.values(), default=-1)
    if not 0 <= blocks <= depth or not numbered:
        raise ValueError(f"a choice cannot read {blocks} blocks of a model that has {depth}")
    wanted = [n for n, block in numbered.items() if block < max(blocks, 1)]
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        model.get_submodule(n).register_forward_pre_hook(lambda _, args, n=n: seen.append((n, args[0]))) for n in wanted
    ]
    try:
        with torch.no_grad():
            _trunk(model)(input_ids=torch.zeros(1, 2, dtype=torch.long, device=_device(model)), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    distinct = {next(first for first, other in seen if other is x): None for _, x in seen}
    return tuple(distinct)[: None if blocks else 1]


def _trunk(model: nn.Module) -> nn.Module:
    """The model without its head, so that hooks on the whole are not set off."""
    trunk = getattr(model, "base_model", model)
    assert isinstance(trunk, nn.Module)
    return trunk


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def widths(model: nn.Module, points: Sequence[str]) -> tuple[int, ...]:
    """k of every point that is read."""
    layers = [model.get_submodule(name) for name in points]
    return tuple(int(m.base.in_features if isinstance(m, AdaptedLinear) else m.in_features) for m in layers)  # type: ignore[arg-type]


def columns_that_count(mask: Any, ids: Tensor) -> Tensor | None:
    """Which tokens count, whatever form of attention mask the pass that reads them was given. [N, T], none: all

    With a static cache masks come made ready, [N, 1, T, S], one for each kind of layer: a token counts where it sees
    itself.

    Raises:
        ValueError: a mask of another form.
    """
    if isinstance(mask, Mapping):
        mask = next(iter(mask.values()), None)
    if isinstance(mask, Tensor) and mask.dim() == 4:
        own = mask[:, 0].diagonal(dim1=1, dim2=2)
        return (own if own.dtype == torch.bool else own == 0).expand(len(ids), -1)
    if mask is not None and not (isinstance(mask, Tensor) and mask.shape == ids.shape):
        found = f"one of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"an attention mask of prompts of shape {tuple(ids.shape)} has their shape, this is {found}")
    return mask


def token_shares(ids: Tensor, mask: Tensor | None) -> Tensor:
    """What each token counts in its prompt's mean; a row adds up to one. [N, T, 1]

    Raises:
        ValueError: a prompt without a token.
    """
    weight = torch.ones(ids.shape, device=ids.device) if mask is None else mask.float()
    total = weight.sum(1, keepdim=True)
    if ids.shape[1] == 0 or not bool((total > 0).all()):
        raise ValueError("a prompt without a token has nothing to choose an expert by")
    return (weight / total).unsqueeze(-1)


@torch.no_grad()
def read_prompts(
    model: nn.Module, points: Sequence[str], ids: Tensor, mask: Tensor | None, positions: Tensor | None = None
) -> Float[np.ndarray, "N K"]:
    """Mean over each prompt's tokens of the inputs at some points; the pass ends at the last of them.

    Args:
        model: with empty slots, so that the base reads.
        points: names from `reading_points`.
        ids: tokens. [N, T]
        mask: 1 for tokens that count, on whichever side the padding is; none: all count. [N, T]
        positions: of the tokens; none: counted from each row's first token that counts. [N, T]

    Returns:
        Means, float32, points one after the other. [N, sum k]

    Raises:
        ValueError: a prompt without a token.
    """
    share = token_shares(ids, mask)
    if positions is None and mask is not None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
    found: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        found[name] = (x.float() * share.to(x.device)).sum(1)
        if len(found) == len(points):
            raise _Enough

    hooks = [model.get_submodule(n).register_forward_pre_hook(lambda _, args, n=n: keep(n, args[0])) for n in points]
    try:
        _trunk(model)(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return np.asarray(torch.cat([found[name] for name in points], dim=1).cpu().numpy())
