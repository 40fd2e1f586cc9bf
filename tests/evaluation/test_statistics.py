"""Intervals and paired tests against hand-made numbers and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orthomesh.evaluation.statistics import interval, paired

# example


def test_interval_on_paper() -> None:
    """t_{0.975, 1} is tan(0.475 pi) = 12.7062; two values a distance d apart have half-width t d / 2."""
    found = interval([10.0, 14.0])
    assert found.mean == 12.0
    assert found.half == pytest.approx(math.tan(0.475 * math.pi) * 2.0)


# reference


def test_paired_tests_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(60, 5, (4, 8)), rng.normal(55, 5, (4, 8))
    found = paired(a.tolist(), b.tolist())
    assert found.t_p == pytest.approx(stats.ttest_rel(a.mean(1), b.mean(1)).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(a.ravel(), b.ravel()).pvalue)
    assert found.difference.mean == pytest.approx((a - b).mean())
    assert found.pairs == 32


# law


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=6), st.floats(-50, 50))
def test_an_interval_moves_with_its_values(values: list[float], by: float) -> None:
    found, moved = interval(values), interval([v + by for v in values])
    assert moved.mean == pytest.approx(found.mean + by, abs=1e-9)
    assert moved.half == pytest.approx(found.half, abs=1e-9)


def test_who_is_first_decides_the_sign_only() -> None:
    a, b = [[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]], [[0.0, 3.0, 4.0], [5.0, 1.0, 2.0]]
    there, back = paired(a, b), paired(b, a)
    assert back.difference.mean == pytest.approx(-there.difference.mean)
    assert (back.t_p, back.wilcoxon_p) == pytest.approx((there.t_p, there.wilcoxon_p))


# edge


def test_one_value_says_nothing_of_its_spread() -> None:
    assert math.isnan(interval([3.0]).half)
    assert math.isnan(paired([[1.0]], [[0.0]]).t_p)


def test_equal_methods_do_not_differ() -> None:
    found = paired([[1.0] * 8] * 3, [[1.0] * 8] * 3)
    assert (found.t_p, found.wilcoxon_p, found.difference.mean) == (1.0, 1.0, 0.0)


def test_a_difference_without_spread_is_not_tested() -> None:
    assert math.isnan(paired([[1.0], [2.0]], [[0.0], [1.0]]).t_p)


@pytest.mark.parametrize(("a", "b"), [([[1.0]], [[1.0, 2.0]]), ([], [])])
def test_pairs_must_fit(a: list[list[float]], b: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="as many seeds and tasks"):
        paired(a, b)


def test_no_value_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no value"):
        interval([])
