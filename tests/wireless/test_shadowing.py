"""Shadowing and sight: keyed, symmetric, log-normal, and correlated over the ways of both ends."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from orthomesh.wireless.shadowing import in_sight, lognormal_mean, shadow

MANY = (np.zeros(40_000, dtype=np.int64), np.arange(1, 40_001))


def test_lognormal_mean_and_median() -> None:
    x = shadow(3, MANY, [np.zeros((40_001, 2))], 10.0)
    assert stats.kstest(x, "norm").pvalue > 1e-3
    factor = 10 ** (4.0 * x / 10)
    assert abs(factor.mean() - lognormal_mean(4.0)) < 4 * factor.std() / math.sqrt(len(x))
    assert abs(np.mean(factor < 1.0) - 0.5) < 4 * 0.5 / math.sqrt(len(x))


def test_autocorrelation_falls_with_the_ways_of_both_ends() -> None:
    here = np.zeros((40_001, 2))
    there = np.full((40_001, 2), [3.0, 4.0])
    there[0] = [2.0, 0.0]
    before, after = (shadow(1, MANY, places, 10.0) for places in ([here], [here, there]))
    expected = math.exp(-(5.0 + 2.0) / 10.0)
    found = np.mean(before * after)
    assert abs(found - expected) < 4 * math.sqrt((1 + expected**2) / len(before))
    assert abs(after.std() - 1.0) < 4 / math.sqrt(2 * len(after))
    assert np.array_equal(shadow(1, MANY, [here, here], 10.0), before)  # who stays keeps it


def test_sight_is_drawn_once_a_pair_with_its_probability() -> None:
    seen = in_sight(5, MANY, np.full(40_000, 0.3))
    assert abs(seen.mean() - 0.3) < 4 * math.sqrt(0.21 / 40_000)
    assert np.all(in_sight(5, MANY, np.full(40_000, 0.5)) >= seen)  # nearer: nobody loses sight
    part = (MANY[0][7:9], MANY[1][7:9])
    assert np.array_equal(in_sight(5, part, np.full(2, 0.3)), seen[7:9])
