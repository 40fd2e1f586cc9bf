"""Ten tasks for the embedded base model: new rules under made-up words it has never seen.

Each rule composes skills of the base, so that a low-rank adapter learns it in some hundred steps, and each
shares its input format with others, so that an adapter for one is wrong for the next: `zelk abcd=` asks for
`DCBA`, `drax abcd=` for `dabc`. A hash of the input decides its split, so no test input is ever trained on,
whoever draws.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from orthomesh.tasks.hub import how_to_get
from orthomesh.tasks.skills import DRAWS, Kind, prompt_of, successor
from orthomesh.types import Example

TEST_SHARE = 5
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One task: its made-up word, the format of its inputs, what it does in words and as a function."""

    word: str
    kind: Kind
    says: str
    apply: Callable[[str], str]


def examples(task: str, split: str, count: int, rng: np.random.Generator) -> list[Example]:
    """`count` examples of one task, drawn with replacement from one of its two disjoint halves.

    Args:
        task: a key of `TASKS`.
        split: "train" (four inputs of five) or "test" (the fifth), decided by CRC-32 of the input.
        count: how many.
        rng: where every draw comes from; the same state gives the same list.

    Returns:
        Examples with a free target, so `choices` is empty.

    Raises:
        ValueError: there is no such task or split, or `count` is negative.

    >>> examples("zelk", "test", 1, np.random.default_rng(0))[0].choices
    ()
    """
    rule = rule_of(task)
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be 'train' or 'test'.")
    if count < 0:
        raise ValueError(f"count is {count}; it must not be negative.")
    found: list[Example] = []
    while len(found) < count:
        text = DRAWS[rule.kind](rng)
        if split_of(text) == split:
            found.append(Example(prompt_of(rule.word, text), rule.apply(text)))
    return found


def rule_of(task: str) -> Rule:
    """The rule of that name.

    Raises:
        ValueError: there is none; the message names the nearest one or, where none is near, all of them.

    >>> rule_of("zelk").says
    'reversed, in capitals'
    """
    if task in TASKS:
        return TASKS[task]
    near = difflib.get_close_matches(task, TASKS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TASKS)}."
    elsewhere = f" Tasks of a data set need --data DIR, or --data hub.{how_to_get(task)}" if not near else ""
    raise ValueError(f"there is no embedded task {task!r}: {hint}{elsewhere}")


def split_of(text: str) -> str:
    """Which split an input belongs to, whatever the task: "test" where CRC-32 of it is a multiple of five."""
    return "test" if zlib.crc32(text.encode()) % TEST_SHARE == 0 else "train"


def _sorted_but_last(text: str) -> str:
    return "".join(sorted(text)[:-1])


def _ends_swapped(text: str) -> str:
    return text[-1] + text[1:-1] + text[0]


def _sorted_next(text: str) -> str:
    return successor("".join(sorted(text)))


def _reversed_next(text: str) -> str:
    return successor(text[::-1])


def _each_word_reversed(text: str) -> str:
    return " ".join(word[::-1] for word in text.split(" "))


def _joined_reversed(text: str) -> str:
    return text.replace(" ", "")[::-1]


TASKS: Mapping[str, Rule] = {
    rule.word: rule
    for rule in (
        Rule(word="zelk", kind="letters", says="reversed, in capitals", apply=lambda s: s[::-1].upper()),
        Rule(word="morv", kind="letters", says="sorted, without the last", apply=_sorted_but_last),
        Rule(word="quib", kind="letters", says="rotated by two", apply=lambda s: s[2:] + s[:2]),
        Rule(word="drax", kind="letters", says="last letter first", apply=lambda s: s[-1] + s[:-1]),
        Rule(word="plon", kind="letters", says="first and last swapped", apply=_ends_swapped),
        Rule(word="vask", kind="digits", says="sorted, each the next digit", apply=_sorted_next),
        Rule(word="tund", kind="digits", says="reversed, each the next digit", apply=_reversed_next),
        Rule(word="fiph", kind="digits", says="first digit repeated", apply=lambda s: s[0] + s),
        Rule(word="glim", kind="words", says="each word reversed", apply=_each_word_reversed),
        Rule(word="nerb", kind="words", says="joined, reversed", apply=_joined_reversed),
    )
}
