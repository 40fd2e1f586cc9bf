"""Four answers to a payload that does not fit."""

from __future__ import annotations

import math
from itertools import combinations
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.units import from_db
from orthomesh.wireless.infeasible import (
    Answer,
    bits_that_fit,
    dequantise,
    drop_links,
    largest,
    lower_densities,
    partial,
    quantise,
    tell,
)
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import Cast, is_feasible, payload_limit_bits

CASTS = st.sampled_from(get_args(Cast))
FLOATS = st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=40).map(lambda v: np.array(v, dtype=np.float16))


@settings(max_examples=60, deadline=None)
@given(
    gains_db=st.lists(st.floats(-150, -80), max_size=6), bits=st.integers(1, 3_000_000), cast=CASTS,
    split=st.sampled_from(["equal", "optimal"]),
)  # fmt: skip
def test_no_other_set_of_links_is_larger(gains_db: list[float], bits: int, cast: Cast, split: str) -> None:
    gains, radio = dict(enumerate(map(from_db, gains_db))), Radio(split=split)
    kept = drop_links(bits, gains, radio, cast)
    fits = [
        set(some)
        for n in range(len(gains) + 1)
        for some in combinations(gains, n)
        if is_feasible(bits, [gains[j] for j in some], radio, cast)
    ]
    assert set(kept) in fits
    assert len(kept) == max(map(len, fits))


def test_densities_scale_with_what_fits() -> None:
    radio = Radio(min_efficiency_bps_per_hz=0.0)
    gains, densities, entries = [1e-12, 3e-13], np.array([0.5, 0.2]), 250_000
    bits = 16 * densities.sum() * entries
    limit = payload_limit_bits(gains, radio, "unicast")
    lowered = lower_densities(densities, bits, limit)
    assert not is_feasible(bits, gains, radio, "unicast")
    assert is_feasible(16 * lowered.sum() * entries * (1 - 1e-9), gains, radio, "unicast")
    assert lowered[0] / lowered[1] == pytest.approx(2.5)
    assert lower_densities(densities, 1.0, 2.0).tolist() == densities.tolist()


@settings(max_examples=60, deadline=None)
@given(values=FLOATS, bits=st.integers(2, 16))
def test_rounding_is_at_most_half_a_step(values: np.ndarray, bits: int) -> None:
    q = quantise(values, bits)
    assert np.abs(dequantise(q) - values).max() <= q.scale / 2 * (1 + 1e-9)
    assert np.abs(q.codes).max() <= 2 ** (bits - 1) - 1
    top = int(np.abs(values).argmax())
    assert dequantise(q)[top] == pytest.approx(float(values[top]), rel=1e-12)


def test_parts_go_through_everything_and_begin_again() -> None:
    starts, start = [], 0
    for _ in range(5):
        part = partial(10, start, 16 * 4 + 3)
        starts.append((part.start, part.stop))
        start = part.next
    assert starts == [(0, 4), (4, 8), (8, 10), (0, 4), (4, 8)]
    assert partial(10, 10, math.inf) == (0, 10, 0)
    assert partial(10, 3, 15.0) == (3, 3, 3)


@settings(max_examples=100, deadline=None)
@given(values=FLOATS, answer=st.sampled_from(get_args(Answer)), limit=st.floats(0, 1000), start=st.integers(0, 1))
def test_what_is_told_fits_and_is_near(values: np.ndarray, answer: Answer, limit: float, start: int) -> None:
    n = len(values)
    known = np.zeros(n)
    told = tell(values, known, limit, answer, start)
    if told is None:
        assert 16 * n > limit
        return
    assert told.bits * told.kept.sum() <= limit
    assert len(told.values) == told.kept.sum()
    after = known.copy()
    after[told.kept] = told.values
    exact = values.astype(np.float64)
    assert np.linalg.norm(exact - after) <= np.linalg.norm(exact) * (1 + 1e-9) or answer == "quantise"
    if 16 * n <= limit:
        assert np.array_equal(after, values)
    if answer == "lower_sparsity" and not told.kept.all():
        assert np.abs(values[told.kept]).min() >= np.abs(values[~told.kept]).max()


def test_small_examples_on_paper() -> None:
    assert largest(np.array([2.0, 2.0, 1.0]), 1).tolist() == [True, False, False]
    assert largest(np.array([1.0]), -1).tolist() == [False]
    assert bits_that_fit(100, 800.0) == 8
    assert quantise(np.zeros(3), 8) == (pytest.approx(np.zeros(3)), 1.0)
    values = np.array([0.0, 4.0, -8.0, 1.0])
    assert tell(values, values, 20.0, "drop_link") is None
    told = tell(values, np.array([0.0, 0.0, -8.0, 0.0]), 4.0 + 16.0, "lower_sparsity")
    assert told is not None
    assert told.kept.tolist() == [False, True, False, False]
    told = tell(np.ones(20), np.zeros(20), 64.0 + 16 * 5, "partial", start=18)
    assert told is not None
    assert np.flatnonzero(told.kept).tolist() == [18, 19]
    told = tell(np.linspace(-1, 1, 20), np.zeros(20), 64.0 + 4 * 20, "quantise")
    assert told is not None
    assert told.bits == 4
    assert len(set(told.values.tolist())) == 15


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="limit >= 0"):
        tell(np.zeros(2), np.zeros(2), -1.0, "partial")
    with pytest.raises(ValueError, match="bits > 0"):
        lower_densities(np.zeros(1), 0.0, 1.0)
    with pytest.raises(ValueError, match="2 to 16 bits"):
        quantise(np.zeros(1), 1)
    with pytest.raises(ValueError, match="not finite"):
        quantise(np.array([math.nan]), 8)
    with pytest.raises(ValueError, match="starts within"):
        partial(3, 4, 1.0)
