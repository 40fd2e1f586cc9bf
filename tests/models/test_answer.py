"""How a bank answers, against generation, full log-likelihoods and one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answering import (
    FAMILY_NAMES,
    expert,
    generated,
    guesses,
    hooked,
    inputs_of_all_layers,
    likeliest,
    log_likelihood,
    outputs_of,
    update,
)

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.experts.sketch import task_sketch
from orthomesh.models import answer as module
from orthomesh.models.answer import answer, choose, prompt_means, prompt_sketches
from orthomesh.models.base import Base, load_base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import holding
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.skills import SKILLS, skill_example
from orthomesh.types import Bank, Check, Choice, Example


def test_exact_match_is_what_greedy_decoding_produces(embedded: Base) -> None:
    rng = np.random.default_rng(3)
    asked = [
        skill_example(SKILLS[word], rng) for word in ("flip", "caps", "last", "swap", "plus", "next") for _ in "ab"
    ]
    rows = tokenise(embedded, asked, "skills")
    made = [generated(embedded, row.prompt) for row in rows]
    answers = answer(embedded, Bank(experts=()), rows)
    assert answers.right.tolist() == [row.target == out for row, out in zip(rows, made, strict=True)]
    assert answers.right.any()
    assert answers.chosen.tolist() == [-1] * len(rows)
    # what it produces is right by definition; one token more, less or other is not
    told = [row._replace(target=out) for row, out in zip(rows, made, strict=True) if out[-1] == 1]
    assert len(told) > 6
    spoilt = [
        row._replace(target=change) for row in told for change in ((*row.target[:-2], 1), (*row.target[:-1], 66, 1))
    ]
    spoilt += [row._replace(target=((row.target[0] + 1) % 258, *row.target[1:])) for row in told]
    assert answer(embedded, Bank(experts=()), told).right.all()
    assert not answer(embedded, Bank(experts=()), spoilt).right.any()


def test_exact_match_with_an_expert(embedded: Base) -> None:
    one = expert(embedded, 5, size=0.02)
    rows = tokenise(embedded, [Example(f"flip {text}=", "x") for text in ("abcd", "zy", "12", "q", "hello")], "x")
    with holding(embedded.slots, adapters(embedded, one.A, one.B)):
        made = [generated(embedded, row.prompt) for row in rows]
    assert made != [generated(embedded, row.prompt) for row in rows]
    told = [row._replace(target=out) for row, out in zip(rows, made, strict=True)]
    assert answer(embedded, Bank(experts=(one,)), told).right.all()
    assert not answer(embedded, Bank(experts=()), told).right.all()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_likeliest_choice_is_that_of_full_passes(family: str, save_model: Callable[[str], Path]) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    rows = guesses(20, num_choices=(4, 2))
    expected = likeliest(base, rows)
    assert 0 < sum(expected) < len(rows)
    assert answer(base, Bank(experts=()), rows).right.tolist() == expected


def test_choices_on_paper(small: Base) -> None:
    prompt, one, two = (5, 6, 7), (8, 1), (9, 30, 1)
    best = max((one, two), key=lambda choice: log_likelihood(small, prompt, choice))
    rows = [Row(prompt, target, (one, two), False) for target in (one, two)]
    assert answer(small, Bank(experts=()), rows).right.tolist() == [best == one, best == two]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_prompt_means_are_those_of_prompts_alone(family: str, save_model: Callable[[str], Path]) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    rows = guesses(5)
    means = prompt_means(base, rows)
    assert means.shape == (5, sum(base.widths))
    for mean, row in zip(means, rows, strict=True):
        alone = inputs_of_all_layers(base, row.prompt)
        np.testing.assert_allclose(mean, torch.cat([alone[name] for name in base.inputs]), atol=1e-5)


def test_only_the_first_expert_answers(small: Base) -> None:
    rows = guesses(20)
    one, two = expert(small, 4), replace(expert(small, 2), code=None)
    answers = answer(small, Bank(experts=(two, one)), rows)
    with holding(small.slots, adapters(small, two.A, two.B)):
        assert answers.right.tolist() == likeliest(small, rows)
    assert set(answers.chosen) == {2}
    alone = answer(small, Bank(experts=(two,), choice="nearest"), rows)  # nothing to choose, so no code is needed
    assert alone.right.tolist() == answers.right.tolist()


def test_an_empty_bank_is_the_base(small: Base) -> None:
    rows = guesses(20)
    expected = likeliest(small, rows)
    choices: tuple[Choice, ...] = ("only", "discriminant", "nearest", "topk", "norm", "arrow")
    for choice in choices:
        answers = answer(small, Bank(experts=(), choice=choice, refuses=True, soft=True), rows)
        assert answers.right.tolist() == expected
        assert set(answers.chosen) == {-1}
    silent = replace(expert(small, 1), B=np.zeros(small.layout.num_expansion, dtype=np.float32))
    assert answer(small, Bank(experts=(silent,)), rows).right.tolist() == expected


@pytest.mark.parametrize("family", ["qwen2", "phi"])  # layers that read one input follow one another, or not
@pytest.mark.parametrize(
    ("top_k", "gated", "scope"),
    [(0, False, "joint"), (5, False, "joint"), (5, True, "joint"), (2, True, "expert"), (5, False, "signed")],
)
def test_mixture_in_every_layer(
    family: str, top_k: int, gated: bool, scope: Any, save_model: Callable[[str], Path]
) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    rows, experts = [row._replace(choices=()) for row in guesses(5)], [expert(base, owner) for owner in range(3)]
    a = {e.owner: dict(zip(base.slots, matrices_a(e.A, base.layout), strict=True)) for e in experts}
    b = {e.owner: dict(zip(base.slots, matrices_b(e.B, base.layout), strict=True)) for e in experts}
    codes: dict[int, dict[str, torch.Tensor]] = {}
    for n, e in enumerate(experts):
        codes[e.owner] = inputs_of_all_layers(base, rows[n].prompt)
        flat = torch.cat([codes[e.owner][name] for name in base.inputs]).numpy()
        experts[n] = replace(e, code=flat)

    def all_experts(name: str, x: torch.Tensor) -> torch.Tensor:
        parts = []
        for owner in a:
            z = base.scaling * x @ torch.from_numpy(a[owner][name]).T
            if gated:
                z = z * torch.cosine_similarity(x, codes[owner][name], dim=-1)[..., None]
            parts.append(z)
        groups = [torch.cat(parts, dim=-1)] if scope != "expert" else parts
        for n, z in enumerate(groups if top_k else ()):
            size = z if scope == "signed" else z.abs()
            groups[n] = z * (size >= size.sort(descending=True).values[..., top_k - 1 : top_k])
        return torch.cat(groups, dim=-1) @ torch.cat([torch.from_numpy(b[owner][name]) for owner in a], dim=1).T

    bank = Bank(experts=tuple(experts), choice="topk", top_k=top_k, gated=gated, scope=scope)
    for row in rows:
        with outputs_of(base) as outs:
            assert answer(base, bank, [row]).chosen.tolist() == [-1]
        ids = torch.tensor([[*row.prompt, *row.target]])
        with torch.no_grad():
            plain = base.model(input_ids=ids).logits[0, -outs[-1].shape[1] :]
            with hooked(base, all_experts):
                expected = base.model(input_ids=ids).logits[0, -outs[-1].shape[1] :]
        torch.testing.assert_close(outs[-1][0], expected, atol=1e-4, rtol=1e-4)
        assert (expected - plain).abs().max() > 0.1


@pytest.mark.parametrize("family", ["qwen2", "phi"])
@pytest.mark.parametrize("rule", ["norm", "arrow"])
def test_whole_experts_in_every_layer(family: str, rule: Choice, save_model: Callable[[str], Path]) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    rows = [row._replace(choices=()) for row in guesses(4)]
    experts = tuple(expert(base, owner, size=0.03 * (1 + owner % 2)) for owner in range(5))
    added = [update(base, e, 1.0) for e in experts]
    directions = {name: torch.stack([torch.linalg.svd(u[name]).Vh[0] for u in added]) for name in base.slots}

    def weighed(name: str, x: torch.Tensor) -> torch.Tensor:
        each = torch.stack([x @ u[name].T for u in added], dim=-2)
        if rule == "norm":
            best = each.norm(dim=-1).argmax(-1)
            return each.gather(-2, best[..., None, None].expand(*best.shape, 1, each.shape[-1]))[..., 0, :]
        along = (x @ directions[name].T).abs()
        third = along.sort(dim=-1, descending=True).values[..., 2:3]
        return (along.masked_fill(along < third, -torch.inf).softmax(-1)[..., None] * each).sum(-2)

    for row in rows:
        with outputs_of(base) as outs:
            assert answer(base, Bank(experts=experts, choice=rule), [row]).chosen.tolist() == [-1]
        ids = torch.tensor([[*row.prompt, *row.target]])
        with torch.no_grad():
            plain = base.model(input_ids=ids).logits[0, -outs[-1].shape[1] :]
            with hooked(base, weighed):
                expected = base.model(input_ids=ids).logits[0, -outs[-1].shape[1] :]
        torch.testing.assert_close(outs[-1][0], expected, atol=1e-3, rtol=1e-3)
        assert (expected - plain).abs().max() > 0.1


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_order_and_batches_do_not_matter(small: Base, batch: int) -> None:
    order = np.random.default_rng(batch).permutation(12)
    choosing, free = guesses(9, num_choices=(3, 2)), guesses(3, seed=1)
    rows = [*choosing, *(row._replace(choices=(), target=generated(small, row.prompt)[:2]) for row in free)]
    experts = tuple(replace(expert(small, n), code=mean) for n, mean in enumerate(prompt_means(small, rows[:2])))
    told = task_sketch(prompt_sketches(small, rows[:5], 1, 8)), task_sketch(prompt_sketches(small, rows[5:], 1, 8))
    sketched = tuple(replace(e, sketch=s) for e, s in zip(experts, told, strict=True))
    once = Bank(experts=sketched, choice="discriminant", soft=True, refuses=True)
    assert 0 < (choose(small, once, rows).weight < 1).sum() < len(rows)
    per_token = Bank(experts=experts, choice="topk")
    for bank in (Bank(experts=()), Bank(experts=experts, choice="nearest"), once, per_token):
        whole = answer(small, bank, rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BATCH", batch)
            patch.setattr(module, "SHARED", batch)
            shuffled = answer(small, bank, [rows[n] for n in order])
        assert shuffled.right.tolist() == whole.right[order].tolist()
        assert shuffled.chosen.tolist() == whole.chosen[order].tolist()


def test_slots_are_empty_afterwards(small: Base) -> None:
    answer(small, Bank(experts=(expert(small, 0),)), guesses(3))
    assert all(slot.held is None for slot in small.slots.values())


def test_a_model_whose_likelihoods_are_no_numbers_has_chosen_nothing(small: Base) -> None:
    """The first of the choices, or the first token, would be the largest of no numbers."""
    lost = replace(expert(small, 1), B=np.full(small.layout.num_expansion, np.nan, dtype=np.float32))
    rows = guesses(6)
    rows += [row._replace(target=row.choices[0]) for row in rows if row.choices]
    rows += [rows[0]._replace(choices=(), target=(0, 0))]
    answers = answer(small, Bank(experts=(lost,)), rows)
    assert not answers.right.any()
    assert answers.undecided == tuple(range(len(rows)))
    assert answer(small, Bank(experts=(expert(small, 1),)), rows).undecided == ()
    nothing = np.full(2, np.nan)
    row = Row((5,), (7, 1), ((7, 1), (8, 1)), False)
    assert module._together(row, nothing, np.log([0.5, 0.5]), np.log([0.5, 0.5])) == module.UNDECIDED
    free = row._replace(choices=(), target=(0, 1))
    assert module._together(free, np.full((2, 9), np.nan), np.zeros((2, 9)), np.zeros(2)) == module.UNDECIDED


@pytest.mark.parametrize(
    ("named", "said"), [("one", "dcba"), ("letter", "dc"), ("both", "dc"), ("none", "dcba")], ids=lambda word: word
)
def test_what_is_written_ends_at_every_end_token_of_the_model(
    named: str, said: str, embedded: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat models name several, as of a turn beside that of a text; here one is the letter c."""
    row = tokenise(embedded, [Example("flip abcd=", "dcba", check=Check("number", "", "1"))], "x")[0]
    one, letter = embedded.eos_id, embedded.tokenizer("c", add_special_tokens=False)["input_ids"][-1]
    ends: Any = {"one": one, "letter": letter, "both": [one, letter], "none": None}[named]
    monkeypatch.setattr(embedded.model.generation_config, "eos_token_id", ends)
    assert module.write(embedded, row, 20) == said
    if ends is not None:  # else generate ends at nothing
        assert embedded.tokenizer.decode(generated(embedded, row.prompt), skip_special_tokens=True) == said


def test_a_checked_answer_is_written_as_generate_writes_it() -> None:
    """Greedy, with an expert worn, until the end token or the context is full."""
    base = load_base(ModelSettings())
    bank = Bank(experts=(expert(base, 0, size=0.02),))
    rows = [Row(tuple(range(5, 5 + n)), (7, base.eos_id), (), False, Check("number", "", "1")) for n in (3, 9)]
    found = answer(base, bank, rows)
    assert not found.right.any()
    with holding(base.slots, adapters(base, bank.experts[0].A, bank.experts[0].B)):
        for n, row in enumerate(rows):
            ids = torch.tensor([row.prompt])
            room = min(module.LONGEST_ANSWER, base.max_length - len(row.prompt))
            made = base.model.generate(  # type: ignore[operator]
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=room,
                eos_token_id=base.eos_id, pad_token_id=base.pad_id,
            )[0, len(row.prompt) :]  # fmt: skip
            assert found.written[n] == base.tokenizer.decode(made, skip_special_tokens=True)
