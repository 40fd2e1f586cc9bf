"""The embedded tasks: what each rule says, disjoint splits, keyed draws, and what a wrong name is told."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.tasks.embedded import TASKS, examples, rule_of, split_of
from orthomesh.tasks.skills import DRAWS, SKILLS, Kind

BY_HAND = {
    "zelk": ("abcd", "DCBA"),
    "morv": ("dbca", "abc"),
    "quib": ("abcde", "cdeab"),
    "drax": ("abcd", "dabc"),
    "plon": ("abcde", "ebcda"),
    "vask": ("4190", "1250"),
    "tund": ("1239", "0432"),
    "fiph": ("7123", "77123"),
    "glim": ("ab cde", "ba edc"),
    "nerb": ("ab cde", "edcba"),
}

tasks = st.sampled_from(sorted(TASKS))
splits = st.sampled_from(("train", "test"))


def input_of(prompt: str) -> str:
    return prompt.removesuffix("=").split(" ", 1)[1]


# example


@pytest.mark.parametrize("task", TASKS)
def test_each_rule_does_what_it_says(task: str) -> None:
    text, target = BY_HAND[task]
    assert TASKS[task].apply(text) == target


def test_ten_tasks_under_words_the_base_has_not_seen() -> None:
    assert len(TASKS) == 10
    assert all(word == rule.word for word, rule in TASKS.items())
    assert not set(TASKS) & set(SKILLS)


def test_tasks_share_their_formats() -> None:
    assert Counter(rule.kind for rule in TASKS.values()) == {"letters": 5, "digits": 3, "words": 2}


# law


@given(seed=st.integers(0, 2**32), task=tasks, split=splits)
@settings(max_examples=60, deadline=None)
def test_targets_are_a_function_of_the_input(seed: int, task: str, split: str) -> None:
    for example in examples(task, split, 5, stream(seed, "test")):
        assert example.prompt.startswith(f"{task} ")
        assert example.target == TASKS[task].apply(input_of(example.prompt))
        assert 1 <= len(example.target) <= 7
        assert example.choices == ()


@given(seed=st.integers(0, 2**32), task=tasks, split=splits)
@settings(max_examples=40, deadline=None)
def test_an_input_is_in_the_split_its_hash_says(seed: int, task: str, split: str) -> None:
    assert {split_of(input_of(e.prompt)) for e in examples(task, split, 5, stream(seed, "test"))} == {split}


@given(seed=st.integers(0, 2**32), task=tasks, split=splits)
@settings(max_examples=20, deadline=None)
def test_the_same_key_draws_the_same_and_a_longer_list_begins_with_the_shorter(
    seed: int, task: str, split: str
) -> None:
    long = examples(task, split, 12, stream(seed, "test", 3))
    assert examples(task, split, 5, stream(seed, "test", 3)) == long[:5]
    assert examples(task, split, 12, stream(seed, "test", 4)) != long


@pytest.mark.parametrize("kind", sorted({rule.kind for rule in TASKS.values()}))
def test_rules_of_one_format_conflict_on_nearly_every_input(kind: Kind) -> None:
    texts = [DRAWS[kind](stream(0, "test", i)) for i in range(200)]
    for one, two in combinations([r for r in TASKS.values() if r.kind == kind], 2):
        assert sum(one.apply(t) == two.apply(t) for t in texts) <= 20


# edge


def test_one_input_in_five_is_for_testing() -> None:
    texts = [DRAWS["letters"](stream(0, "test", i)) for i in range(1000)]
    assert 160 <= sum(split_of(t) == "test" for t in texts) <= 240


def test_no_examples_when_none_are_asked_for() -> None:
    assert examples("zelk", "train", 0, stream(0, "test")) == []


def test_a_misspelt_task_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="no embedded task 'zelkk': did you mean 'zelk'"):
        rule_of("zelkk")


def test_an_unknown_task_is_told_all_names() -> None:
    with pytest.raises(ValueError, match=r"--data hub\. To get it: .* hf download google/boolq"):
        rule_of("boolq")
    with pytest.raises(ValueError, match="there are zelk, morv, quib"):
        examples("sst2", "train", 1, stream(0, "test"))


def test_a_wrong_split_or_count_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        examples("zelk", "dev", 1, stream(0, "test"))
    with pytest.raises(ValueError, match="must not be negative"):
        examples("zelk", "test", -1, stream(0, "test"))
