"""What the tests of answers share: experts and rows of random tokens, and answers worked out one pass at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.answer import prompt_sketches
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base
from orthomesh.models.tokens import Row
from orthomesh.types import Expert

FAMILY_NAMES = [*LIKE_LLAMA, *sorted(FAMILIES.keys() - {"llama"})]


def expert(base: Base, owner: int, size: float = 0.1) -> Expert:
    """An expert that changes the model a good deal, with a task code near those of others."""
    rng = np.random.default_rng(owner)
    b = (size * rng.standard_normal(base.layout.num_expansion)).astype(np.float32)
    code = (1 + rng.standard_normal(sum(base.widths))).astype(np.float32)
    return Expert(owner=owner, A=projection(owner, base.layout), B=b, code=code)


def guesses(num_rows: int, num_choices: Sequence[int] = (4,), seed: int = 0) -> list[Row]:
    """Rows of random tokens whose choices have different lengths; any of them may be the target."""
    rng = np.random.default_rng(seed)

    def text(longest: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(2, 258, size=rng.integers(1, longest + 1)))

    rows = []
    for n in range(num_rows):
        choices = tuple((*text(4), 1) for _ in range(num_choices[n % len(num_choices)]))
        rows.append(Row(text(7), choices[int(rng.integers(len(choices)))], choices, False))
    return rows


def tasks(base: Base, num_tasks: int, blocks: int = 1, mixed: float = 0.0) -> tuple[list[Row], tuple[Expert, ...]]:
    """Rows of a few tasks, each of four words of its own but for a share of all words, and an expert of each."""
    rows, experts = [], []
    for n in range(num_tasks):
        rng = np.random.default_rng(100 + n)
        words = [12 + 4 * n + np.arange(4), 12 + np.arange(4 * num_tasks)]
        told = []
        for row in guesses(40, num_choices=(3, 2), seed=n):
            common = rng.random(8) < mixed
            prompt = tuple(int(rng.choice(words[int(c)])) for c in common[: int(rng.integers(3, 9))])
            told.append(row._replace(prompt=prompt))
        seen = task_sketch(prompt_sketches(base, told[10:], blocks, 16))
        experts.append(replace(expert(base, 20 + n), code=None, sketch=seen))
        rows += told[:10]
    return rows, tuple(experts)


def update(base: Base, one: Expert, share: float) -> dict[str, torch.Tensor]:
    """What an expert adds to the weight of every layer, alpha / r B A, times its share."""
    pairs = zip(base.slots, matrices_a(one.A, base.layout), matrices_b(one.B, base.layout), strict=True)
    return {name: torch.from_numpy(share * base.scaling * b @ a) for name, a, b in pairs}


def log_likelihood(base: Base, prompt: Sequence[int], target: Sequence[int]) -> float:
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([[*prompt, *target]]), use_cache=False).logits[0].double()
    logp = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return float(sum(logp[n, token] for n, token in enumerate(target)))


def likeliest(base: Base, rows: Sequence[Row]) -> list[bool]:
    """Every choice of every row in a pass of its own."""
    right = []
    for row in rows:
        scores = [log_likelihood(base, row.prompt, choice) for choice in row.choices]
        right.append(row.choices[scores.index(max(scores))] == row.target)
    return right


def generated(base: Base, prompt: Sequence[int]) -> tuple[int, ...]:
    """What greedy decoding makes of a prompt, up to and with the end token."""
    ids = torch.tensor([list(prompt)])
    out = base.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    return tuple(out[0, len(prompt) :].tolist())


@contextmanager
def hooked(base: Base, added: Callable[[str, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Add something to the output of every adapted layer, past the slots."""

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], torch.Tensor]:
        return lambda _, args, out: out + added(name, args[0])

    hooks = [slot.base.register_forward_hook(hook(name)) for name, slot in base.slots.items()]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


@contextmanager
def outputs_of(base: Base) -> Iterator[list[torch.Tensor]]:
    """Logits of every pass made, one after the other."""
    outs: list[torch.Tensor] = []
    hook = base.model.register_forward_hook(lambda _, args, out: outs.append(out.logits))
    try:
        yield outs
    finally:
        hook.remove()


def inputs_of_all_layers(base: Base, prompt: Sequence[int]) -> dict[str, torch.Tensor]:
    """Mean input of every slot over a prompt's tokens, read alone and past the slots."""
    seen: dict[str, torch.Tensor] = {}

    def note(name: str, x: torch.Tensor) -> torch.Tensor:
        seen[name] = x[0].mean(0)
        return torch.zeros(())

    with torch.no_grad(), hooked(base, note):
        base.model(input_ids=torch.tensor([list(prompt)]), use_cache=False)
    return seen


def log_likelihood_by(base: Base, one: Expert, prompt: Sequence[int], target: Sequence[int]) -> float:
    """Under one expert alone, past the slots."""
    added = update(base, one, 1.0)
    with hooked(base, lambda name, x: x @ added[name].T):
        return log_likelihood(base, prompt, target)


def together(base: Base, prompt: Sequence[int], two: Sequence[Expert], shares: Sequence[float]) -> tuple[int, ...]:
    """Three tokens, each the likeliest continuation of those before under p = sum of share times p_expert."""
    said: tuple[int, ...] = ()
    for _ in range(3):
        likely = np.zeros(258)
        for one, share in zip(two, shares, strict=True):
            added = update(base, one, 1.0)
            with torch.no_grad(), hooked(base, lambda name, x, added=added: x @ added[name].T):  # type: ignore[misc]
                logp = base.model(input_ids=torch.tensor([[*prompt, *said]])).logits[0].double().log_softmax(-1)
            before = sum(float(logp[len(prompt) - 1 + n, token]) for n, token in enumerate(said))
            likely += share * np.exp(before) * logp[-1].exp().numpy()
        said = (*said, int(likely.argmax()))
    return said
