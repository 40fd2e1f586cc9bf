"""Whose answer it is: the expert of the nearest code, of the likeliest task, of two that share, or the base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from answering import (
    expert,
    guesses,
    likeliest,
    log_likelihood_by,
    tasks,
    together,
)

from orthomesh.experts.router import classes, discriminate
from orthomesh.experts.sketch import sketch, task_sketch
from orthomesh.models import answer as module
from orthomesh.models.answer import answer, answer_shared, choose, prompt_means, prompt_sketches
from orthomesh.models.base import Base
from orthomesh.models.reading import read_prompts, reading_points, widths
from orthomesh.models.tokens import Row
from orthomesh.types import Bank


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


def test_a_mixture_on_paper() -> None:
    # choice 0 by one, choice 1 by the other, who is surer in absolute terms: 0.6 x 0.02 + 0.4 x 0 < 0.4 x 0.05
    row = Row((5,), (8, 1), ((7, 1), (8, 1)), False)
    one, other = np.log([0.02, 0.001]), np.log([1e-9, 0.05])
    assert module._together(row, one, other, np.log([0.6, 0.4])) == module.RIGHT
    assert module._together(row, one, other, np.log([0.9, 0.1])) == module.WRONG
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
