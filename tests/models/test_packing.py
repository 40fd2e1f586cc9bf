"""Rows without padding: the same loss and the same gradients, for what is written in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experts.mixture import Mixture
from orthomesh.models import loss, packing
from orthomesh.models.base import Base, load_base
from orthomesh.models.inject import holding
from orthomesh.models.loss import backward
from orthomesh.models.packing import WORTH, about_as_long, pack, packs
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row
from orthomesh.types import Array

Pair = tuple[tuple[int, ...], tuple[int, ...]]
SIDES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "phi", "gpt_neox")


@pytest.fixture
def trained(small: Base) -> Iterator[torch.Tensor]:
    """A weight deep in the model that asks for a gradient."""
    weight = next(iter(small.slots.values())).base.weight
    yield weight.requires_grad_()
    weight.requires_grad_(False).grad = None


def gradient(base: Base, weight: torch.Tensor, rows: list[Row], parts: int = 1) -> tuple[float, Array]:
    weight.grad = None
    (value,) = backward(base, [rows], parts)
    assert weight.grad is not None
    return value, weight.grad.numpy().copy()


def rows_of(lengths: list[tuple[int, int]], tokens: int) -> list[Row]:
    draw = np.random.default_rng(len(lengths))
    pairs = [[tuple(draw.integers(tokens, size=n).tolist()) for n in both] for both in lengths]
    return [Row(prompt, target, (), False) for prompt, target in pairs]


# example


def test_rows_lie_one_after_the_other(small: Base) -> None:
    packed = pack(small, [((5, 6, 7), (8, 9)), ((4,), (3, 2, 1))])
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9, 4, 3, 2, 1]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert packed.lengths == (5, 4)
    assert packed.scored.tolist() == [2, 3, 5, 6, 7]  # 7 says 8, 8 says 9, and 4 says 3
    assert packed.targets.tolist() == [8, 9, 3, 2, 1]


def test_rows_are_packed_where_padding_costs_more(small: Base) -> None:
    """Two rows, one a token longer than the other by `short`: 12 h^2 short products against two times `WORTH`."""
    short = int(np.ceil(2 * WORTH / (12 * small.model.config.hidden_size**2)))
    even: Pair = ((1,) * 5, (2,) * 2)
    assert not packs(small, [even, even])
    assert packs(small, [even, ((1,) * (5 + short), (2,) * 2)])
    assert not packs(small, [even, ((1,) * (5 + short - 1), (2,) * 2)])


def test_rows_are_read_among_those_about_as_long(small: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of 1, 2, 2 and 9 tokens: one of 2 pads that of 1 by one token, 9 would pad the others by 22."""
    rows = rows_of([(2, 1), (9, 1), (1, 1), (2, 3), (5, 1)], 8)
    block = 12 * small.model.config.hidden_size**2
    monkeypatch.setattr(packing, "PASS", 1.0 * block)  # a token of padding
    assert list(about_as_long(small, rows, [0, 1, 2, 3], 9)) == [[2, 0, 3], [1]]
    assert list(about_as_long(small, rows, [0, 1, 2, 3], 2)) == [[2, 0], [3], [1]]
    monkeypatch.setattr(packing, "PASS", block - 1.0)
    assert list(about_as_long(small, rows, [0, 1, 2, 3], 9)) == [[2], [0, 3], [1]]
    monkeypatch.setattr(packing, "PASS", 1e12)
    assert list(about_as_long(small, rows, range(5), 9)) == [[2, 0, 3, 4, 1]]
    assert list(about_as_long(small, rows, [], 9)) == []


# reference


@pytest.mark.parametrize("parts", [1, 3])
def test_loss_and_gradient_are_those_of_padded_rows(
    small: Base, trained: torch.Tensor, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of([(9, 2), (1, 1), (4, 5), (60, 2), (3, 1)], small.model.config.vocab_size)
    monkeypatch.setattr(loss, "packs", lambda *_: False)
    value, slope = gradient(small, trained, rows, parts)
    monkeypatch.setattr(loss, "packs", lambda *_: True)
    again, other = gradient(small, trained, rows, parts)
    assert again == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(other, slope, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_is_packed_takes_rows_apart(
    family: str, small: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the model itself, row by row; one that lost the rows' lengths on the way would see other rows."""
    small.tokenizer.save_pretrained(tmp_path)
    tokens = len(small.tokenizer)
    extra = {"head_dim": 8, "num_key_value_heads": 2} if family != "gpt_neox" else {}
    config = transformers.AutoConfig.for_model(family, vocab_size=tokens, sliding_window=None, **SIDES, **extra)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
    base = load_base(ModelSettings(source=str(tmp_path), rank=2))
    monkeypatch.setattr(loss, "packs", lambda *_: True)
    rows = rows_of([(5, 2), (1, 3), (7, 1)], tokens)
    total = 0.0
    for row in rows:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([[*row.prompt, *row.target]]), use_cache=False).logits[0]
        scored = logits[len(row.prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(scored, torch.tensor(row.target), reduction="sum").item()
    value, _ = gradient(base, next(base.model.parameters()).requires_grad_(), rows)
    assert value == pytest.approx(total / 6, rel=1e-5)


# law


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=5), st.randoms())
def test_rows_do_not_see_each_other(small: Base, lengths: list[tuple[int, int]], random: object) -> None:
    """In any order, and with anything in the others, a row's share of the loss is its own."""
    rows = rows_of(lengths, small.model.config.vocab_size)
    weight = next(iter(small.slots.values())).base.weight.requires_grad_()
    counts = [len(row.target) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "packs", lambda *_: True)
        try:
            alone = [backward(small, [[row]], 1)[0] for row in rows]
            (together,) = backward(small, [rows], 1)
            (turned,) = backward(small, [rows[::-1]], 1)
        finally:
            weight.requires_grad_(False).grad = None
    assert together == pytest.approx(np.dot(alone, counts) / sum(counts), rel=1e-5)
    assert turned == pytest.approx(together, rel=1e-5)


# edge


def test_what_cannot_be_packed_is_padded(small: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven: list[Pair] = [((1,) * 2, (2,) * 2), ((1,) * 250, (2,) * 2)]
    assert packs(small, uneven)
    assert not packs(small, [*uneven, ((), (2,))])
    name, slot = next(iter(small.slots.items()))
    plain = Mixture(torch.zeros(2, slot.base.in_features), torch.zeros(slot.base.out_features, 2), None, 1)
    with holding(small.slots, {name: plain}):
        assert packs(small, uneven)
    with holding(small.slots, {name: replace(plain, counts=torch.zeros(2))}):
        assert not packs(small, uneven)  # what padding chooses would no longer be counted
    for setting, value in (
        ("_attn_implementation_internal", "eager"),
        ("model_type", "unheard"),
        ("layer_types", ["sliding_attention"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(small.model.config, setting, value)
            assert not packs(small, uneven)


def test_afterwards_the_model_attends_as_before(
    small: Base, trained: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "packs", lambda *_: True)
    gradient(small, trained, rows_of([(3, 2), (5, 1)], 8))
    assert small.model.config._attn_implementation == "sdpa"
