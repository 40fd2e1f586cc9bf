"""The skills the embedded base model is pre-trained on: short rules on strings and numbers, one word each.

A prompt reads `word input=`, the target is what the rule makes of the input: `flip abcd=` asks for `dcba`.
Nothing is stored: every example is drawn from a NumPy generator, so a seed is the whole data set. The inputs
come in four formats, which the tasks of `embedded.py` share.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orthomesh.types import Example

Kind = Literal["letters", "digits", "words", "numbers"]
Draw = Callable[[np.random.Generator], str]


@dataclass(frozen=True, kw_only=True)
class Skill:
    """One rule under its instruction word: `apply` maps an input of any of its `kinds` to the target."""

    word: str
    kinds: tuple[Kind, ...]
    apply: Callable[[str], str]


def pretraining_examples(rng: np.random.Generator) -> Iterator[Example]:
    """Endless examples for pre-training: skill and format uniform, then an input of that format.

    Args:
        rng: where every draw comes from; the same state gives the same stream.

    Returns:
        An iterator that never ends.

    >>> next(pretraining_examples(np.random.default_rng(1))).prompt[-1]
    '='
    """
    skills = tuple(SKILLS.values())
    while True:
        yield skill_example(skills[int(rng.integers(len(skills)))], rng)


def skill_example(skill: Skill, rng: np.random.Generator) -> Example:
    """One example of a skill: `Example("flip abcd=", "dcba")`.

    Args:
        skill: the rule.
        rng: decides the format among the skill's own, then the input.

    Returns:
        The example; its target is a function of its prompt.
    """
    kind = skill.kinds[int(rng.integers(len(skill.kinds)))]
    text = DRAWS[kind](rng)
    return Example(prompt_of(skill.word, text), skill.apply(text))


def prompt_of(word: str, text: str) -> str:
    """The prompt that asks for the rule `word` on the input `text`.

    >>> prompt_of("flip", "abcd")
    'flip abcd='
    """
    return f"{word} {text}="


def draw_letters(rng: np.random.Generator) -> str:
    """A string of 4 to 6 lowercase letters, uniform in length, then in letters."""
    return _string(rng, string.ascii_lowercase, 4, 6)


def draw_digits(rng: np.random.Generator) -> str:
    """A string of 4 to 6 digits, uniform in length, then in digits."""
    return _string(rng, string.digits, 4, 6)


def draw_words(rng: np.random.Generator) -> str:
    """Two words of 2 or 3 lowercase letters with a space between, such as `abc de`."""
    return f"{_string(rng, string.ascii_lowercase, 2, 3)} {_string(rng, string.ascii_lowercase, 2, 3)}"


def draw_numbers(rng: np.random.Generator) -> str:
    """Two numbers from 0 to 99 with a space between, such as `7 42`."""
    return f"{rng.integers(100)} {rng.integers(100)}"


DRAWS: Mapping[Kind, Draw] = {
    "letters": draw_letters,
    "digits": draw_digits,
    "words": draw_words,
    "numbers": draw_numbers,
}


def successor(text: str) -> str:
    """Every letter's and digit's next one, the last one followed by the first; other characters stay.

    >>> successor("abz 19")
    'bca 20'
    """
    return text.translate(_NEXT)


def _string(rng: np.random.Generator, alphabet: str, shortest: int, longest: int) -> str:
    length = int(rng.integers(shortest, longest + 1))
    return "".join(alphabet[int(i)] for i in rng.integers(len(alphabet), size=length))


def _swap_words(text: str) -> str:
    first, second = text.split(" ")
    return f"{second} {first}"


def _sum(text: str) -> str:
    first, second = text.split(" ")
    return str(int(first) + int(second))


def _larger(text: str) -> str:
    return max(text.split(" "), key=int)


_NEXT = str.maketrans(
    string.ascii_lowercase + string.ascii_uppercase + string.digits,
    "".join(s[1:] + s[0] for s in (string.ascii_lowercase, string.ascii_uppercase, string.digits)),
)
_ANY: tuple[Kind, ...] = ("letters", "digits")

SKILLS: Mapping[str, Skill] = {
    skill.word: skill
    for skill in (
        Skill(word="copy", kinds=("letters", "digits", "words"), apply=lambda s: s),
        Skill(word="flip", kinds=("letters", "digits", "words"), apply=lambda s: s[::-1]),
        Skill(word="sort", kinds=_ANY, apply=lambda s: "".join(sorted(s))),
        Skill(word="caps", kinds=("letters", "words"), apply=str.upper),
        Skill(word="head", kinds=_ANY, apply=lambda s: s[0]),
        Skill(word="last", kinds=_ANY, apply=lambda s: s[-1]),
        Skill(word="tail", kinds=_ANY, apply=lambda s: s[1:]),
        Skill(word="chop", kinds=_ANY, apply=lambda s: s[:-1]),
        Skill(word="turn", kinds=_ANY, apply=lambda s: s[1:] + s[0]),
        Skill(word="skip", kinds=_ANY, apply=lambda s: s[::2]),
        Skill(word="next", kinds=_ANY, apply=successor),
        Skill(word="size", kinds=_ANY, apply=lambda s: str(len(s))),
        Skill(word="swap", kinds=("words",), apply=_swap_words),
        Skill(word="join", kinds=("words",), apply=lambda s: s.replace(" ", "")),
        Skill(word="plus", kinds=("numbers",), apply=_sum),
        Skill(word="most", kinds=("numbers",), apply=_larger),
    )
}
