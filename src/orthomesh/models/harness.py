"""Answers scored by lm-evaluation-harness through its Python interface, instead of by `answer.py` (extra `eval`).

The model at hand, with whatever expert it wears, is handed to the harness as it is. What the harness decides: the
likelihood of every choice and which is the best (`multiple_choice`), and what is written (`generate_until`, greedy).
Two things are as in `answer.py`, so that both scorers answer the same question: the end token belongs to a choice, and
a program that was written is run by our own sandbox, as the harness would run it unguarded.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..types import Example
from .base import Base

BATCH = 16
"""Rows the harness reads at a time."""


class Scored(NamedTuple):
    """By index of the example. right: those with choices. written: what follows the prompt of those with a check.
    undecided: those of whose choices none is the likeliest, as their likelihoods are no numbers."""

    right: Mapping[int, bool]
    written: Mapping[int, str]
    undecided: tuple[int, ...] = ()


def score(base: Base, examples: Sequence[Example], longest: int) -> Scored:
    """Examples with choices or a check, scored by the harness; others have no place in it and are left out.

    Args:
        base: the model, as it is worn.
        examples: in text, as the harness reads them.
        longest: tokens that are written at most; half the model's context where that is less.
    """
    chosen = {n: e for n, e in enumerate(examples) if e.choices}
    free = {n: e for n, e in enumerate(examples) if not e.choices and e.check is not None}
    context = int(getattr(base.model.config, "max_position_embeddings", None) or base.max_length)
    room = min(longest, context // 2)
    samples = dict(_sat(base, _choice(base, chosen), base.max_length))
    right = {n: sample["acc"] == 1.0 for n, sample in samples.items()}
    none = tuple(n for n, s in samples.items() if not all(math.isfinite(likely) for likely, _ in s["filtered_resps"]))
    written = {
        n: str(sample["filtered_resps"][0])
        for n, sample in _sat(base, _writing(free, room), min(context, base.max_length + room))
    }
    return Scored(right, written, none)


def _choice(base: Base, examples: Mapping[int, Example]) -> dict[str, Any]:
    end = base.tokenizer.eos_token
    docs = [
        {"n": n, "prompt": e.prompt, "choices": [c + end for c in e.choices], "right": e.choices.index(e.target)}
        for n, e in examples.items()
    ]
    metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
    return {
        **_task(docs),
        "output_type": "multiple_choice",
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["right"],
        "metric_list": [metric],
    }


def _writing(examples: Mapping[int, Example], room: int) -> dict[str, Any]:
    docs = [{"n": n, "prompt": e.prompt} for n, e in examples.items()]
    metric = {"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}  # judged by who has the check
    return {
        **_task(docs),
        "output_type": "generate_until",
        "doc_to_target": lambda doc: "",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": room},
        "metric_list": [metric],
    }


def _task(docs: list[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    return {
        "task": "orthomesh",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": lambda doc: doc["prompt"],
        "target_delimiter": "",
        "docs": docs,
    }


def _sat(base: Base, task: dict[str, Any], max_length: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """One task put to the model: numbers of the examples with what the harness says of each."""
    if not task.pop("docs"):
        return
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with _quiet():
        model = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=BATCH, max_length=max_length)
        loaded = TaskManager(include_defaults=False).load([task])
        found = evaluate(model, loaded, bootstrap_iters=0)
    assert found is not None
    for sample in found["samples"]["orthomesh"]:
        yield sample["doc"]["n"], sample


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's progress bars and remarks on settings that are as they should be."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
