"""What a few seeds allow to say: means with t-intervals, and paired tests between two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Mean and half-width of its 95 % confidence interval; the half-width is NaN where one value says nothing."""

    mean: float
    half: float


class Paired(NamedTuple):
    """Difference a - b. t_p: two-sided p of the paired t-test over seeds. wilcoxon_p: of the signed-rank test over all
    pairs. pairs: of the latter. seeds: of the former. Both p are NaN where there is too little to test."""

    difference: Interval
    t_p: float
    wilcoxon_p: float
    pairs: int
    seeds: int


def interval(values: Sequence[float]) -> Interval:
    r"""Mean and 95 % t-interval over independent repetitions.

    .. math::  \bar v \pm t_{0.975, n-1} s / \sqrt n

    Args:
        values: one for each seed. [n]

    Raises:
        ValueError: no value.

    >>> interval([1.0, 2.0, 3.0]).mean, round(interval([1.0, 2.0, 3.0]).half, 4)
    (2.0, 2.4841)
    """
    v = np.asarray(values, dtype=np.float64)
    if v.size == 0:
        raise ValueError("there is no value to take the mean of")
    if v.size == 1:
        return Interval(float(v[0]), float("nan"))
    from scipy.stats import t  # late: reading settings must not load it

    return Interval(float(v.mean()), float(t.ppf(0.975, v.size - 1) * v.std(ddof=1) / v.size**0.5))


def paired(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Paired:
    """Whether two methods differ, on the same seeds and tasks.

    The t-test is over the seeds' means, which are independent. The signed-rank test takes every seed and task as a
    pair; tasks of one seed share devices and radio, so it is the more hopeful of the two.

    Args:
        a: accuracy by seed and task. [n seeds, n tasks]
        b: the other method's, in the same order.

    Raises:
        ValueError: shapes that differ, or nothing to compare.

    >>> paired([[1.0], [2.0]], [[0.0], [1.0]]).difference.mean
    1.0
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.size == 0:
        raise ValueError(f"pairs need as many seeds and tasks on both sides, got {x.shape} and {y.shape}")
    by_seed, pairs = (x - y).mean(axis=1), (x - y).ravel()
    difference = interval(by_seed.tolist())
    return Paired(difference, _t_test(by_seed), _wilcoxon(pairs), int(pairs.size), len(by_seed))


def _t_test(differences: np.ndarray) -> float:
    """Two-sided p of mean zero; 1 where there is no difference at all, NaN where there is one without any spread."""
    if differences.size < 2:
        return float("nan")
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else float("nan")
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)


def _wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test, zeros split between both signs."""
    if differences.size < 6:  # below, no p is under 0.05
        return float("nan")
    if not differences.any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, zero_method="zsplit").pvalue)
