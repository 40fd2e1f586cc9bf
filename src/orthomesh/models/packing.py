"""What uneven prompts cost a CPU: rows of a batch one after the other without padding, or among those about as long.

Prompts of one task are often half as long as the longest of their batch, and a model works on padding as on words.
Every layer but attention looks at one token at a time, and does not mind whose row it is of; attention takes the rows
apart. On a GPU few shapes are worth more (`replay`), so this is for CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..experts.mixture import Mixture
from .attention import windowed
from .base import FAMILIES, LIKE_LLAMA, Base
from .tokens import Row

ROWS = "orthomesh_rows"
"""What transformers calls attention within rows."""
WORTH = 1e6
"""Products of a token with a weight that padding must cost, a row and block, for taking rows apart to be cheaper; on a
CPU (`python -m benchmarks.step --uneven 0.3`)."""

PASS = 5e7
"""Products of a token with a weight, in each block, that padding may cost before another pass is cheaper; on a CPU."""


class Packed(NamedTuple):
    """Rows without padding. ids, positions: [1, T]. lengths: of the rows, T together. scored: columns whose next token
    counts, and targets: that token. [S] each"""

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    scored: Tensor
    targets: Tensor


def block_weights(base: Base) -> int:
    """About what a block of a model weighs, 12 h^2 for a width h: the products a token costs there."""
    config: Any = base.model.config
    return 12 * int(config.hidden_size) ** 2


def about_as_long(base: Base, rows: Sequence[Row], picked: Sequence[int], most: int) -> Iterator[list[int]]:
    """Groups of rows whose prompts are about as long, from the shortest on, for a padded pass each.

    Args:
        base: the model. On a CPU a group ends where padding would cost more than another pass does, `PASS`.
        rows: to read.
        picked: which of them.
        most: rows a group holds at most.
    """
    weights = block_weights(base) if base.device.type == "cpu" else 0
    group: list[int] = []
    for n in sorted(picked, key=lambda n: len(rows[n].prompt)):
        padding = sum(len(rows[n].prompt) - len(rows[m].prompt) for m in group)
        if len(group) == most or weights * padding > PASS:
            yield group
            group = []
        group.append(n)
    if group:
        yield group


def packs(base: Base, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> bool:
    r"""Whether rows are better read without padding: a function of sizes, so that the same run takes the same path.

    .. math::  12 h^2 \sum_n (T_{\max} - T_n) \ge N \cdot \text{WORTH}

    where h is the model's width and 12 h^2 about what a block weighs; on a CPU, of a model whose attention torch
    computes (`sdpa`) without windows, where no prompt is empty and nobody counts what padding chooses
    (`Mixture.counts`).

    Args:
        base: the model, with whatever is trained in place.
        rows: prompts and targets.
    """
    config: Any = base.model.config
    counted = any(isinstance(s.held, Mixture) and s.held.counts is not None for s in base.slots.values())
    if base.device.type != "cpu" or counted or windowed(config):
        return False
    if not all(prompt for prompt, _ in rows):  # its first target is said by padding, here by the row before
        return False
    if config._attn_implementation != "sdpa" or config.model_type not in {*FAMILIES, *LIKE_LLAMA}:
        return False
    lengths = [len(p) + len(t) for p, t in rows]
    padding = len(rows) * max(lengths) - sum(lengths)
    return block_weights(base) * padding >= WORTH * len(rows)


def pack(base: Base, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Packed:
    """(prompt, target) pairs one after the other, where the model is.

    Args:
        base: whose device counts.
        rows: prompts and targets, neither of them empty.
    """
    lengths = [len(p) + len(t) for p, t in rows]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    scored = [torch.arange(end - len(t) - 1, end - 1) for end, (_, t) in zip(ends, rows, strict=True)]
    ids = torch.tensor([[token for p, t in rows for token in (*p, *t)]])
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    targets = torch.tensor([token for _, t in rows for token in t])
    ids, positions, where, targets = (x.to(base.device) for x in (ids, positions, torch.cat(scored), targets))
    return Packed(ids, positions, tuple(lengths), where, targets)


def logits_where_scored(base: Base, packed: Packed) -> Tensor:
    """Logits that predict the targets, whatever the slots hold; the model attends by `ROWS` meanwhile. [S, V]"""
    keep = {"logits_to_keep": packed.scored} if base.keeps_logits else {}
    out = base.model(input_ids=packed.ids, position_ids=packed.positions, rows=packed.lengths, use_cache=False, **keep)
    logits: Tensor = out.logits[0]
    return logits if base.keeps_logits else logits[packed.scored]


def _within_rows(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _: object, *, rows: tuple[int, ...], **others: Any
) -> tuple[Tensor, None]:
    """torch's attention, row by row, each token seeing those before it. query: [1, H, T, k]  ->  [1, T, H, k]"""
    attend: Any = sdpa_attention_forward
    parts = zip(*(torch.split(x, [*rows], 2) for x in (query, key, value)), strict=True)
    return torch.cat([attend(module, *qkv, None, **others)[0] for qkv in parts], 1), None


AttentionInterface.register(ROWS, _within_rows)
