"""How a bank of experts answers on the base model: prompts are read once, sent to an expert, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..adapters.lowrank import matrices_a, matrices_b, slices
from ..experts.mixture import Mixture
from ..experts.router import Verdict, classes, discriminate, nearest
from ..experts.sketch import sketch
from ..types import Array, Bank, Example, Expert
from .base import Base
from .cache import cache_of, cached
from .finetune import adapters
from .harness import Scored, score
from .inject import holding
from .packing import about_as_long
from .reading import read_prompts, reading_points, widths
from .tokens import Row, collate, logits_before_targets
from .whole import wearing

LONGEST_ANSWER = 400
"""Tokens that are written at most where an answer is checked by what it says, if nobody says how many."""
BATCH = 64
"""Rows a forward pass reads at a time when nothing is trained."""
SHARED = 16
"""Rows at a time of which all probabilities are kept, where two experts share them."""


RIGHT, WRONG, UNDECIDED = 1, 0, -1
"""Verdicts on an answer."""


class Answers(NamedTuple):
    """right: whether each row was answered rightly. [N]  chosen: owner of who answered, -1 for nobody or all. [N]
    written: what was written for rows with a check, by index; whether it is right is for others to say. undecided: rows
    of which no choice, or no token, was the likeliest, as the model's numbers are none; they count as wrong."""

    right: Array
    chosen: Array
    written: dict[int, str] = {}  # noqa: RUF012, never changed
    undecided: tuple[int, ...] = ()


@torch.no_grad()
def prompt_means(base: Base, rows: Sequence[Row]) -> Float[np.ndarray, "N K"]:
    """Mean over a prompt's tokens of every distinct layer input, under the untouched base model. [N, sum k]"""
    return _means(base, rows, base.inputs)


def prompt_sketches(base: Base, rows: Sequence[Row], blocks: int, size: int) -> Float[np.ndarray, "N m"]:
    """Sketches of prompts from what the base's first blocks see of them. [N, m]"""
    points = reading_points(base.model, blocks)
    return sketch(_means(base, rows, points), widths(base.model, points), size)


def _means(base: Base, rows: Sequence[Row], points: Sequence[str]) -> Float[np.ndarray, "N K"]:
    parts = []
    for group in _groups(len(rows)):
        batch = collate(base, [(rows[n].prompt, ()) for n in group])
        parts.append(read_prompts(base.model, points, batch.ids, batch.mask, batch.positions))
    return np.concatenate(parts)


def answer(
    base: Base,
    bank: Bank,
    rows: Sequence[Row],
    examples: Sequence[Example] | None = None,
    longest: int = LONGEST_ANSWER,
) -> Answers:
    """Answer every row with the bank and score it.

    A row with choices is right if its target is the likeliest of them, one without if greedy decoding would
    produce exactly its target: each target token, the end token included, is the likeliest after those before. A row
    with a check is written out instead, greedily, and counts as wrong until somebody has looked at it.

    Args:
        base: the shared frozen model.
        bank: experts and how one is chosen; without experts the base answers.
        rows: prompts with targets.
        examples: the same in text, for lm-evaluation-harness to score what it can; none: it is not asked. Rows that two
            experts share are beyond it.
        longest: tokens that are written at most.

    Returns:
        Which rows were right, and who answered.
    """
    verdicts = np.zeros(len(rows), dtype=np.int8)
    chosen = np.full(len(rows), -1)
    written: dict[int, str] = {}
    for group, owners, ready in _shares(base, bank, rows):
        picked = [rows[int(n)] for n in group]
        if isinstance(ready, Verdict):
            verdicts[group] = answer_shared(base, bank, picked, ready)
        else:
            with ready:
                told = None if examples is None else score(base, [examples[int(n)] for n in group], longest)
                verdicts[group], said = _scored(base, picked, told, longest)
                written |= {int(group[n]): text for n, text in said.items()}
        chosen[group] = owners
    return Answers(verdicts == RIGHT, chosen, written, tuple(np.flatnonzero(verdicts == UNDECIDED).tolist()))


def _scored(base: Base, rows: Sequence[Row], told: Scored | None, longest: int) -> tuple[Array, dict[int, str]]:
    """Verdicts on rows, and what is written for those with a check, told by the harness or found by ourselves."""
    if told is None:
        return _score(base, rows), {n: write(base, row, longest) for n, row in enumerate(rows) if row.check}
    verdicts = np.zeros(len(rows), dtype=np.int8)
    rest = [n for n in range(len(rows)) if n not in told.right and n not in told.written]
    verdicts[rest] = _score(base, [rows[n] for n in rest])
    verdicts[list(told.right)] = [RIGHT if right else WRONG for right in told.right.values()]
    verdicts[list(told.undecided)] = UNDECIDED
    return verdicts, dict(told.written)


@torch.no_grad()
def write(base: Base, row: Row, longest: int = LONGEST_ANSWER) -> str:
    """What follows a prompt, token by token the likeliest, until an end token or the context is full.

    As from `generate`, an end token that is no special token, and so has a text, belongs to it.

    Args:
        base: the model, as it is worn.
        row: its prompt is read.
        longest: tokens at most, and no more than the context leaves.
    """
    ids = torch.tensor([row.prompt], device=base.device)
    room = min(longest, base.max_length - len(row.prompt))
    ends = base.ends
    made: list[int] = []
    read = base.model(input_ids=ids, use_cache=True)
    while len(made) < room:
        token = int(read.logits[0, -1].argmax())
        made.append(token)
        if token in ends:
            break
        place = torch.tensor([[len(row.prompt) + len(made) - 1]], device=base.device)
        read = base.model(
            input_ids=torch.tensor([[token]], device=base.device), position_ids=place, use_cache=True,
            **cached(base.model, cache_of(read)),
        )  # fmt: skip
    return str(base.tokenizer.decode(made, skip_special_tokens=True))


@torch.no_grad()
def answer_shared(base: Base, bank: Bank, rows: Sequence[Row], verdict: Verdict) -> Array:
    r"""Whether rows are answered rightly by two experts together, each by itself and their probabilities mixed.

    .. math::  p(y \mid x) = w \, p_1(y \mid x) + (1 - w) \, p_2(y \mid x)

    over whole answers: a choice counts by its likelihood under both, a free answer token by token, the weights moving
    to who found the tokens before likelier. To add the two updates instead would blur both.

    Args:
        base: the shared frozen model.
        bank: the experts.
        rows: prompts with targets.
        verdict: of these rows; w is `weight`, the experts are `best` and `second`.

    Returns:
        A verdict a row: `RIGHT`, `WRONG` or `UNDECIDED`. [N]
    """
    sides = [_by(base, bank, rows, who) for who in (verdict.best, verdict.second)]
    shares = np.log(np.stack([verdict.weight, 1 - verdict.weight]))
    found = [_together(row, sides[0][n], sides[1][n], shares[:, n]) for n, row in enumerate(rows)]
    return np.array(found, dtype=np.int8)


def _by(base: Base, bank: Bank, rows: Sequence[Row], who: Array) -> dict[int, Array]:
    """What one expert a row makes of it: log-likelihood of its choices [C], or of all tokens at its target's [T, V]."""
    found: dict[int, Array] = {}
    for number in np.unique(who):
        expert = bank.experts[int(number)]
        with worn(base, expert):
            for group in _alike(np.flatnonzero(who == number), rows):
                picked = [rows[int(n)] for n in group]
                likely = choice_likelihoods(base, picked) if picked[0].choices else _token_likelihoods(base, picked)
                found.update(zip(group.tolist(), likely, strict=True))
    return found


def _token_likelihoods(base: Base, rows: Sequence[Row]) -> list[Array]:
    """Log-likelihoods of all tokens at the places of each row's target. [T, V] a row"""
    logits = logits_before_targets(base, collate(base, [(row.prompt, row.target) for row in rows]))
    logp = F.log_softmax(logits.float(), -1).cpu().numpy()
    return [logp[n, -len(row.target) :] for n, row in enumerate(rows)]


def _together(row: Row, one: Array, other: Array, shares: Array) -> int:
    """The verdict on the mixture of two."""
    if np.isnan(one).any() or np.isnan(other).any():
        return UNDECIDED
    if row.choices:
        return _verdict(row, np.logaddexp(shares[0] + one, shares[1] + other))
    target = np.array(row.target)
    places = np.arange(len(target))
    before = [np.concatenate([[0.0], np.cumsum(side[places, target])[:-1]])[:, None] for side in (one, other)]
    both = np.logaddexp(shares[0] + before[0] + one, shares[1] + before[1] + other)
    return RIGHT if (both.argmax(1) == target).all() else WRONG


def choose(base: Base, bank: Bank, rows: Sequence[Row]) -> Verdict:
    """Which expert each prompt goes to, for a bank that chooses once per prompt.

    Raises:
        ValueError: an expert without what the choice goes by.
    """
    if bank.choice == "nearest":
        codes = [e.code for e in bank.experts]
        known = np.stack([_told(code, "task code") for code in codes])
        return nearest(prompt_means(base, rows), known, base.widths)
    tasks = [_told(e.sketch, "task sketch") for e in bank.experts]
    return discriminate(prompt_sketches(base, rows, bank.blocks, tasks[0].mean.size), classes(tasks))


Told = TypeVar("Told")


def _told(what: Told | None, name: str) -> Told:
    if what is None:
        raise ValueError(f"an expert without a {name} cannot be chosen by {name}")
    return what


def _shares(
    base: Base, bank: Bank, rows: Sequence[Row]
) -> Iterator[tuple[Array, Array | int, AbstractContextManager[None] | Verdict]]:
    """Which rows go to whom, and the model as it is for them; the verdict itself on rows that two share."""
    everything = np.arange(len(rows))
    if not bank.experts:
        yield everything, -1, nullcontext()
    elif bank.choice in ("topk", "norm", "arrow", "mixer"):
        yield everything, -1, holding(base.slots, mixtures(base, bank))
    elif bank.choice == "only" or (len(bank.experts) == 1 and not (bank.choice == "discriminant" and bank.refuses)):
        first = bank.experts[0]
        yield everything, first.owner, worn(base, first)
    else:
        verdict = choose(base, bank, rows)
        refused = verdict.strange & bank.refuses
        shared = (verdict.weight < 1) & bank.soft & ~refused
        if refused.any():
            yield np.flatnonzero(refused), -1, nullcontext()
        for number in np.unique(verdict.best[~refused & ~shared]):
            expert = bank.experts[int(number)]
            mine = np.flatnonzero((verdict.best == number) & ~refused & ~shared)
            yield mine, expert.owner, worn(base, expert)
        if shared.any():
            owners = np.array([e.owner for e in bank.experts])
            both = Verdict(*(part[shared] for part in verdict))
            yield np.flatnonzero(shared), owners[both.best], both


def worn(base: Base, expert: Expert) -> AbstractContextManager[None]:
    """The model with one expert, for the length of a block."""
    if expert.weights is not None:
        return wearing(base, expert.weights)
    return holding(base.slots, adapters(base, expert.A, expert.B))


def _alike(picked: Array, rows: Sequence[Row]) -> Iterator[Array]:
    """Small groups of rows with as many choices each, so that they are scored in one pass and in this order."""
    for num in sorted({len(rows[int(n)].choices) for n in picked}):
        same = np.array([n for n in picked if len(rows[int(n)].choices) == num])
        yield from (same[n : n + SHARED] for n in range(0, len(same), SHARED))


def mixtures(base: Base, bank: Bank) -> dict[str, Mixture]:
    """Per layer, all experts side by side."""
    pairs = [(e.A, e.B) for e in bank.experts]
    beside = _told(bank.experts[0].beside, "mixer") if bank.choice == "mixer" else None
    pairs += [beside[:2]] if beside is not None else []
    a = [matrices_a(base.scaling * A, base.layout) for A, _ in pairs]
    b = [matrices_b(B, base.layout) for _, B in pairs]
    cuts = dict(zip(base.inputs, np.cumsum((0, *base.widths)), strict=False))
    rows = slices([shape.in_features for shape in base.layout.shapes])
    biases, found = _biases(base, bank), {}
    for index, (name, slot) in enumerate(base.slots.items()):
        start, width = cuts[base.source[name]], slot.base.in_features
        code = None
        if bank.choice == "topk" and bank.gated:
            h = torch.from_numpy(np.stack([_told(e.code, "task code")[start : start + width] for e in bank.experts]))
            code = F.normalize(h.float(), dim=1).to(base.device, base.dtype)
        prints = None
        if bank.choice in ("norm", "arrow"):
            each = np.stack([_print(x[index], y[index], bank) for x, y in zip(a, b, strict=True)])
            prints = torch.from_numpy(each).to(base.device, base.dtype)
        if beside is not None:
            prints = torch.from_numpy(beside[2][:, rows[index]]).to(base.device, base.dtype)
        found[name] = Mixture(
            A=torch.from_numpy(np.concatenate([m[index] for m in a])).to(base.device, base.dtype),
            B=torch.from_numpy(np.concatenate([m[index] for m in b], axis=1)).to(base.device, base.dtype),
            code=code,
            top_k=bank.top_k,
            num=len(pairs),
            scope=bank.scope,
            rule=bank.choice if bank.choice in ("norm", "arrow", "mixer") else "topk",
            prints=prints,
            bias=None if biases is None else biases[index],
        )
    return found


def _biases(base: Base, bank: Bank) -> Tensor | None:
    """What is added to how strong ranks are, of all experts side by side, with the scaling; none: nothing. [L, M r]"""
    if all(e.bias is None for e in bank.experts):
        return None
    sides = (len(base.layout.shapes), base.layout.rank)
    each = [np.zeros(sides) if e.bias is None else e.bias.reshape(sides) for e in bank.experts]
    return torch.from_numpy(base.scaling * np.concatenate(each, axis=1)).to(base.device, torch.float32)


def _print(A: Array, B: Array, bank: Bank) -> Array:
    """What `norm` or `arrow` compares a token with: B^T B [r, r], or the strongest input direction of B A [k]."""
    if bank.choice != "arrow":
        return np.asarray(B.T @ B)
    _, _, directions = np.linalg.svd(np.linalg.qr(B)[1] @ A, full_matrices=False)  # B = Q R, and Q turns nothing
    return np.asarray(directions[0])


def _groups(count: int) -> Iterator[range]:
    return (range(n, min(n + BATCH, count)) for n in range(0, count, BATCH))


@torch.no_grad()
def _score(base: Base, rows: Sequence[Row]) -> Array:
    """Verdicts on rows; those with a check are wrong until somebody has looked at them. [N]"""
    verdicts = np.zeros(len(rows), dtype=np.int8)
    free = [n for n, row in enumerate(rows) if not row.choices and row.check is None]
    for picked in about_as_long(base, rows, free, BATCH):
        batch = collate(base, [(rows[n].prompt, rows[n].target) for n in picked])
        largest, guess = logits_before_targets(base, batch).max(-1)  # that of no numbers is none
        right = ((guess == batch.targets) | (batch.targets < 0)).all(1)
        known = (largest.isfinite() | (batch.targets < 0)).all(1)
        verdicts[picked] = torch.where(known, right.long(), UNDECIDED).cpu().numpy()
    for num_choices in sorted({len(row.choices) for row in rows} - {0}):
        among = [n for n, row in enumerate(rows) if len(row.choices) == num_choices]
        for picked in about_as_long(base, rows, among, BATCH):
            likely = choice_likelihoods(base, [rows[n] for n in picked])
            verdicts[picked] = [_verdict(rows[n], likely[k]) for k, n in enumerate(picked)]
    return verdicts


def _verdict(row: Row, likely: Array) -> int:
    """Whether the target is the likeliest choice, if any is. likely: log-likelihoods of all. [C]"""
    if not np.isfinite(likely.max()):  # NaN if one of them is
        return UNDECIDED
    return RIGHT if row.choices[int(likely.argmax())] == row.target else WRONG


@torch.no_grad()
def choice_likelihoods(base: Base, rows: Sequence[Row]) -> Float[np.ndarray, "N C"]:
    """Log-likelihood of every choice under what the slots hold; a prompt is read once and shared by its choices.

    Args:
        base: the model.
        rows: with as many choices each.
    """
    num_choices = len(rows[0].choices)
    prompts = collate(base, [(row.prompt, ()) for row in rows])
    mask = torch.ones_like(prompts.ids) if prompts.mask is None else prompts.mask
    keep = {"logits_to_keep": 1} if base.keeps_logits else {}
    read = base.model(
        input_ids=prompts.ids, attention_mask=mask, position_ids=prompts.positions, use_cache=True, **keep
    )
    cache_of(read).batch_repeat_interleave(num_choices)
    tails = [choice for row in rows for choice in row.choices]
    width = max(len(t) for t in tails)
    ids = torch.full((len(tails), width), base.pad_id)
    real = torch.zeros(len(tails), width, dtype=torch.long)
    for n, tail in enumerate(tails):  # after the cache, padding belongs on the right
        ids[n, : len(tail)], real[n, : len(tail)] = torch.tensor(tail), 1
    ids, real = ids.to(base.device), real.to(base.device)
    lengths = mask.sum(1).repeat_interleave(num_choices)
    out = base.model(
        input_ids=ids,
        attention_mask=torch.cat([mask.repeat_interleave(num_choices, 0), real], 1),
        position_ids=lengths[:, None] + torch.arange(width, device=base.device)[None],
        use_cache=True,
        **cached(base.model, cache_of(read)),
    )
    first = read.logits[:, -1:].repeat_interleave(num_choices, 0)
    logp = F.log_softmax(torch.cat([first, out.logits[:, :-1]], 1).float(), -1)
    scores = (logp.gather(-1, ids[..., None])[..., 0] * real).sum(1).view(len(rows), num_choices)
    return np.asarray(scores.cpu().numpy())
