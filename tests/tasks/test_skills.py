"""The skills of the embedded base: what each rule says, and that a seed is the whole data set."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.rng import stream
from orthomesh.tasks.skills import (
    DRAWS,
    SKILLS,
    draw_digits,
    draw_letters,
    draw_numbers,
    draw_words,
    pretraining_examples,
    prompt_of,
    skill_example,
    successor,
)

BY_HAND = {
    "copy": ("bca", "bca"),
    "flip": ("abcd", "dcba"),
    "sort": ("dbca", "abcd"),
    "caps": ("ab cd", "AB CD"),
    "head": ("7123", "7"),
    "last": ("7123", "3"),
    "tail": ("abcd", "bcd"),
    "chop": ("abcd", "abc"),
    "turn": ("abcd", "bcda"),
    "skip": ("abcde", "ace"),
    "next": ("az09", "ba10"),
    "size": ("abcde", "5"),
    "swap": ("ab cde", "cde ab"),
    "join": ("ab cde", "abcde"),
    "plus": ("7 42", "49"),
    "most": ("7 42", "42"),
}


# example


@pytest.mark.parametrize("word", SKILLS)
def test_each_skill_does_what_its_word_says(word: str) -> None:
    text, target = BY_HAND[word]
    assert SKILLS[word].apply(text) == target


def test_a_prompt_is_word_space_input_equals_sign() -> None:
    assert prompt_of("flip", "abcd") == "flip abcd="


def test_successor_wraps_within_letters_and_within_digits() -> None:
    assert successor("xyzXYZ 089") == "yzaYZA 190"


def test_larger_compares_numbers_not_strings() -> None:
    assert SKILLS["most"].apply("9 10") == "10"


# law


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_inputs_keep_their_format(seed: int) -> None:
    rng = stream(seed, "test")
    letters, digits = draw_letters(rng), draw_digits(rng)
    assert 4 <= len(letters) <= 6
    assert letters.isalpha()
    assert letters.islower()
    assert 4 <= len(digits) <= 6
    assert digits.isdigit()
    assert all(word.isalpha() and 2 <= len(word) <= 3 for word in draw_words(rng).split(" "))
    assert all(0 <= int(number) <= 99 for number in draw_numbers(rng).split(" "))


@given(seed=st.integers(0, 2**32), word=st.sampled_from(sorted(SKILLS)))
@settings(max_examples=50, deadline=None)
def test_the_target_is_a_function_of_the_prompt(seed: int, word: str) -> None:
    example = skill_example(SKILLS[word], stream(seed, "test"))
    asked, text = example.prompt.removesuffix("=").split(" ", 1)
    assert asked == word
    assert example.target == SKILLS[word].apply(text)
    assert 1 <= len(example.target) <= len(text)
    assert example.choices == ()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_seed_is_the_whole_data_set(seed: int) -> None:
    first = tuple(islice(pretraining_examples(stream(seed, "test")), 20))
    assert first == tuple(islice(pretraining_examples(stream(seed, "test")), 20))
    assert first != tuple(islice(pretraining_examples(stream(seed + 1, "test")), 20))


# edge


def test_every_skill_turns_up_in_pretraining() -> None:
    words = {e.prompt.split(" ")[0] for e in islice(pretraining_examples(stream(0, "test")), 400)}
    assert words == set(SKILLS)


def test_every_skill_has_known_formats_and_files_under_its_word() -> None:
    assert all(word == skill.word for word, skill in SKILLS.items())
    assert all(skill.kinds and set(skill.kinds) <= set(DRAWS) for skill in SKILLS.values())
