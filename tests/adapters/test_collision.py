"""Collision rates: expected, measured, negotiated."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from orthomesh.adapters.collision import (
    collision_rate,
    empirical_rate,
    join,
    mean_rate,
    negotiated_rate,
    triple,
)

DENSITIES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 3)),
    elements=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
)


def as_written(densities: list[float]) -> Fraction:
    """The paper's formula in exact arithmetic."""
    s = [Fraction(x) for x in densities]
    none = math.prod((1 - x for x in s), start=Fraction(1))
    one = sum(
        (x * math.prod((1 - y for k, y in enumerate(s) if k != j), start=Fraction(1)) for j, x in enumerate(s)),
        start=Fraction(0),
    )
    return 1 - none - one


def test_collision_rates_on_paper() -> None:
    layers = np.array([[0.5, 1.0, 0.25], [0.5, 0.25, 0.0]])
    assert collision_rate(layers).tolist() == [0.25, 0.25, 0.0]
    ten = collision_rate(np.full((10, 1), 0.1))[0]
    assert ten == pytest.approx(1 - 0.9**10 - 0.9**9, rel=1e-12)  # 0.264


def test_mean_is_weighted_by_positions() -> None:
    assert mean_rate(np.array([0.5, 0.1]), [300, 100]) == pytest.approx(0.4, rel=1e-15)


def test_measured_rate_on_paper() -> None:
    masks = np.array([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 1]], dtype=bool)
    assert empirical_rate(masks) == 0.6


def test_negotiated_rate_on_paper() -> None:
    assert negotiated_rate(np.full((8, 1), 0.125)).tolist() == [0.0]
    assert np.add.accumulate([0.05] * 20)[-1] > 1.0  # added one by one, twenty times 0.05 would seem to overflow
    assert negotiated_rate(np.full((20, 1), 0.05)).tolist() == [0.0]
    assert negotiated_rate(np.array([[1.0, 0.75, 1.0], [0.5, 0.75, 1.0], [0.0, 0.0, 1.0]])).tolist() == [
        0.5,
        0.5,
        1.0,
    ]


@pytest.mark.parametrize("density", [1e-6, 1e-3, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("num_devices", [2, 5, 15])
def test_equal_densities_are_a_binomial_tail(density: float, num_devices: int) -> None:
    rate = collision_rate(np.full((num_devices, 1), density))[0]
    assert rate == pytest.approx(stats.binom.sf(1, num_devices, density), rel=1e-11)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.floats(1e-9, 1e-4)), max_size=8))
def test_three_numbers_equal_the_formula_in_exact_arithmetic(densities: list[float]) -> None:
    exact = float(as_written(densities))
    rate = collision_rate(np.array(densities, dtype=np.float64).reshape(-1, 1))[0]
    assert rate == pytest.approx(exact, rel=1e-14, abs=1e-300)


def test_expected_rate_is_what_independent_masks_show() -> None:
    n, densities = 200_000, np.array([[0.3], [0.1], [0.25], [0.05]])
    masks = np.random.default_rng(0).random((4, n)) < densities
    expected = collision_rate(densities)[0]
    assert abs(empirical_rate(masks) - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


@settings(max_examples=100, deadline=None)
@given(DENSITIES)
def test_groups_join_in_any_order_and_never_collide_less(densities: np.ndarray) -> None:
    rate = collision_rate(densities)
    assert np.all((rate >= 0.0) & (rate <= 1.0))
    np.testing.assert_allclose(collision_rate(densities[::-1]), rate, rtol=1e-13, atol=1e-300)
    leaves = [triple(row) for row in densities]
    right = reduce(lambda a, b: join(b, a), reversed(leaves))  # the other way of bracketing
    np.testing.assert_allclose(right.several, rate, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(sum(right), 1.0, rtol=1e-13)
    assert np.all(rate >= collision_rate(densities[:-1]) * (1 - 1e-13))


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 30), data=st.data())
def test_negotiation_can_reach_its_rate_and_no_masks_waste_less(n: int, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=5))
    rate = negotiated_rate(np.array([[c / n] for c in counts]))[0]
    dealt = np.zeros((len(counts), n), dtype=bool)  # each takes the next free positions, round and round
    start = 0
    for mask, c in zip(dealt, counts, strict=True):
        mask[(start + np.arange(c)) % n] = True
        start += c
    assert empirical_rate(dealt) == pytest.approx(rate, abs=1e-14)
    drawn = np.array([data.draw(st.permutations(range(n))) for _ in counts]) < np.array(counts)[:, None]
    beyond_first = np.maximum(drawn.sum(axis=0) - 1, 0).mean()  # claims that land on a taken position
    assert beyond_first >= rate - 1e-14


@pytest.mark.parametrize("density", [-0.1, 1.1, math.nan])
def test_densities_outside_zero_and_one_are_refused(density: float) -> None:
    for rate in (collision_rate, negotiated_rate):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            rate(np.array([[0.5, density]]))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        triple(np.array([density]))


def test_no_devices_do_not_collide() -> None:
    assert collision_rate(np.zeros((0, 2))).tolist() == [0.0, 0.0]
    assert negotiated_rate(np.zeros((0, 2))).tolist() == [0.0, 0.0]
    assert empirical_rate(np.zeros((0, 3), dtype=bool)) == 0.0


def test_missing_positions_or_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one position"):
        empirical_rate(np.zeros((2, 0), dtype=bool))
    for sizes in ([1], [1, 0], []):
        with pytest.raises(ValueError, match="one positive size for each of 2 layers"):
            mean_rate(np.array([0.1, 0.2]), sizes)
