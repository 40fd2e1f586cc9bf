"""Codes of unequal length, listed and cut again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experts.listing import cut, listed

CODES = st.lists(st.binary(max_size=9), min_size=1, max_size=6)


# example


def test_lengths_stand_in_front() -> None:
    told = listed([np.array([7], np.uint8), np.zeros(0, np.uint8), np.array([8, 9], np.uint8)])
    assert told.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 7, 8, 9]
    assert [c.tolist() for c in cut(told, 3)] == [[7], [], [8, 9]]
    assert [c.tolist() for c in cut(told[12:], 2, [1, 2])] == [[7], [8, 9]]


# law


@given(CODES)
def test_what_was_listed_is_cut_again(codes: list[bytes]) -> None:
    told = listed([np.frombuffer(c, np.uint8) for c in codes])
    assert [c.tobytes() for c in cut(told, len(codes))] == codes
    assert told.size == 4 * len(codes) + sum(map(len, codes))


# edge


@pytest.mark.parametrize(
    ("code", "members", "lengths"),
    [([1, 0, 0], 1, None), ([2, 0, 0, 0, 7], 1, None), ([7], 0, None), ([7, 8], 2, [1, 2])],
)
def test_lengths_that_do_not_add_up_are_refused(code: list[int], members: int, lengths: list[int] | None) -> None:
    with pytest.raises(ValueError, match=f"{len(code)} bytes are not the values or masks of {members} members"):
        cut(np.array(code, np.uint8), members, lengths)
