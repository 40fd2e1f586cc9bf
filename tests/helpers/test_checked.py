"""The checker of annotations that all other tests run under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import checked
import pytest
from beartype.roar import BeartypeCallHintViolation


def outer(k: int) -> Callable[..., int]:
    """Defines its inner function anew with every call, around another k."""

    @checked._checked
    def inner(x: int, y: float = 2.0, *, z: str = "a") -> Any:
        return x + k

    return inner


def test_every_inner_function_is_checked_and_is_its_own() -> None:
    one, ten = outer(1), outer(10)
    for _ in range(2):
        assert (one(1), ten(1), one(1, y=3), ten(1, z="b")) == (2, 11, 2, 11)
    for function in (one, ten, outer(5)):
        with pytest.raises(BeartypeCallHintViolation):
            function("x")
        with pytest.raises(BeartypeCallHintViolation):
            function(1, z=3)


def test_code_that_two_dataclasses_have_in_common_is_checked_as_each_has_it() -> None:
    @dataclass
    class Whole:
        x: int

    @dataclass
    class Word:
        x: str

    assert Whole.__init__.__code__ == Word.__init__.__code__
    whole, word = checked._checked(Whole), checked._checked(Word)
    assert (whole(x=1).x, word(x="a").x) == (1, "a")
    for made, wrong in ((whole, "a"), (word, 1)):
        with pytest.raises(BeartypeCallHintViolation):
            made(x=wrong)


def test_a_function_without_annotations_is_left_alone() -> None:
    def bare(x): return x  # type: ignore[no-untyped-def]  # fmt: skip

    assert checked._checked(bare) is bare
