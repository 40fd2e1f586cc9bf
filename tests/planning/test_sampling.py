"""Shares of ranks: the optimum by a grid, and what it does at its ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.planning.sampling import shares, split

MOST = 8.0


def clock(m: np.ndarray, worth: np.ndarray, seconds: np.ndarray, fixed_s: float, floor: float) -> float:
    """Rounds times seconds of a round, by the formula."""
    return float((floor + (worth * MOST / m).sum()) * (fixed_s + (m * seconds).sum()))


# example


def test_alike_devices_without_a_floor_on_paper() -> None:
    """w = 1/2, s = 1, c = 8: lambda^2 beta = c with both free, so beta = 2 gives lambda = 2, m = 2 sqrt(4) = 4."""
    assert shares(np.full(2, 0.5), np.ones(2), 8.0, 2.0, (0.5, MOST)) == pytest.approx([4.0, 4.0])


# reference


@given(st.integers(0, 2**32 - 1))
def test_no_point_of_a_grid_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth, seconds = rng.dirichlet([1.0, 1.0]), 10 ** rng.uniform(-2, 2, 2)
    fixed_s, floor = 10 ** rng.uniform(-2, 2, 2)
    found = shares(worth, seconds, fixed_s, floor, (0.5, MOST))
    assert np.all((found >= 0.5) & (found <= MOST))
    grid = np.geomspace(0.5, MOST, 40)
    best = min(clock(np.array(m), worth, seconds, fixed_s, floor) for m in itertools.product(grid, grid))
    assert clock(found, worth, seconds, fixed_s, floor) <= best * (1 + 1e-9)


# law


@given(st.floats(0.01, 64.0))
def test_a_share_is_its_chance_times_its_ranks(share: float) -> None:
    chance, ranks = split(share)
    assert 0 < chance <= 1
    assert chance * ranks == pytest.approx(share, rel=1e-6)
    assert ranks - 1 < share or ranks == 1


# edge


def test_what_takes_no_time_is_sent_whole_and_what_is_worth_nothing_least() -> None:
    assert shares(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 1.0, 1.0, (0.5, MOST)) == pytest.approx([MOST, 0.5])
    assert shares(np.array([1.0]), np.array([1.0]), 1.0, 0.0, (0.5, MOST)) == pytest.approx([MOST])


@pytest.mark.parametrize(("fixed_s", "ends"), [(0.0, (1.0, 8.0)), (1.0, (0.0, 8.0)), (1.0, (9.0, 8.0))])
def test_numbers_out_of_range_are_refused(fixed_s: float, ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="shares need"):
        shares(np.ones(1), np.ones(1), fixed_s, 1.0, ends)
