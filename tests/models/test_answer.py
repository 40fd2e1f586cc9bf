"""How a bank answers, against generation, full log-likelihoods and one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.experts.router import classes, discriminate
from orthomesh.experts.sketch import sketch, task_sketch
from orthomesh.models import answer as module
from orthomesh.models.answer import answer, answer_shared, choose, prompt_means, prompt_sketches
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import holding
from orthomesh.models.reading import read_prompts, reading_points, widths
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.skills import SKILLS, skill_example
from orthomesh.types import Bank, Check, Choice, Example, Expert

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


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_prompts_find_the_expert_of_their_task(small: Base, blocks: int) -> None:
    rows, experts = tasks(small, 3, blocks)
    answers = answer(small, Bank(experts=experts, choice="discriminant", blocks=blocks), rows)
    assert answers.chosen.tolist() == [20] * 10 + [21] * 10 + [22] * 10
    alone = {e.owner: answer(small, Bank(experts=(e,)), rows).right for e in experts}
    assert answers.right.tolist() == [alone[owner][n] for n, owner in enumerate(answers.chosen.tolist())]
    assert len({tuple(right) for right in alone.values()}) == 3  # or it would not matter who answers


def test_verdicts_are_those_of_each_prompt_alone(small: Base) -> None:
    rows, experts = tasks(small, 3, blocks=1, mixed=0.7)
    points = reading_points(small.model, 1)
    means = [read_prompts(small.model, points, torch.tensor([row.prompt]), None) for row in rows]
    seen = sketch(np.concatenate(means), widths(small.model, points), 16)
    np.testing.assert_allclose(prompt_sketches(small, rows, 1, 16), seen, atol=1e-5)
    expected = discriminate(seen, classes([e.sketch for e in experts if e.sketch is not None]))
    verdict = choose(small, Bank(experts=experts, choice="discriminant"), rows)
    np.testing.assert_array_equal(verdict.best, expected.best)
    np.testing.assert_allclose(verdict.probability, expected.probability, rtol=1e-3)
    np.testing.assert_allclose(verdict.distance, expected.distance, rtol=1e-3)


def test_rows_that_are_hard_to_tell_are_answered_by_two(small: Base) -> None:
    rows, experts = tasks(small, 3, mixed=0.5)
    rows = rows[::2]
    bank = Bank(experts=experts, choice="discriminant", soft=True)
    verdict = choose(small, bank, rows)
    shared = verdict.weight < 1
    assert 4 < shared.sum() < 12
    answers, hard = answer(small, bank, rows), answer(small, replace(bank, soft=False), rows)
    assert answers.chosen.tolist() == hard.chosen.tolist() == [20 + n for n in verdict.best.tolist()]
    assert answers.right[~shared].tolist() == hard.right[~shared].tolist()
    asked = [rows[n] for n in np.flatnonzero(shared)]
    both = module.Verdict(*(part[shared] for part in verdict))
    assert answers.right[shared].tolist() == answer_shared(small, bank, asked, both).tolist()


def test_two_experts_answer_by_the_sum_of_their_probabilities(small: Base) -> None:
    rows, experts = guesses(16), tuple(expert(small, owner, size=0.3) for owner in range(3))
    verdict = choose(small, Bank(experts=tuple(tasks(small, 3)[1]), choice="discriminant"), rows)
    verdict = verdict._replace(weight=np.linspace(0.5, 0.6, len(rows)))
    expected, alone = [], []
    for n, row in enumerate(rows):
        w, two = float(verdict.weight[n]), (experts[int(verdict.best[n])], experts[int(verdict.second[n])])
        if n % 3 == 0:  # asked without choices for what the two together say
            rows[n] = row._replace(choices=(), target=together(small, row.prompt, two, (w, 1 - w)))
            alone.append(rows[n].target == together(small, row.prompt, two, (1.0, 0.0)))
            expected.append(True)
            continue
        likely = [np.array([log_likelihood_by(small, one, row.prompt, c) for c in row.choices]) for one in two]
        both = w * np.exp(likely[0]) + (1 - w) * np.exp(likely[1])
        expected.append(row.choices[int(both.argmax())] == row.target)
        alone.append(row.choices[int(likely[0].argmax())] == row.target)
    assert answer_shared(small, Bank(experts=experts), rows, verdict).tolist() == expected
    assert [n for n in range(0, 16, 3) if not alone[n]]
    assert expected != alone


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


def test_a_mixture_on_paper() -> None:
    # choice 0 by one, choice 1 by the other, who is surer in absolute terms: 0.6 x 0.02 + 0.4 x 0 < 0.4 x 0.05
    row = Row((5,), (8, 1), ((7, 1), (8, 1)), False)
    one, other = np.log([0.02, 0.001]), np.log([1e-9, 0.05])
    assert module._together(row, one, other, np.log([0.6, 0.4]))
    assert not module._together(row, one, other, np.log([0.9, 0.1]))
    # free, two tokens: after the first, which only the other finds likely, the other decides
    free, shares = row._replace(choices=()), np.log([0.6, 0.4])
    a, b = np.full((2, 9), 1e-6), np.full((2, 9), 1e-6)
    a[0, 7], a[0, 8], a[1, 2] = 0.5, 0.1, 0.9
    b[0, 8], b[1, 1] = 0.9, 0.9
    assert module._together(free, np.log(a), np.log(b), shares)  # 0.3 < 0.06 + 0.36; then 0.06 x 0.9 < 0.36 x 0.9
    b[0, 8] = 0.4
    assert not module._together(free, np.log(a), np.log(b), shares)


def test_strangers_get_the_answer_of_the_base(small: Base) -> None:
    rows, experts = tasks(small, 3)
    known, unknown = experts[:2], rows[20:]  # nobody has told of the third task
    bank = Bank(experts=known, choice="discriminant", refuses=True)
    verdict = choose(small, bank, rows)
    assert verdict.strange[20:].sum() > 5
    answers = answer(small, bank, rows)
    assert answers.chosen.tolist() == [
        -1 if strange else 20 + best for strange, best in zip(verdict.strange, verdict.best, strict=True)
    ]
    asked = np.flatnonzero(verdict.strange)
    assert answers.right[asked].tolist() == likeliest(small, [rows[n] for n in asked])
    obliging = answer(small, replace(bank, refuses=False), unknown)
    assert set(obliging.chosen) <= {20, 21}
    assert obliging.right.tolist() != answers.right[20:].tolist()
    soft = answer(small, replace(bank, soft=True), rows)
    assert soft.chosen.tolist() == answers.chosen.tolist()  # a stranger is shared by nobody
    assert soft.right[asked].tolist() == answers.right[asked].tolist()


def test_a_single_expert_answers_all_but_strangers(small: Base) -> None:
    rows, experts = tasks(small, 2)
    alone = Bank(experts=experts[:1], choice="discriminant", soft=True)
    assert set(answer(small, alone, rows).chosen) == {20}
    careful = answer(small, replace(alone, refuses=True), rows)
    assert set(careful.chosen[:10]) <= {20, -1}
    assert (careful.chosen[:10] == 20).sum() > 7
    assert (careful.chosen[10:] == -1).sum() > 5
    untold = replace(experts[0], sketch=None)
    assert set(answer(small, replace(alone, experts=(untold,)), rows).chosen) == {20}  # nothing to choose, nothing told


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


def test_an_expert_without_a_code_cannot_be_chosen_by_it(small: Base) -> None:
    experts = (expert(small, 0), replace(expert(small, 1), code=None))
    for bank in (Bank(experts=experts, choice="nearest"), Bank(experts=experts, choice="topk", gated=True)):
        with pytest.raises(ValueError, match="without a task code cannot be chosen"):
            answer(small, bank, guesses(2))
    assert all(slot.held is None for slot in small.slots.values())


def test_an_expert_without_a_sketch_cannot_be_chosen_by_it(small: Base) -> None:
    rows, experts = tasks(small, 2)
    for refuses in (False, True):
        bank = Bank(experts=(experts[0], expert(small, 1)), choice="discriminant", refuses=refuses)
        with pytest.raises(ValueError, match="without a task sketch cannot be chosen by task sketch"):
            answer(small, bank, rows)
    alone = Bank(experts=(expert(small, 1),), choice="discriminant", refuses=True)
    with pytest.raises(ValueError, match="without a task sketch"):
        answer(small, alone, rows)
    with pytest.raises(ValueError, match="cannot read 3 blocks of a model that has 2"):
        answer(small, Bank(experts=experts, choice="discriminant", blocks=3), rows)
    other = replace(experts[1], sketch=task_sketch(np.eye(3)))
    with pytest.raises(ValueError, match=r"sketches of one size, these have \[3, 16\]"):
        answer(small, Bank(experts=(experts[0], other), choice="discriminant"), rows)
    assert all(slot.held is None for slot in small.slots.values())


def test_slots_are_empty_afterwards(small: Base) -> None:
    answer(small, Bank(experts=(expert(small, 0),)), guesses(3))
    assert all(slot.held is None for slot in small.slots.values())


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
