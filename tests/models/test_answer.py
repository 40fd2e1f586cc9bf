"""How a bank answers, against generation, full log-likelihoods and one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.models import answer as module
from orthomesh.models.answer import answer, prompt_means
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import holding
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.skills import SKILLS, skill_example
from orthomesh.types import Bank, Example, Expert

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


def test_nearest_code_answers(small: Base) -> None:
    rows = guesses(30)
    means = prompt_means(small, rows)
    experts = [replace(expert(small, owner), code=means[n]) for n, owner in enumerate((7, 3, 9))]
    answers = answer(small, Bank(experts=tuple(experts), choice="nearest"), rows)
    assert answers.chosen[:3].tolist() == [7, 3, 9]  # whose code is the prompt itself
    centre = np.mean([e.code for e in experts], axis=0)
    cuts = np.cumsum(small.widths)[:-1]
    alone = {e.owner: answer(small, Bank(experts=(e,)), rows) for e in experts}
    for n, mean in enumerate(means):
        votes = []
        for e in experts:
            pairs = zip(np.split(mean - centre, cuts), np.split(e.code - centre, cuts), strict=True)
            votes.append(sum(x @ h / np.linalg.norm(x) / np.linalg.norm(h) for x, h in pairs))
        owner = experts[int(np.argmax(votes))].owner
        assert answers.chosen[n] == owner
        assert answers.right[n] == alone[owner].right[n]
    assert len({tuple(a.right) for a in alone.values()}) == 3  # or it would not matter who answers


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
    for choice in ("only", "nearest", "topk"):
        answers = answer(small, Bank(experts=(), choice=choice), rows)
        assert answers.right.tolist() == likeliest(small, rows)
        assert set(answers.chosen) == {-1}
    silent = replace(expert(small, 1), B=np.zeros(small.layout.num_expansion, dtype=np.float32))
    assert answer(small, Bank(experts=(silent,)), rows).right.tolist() == likeliest(small, rows)


@pytest.mark.parametrize("family", ["qwen2", "phi"])  # layers that read one input follow one another, or not
@pytest.mark.parametrize(("top_k", "gated"), [(0, False), (5, False), (5, True)])
def test_mixture_in_every_layer(family: str, top_k: int, gated: bool, save_model: Callable[[str], Path]) -> None:
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
        z = torch.cat(parts, dim=-1)
        if top_k:
            z = z * (z.abs() >= z.abs().sort(descending=True).values[..., top_k - 1 : top_k])
        return z @ torch.cat([torch.from_numpy(b[owner][name]) for owner in a], dim=1).T

    bank = Bank(experts=tuple(experts), choice="topk", top_k=top_k, gated=gated)
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


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_order_and_batches_do_not_matter(small: Base, batch: int) -> None:
    order = np.random.default_rng(batch).permutation(12)
    choosing, free = guesses(9, num_choices=(3, 2)), guesses(3, seed=1)
    rows = [*choosing, *(row._replace(choices=(), target=generated(small, row.prompt)[:2]) for row in free)]
    experts = tuple(replace(expert(small, n), code=mean) for n, mean in enumerate(prompt_means(small, rows[:2])))
    for bank in (Bank(experts=()), Bank(experts=experts, choice="nearest"), Bank(experts=experts, choice="topk")):
        whole = answer(small, bank, rows)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BATCH", batch)
            shuffled = answer(small, bank, [rows[n] for n in order])
        assert shuffled.right.tolist() == whole.right[order].tolist()
        assert shuffled.chosen.tolist() == whole.chosen[order].tolist()


def test_an_expert_without_a_code_cannot_be_chosen_by_it(small: Base) -> None:
    experts = (expert(small, 0), replace(expert(small, 1), code=None))
    for bank in (Bank(experts=experts, choice="nearest"), Bank(experts=experts, choice="topk", gated=True)):
        with pytest.raises(ValueError, match="without a task code cannot be chosen"):
            answer(small, bank, guesses(2))
    assert all(slot.held is None for slot in small.slots.values())


def test_slots_are_empty_afterwards(small: Base) -> None:
    answer(small, Bank(experts=(expert(small, 0),)), guesses(3))
    assert all(slot.held is None for slot in small.slots.values())
