"""lm-evaluation-harness as the scorer; ours is held against it, to the answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering import expert
from attached import TASKS, Model, batch, generated

from orthomesh.evaluation.accuracy import Exam, sit
from orthomesh.models.answer import answer, choice_likelihoods, worn, write
from orthomesh.models.attach import attach, said
from orthomesh.models.bank_io import Portable
from orthomesh.models.base import Base
from orthomesh.models.harness import _choice, _sat, _writing, score
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Bank, Check, DeviceState, Example

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra: pip install 'orthomesh[eval]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # its own


@pytest.fixture(scope="module")
def chosen() -> list[Example]:
    """Questions of different lengths with two to four choices of different lengths, any of them right."""
    rng = np.random.default_rng(0)
    words = ["dcba", "abc", "7", "a longer answer", "DC", "ab dc", "99"]
    found = []
    for n in range(30):
        options = tuple(f" {w}" for w in rng.choice(words, size=2 + n % 3, replace=False))
        found.append(Example(f"zelk {'abcd'[: 1 + n % 4]}{n}=", options[n % len(options)], options))
    return found


# reference: each other


def test_choices_are_as_likely_and_the_same_are_right(embedded: Base, chosen: list[Example]) -> None:
    rows = tokenise(embedded, chosen, "x")
    with worn(embedded, expert(embedded, 1, 0.02)):
        samples = dict(_sat(embedded, _choice(embedded, dict(enumerate(chosen))), embedded.max_length))
        ours = [choice_likelihoods(embedded, [row])[0] for row in rows]
    theirs = [[likely for likely, _ in samples[n]["filtered_resps"]] for n in range(len(rows))]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    bank = Bank(experts=(expert(embedded, 1, 0.02),), choice="only")
    right = answer(embedded, bank, rows).right
    assert (
        right.tolist()
        == answer(embedded, bank, rows, chosen).right.tolist()
        == [samples[n]["acc"] == 1 for n in samples]
    )
    assert 0 < right.sum() < len(rows)
    lost = replace(bank.experts[0], B=np.full_like(bank.experts[0].B, np.nan))
    for asked in (chosen[:6], None):
        nothing = answer(embedded, Bank(experts=(lost,)), rows[:6], asked)
        assert (nothing.right.any(), nothing.undecided) == (False, tuple(range(6)))


def test_what_is_written_is_the_same(embedded: Base) -> None:
    examples = [
        Example(f"flip {text}=", " x", check=Check("number", "", "1")) for text in ("abcd", "12", "a b", "zyxwvu")
    ]
    told = score(embedded, examples, 8)
    assert told.right == {}
    assert told.written == {n: write(embedded, row) for n, row in enumerate(tokenise(embedded, examples, "x"))}


def test_it_ends_at_the_same_tokens(embedded: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the letter c too, where the model names it beside the end of a text."""
    ends = [embedded.eos_id, embedded.tokenizer("c", add_special_tokens=False)["input_ids"][-1]]
    monkeypatch.setattr(embedded.model.generation_config, "eos_token_id", ends)
    examples = [Example("flip abcd=", " x", check=Check("number", "", "1"))]
    row = tokenise(embedded, examples, "x")[0]
    assert score(embedded, examples, 8).written == {0: write(embedded, row, 8)} == {0: "dc"}


def test_a_bank_on_a_model_goes_under_the_harness(told: Portable, embedded: Base, plain: Model, tokenizer: Any) -> None:
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    def put(task: dict[str, Any]) -> list[Any]:
        task.pop("docs")
        found = evaluate(wrapped, TaskManager(include_defaults=False).load([task]), bootstrap_iters=0)
        return sorted(found["samples"]["orthomesh"], key=lambda sample: sample["doc"]["n"])

    model, prompts = attach(told, plain()), [f"{task} abc=" for task in TASKS]
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    free = {n: Example(p, " x", check=Check("number", "", "1")) for n, p in enumerate(prompts)}
    texts = [sample["filtered_resps"][0] for sample in put(_writing(free, 6))]
    alone = [tokenizer.decode(ids, skip_special_tokens=True) for ids in generated(model, batch(tokenizer, prompts))]
    assert texts == alone
    assert [who.label for who in said(model)] == list(TASKS)
    choices = {n: Example(p, "ab", ("ab", "c", "d1")) for n, p in enumerate(prompts)}
    samples = put(_choice(embedded, choices))
    for n, row in enumerate(tokenise(embedded, list(choices.values()), "x")):
        with worn(embedded, told.bank.experts[n]):
            expected = choice_likelihoods(embedded, [row])[0]
        np.testing.assert_allclose([likely for likely, _ in samples[n]["filtered_resps"]], expected, rtol=1e-3)


# edge


def test_what_has_neither_choices_nor_a_check_is_ours(embedded: Base, chosen: list[Example]) -> None:
    free = [Example("flip abcd=", "dcba"), chosen[0], Example("flip abcd=", "abcd")]
    told = score(embedded, free, 8)
    assert (set(told.right), set(told.written)) == ({1}, set())
    rows = tokenise(embedded, free, "x")
    assert (
        answer(embedded, Bank(experts=()), rows, free).right.tolist()
        == answer(embedded, Bank(experts=()), rows).right.tolist()
    )


def test_an_exam_under_the_harness_counts_the_same(tmp_path: Path) -> None:
    rows = [
        {"instruction": "1+1?", "output": "2 #### 2", "answer": "2"},
        {"instruction": "flip ab=", "output": "ba", "answer": "ba", "choices": ["ba", "ab"]},
    ]
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    tasks = TaskSettings(names=("mixed",), data=str(tmp_path))
    exam = Exam(ModelSettings(), tasks, 0, 4, (("mixed", (0,)),))
    me = (DeviceState(id=0, own={}), ("mixed",))
    nobody = lambda device: Bank(experts=())  # noqa: E731
    assert sit(me, nobody, exam) == sit(me, nobody, exam._replace(harness=True))
