"""Largest entries as they travel: which they are, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.exchange.payload import Section, encode
from orthomesh.exchange.sparse import COLUMN_OF, most_bits, opened, packed


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.floats(0.01, 1.0))
def test_the_largest_magnitudes_come_back(seed: int, size: int, density: float) -> None:
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float16)
    parts = packed(x, density)
    back, kept = opened(parts, size, 1), max(1, round(density * size))
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    assert (back != 0).sum() == kept - (x[np.argsort(-np.abs(x), kind="stable")[:kept]] == 0).sum()
    assert np.abs(x[back == 0]).max(initial=0) <= np.abs(back[back != 0]).min(initial=np.inf)
    frame = encode([Section(COLUMN_OF[name], name, a) for name, a in parts.items()])
    assert 8 * len(frame.payload) <= most_bits(size, density)


def test_negative_values_are_large_too() -> None:
    assert opened(packed(np.array([-5.0, 1.0, 2.0, -0.1]), 0.25), 4, 0).tolist() == [-5.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mask": np.zeros(9, dtype=np.uint8)}, "a mask of 16 bits"),
        ({"values": np.ones(3, dtype=np.float16)}, "do not fit its mask"),
        ({"values": np.full(4, np.nan, dtype=np.float16)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, np.ndarray], why: str) -> None:
    parts = {**packed(np.arange(16.0), 0.25), **change}
    with pytest.raises(ValueError, match=why):
        opened(parts, 16, 3)
