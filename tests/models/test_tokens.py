"""Tokens and batches: what is padded, cut and predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row, collate, logits_before_targets, tokenise
from orthomesh.types import Example

PAIRS = (((5, 6, 7), (8, 1)), ((9,), (10, 11, 1)), ((40, 41, 42, 43, 44, 45), (46,)))
TOKENS = st.lists(st.integers(2, 257), min_size=1, max_size=6).map(tuple)
BATCHES = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4)


class Letters(NamedTuple):
    """A tokenizer of one token a letter that ends every text it may add special tokens to."""

    end: int = 1

    def __call__(self, texts: list[str], add_special_tokens: bool, **_: Any) -> dict[str, list[list[int]]]:
        end = [self.end] if add_special_tokens else []
        return {"input_ids": [[ord(letter) for letter in text] + end for text in texts]}


def test_batch_on_paper(small: Base) -> None:
    batch = collate(small, PAIRS)
    assert batch.ids.tolist() == [[0, 0, 5, 6, 7, 8, 1], [0, 0, 0, 9, 10, 11, 1], [40, 41, 42, 43, 44, 45, 46]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1], [1] * 7]
    assert batch.positions.tolist() == [[0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]
    assert batch.targets.tolist() == [[-100, 8, 1], [10, 11, 1], [-100, -100, 46]]
    assert batch.width == 3


def test_rows_of_one_length_need_no_mask(small: Base) -> None:
    batch = collate(small, [((5, 6), (7,)), ((8,), (9, 10))])
    assert batch.mask is None
    assert batch.positions.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_prompts_alone_predict_nothing(small: Base) -> None:
    batch = collate(small, [((5, 6), ()), ((7,), ())])
    assert batch.ids.tolist() == [[5, 6], [0, 7]]
    assert batch.targets.shape == (2, 0)


def test_rows_on_paper(small: Base) -> None:
    base = replace(small, tokenizer=Letters(), max_length=6)
    assert tokenise(base, [Example("ab", "c", ("c", "de"))], "x") == [
        Row((97, 98), (99, 1), ((99, 1), (100, 101, 1)), False)
    ]
    (row,) = tokenise(base, [Example("abcdef", "gh")], "x")
    assert row == Row((100, 101, 102), (103, 104, 1), (), True)  # three of six are left to the prompt: its end
    (row,) = tokenise(base, [Example("abcdef", "g", ("g", "hijk"))], "x")
    assert row.prompt == (102,)  # the longest choice must fit
    assert row.cut
    (row,) = tokenise(base, [Example("abc", "gh")], "x")
    assert not row.cut


def test_a_prompt_goes_on_and_is_never_empty(small: Base) -> None:
    base = replace(small, tokenizer=Letters())
    rows = tokenise(base, [Example("ab", "c"), Example("", "c")], "x")
    assert [row.prompt for row in rows] == [(97, 98), (base.eos_id,)]


def test_embedded_tokens_spell_prompt_and_target(embedded: Base) -> None:
    (row,) = tokenise(embedded, [Example("zelk abcd=", "DCBA", ("DCBA", "no"))], "zelk")
    assert embedded.tokenizer.decode(row.prompt) == "zelk abcd="
    assert embedded.tokenizer.decode(row.target) == "DCBA<eos>"
    assert [embedded.tokenizer.decode(choice) for choice in row.choices] == ["DCBA<eos>", "no<eos>"]


@given(BATCHES)
def test_every_token_of_a_target_is_predicted_once(small: Base, pairs: list[tuple[tuple[int, ...], ...]]) -> None:
    batch = collate(small, pairs)
    real = torch.ones_like(batch.ids) if batch.mask is None else batch.mask
    for n, (prompt, target) in enumerate(pairs):
        kept = batch.ids[n][real[n] == 1]
        assert kept.tolist() == [*prompt, *target]
        assert batch.positions[n][real[n] == 1].tolist() == list(range(len(kept)))
        scored = batch.targets[n] >= 0
        assert batch.targets[n][scored].tolist() == list(target)
        assert torch.equal(batch.ids[n, -batch.width :][scored], batch.targets[n][scored])


@pytest.mark.parametrize("family", [*LIKE_LLAMA, *sorted(FAMILIES.keys() - {"llama"}), "gpt_bigcode"])
def test_padding_changes_no_logit(family: str, save_model: Callable[[str], Path]) -> None:
    layers = ("c_fc",) if family == "gpt_bigcode" else ()  # not known by default, but it counts positions from zero
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4, layers=layers))
    with torch.no_grad():
        together = logits_before_targets(base, collate(base, PAIRS))
        assert together.shape == (3, 3, 258)
        whole = logits_before_targets(replace(base, keeps_logits=False), collate(base, PAIRS))
        torch.testing.assert_close(whole, together, atol=1e-5, rtol=0)
        for n, (prompt, target) in enumerate(PAIRS):
            alone = base.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0]
            predicts = alone[len(prompt) - 1 : -1]
            torch.testing.assert_close(together[n, -len(target) :], predicts, atol=1e-5, rtol=0)


def test_logits_of_the_first_target_are_those_of_the_prompt(small: Base) -> None:
    with torch.no_grad():
        first = logits_before_targets(small, collate(small, [((5, 6, 7), (8,))]))[0, 0]
        assert first.isfinite().all()
        torch.testing.assert_close(first, small.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1])
        assert abs(first.logsumexp(0) - first.exp().sum().log()) < 1e-4
        assert not math.isclose(first.max(), first.min())


def test_answers_that_do_not_fit_are_refused_with_their_row(small: Base) -> None:
    base = replace(small, tokenizer=Letters(), max_length=4)
    assert tokenise(base, [Example("p", "ab")], "zelk")[0].target == (97, 98, 1)
    words = r"zelk, row 2: its answer takes 4 tokens .* a prompt must fit too; model\.max_length can be up to 64"
    with pytest.raises(ValueError, match=words):
        tokenise(base, [Example("p", "ab"), Example("p", "abc")], "zelk")
    with pytest.raises(ValueError, match="zelk, row 1: "):
        tokenise(base, [Example("p", "ab", ("ab", "abc"))], "zelk")
    with pytest.raises(ValueError, match="zelk, row 3: "):
        tokenise(base, [Example("p", "ab"), Example("p", "a"), Example("p", "")], "zelk")
