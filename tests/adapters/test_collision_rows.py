"""Collision rates of many groups at once, against exact arithmetic, single groups and masks that are drawn."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orthomesh.adapters.collision import collision_rate, empirical_rate, mean_rate, negotiated_rate
from orthomesh.adapters.collision_rows import Rows, expected, measured, negotiated, probe, standard_error

DENSITIES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 7), st.integers(1, 3)),
    elements=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1), st.floats(1e-9, 1e-4)),
)
ZERO, ONE = np.array([0]), np.array([1])


def rate_of_all(rows: Rows, leaves: np.ndarray | None = None) -> float:
    """Everybody in one group, joined in order."""
    leaves = rows.leaves if leaves is None else leaves
    group = reduce(lambda g, leaf: rows.join(np.stack([g, leaf]), ZERO, ONE)[0], leaves[1:-1], leaves[0])
    return float(rows.rate(np.stack([group, leaves[-1]]), ZERO, ONE)[0])


def test_three_halves_on_paper() -> None:
    """None 1/8, one 3/8, so 1/2 collide; negotiated, 3/2 - 1; weighted 1 to 3 with a layer of zeros."""
    s = np.array([[0.5, 0.0]] * 3)
    assert rate_of_all(expected(s, [100, 300])) == 0.125
    assert rate_of_all(expected(s, [100, 300], "max")) == 0.5
    assert rate_of_all(negotiated(s, [100, 300])) == 0.125
    assert rate_of_all(negotiated(s, [100, 300], "max")) == 0.5


@settings(max_examples=25)
@given(DENSITIES)
def test_a_union_has_the_rate_of_exact_arithmetic(densities: np.ndarray) -> None:
    s = [[Fraction(x) for x in row] for row in densities.tolist()]
    sizes = list(range(1, densities.shape[1] + 1))
    exact = Fraction(0)
    for g, size in enumerate(sizes):
        layer = [row[g] for row in s]
        none = math.prod((1 - x for x in layer), start=Fraction(1))
        one = sum(
            (
                x * math.prod((1 - y for k, y in enumerate(layer) if k != j), start=Fraction(1))
                for j, x in enumerate(layer)
            ),
            start=Fraction(0),
        )
        exact += size * (1 - none - one)
    assert rate_of_all(expected(densities, sizes)) == pytest.approx(float(exact / sum(sizes)), rel=1e-13, abs=1e-300)


@settings(max_examples=25)
@given(DENSITIES)
def test_groups_at_once_are_groups_one_by_one(densities: np.ndarray) -> None:
    sizes = [3, 1, 2][: densities.shape[1]]
    expect = mean_rate(collision_rate(densities), sizes)
    assert rate_of_all(expected(densities, sizes)) == pytest.approx(expect, rel=1e-12, abs=1e-300)
    expect = mean_rate(negotiated_rate(densities), sizes)
    assert rate_of_all(negotiated(densities, sizes)) == pytest.approx(expect, abs=1e-14)


@settings(max_examples=20)
@given(DENSITIES, st.sampled_from(["mean", "max"]), st.randoms(use_true_random=False))
def test_rates_do_not_depend_on_order_and_never_fall(densities: np.ndarray, over: str, random: object) -> None:
    sizes = [3, 1, 2][: densities.shape[1]]
    order = list(range(len(densities)))
    random.shuffle(order)  # type: ignore[attr-defined]
    masks = np.random.default_rng(len(densities)).random((len(densities), 70)) < densities.mean(axis=1, keepdims=True)
    for rows in (expected(densities, sizes, over), negotiated(densities, sizes, over), measured(masks)):
        whole = rate_of_all(rows)
        assert rate_of_all(rows, rows.leaves[order]) == pytest.approx(whole, abs=1e-14)
        assert -1e-15 <= whole <= 1.0 + 1e-14
        if len(densities) > 2:
            assert whole >= rate_of_all(rows, rows.leaves[:-1]) - 1e-14


@given(st.integers(2, 6), st.integers(1, 200), st.integers(0, 99))
def test_bitmaps_count_what_masks_show(m: int, n: int, seed: int) -> None:
    masks = np.random.default_rng(seed).random((m, n)) < 0.4
    assert rate_of_all(measured(masks)) == pytest.approx(empirical_rate(masks), abs=1e-15)


def test_a_probe_finds_the_rate_of_all_positions_within_its_error() -> None:
    """Masks that are correlated, as those of devices with one task: (19) would expect less."""
    rng = np.random.default_rng(0)
    common = rng.random(40_000) < 0.2
    masks = np.where(rng.random((3, 40_000)) < 0.5, common, rng.random((3, 40_000)) < 0.2)
    true = empirical_rate(masks)
    at = probe(3, [10_000, 30_000], 4000)
    found = rate_of_all(measured(masks[:, at]))
    assert abs(found - true) < 4 * standard_error(true, 4000)
    assert true > collision_rate(np.full((3, 1), 0.2))[0] + 4 * standard_error(true, 4000)
    assert np.array_equal(at, probe(3, [10_000, 30_000], 4000))
    assert at.min() >= 0
    assert at.max() < 40_000


def test_expected_rates_are_those_of_drawn_masks() -> None:
    s = np.array([[0.3, 0.1], [0.1, 0.5], [0.25, 0.2]])
    masks = np.random.default_rng(1).random((3, 100_000, 2)) < s[:, None]
    drawn = measured(masks.transpose(0, 2, 1).reshape(3, -1))
    rate = rate_of_all(expected(s, [1, 1]))
    assert abs(rate_of_all(drawn) - rate) < 4 * standard_error(rate, 200_000)


def test_bad_input_gets_a_sentence() -> None:
    for make in (expected, negotiated):
        with pytest.raises(ValueError, match=r"share of positions in \[0, 1\]"):
            make(np.array([[0.5], [np.nan]]), [1])
        with pytest.raises(ValueError, match="one positive size for each of 2 layers"):
            make(np.zeros((2, 2)), [1])
    with pytest.raises(ValueError, match="at least one position"):
        measured(np.zeros((2, 0), dtype=bool))
    with pytest.raises(ValueError, match="at least one position"):
        probe(0, [], 4)
    with pytest.raises(ValueError, match="rate in"):
        standard_error(1.5, 10)
