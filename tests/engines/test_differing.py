"""Differences of settings in words, whatever the other one tells."""

from __future__ import annotations

import pytest

from orthomesh.engines.differing import difference


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        (b'{"a": {"b": 1}, "c": 2}', b'{"a": {"b": 3}, "c": 2}', "a.b is 1 here and 3 there"),
        (b'{"a": 1}', b"{}", "a is 1 here and absent there"),
        (b"{}", b"{}", "nothing differs that is told"),
        (b"{}", b"\xff", "its settings cannot be read"),
        (b"{}", b"[" * 100_000, "its settings cannot be read"),
        (b"{}", b'{"a": 1, "b": 2, "c": 3, "d": 4}', "a is absent here and 1 there, b is absent here and 2 there, "
         "c is absent here and 3 there, and 1 more"),
    ],
)  # fmt: skip
def test_differences_in_words(mine: bytes, theirs: bytes, said: str) -> None:
    assert difference(mine, theirs) == said
