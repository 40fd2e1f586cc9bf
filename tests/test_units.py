"""Decibels and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.units import from_db, from_dbm, to_db, to_dbm


def test_the_numbers_everybody_knows() -> None:
    assert from_db(0.0) == 1.0
    assert from_db(-30.0) == pytest.approx(1e-3, rel=1e-15)
    assert from_db(3.0) == pytest.approx(2.0, rel=3e-3)
    assert from_dbm(0.0) == pytest.approx(1e-3, rel=1e-15)
    assert from_dbm(23.0) == pytest.approx(0.19953, rel=1e-4)
    assert from_dbm(-174.0) == pytest.approx(3.981e-21, rel=1e-4)  # thermal noise in 1 Hz
    assert to_dbm(1.0) == 30.0


def test_decibels_are_ten_times_the_common_logarithm() -> None:
    for ratio in (1e-20, 0.3, 1.0, 7.0, 1e9):
        assert to_db(ratio) == pytest.approx(10.0 * math.log(ratio) / math.log(10.0), abs=1e-12)


@given(st.floats(-300, 300))
def test_there_and_back(value_db: float) -> None:
    assert to_db(from_db(value_db)) == pytest.approx(value_db, abs=1e-9)
    assert to_dbm(from_dbm(value_db)) == pytest.approx(value_db, abs=1e-9)


@given(st.floats(-150, 150), st.floats(-150, 150))
def test_adding_decibels_multiplies_ratios(a_db: float, b_db: float) -> None:
    assert from_db(a_db + b_db) == pytest.approx(from_db(a_db) * from_db(b_db), rel=1e-12)
    assert from_dbm(a_db + b_db) == pytest.approx(from_dbm(a_db) * from_db(b_db), rel=1e-12)


def test_nothing_is_minus_infinity_and_less_is_refused() -> None:
    assert to_db(0.0) == to_dbm(0.0) == -math.inf
    assert from_db(-math.inf) == from_dbm(-math.inf) == 0.0
    with pytest.raises(ValueError, match="cannot be negative"):
        to_db(-1e-9)
    with pytest.raises(ValueError, match="cannot be negative"):
        to_dbm(-1.0)
