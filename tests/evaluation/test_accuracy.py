"""What a score is: prompts asked, answered rightly, and sent to whom; means over devices; fingerprints of banks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.evaluation import accuracy
from orthomesh.evaluation.accuracy import (
    Exam,
    Score,
    mean_accuracy,
    no_bank,
    own_expert,
    routed_share,
    same_answers,
    sit,
)
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.answer import prompt_means, prompt_sketches
from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.catalogue import training_share
from orthomesh.tasks.settings import TaskSettings
from orthomesh.types import Bank, Choice, DeviceState, Expert, TaskSketch

ME = DeviceState(id=1, own={})
Plain = tuple[Any, Any]
OWNERS = (("third", (0,)), ("sure", (1, 2)), ("long", (2,)))


def flat(num: int, value: float = 0.0) -> np.ndarray:
    return np.full(num, value, dtype=np.float32)


def idle(owner: int, code: np.ndarray | None = None) -> Expert:
    """An expert that changes nothing: whoever is sent to it gets the answer of the base."""
    layout = load_base(ModelSettings()).layout
    return Expert(owner=owner, A=flat(layout.num_projection), B=flat(layout.num_expansion), code=code)


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    """Three tasks whose outcome is known whatever the model believes.

    third: three times the same question, each time another of three choices is right, so exactly one is.
    sure: two questions with a single choice. long: one question with a single choice and more than the context.
    """
    root = tmp_path_factory.mktemp("exam")
    options = ["answer1", "answer2", "answer3"]
    rows = {
        "third": [{"instruction": "which?", "output": f"it is {a}", "answer": a, "choices": options} for a in options],
        "sure": [{"instruction": q, "output": "yes", "choices": ["yes"]} for q in ("is it?", "and this?")],
        "long": [{"instruction": "why? " * 200, "output": "so", "choices": ["so"]}],
    }
    for task, told in rows.items():
        (root / task).mkdir()
        (root / task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    tasks = TaskSettings(names=tuple(rows), data=str(root))
    return Exam(model=ModelSettings(), tasks=tasks, seed=0, limit=100, owners=OWNERS)


# example


def test_scores_on_paper(exam: Exam) -> None:
    scores = sit((ME, ("third", "sure", "long")), no_bank, exam)
    assert scores == {"third": Score(3, 1, -1, 0), "sure": Score(2, 2, -1, 0), "long": Score(1, 1, -1, 1)}


def test_who_may_choose_is_counted_by_whom_it_chose(exam: Exam) -> None:
    bank = Bank(experts=(idle(2, flat(1)),), choice="nearest")  # only 2 can be chosen; it owns sure and long
    scores = sit((ME, ("third", "sure", "long")), lambda _: bank, exam)
    assert {task: s.routed for task, s in scores.items()} == {"third": 0, "sure": 2, "long": 1}
    assert [s.right for s in scores.values()] == [1, 2, 1]


@pytest.mark.parametrize("choice", ["only", "topk", "norm", "arrow"])
def test_nothing_is_routed_where_nothing_is_chosen_once_per_prompt(exam: Exam, choice: Choice) -> None:
    bank = Bank(experts=(idle(2),), choice=choice, top_k=1)
    assert sit((ME, ("sure",)), lambda _: bank, exam)["sure"] == Score(2, 2, -1, 0)


def test_only_as_many_prompts_are_asked_as_the_exam_says(exam: Exam) -> None:
    assert sit((ME, ("sure", "long")), no_bank, exam._replace(limit=1)) == {
        "sure": Score(1, 1, -1, 0),
        "long": Score(1, 1, -1, 1),
    }


def test_own_expert_is_the_one_of_the_device() -> None:
    held = Bank(experts=(idle(0), idle(1), idle(4)), choice="topk", top_k=3, gated=True)
    alone = own_expert(ME, lambda _: held)
    assert (alone.experts, alone.choice) == ((held.experts[1],), "only")
    assert own_expert(replace(ME, id=3), lambda _: held).experts == no_bank(ME).experts == ()


def test_means_on_paper() -> None:
    devices = [
        {"a": Score(10, 5, 8, 0), "b": Score(4, 4, 4, 0)},
        {"a": Score(10, 1, 0, 0), "b": Score(4, 0, 2, 0)},
    ]
    assert mean_accuracy(devices, [3, 1]) == pytest.approx({"a": (3 * 0.5 + 0.1) / 4, "b": 3 / 4})
    assert mean_accuracy(devices, [1, 1]) == pytest.approx({"a": 0.3, "b": 0.5})
    assert routed_share(devices, [3, 1]) == pytest.approx((3 * 12 + 2) / (3 * 14 + 14))


def test_nobody_chose_where_one_did_not() -> None:
    chose, answered = {"a": Score(5, 5, 5, 0)}, {"a": Score(5, 5, -1, 0)}
    assert routed_share([chose], [1]) == 1.0
    assert routed_share([answered], [1]) is None
    assert routed_share([chose, answered], [1, 1]) is None
    assert routed_share([{"a": Score(5, 5, 0, 0)}], [1]) == 0.0


# reference


def test_a_prompt_goes_to_the_expert_whose_code_it_is() -> None:
    tasks = TaskSettings(names=("zelk", "vask", "glim"), test_examples=1)
    exam = Exam(ModelSettings(), tasks, 0, 1, (("zelk", (0,)), ("vask", (1,)), ("glim", (2,))))
    base = load_base(ModelSettings())
    codes = [prompt_means(base, accuracy.test_rows(exam, task))[0] for task in tasks.names]  # cosine 1 with itself
    bank = Bank(experts=tuple(idle(k, code) for k, code in enumerate(codes)), choice="nearest")
    assert [s.routed for s in sit((ME, tasks.names), lambda _: bank, exam).values()] == [1, 1, 1]
    turned = exam._replace(owners=(("zelk", (1, 2)), ("vask", (0, 1)), ("glim", (0, 1))))
    assert [s.routed for s in sit((ME, tasks.names), lambda _: bank, turned).values()] == [0, 1, 0]


def test_a_prompt_goes_to_the_expert_of_its_sketch_and_a_stranger_to_nobody() -> None:
    tasks = TaskSettings(names=("zelk", "vask", "glim"), train_examples=40, test_examples=5)
    exam = Exam(ModelSettings(), tasks, 0, 5, (("zelk", (0,)), ("vask", (1,)), ("glim", (2,))))
    base = load_base(ModelSettings())
    told = [
        task_sketch(prompt_sketches(base, tokenise(base, training_share(tasks, name, 0, 0, 1), name), 1, 16))
        for name in tasks.names
    ]
    bank = Bank(experts=tuple(replace(idle(k), sketch=s) for k, s in enumerate(told)), choice="discriminant")
    assert [s.routed for s in sit((ME, tasks.names), lambda _: bank, exam).values()] == [5, 5, 5]
    few = replace(bank, experts=bank.experts[:2], refuses=True)
    assert [s.routed for s in sit((ME, tasks.names), lambda _: few, exam).values()] == [5, 5, 0]


# law

scores = st.integers(1, 50).flatmap(
    lambda asked: st.builds(Score, st.just(asked), st.integers(0, asked), st.integers(0, asked), st.just(0))
)
weighted = st.lists(st.tuples(st.fixed_dictionaries({"a": scores, "b": scores}), st.integers(1, 5)), min_size=1)


@given(weighted)
def test_a_weight_stands_for_that_many_devices(drawn: list[tuple[dict[str, Score], int]]) -> None:
    few, weights = [s for s, _ in drawn], [w for _, w in drawn]
    each = [s for s, w in drawn for _ in range(w)]
    means = mean_accuracy(few, weights)
    assert means == pytest.approx(mean_accuracy(each, [1] * len(each)))
    assert routed_share(few, weights) == pytest.approx(routed_share(each, [1] * len(each)))
    for task, mean in means.items():
        shares = [s[task].right / s[task].asked for s in each]
        assert mean == pytest.approx(np.mean(shares))
        assert min(shares) - 1e-12 <= mean <= max(shares) + 1e-12


parts = st.tuples(st.lists(st.sampled_from([0.0, 1.0]), max_size=2), st.sampled_from(["f2", "f4"]))
sketches = st.tuples(parts, parts, st.sampled_from([0.5, 1.0]))
experts = st.tuples(st.sampled_from([1, 11]), parts, parts, st.none() | parts, st.none() | sketches)
rules = st.fixed_dictionaries(
    {
        "choice": st.sampled_from(["only", "discriminant", "nearest", "topk", "norm", "arrow"]),
        "blocks": st.sampled_from([0, 1, 11]),
        "soft": st.booleans(),
        "refuses": st.booleans(),
        "top_k": st.sampled_from([0, 1, 11]),
        "scope": st.sampled_from(["joint", "expert", "signed"]),
        "gated": st.booleans(),
    }
)
banks = st.tuples(st.lists(experts, max_size=2), rules)


def made(plain: Plain) -> Bank:
    """A bank from plain values."""
    found = []
    for owner, *three, told in plain[0]:
        a, b, h = (None if p is None else np.array(*p) for p in three)
        sketch = None if told is None else TaskSketch(np.array(*told[0]), np.array(*told[1]), told[2])
        found.append(Expert(owner=owner, A=a, B=b, code=h, sketch=sketch))  # type: ignore[arg-type]
    return Bank(experts=tuple(found), **plain[1])


@settings(max_examples=100)
@given(banks, banks, experts)
def test_prints_are_equal_just_where_banks_are(one: Plain, another: Plain, expert: Any) -> None:
    near = ([*one[0][:-1], expert], one[1])
    rules = [(one[0], {**one[1], name: another[1][name]}) for name in one[1]]  # one of them at a time
    for other in (one, near, another, (one[0], another[1]), *rules):
        prints = [same_answers(ME, lambda _, plain=plain: made(plain))[0] for plain in (one, other)]  # type: ignore[misc]
        assert (prints[0] == prints[1]) == (one == other)


CLOSE: list[Callable[[Expert], Expert]] = [
    lambda e: replace(e, A=e.A[:1], B=np.concatenate([e.A[1:], e.B])),
    lambda e: replace(e, B=e.B[:0], code=e.B),
    lambda e: replace(e, code=e.A[:0]),
    lambda e: replace(e, A=e.A.view(np.int32)),
    lambda e: replace(e, A=e.A[None]),
    lambda e: replace(e, owner=12),
    lambda e: replace(e, B=-e.B),
    lambda e: replace(e, sketch=None),
    lambda e: replace(e, weights=e.B),
    lambda e: replace(e, beside=(e.A, e.B, e.B)),
    lambda e: replace(e, bias=e.B),
    lambda e: replace(e, sketch=e.sketch and e.sketch._replace(mean=-e.sketch.mean)),
    lambda e: replace(e, sketch=e.sketch and e.sketch._replace(covariance=2 * e.sketch.covariance)),
    lambda e: replace(e, sketch=e.sketch and e.sketch._replace(reach=1.25)),
    lambda e: replace(e, code=flat(1, 0.5), sketch=e.sketch and e.sketch._replace(mean=flat(0))),
]


@pytest.mark.parametrize("change", CLOSE)
def test_a_small_difference_is_a_difference(change: Callable[[Expert], Expert]) -> None:
    sketch = TaskSketch(flat(1, 0.5), np.eye(1, dtype=np.float32), 1.5)
    expert = Expert(owner=1, A=flat(2, 0.5), B=flat(3), sketch=sketch)
    one, other = (same_answers(ME, lambda _, e=e: Bank(experts=(e,))) for e in (expert, change(expert)))  # type: ignore[misc]
    assert one[0] != other[0]
    assert one[1] == other[1] == 1


# edge


def test_a_device_counts_the_experts_it_holds() -> None:
    assert same_answers(ME, no_bank)[1] == 0
    assert same_answers(ME, lambda _: Bank(experts=(idle(0), idle(2))))[1] == 2


def test_the_device_itself_is_not_in_the_print() -> None:
    assert same_answers(ME, no_bank) == same_answers(replace(ME, id=7, own={"x": flat(3)}), no_bank)


def test_tokenised_rows_are_kept(exam: Exam) -> None:
    assert accuracy.test_rows(exam, "sure") is accuracy.test_rows(exam._replace(), "sure")


def test_a_task_nobody_owns_is_no_accident(exam: Exam, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="zelk"):
        sit((ME, ("zelk",)), lambda _: Bank(experts=(idle(0),), choice="nearest"), exam._replace(tasks=TaskSettings()))


def test_every_device_needs_its_weight() -> None:
    with pytest.raises(ValueError, match="zip"):
        mean_accuracy([{"a": Score(1, 1, 1, 0)}], [1, 1])
    with pytest.raises(ValueError, match="zip"):
        routed_share([{"a": Score(1, 1, 1, 0)}], [1, 1])


def test_an_answer_that_is_none_is_counted_as_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums").mkdir()
    row = {"instruction": "1+1?", "output": "2 #### 2", "answer": "2"}
    (tmp_path / "sums" / "test.jsonl").write_text((json.dumps(row) + "\n") * 3)
    tasks = TaskSettings(names=("sums",), data=str(tmp_path))
    exam = Exam(model=ModelSettings(), tasks=tasks, seed=0, limit=3, owners=(("sums", (0,)),))
    said = iter(["it is 2", "no idea", "3"])
    monkeypatch.setattr("orthomesh.models.answer.write", lambda base, row, longest: next(said))
    assert sit((ME, ("sums",)), no_bank, exam) == {"sums": Score(3, 1, -1, 0, 1)}
