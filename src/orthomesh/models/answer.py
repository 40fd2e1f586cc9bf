"""How a bank of experts answers on the base model: prompts are read once, sent to an expert, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..adapters.lowrank import matrices_a, matrices_b
from ..experts.mixture import Mixture
from ..experts.router import nearest
from ..types import Array, Bank
from .base import Base
from .finetune import adapters
from .inject import Held, holding, watching
from .tokens import Row, collate, logits_before_targets

BATCH = 64
"""Rows a forward pass reads at a time when nothing is trained."""


class Answers(NamedTuple):
    """right: whether each row was answered rightly. [N]  chosen: owner of the expert that answered, -1 for all. [N]"""

    right: Array
    chosen: Array


@torch.no_grad()
def prompt_means(base: Base, rows: Sequence[Row]) -> Float[np.ndarray, "N K"]:
    """Mean over a prompt's tokens of every distinct layer input, under the untouched base model. [N, sum k]"""
    parts: list[Tensor] = []
    for group in _groups(len(rows)):
        batch = collate(base, [(rows[n].prompt, ()) for n in group])
        weight = torch.ones(batch.ids.shape) if batch.mask is None else batch.mask.float()
        weight = (weight / weight.sum(1, keepdim=True)).unsqueeze(-1)
        keep = {"logits_to_keep": 1} if base.keeps_logits else {}
        with watching(base.slots, base.inputs) as seen:
            base.model(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                position_ids=batch.positions,
                use_cache=False,
                **keep,
            )
        parts.append(torch.cat([(seen[name] * weight).sum(1) for name in base.inputs], dim=1))
    return torch.cat(parts).numpy()


def answer(base: Base, bank: Bank, rows: Sequence[Row]) -> Answers:
    """Answer every row with the bank and score it.

    A row with choices is right if its target is the likeliest of them, one without if greedy decoding would
    produce exactly its target: each target token, the end token included, is the likeliest after those before.

    Args:
        base: the shared frozen model.
        bank: experts and how one is chosen; without experts the base answers.
        rows: prompts with targets.

    Returns:
        Which rows were right, and who answered.
    """
    right = np.zeros(len(rows), dtype=bool)
    chosen = np.full(len(rows), -1)
    for group, owner, held in _shares(base, bank, rows):
        with holding(base.slots, held):
            right[group] = _score(base, [rows[int(n)] for n in group])
        chosen[group] = owner
    return Answers(right, chosen)


def _shares(
    base: Base, bank: Bank, rows: Sequence[Row]
) -> Iterator[tuple[Int[np.ndarray, " n"], int, dict[str, Held]]]:
    """Which rows go to whom, and what the slots hold for them."""
    everything = np.arange(len(rows))
    if not bank.experts:
        yield everything, -1, {}
    elif bank.choice == "topk":
        yield everything, -1, dict(_mixtures(base, bank))
    else:
        index = np.zeros(len(rows), dtype=int)
        if bank.choice == "nearest" and len(bank.experts) > 1:
            index = nearest(prompt_means(base, rows), np.stack([_code(e.code) for e in bank.experts]), base.widths)
        for number in np.unique(index):
            expert = bank.experts[int(number)]
            yield np.flatnonzero(index == number), expert.owner, dict(adapters(base, expert.A, expert.B))


def _code(code: Array | None) -> Array:
    if code is None:
        raise ValueError("an expert without a task code cannot be chosen by task code")
    return code


def _mixtures(base: Base, bank: Bank) -> Iterator[tuple[str, Mixture]]:
    """Per layer, all experts side by side."""
    a = [matrices_a(base.scaling * e.A, base.layout) for e in bank.experts]
    b = [matrices_b(e.B, base.layout) for e in bank.experts]
    cuts = dict(zip(base.inputs, np.cumsum((0, *base.widths)), strict=False))
    for index, (name, slot) in enumerate(base.slots.items()):
        start, width = cuts[base.source[name]], slot.base.in_features
        code = None
        if bank.gated:
            h = torch.from_numpy(np.stack([_code(e.code)[start : start + width] for e in bank.experts]))
            code = F.normalize(h.float(), dim=1)
        yield (
            name,
            Mixture(
                A=torch.from_numpy(np.concatenate([m[index] for m in a])),
                B=torch.from_numpy(np.concatenate([m[index] for m in b], axis=1)),
                code=code,
                top_k=bank.top_k,
            ),
        )


def _groups(count: int) -> Iterator[range]:
    return (range(n, min(n + BATCH, count)) for n in range(0, count, BATCH))


@torch.no_grad()
def _score(base: Base, rows: Sequence[Row]) -> Array:
    right = np.zeros(len(rows), dtype=bool)
    free = [n for n, row in enumerate(rows) if not row.choices]
    for group in _groups(len(free)):
        picked = [free[n] for n in group]
        batch = collate(base, [(rows[n].prompt, rows[n].target) for n in picked])
        guess = logits_before_targets(base, batch).argmax(-1)
        right[picked] = ((guess == batch.targets) | (batch.targets < 0)).all(1).numpy()
    for num_choices in sorted({len(row.choices) for row in rows} - {0}):
        among = [n for n, row in enumerate(rows) if len(row.choices) == num_choices]
        for group in _groups(len(among)):
            picked = [among[n] for n in group]
            right[picked] = _score_choices(base, [rows[n] for n in picked])
    return right


def _score_choices(base: Base, rows: Sequence[Row]) -> Array:
    """Whether the target is the likeliest choice; the prompt is read once and shared by its choices."""
    num_choices = len(rows[0].choices)
    prompts = collate(base, [(row.prompt, ()) for row in rows])
    mask = torch.ones_like(prompts.ids) if prompts.mask is None else prompts.mask
    keep = {"logits_to_keep": 1} if base.keeps_logits else {}
    read = base.model(
        input_ids=prompts.ids, attention_mask=mask, position_ids=prompts.positions, use_cache=True, **keep
    )
    read.past_key_values.batch_repeat_interleave(num_choices)
    tails = [choice for row in rows for choice in row.choices]
    width = max(len(t) for t in tails)
    ids = torch.full((len(tails), width), base.pad_id)
    real = torch.zeros(len(tails), width, dtype=torch.long)
    for n, tail in enumerate(tails):  # after the cache, padding belongs on the right
        ids[n, : len(tail)], real[n, : len(tail)] = torch.tensor(tail), 1
    lengths = mask.sum(1).repeat_interleave(num_choices)
    out = base.model(
        input_ids=ids,
        attention_mask=torch.cat([mask.repeat_interleave(num_choices, 0), real], 1),
        position_ids=lengths[:, None] + torch.arange(width)[None],
        past_key_values=read.past_key_values,
        use_cache=True,
    )
    first = read.logits[:, -1:].repeat_interleave(num_choices, 0)
    logp = F.log_softmax(torch.cat([first, out.logits[:, :-1]], 1).float(), -1)
    scores = (logp.gather(-1, ids[..., None])[..., 0] * real).sum(1).view(len(rows), num_choices)
    best = scores.argmax(1).tolist()
    return np.array([row.choices[b] == row.target for row, b in zip(rows, best, strict=True)])
