"""What the tests of a bank on a Hugging Face model share: a bank of random experts, prompts in a batch, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.answer import prompt_sketches
from orthomesh.models.attach import fingerprint
from orthomesh.models.bank_io import Portable
from orthomesh.models.base import Base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import holding
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.embedded import examples
from orthomesh.types import Bank, Expert

TASKS = ("zelk", "morv", "quib", "drax")
STRANGER = "hello there, what is the weather like today?"
GREEDY = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
Model = Callable[[], Any]


def bank_of(base: Base, blocks: int = 1, size: int = 32, tasks: Sequence[str] = TASKS) -> Portable:
    """Random experts of some embedded tasks, with true sketches of them."""
    experts = []
    for n, task in enumerate(tasks):
        rng = np.random.default_rng(n)
        B = 0.05 * rng.standard_normal(base.layout.num_expansion) * (rng.random(base.layout.num_expansion) < 0.125)
        rows = tokenise(base, examples(task, "train", 80, rng), task)
        told = task_sketch(prompt_sketches(base, rows, blocks, size))
        experts.append(
            Expert(
                owner=n, A=projection(n, base.layout), B=B.astype(np.float32), sketch=told, seed=n, kind="orthonormal"
            )
        )
    return Portable(
        bank=Bank(experts=tuple(experts), choice="discriminant", blocks=blocks),
        labels=tuple(tasks),
        layout=base.layout,
        scaling=base.scaling,
        base_model="embedded",
        fingerprint=fingerprint(base.model),
    )


def under(portable: Portable, **rules: Any) -> Portable:
    return replace(portable, bank=replace(portable.bank, **rules))


def batch(tokenizer: Any, prompts: Sequence[str], side: str = "left") -> dict[str, torch.Tensor]:
    found = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side=side)
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def generated(model: Any, tokens: dict[str, torch.Tensor], **how: Any) -> list[list[int]]:
    """Answers of a batch up to their end token."""
    with torch.no_grad():
        out = model.generate(**tokens, **{**GREEDY, **how})[:, tokens["input_ids"].shape[1] :].tolist()
    return [row[: row.index(1) + 1] if 1 in row else row for row in out]


def logits(model: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(**tokens).logits
    return out


def by(base: Base, portable: Portable, label: str | None) -> Any:
    """The base with one expert held, or none."""
    if label is None:
        return holding(base.slots, {})
    e = portable.bank.experts[portable.labels.index(label)]
    return holding(base.slots, adapters(base, e.A, e.B))


@contextmanager
def counting(model: nn.Module, name: str) -> Iterator[list[int]]:
    """Tokens of every pass through a module."""
    passes: list[int] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: passes.append(args[0].shape[1]))
    try:
        yield passes
    finally:
        hook.remove()
