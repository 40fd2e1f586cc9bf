"""How well devices answer: every task's test prompts, put to what a device has."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..models.settings import ModelSettings
from ..tasks.catalogue import test_set
from ..tasks.settings import TaskSettings
from ..types import Bank, DeviceState
from .judging import judge

ONCE = ("nearest", "discriminant")
"""Choices made once per prompt, so that one can ask whether they were right."""


class Exam(NamedTuple):
    """What is asked. limit: prompts a task, at most. owners: devices that have each task, by name. harness: whether
    lm-evaluation-harness scores the answers. longest: tokens that are written at most."""

    model: ModelSettings
    tasks: TaskSettings
    seed: int
    limit: int
    owners: tuple[tuple[str, tuple[int, ...]], ...]
    harness: bool = False
    longest: int = 400


class Score(NamedTuple):
    """Outcome of one task: prompts asked, answered rightly, and sent to an expert that owns the task.

    routed is -1 where no expert was chosen. cut: prompts that were too long for the context. unread: answers that are
    none, e.g. without a number where one was asked for, or of a model whose likelihoods are no numbers; they count as
    wrong.
    """

    asked: int
    right: int
    routed: int
    cut: int
    unread: int = 0


def no_bank(device: DeviceState) -> Bank:
    """The untouched base model."""
    return Bank(experts=())


def own_expert(device: DeviceState, bank: Callable[[DeviceState], Bank]) -> Bank:
    """Only the device's own expert: what an oracle would choose for its task."""
    experts = tuple(e for e in bank(device).experts if e.owner == device.id)
    return Bank(experts=experts)


def sit(job: tuple[DeviceState, tuple[str, ...]], bank: Callable[[DeviceState], Bank], exam: Exam) -> dict[str, Score]:
    """Put the test prompts of some tasks to one device.

    Args:
        job: the device and the tasks to ask.
        bank: what the device answers with.
        exam: what is asked.

    Returns:
        The score of every task asked.
    """
    from ..models.answer import answer  # late: reading settings must not load torch
    from ..models.base import load_base

    device, tasks = job
    base, experts, owners = load_base(exam.model), bank(device), dict(exam.owners)
    scores = {}
    for task in tasks:
        rows = test_rows(exam, task)[: exam.limit]
        texts = test_set(exam.tasks, task, exam.seed)[: exam.limit] if exam.harness else None
        given = answer(base, experts, rows, texts, exam.longest)
        routed = int(np.isin(given.chosen, owners[task]).sum()) if experts.choice in ONCE else -1
        said = {n: judge(rows[n].check, text) for n, text in given.written.items()}
        right = int(given.right.sum()) + sum(verdict == "right" for verdict in said.values())
        unread = sum(verdict == "unread" for verdict in said.values()) + len(given.undecided)
        scores[task] = Score(len(rows), right, routed, sum(row.cut for row in rows), unread)
    return scores


@functools.lru_cache(maxsize=128)
def test_rows(exam: Exam, task: str) -> list[Any]:
    """Tokenised test examples of a task; kept, since every method is asked the same."""
    from ..models.base import load_base
    from ..models.tokens import tokenise

    return tokenise(load_base(exam.model), test_set(exam.tasks, task, exam.seed), f"task {task}")


def same_answers(device: DeviceState, bank: Callable[[DeviceState], Bank]) -> tuple[str, int]:
    """A fingerprint of what a device answers with, and how many experts that is; equal prints, equal answers."""
    held = bank(device)
    rules = (held.choice, held.blocks, held.soft, held.refuses, held.top_k, held.scope, held.gated)
    total = hashlib.sha256(repr(rules).encode())
    for expert in held.experts:
        total.update(f"|{expert.owner}".encode())
        told = (None, None) if expert.sketch is None else expert.sketch[:2]
        drawn = expert.seed is not None  # what it was drawn from says what A is
        total.update(f"|{expert.seed}{expert.kind}".encode())
        parts = (
            None if drawn else expert.A,
            expert.B,
            expert.code,
            *told,
            expert.weights,
            *(expert.beside or (None,) * 3),
            expert.bias,
        )
        for part in parts:  # each with its size, so that none runs into the next
            total.update(b"|" if part is None else f"|{part.dtype.str}{part.shape}".encode())
            total.update(b"" if part is None else np.ascontiguousarray(part).data)
        total.update(b"" if expert.sketch is None else repr(expert.sketch.reach).encode())
    return total.hexdigest(), len(held.experts)


def mean_accuracy(by_device: Sequence[Mapping[str, Score]], weights: Sequence[int]) -> dict[str, float]:
    """Accuracy of every task, mean over devices; a weight says how many devices a score stands for. {task: [0, 1]}"""
    total = sum(weights)
    return {
        task: sum(w * s[task].right / s[task].asked for s, w in zip(by_device, weights, strict=True)) / total
        for task in by_device[0]
    }


def routed_share(by_device: Sequence[Mapping[str, Score]], weights: Sequence[int]) -> float | None:
    """Share of prompts sent to an expert that owns their task; none where nobody chose."""
    scores = [(s, w) for device, w in zip(by_device, weights, strict=True) for s in device.values()]
    if any(s.routed < 0 for s, _ in scores):
        return None
    return sum(w * s.routed for s, w in scores) / sum(w * s.asked for s, w in scores)
