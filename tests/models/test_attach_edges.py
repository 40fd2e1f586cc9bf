"""A bank on a Hugging Face model at its edges: other types, copies, caches, fingerprints, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attached import GREEDY, STRANGER, TASKS, Model, bank_of, batch, by, counting, generated, logits, under
from torch import nn

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.adapters.projection import projection
from orthomesh.models.attach import Said, attach, fingerprint, said
from orthomesh.models.bank_io import Portable
from orthomesh.models.base import Base
from orthomesh.models.cache import cache_of, cached
from orthomesh.models.inject import AdaptedLinear, adapt
from orthomesh.types import Bank


def test_who_is_said_before_and_without_a_choice(told: Portable, plain: Model, tokenizer: Any) -> None:
    model = attach(under(told, choice="only"), plain())
    assert said(model) == ()
    with counting(model, "model.layers.0.self_attn.q_proj") as passes:
        logits(model, batch(tokenizer, ["morv abc=", STRANGER]))
    assert said(model) == (Said("zelk", 1.0, 1.0, None, 0.0),) * 2
    assert len(passes) == 1
    with pytest.raises(ValueError, match=r"this model has no bank of experts; put one on it with orthomesh\.load"):
        said(plain())


def test_a_single_expert_answers_all_but_strangers(
    told: Portable, embedded: Base, plain: Model, prompts: list[str], tokenizer: Any
) -> None:
    alone = replace(told, bank=replace(told.bank, experts=told.bank.experts[1:2]), labels=("morv",))
    tokens = batch(tokenizer, [prompts[1], STRANGER])
    model = attach(alone, plain())
    scores = logits(model, tokens)
    assert [who.label for who in said(model)] == ["morv", "morv"]
    with by(embedded, told, "morv"):
        torch.testing.assert_close(scores, logits(embedded.model, tokens), atol=1e-4, rtol=1e-4)
    careful = attach(under(alone, refuses=True), plain())
    logits(careful, tokens)
    assert [(who.label, who.second) for who in said(careful)] == [("morv", None), (None, None)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_bfloat16(told: Portable, plain: Model, prompts: list[str], tokenizer: Any, when: str) -> None:
    model = plain().to(torch.bfloat16) if when == "before" else plain()
    attach(under(told, refuses=True), model)
    if when == "after":  # a model may move once it has its bank
        logits(model, batch(tokenizer, prompts))
        model.to(torch.bfloat16)
    scores = logits(model, batch(tokenizer, prompts))
    assert scores.dtype == torch.bfloat16
    assert [who.label for who in said(model)] == [*TASKS, None]
    exact = logits(attach(under(told, refuses=True), plain()), batch(tokenizer, prompts))[:, -1]
    off = (scores[:, -1].float() - exact).norm() / exact.norm()
    assert off < 0.05  # eight bits, through three blocks
    assert len(generated(model, batch(tokenizer, prompts))) == 5


def test_a_copy_of_a_model_chooses_by_itself(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    for bank in (told, bank_of(upper)):
        model = attach(bank, plain())
        other = copy.deepcopy(model)
        logits(model, batch(tokenizer, ["zelk abc="]))
        logits(other, batch(tokenizer, ["morv abc=", "quib abc="]))
        assert [who.label for who in said(model)] == ["zelk"]
        assert [who.label for who in said(other)] == ["morv", "quib"]


def test_the_base_can_still_be_saved(
    told: Portable, plain: Model, prompts: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = attach(told, plain())
    generated(model, batch(tokenizer, prompts))
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert fingerprint(again) == told.fingerprint
    assert torch.equal(logits(again, batch(tokenizer, prompts)), logits(plain(), batch(tokenizer, prompts)))
    whole = pickle.loads(pickle.dumps(model))
    assert generated(whole, batch(tokenizer, prompts)) == generated(model, batch(tokenizer, prompts))


def test_fingerprint_on_paper() -> None:
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[0.5, -1.0]]), torch.tensor([3.0])
    written = (
        b"weight|(1, 2)|" + np.array([0.5, -1.0], "<f4").tobytes() + b"bias|(1,)|" + np.array([3.0], "<f4").tobytes()
    )
    assert fingerprint(model) == hashlib.sha256(written).hexdigest()


def test_fingerprints(plain: Model) -> None:
    model = plain()
    print_ = fingerprint(model)
    assert fingerprint(plain().to(torch.bfloat16)) == print_
    adapt(model, ("model.layers.0.self_attn.q_proj", "lm_head"))
    assert fingerprint(model) == print_
    model.get_submodule("model.layers.1.mlp.down_proj").weight.data[0, 0] += 0.5
    assert fingerprint(model) != print_
    other = plain()
    other.resize_token_embeddings(260)
    assert fingerprint(other) != print_
    for num in (1, 63, 64, 65, 127, 128, 5000):  # however long a row, its first number is looked at
        row = nn.Linear(num, 1, bias=False)
        before = fingerprint(row)
        row.weight.data[0, 0] += 1
        assert fingerprint(row) != before


def test_banks_that_cannot_be_put_on_a_model(told: Portable, plain: Model) -> None:
    model = plain()
    spoilt = plain()
    spoilt.lm_head.weight.data[0, 0] += 1
    prints = told.fingerprint[:12], fingerprint(spoilt)[:12]
    words = f"trained on embedded .fingerprint {prints[0]}.*in torch.float32 .fingerprint {prints[1]}"
    with pytest.raises(ValueError, match=words):
        attach(told, spoilt)
    for choice in ("nearest", "topk", "norm", "arrow"):
        with pytest.raises(ValueError, match=f"a bank chosen by '{choice}' cannot be put on a model for generation"):
            attach(under(told, choice=choice), model)
    with pytest.raises(ValueError, match="a bank without experts has nothing to answer with"):
        attach(replace(told, bank=Bank(experts=()), labels=()), model)
    untold = replace(told.bank.experts[2], sketch=None)
    with pytest.raises(ValueError, match="expert quib has no task sketch, and this bank chooses by task sketch"):
        attach(under(told, experts=(*told.bank.experts[:2], untold, told.bank.experts[3])), model)
    with pytest.raises(ValueError, match="cannot read 4 blocks of a model that has 3"):
        attach(under(told, blocks=4), model)
    for shape, words in (
        (
            Shape("model.layers.9.mlp.up_proj", 256, 96),
            r"linear layer model\.layers\.9\.mlp\.up_proj, this model has nothing",
        ),
        (Shape("model.norm", 96, 96), r"linear layer model\.norm, this model has a layer of type Qwen2RMSNorm"),
        (Shape("model.layers.0.mlp.up_proj", 250, 96), r"up_proj of this model is 256 x 96, the bank's 250 x 96"),
    ):
        layout = Layout((*told.layout.shapes[:2], shape), 16)
        experts = tuple(
            replace(e, A=projection(0, layout), B=np.zeros(layout.num_expansion, np.float32)) for e in told.bank.experts
        )
        with pytest.raises(ValueError, match=words):
            attach(replace(told, bank=replace(told.bank, experts=experts), layout=layout), model)
    # what was refused left the model as it was
    assert not any(isinstance(m, AdaptedLinear) for m in model.modules())
    attach(told, model)
    with pytest.raises(ValueError, match="this model has a bank of experts already"):
        attach(told, model)


def test_prompts_that_cannot_be_read(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    for bank in (told, bank_of(upper)):
        model = attach(bank, plain())
        with pytest.raises(ValueError, match="a prompt without a token has nothing to choose an expert by"):
            model.generate(torch.zeros(1, 0, dtype=torch.long), **GREEDY)
        tokens = batch(tokenizer, ["zelk abc=", "morv abc="])
        tokens["attention_mask"][1] = 0
        with pytest.raises(ValueError, match="a prompt without a token"):
            model(**tokens)
        embeds = model.get_input_embeddings()(tokens["input_ids"])
        with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
            model(inputs_embeds=embeds)
        with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
            model.generate(inputs_embeds=embeds, **GREEDY)


def test_a_prompt_longer_than_the_context(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    for bank in (told, bank_of(upper)):
        model, ids = attach(bank, plain()), torch.full((2, 66), 7)
        assert model.config.max_position_embeddings == 64
        mask = torch.ones_like(ids)
        mask[:, :2] = 0  # padding does not count
        assert model(ids, attention_mask=mask).logits.shape[:2] == (2, 66)
        with pytest.raises(ValueError, match="a prompt of 66 tokens exceeds the model's context of 64; shorten it"):
            model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)
        assert len(said(model)) == 0  # nobody answered
        assert model.generate(ids[:, :62], **GREEDY).shape[1] > 62


@torch.no_grad()
def test_a_cache_of_other_prompts(told: Portable, upper: Base, plain: Model, tokenizer: Any) -> None:
    one, other, more = batch(tokenizer, ["zelk abc="]), batch(tokenizer, ["morv abc="]), torch.tensor([[7]])
    words = "this cache is not of the prompts that the bank read last: pass whole prompts"
    for bank in (told, bank_of(upper)):
        model = plain()
        cache = cache_of(model(**one))  # of the base, before there was a bank
        attach(bank, model)
        with pytest.raises(ValueError, match=words):
            model(input_ids=more, **cached(model, cache))
        cache = cache_of(model(**one))
        for _ in range(2):  # an answer grows by hand
            cache = cache_of(model(input_ids=more, **cached(model, cache)))
        with pytest.raises(ValueError, match=words):
            model(input_ids=more, **cached(model, copy.deepcopy(cache)))
        model(**other)
        with pytest.raises(ValueError, match=words):  # it would be answered by the expert of the others
            model(input_ids=more, **cached(model, cache))
        cache = model(**one, return_dict=False)[1]
        model(input_ids=more, **cached(model, cache))
        with pytest.raises(ValueError, match="a prompt without a token"):
            model(input_ids=more[:, :0])
        with pytest.raises(ValueError, match=words):  # it would be answered by the base
            model(input_ids=more, **cached(model, cache))
        assert said(model) == ()
