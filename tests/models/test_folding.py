"""Experts folded into a copy of the weights: the same answers, the base untouched, one copy and no more."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.adapters.projection import projection
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.attach import attach, fingerprint, said
from orthomesh.models.bank_io import Portable
from orthomesh.models.cache import cache_of, cached
from orthomesh.models.folding import FOLD_AFTER, fold, holds
from orthomesh.models.inject import AdaptedLinear, Adapter, Folded, adapt
from orthomesh.types import Bank, Expert

NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")


@pytest.fixture
def model() -> Any:
    """A random Qwen2 of two blocks."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.3, eos_token_id=None, pad_token_id=0,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


def bank_of(model: Any, **rules: Any) -> Portable:
    """Two experts that split the space of prompts between them."""
    layout = Layout((Shape(NAMES[0], 16, 16), Shape(NAMES[1], 16, 24)), 2)
    experts = []
    for n in range(2):
        rng = np.random.default_rng(n)
        B = rng.standard_normal(layout.num_expansion).astype(np.float32)
        told = task_sketch(rng.standard_normal((40, 8)) + n)
        experts.append(Expert(owner=n, A=projection(n, layout), B=B, sketch=told))
    bank = Bank(experts=tuple(experts), choice="discriminant", **rules)
    return Portable(
        bank=bank, labels=("a", "b"), layout=layout, scaling=2.0, base_model="random", fingerprint=fingerprint(model)
    )


def one_of_each(model: Any) -> list[torch.Tensor]:
    """A prompt of each expert."""
    asked = torch.randint(2, 64, (12, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(input_ids=asked)
    labels = [who.label for who in said(model)]
    return [asked[labels.index(label)][None] for label in ("a", "b")]


def grown(model: Any, ids: torch.Tensor, num: int = FOLD_AFTER + 3, **how: Any) -> list[list[int]]:
    """Tokens of an answer."""
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num, **how)
    found: list[list[int]] = out.tolist()
    return found


def held(model: nn.Module) -> list[Any]:
    return [m.held for m in model.modules() if isinstance(m, AdaptedLinear)]


def slots_of(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Mapping[str, AdaptedLinear], dict[str, Adapter]]:
    draw = torch.Generator().manual_seed(seed)
    d, k, r = (int(v) for v in torch.randint(1, 9, (3,), generator=draw))
    slots = adapt(nn.Sequential(nn.Linear(k, d)).to(dtype), ("0",))
    A, B = torch.randn(r, k, generator=draw).to(dtype), torch.randn(d, r, generator=draw).to(dtype)
    return slots, {"0": Adapter(A, B, 0.5)}


def test_weights_on_paper() -> None:
    slots = adapt(nn.Sequential(nn.Linear(2, 2, bias=False)), ("0",))
    slots["0"].base.weight.data = torch.eye(2)
    own = {"0": Adapter(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]]), 2.0)}
    kept = fold(7, slots, own, None)
    assert kept.held["0"].weight.tolist() == [[7.0, 12.0], [0.0, 1.0]]
    assert holds(kept, 7, slots)
    assert not holds(kept, 6, slots)
    assert not holds(None, 7, slots)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_folded_layer_is_the_adapted_one_and_the_base_is_untouched(seed: int) -> None:
    slots, own = slots_of(seed)
    slot, before = slots["0"], slots["0"].base.weight.detach().clone()
    x = torch.randn(3, slot.base.in_features, generator=torch.Generator().manual_seed(seed))
    slot.held = own["0"]
    expected = slot(x)
    slot.held = fold(0, slots, own, None).held["0"]
    torch.testing.assert_close(slot(x), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(slot.base.weight, before)


def test_memory_is_written_over_where_it_fits() -> None:
    slots, own = slots_of(1)
    first = fold(0, slots, own, None)
    with torch.inference_mode():
        second = fold(1, slots, {"0": own["0"]._replace(scale=2.0)}, first)
    assert second.held["0"].weight.data_ptr() == first.held["0"].weight.data_ptr()
    assert fold(2, slots, own, second).held["0"].weight is second.held["0"].weight  # made in inference mode or not
    slots["0"].base.bfloat16()
    half = fold(0, slots, {"0": Adapter(own["0"].A.bfloat16(), own["0"].B.bfloat16())}, second)
    assert half.held["0"].weight.dtype == torch.bfloat16


@torch.no_grad()
def test_other_weights_are_not_what_was_folded() -> None:
    slots, own = slots_of(2)
    kept = fold(0, slots, own, None)
    slots["0"].base.weight.mul_(2)
    assert not holds(kept, 0, slots)
    kept = fold(0, slots, own, kept)
    assert holds(kept, 0, slots)
    slots["0"].base.double()
    assert not holds(kept, 0, slots)


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"num_beams": 2}])
def test_answers_are_the_same_and_one_copy_is_kept(model: Any, how: dict[str, Any]) -> None:
    plain, folded = attach(bank_of(model), copy.deepcopy(model)), attach(bank_of(model), model, folded=True)
    weights = [w.detach().clone() for w in folded.parameters()]
    a, b = one_of_each(folded)
    places = []
    for ids in (a, b, b, a):
        assert grown(folded, ids, **how) == grown(plain, ids, **how)
        assert [who.label for who in said(folded)] == [who.label for who in said(plain)]
        assert all(isinstance(one, Folded) for one in held(folded))
        assert not any(isinstance(one, Folded) for one in held(plain))
        places.append([one.weight.data_ptr() for one in held(folded)])
    assert all(place == places[0] for place in places)
    assert all(torch.equal(w, old) for w, old in zip(folded.parameters(), weights, strict=True))


def test_short_answers_and_mixed_batches_are_not_folded(model: Any) -> None:
    attach(bank_of(model), model, folded=True)
    a, b = one_of_each(model)
    grown(model, a, FOLD_AFTER)  # the first token comes with the prompt
    assert not any(isinstance(one, Folded) for one in held(model))
    grown(model, torch.cat([a, b]))
    assert not any(isinstance(one, Folded) for one in held(model))
    grown(model, torch.cat([a, a]))
    assert all(isinstance(one, Folded) for one in held(model))
    with torch.no_grad():
        model(input_ids=a)  # a prompt of the one that is there finds it
        assert all(isinstance(one, Folded) for one in held(model))
        model(input_ids=b)
    assert not any(isinstance(one, Folded) for one in held(model))


@pytest.mark.parametrize(("rules", "changes"), [({"refuses": True}, {"reach": 1e-6}), ({"soft": True}, {"mean": 0.0})])
def test_strangers_and_shared_rows_are_not_folded(
    model: Any, rules: dict[str, bool], changes: dict[str, float]
) -> None:
    told = bank_of(model, **rules)
    a, _ = one_of_each(attach(told, copy.deepcopy(model)))
    same = told.bank.experts[0].sketch  # of both: nobody can tell them apart
    assert same is not None
    sketch = same._replace(**{name: np.float32(value) * getattr(same, name) for name, value in changes.items()})
    experts = tuple(replace(e, sketch=sketch) for e in told.bank.experts)
    attach(replace(told, bank=replace(told.bank, experts=experts)), model, folded=True)
    grown(model, a)
    assert [(who.label, who.weight) for who in said(model)] == [(None, 1.0) if "reach" in changes else ("a", 0.5)]
    assert not any(isinstance(one, Folded) for one in held(model))


def test_a_copy_folds_by_itself_and_weights_may_change(model: Any) -> None:
    attach(bank_of(model), model, folded=True)
    a, _ = one_of_each(model)
    before = grown(model, a)
    other = copy.deepcopy(model)
    assert grown(other, a) == before
    assert held(other)[0].weight.data_ptr() != held(model)[0].weight.data_ptr()
    with torch.no_grad():
        other.get_submodule(NAMES[1] + ".base").weight.mul_(-3)
    with torch.no_grad():
        other(input_ids=a)
    assert not any(isinstance(one, Folded) for one in held(other))  # what was folded is of other weights
    fresh = copy.deepcopy(other)
    fresh.orthomesh.folds = False
    assert grown(other, a) == grown(fresh, a)
    assert grown(model, a) == before


@torch.no_grad()
def test_an_answer_that_grows_by_hand(model: Any) -> None:
    attach(bank_of(model), model, folded=True)
    a, _ = one_of_each(model)
    cache = cache_of(model(input_ids=a, use_cache=True))
    for n in range(FOLD_AFTER + 1):
        assert all(isinstance(one, Folded) for one in held(model)) == (n >= FOLD_AFTER)
        model(input_ids=a[:, :1], use_cache=True, **cached(model, cache))
