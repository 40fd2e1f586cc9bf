"""What was worked out before is handed out again, as long as it is the same question and there is room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from orthomesh.exchange import recall
from orthomesh.exchange.recall import recalled
from orthomesh.types import Array


def counted() -> tuple[list[int], Callable[..., Array]]:
    """How often a function of an array and a number was really asked, and the function."""
    asked: list[int] = []

    def twice(a: Array, n: int = 0) -> Array:
        asked.append(n)
        if n < 0:
            raise ValueError("no")
        return np.concatenate([a, a])

    return asked, recalled(twice)


def test_the_same_question_is_answered_once_and_another_anew() -> None:
    asked, fn = counted()
    a = np.arange(4, dtype=np.uint8)
    first = fn(a, 1)
    assert fn(a.copy(), 1) is first
    for other in ((a, 2), (a.view(np.int8), 1), (a.reshape(2, 2), 1), (a[::-1], 1), (a,)):
        assert fn(*other) is not first
    assert len(asked) == 6
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_an_error_is_not_kept() -> None:
    asked, fn = counted()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fn(np.zeros(1), -1)
    assert asked == [-1, -1]


def test_what_was_asked_longest_ago_goes_first_and_what_is_too_large_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recall, "MOST_BYTES", 64)
    asked, fn = counted()
    one, half = np.zeros(2, dtype=np.uint8), np.zeros(1, dtype=np.uint8)
    for n in range(16):
        fn(one, n)  # 4 bytes each: all fit
    fn(one, 0)
    assert asked == list(range(16))
    fn(half, 16)  # two more: the oldest goes, that is 1 now
    fn(one, 0)
    assert asked == [*range(17)]
    fn(one, 1)
    assert asked == [*range(17), 1]
    large = np.zeros(9, dtype=np.uint8)
    assert fn(large, 7) is not fn(large, 7)
