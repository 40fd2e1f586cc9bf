"""Text to tokens and tokens to batches, padded on the left so that answers end in the same column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import Check, Example
from .base import Base


class Row(NamedTuple):
    """One tokenised example: prompt, target with its end token, whether the prompt lost its beginning, and what decides
    over a free answer."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    cut: bool
    check: Check | None = None


class Batch(NamedTuple):
    """Left-padded rows. ids, mask, positions: [N, T]. width: columns of the longest target."""

    ids: Tensor
    mask: Tensor | None
    positions: Tensor
    targets: Tensor
    width: int


def tokenise(base: Base, examples: Sequence[Example], where: str) -> list[Row]:
    """Tokens of examples; prompts longer than the context lose their beginning and are marked.

    Args:
        base: whose tokenizer and context length count.
        examples: rows of a task.
        where: what to call the task in an error.

    Raises:
        ValueError: a target that leaves no room for a prompt, or is empty.
    """
    prompts = _encode(base, [e.prompt for e in examples], special=True)
    rows: list[Row] = []
    for index, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
        answers = _encode(base, [example.target, *example.choices], special=False)
        target, *choices = [(*a, base.eos_id) for a in answers]
        room = base.max_length - max(len(a) for a in (target, *choices))
        if room < 1 or len(target) < 2:
            raise ValueError(
                f"{where}, row {index + 1}: its answer takes {len(target)} tokens with the end token, "
                f"the context holds {base.max_length} and a prompt must fit too{_larger(base)}"
            )
        rows.append(Row(tuple(prompt[-room:]), target, tuple(choices), len(prompt) > room, example.check))
    return rows


def _larger(base: Base) -> str:
    """What would do, where the model itself could hold more."""
    limit = int(getattr(base.model.config, "max_position_embeddings", None) or base.max_length)
    return f"; model.max_length can be up to {limit}" if limit > base.max_length else ""


def _encode(base: Base, texts: list[str], special: bool) -> list[list[int]]:
    encoded: list[list[int]] = base.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    if special:  # some tokenizers end every text; a prompt goes on
        encoded = [ids[:-1] if ids and ids[-1] == base.eos_id else ids for ids in encoded]
        encoded = [ids or [base.eos_id] for ids in encoded]
    return encoded


def collate(
    base: Base, rows: Sequence[tuple[Sequence[int], Sequence[int]]], columns: int = 1, scored: int = 1
) -> Batch:
    """Pad (prompt, target) pairs on the left to one length, where the model is.

    Args:
        base: whose device and padding token count.
        rows: prompts and targets.
        columns: the length is a multiple of this.
        scored: and so is the width of the targets.

    Returns:
        ids with prompt and target, positions counted from each row's first token, and `targets`: the token to
        predict in each of the last `width` + 1 columns but the last, -100 where none is scored. [N, width]
    """
    width = _multiple(max(len(t) for _, t in rows), scored)
    longest = max(len(p) + len(t) for p, t in rows)
    total = _multiple(max(longest, width + 1) if scored > 1 else longest, columns)
    ids = torch.full((len(rows), total), base.pad_id)
    mask = torch.zeros(len(rows), total, dtype=torch.long)
    targets = torch.full((len(rows), width), -100)
    for n, (prompt, target) in enumerate(rows):
        length = len(prompt) + len(target)
        ids[n, total - length :] = torch.tensor([*prompt, *target])
        mask[n, total - length :] = 1
        targets[n, width - len(target) :] = torch.tensor(target)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = bool((mask == 0).any())
    ids, positions, targets = (x.to(base.device) for x in (ids, positions, targets))
    return Batch(ids, mask.to(base.device) if padded else None, positions, targets, width)


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


def logits_before_targets(base: Base, batch: Batch) -> Tensor:
    """Logits that predict the last `width` columns, whatever the slots hold. [N, width, V]"""
    keep = {"logits_to_keep": batch.width + 1} if base.keeps_logits else {}
    out = base.model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False, **keep
    )
    logits: Tensor = out.logits
    return logits[:, -batch.width - 1 : -1]
