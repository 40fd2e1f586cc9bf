"""The checker of annotations that all other tests run under."""

from __future__ import annotations

from collections.abc import Callable
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


def test_a_function_without_annotations_is_left_alone() -> None:
    def bare(x): return x  # type: ignore[no-untyped-def]  # fmt: skip

    assert checked._checked(bare) is bare
