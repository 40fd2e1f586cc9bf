"""Overhead of local fine-tuning and the parameters it leaves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.wireless.compute import (
    compute_cost,
    compute_energy_j,
    compute_time_s,
    cycle_energy_j,
    inference_flops,
    parameter_budget,
    training_flops,
    transmit_energy_j,
)


def test_cost_on_paper() -> None:
    # one layer: d = 8, r = 4, s = 0.25 active, k = 16 with a trained projection
    assert compute_cost(8 * 4 * 0.25 + 4 * 16, 100, 20, 2.0) == 2.0 * 72 * 5


def test_budget_on_paper() -> None:
    assert parameter_budget(720.0, 100, 20, 2.0) == 72.0


def test_cost_counts_the_entries_a_mask_leaves() -> None:
    mask = np.random.default_rng(0).random((32, 8)) < 0.3
    exact = Fraction(1, 4) * sum(int(x) for x in mask.flat) * 48 / 16
    assert compute_cost(int(np.count_nonzero(mask)), 48, 16, 0.25) == float(exact)


@given(
    limit=st.floats(0, 1e12),
    samples=st.integers(1, 10**6),
    batch=st.integers(1, 4096),
    coefficient=st.floats(1e-6, 1e6),
)
def test_a_spent_budget_costs_the_limit(limit: float, samples: int, batch: int, coefficient: float) -> None:
    budget = parameter_budget(limit, samples, batch, coefficient)
    assert budget >= 0.0
    assert compute_cost(budget, samples, batch, coefficient) == pytest.approx(limit, rel=1e-12)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="parameters is >= 0"):
        compute_cost(-1, 1, 1, 1.0)
    with pytest.raises(ValueError, match="limit is >= 0"):
        parameter_budget(-1.0, 1, 1, 1.0)
    for samples, batch, coefficient in [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)]:
        with pytest.raises(ValueError, match="samples >= 1"):
            compute_cost(1, samples, batch, coefficient)
        with pytest.raises(ValueError, match="samples >= 1"):
            parameter_budget(1.0, samples, batch, coefficient)


def test_energy_of_a_billion_parameters_on_paper() -> None:
    flops = training_flops(10**9, 1000)
    assert flops == 4e12
    assert inference_flops(10**9, 1000) == 2e12
    assert compute_time_s(flops, 1e13, 0.4) == pytest.approx(1.0)
    assert compute_energy_j(flops, 2e-11) == pytest.approx(80.0)
    assert cycle_energy_j(1e6, 40.0, 1e9) == pytest.approx(0.04)  # Chen et al.: kappa 1e-27
    assert transmit_energy_j(0.2, 5.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: training_flops(-1, 1),
        lambda: compute_time_s(1.0, 0.0, 0.5),
        lambda: compute_time_s(1.0, 1.0, 1.5),
        lambda: compute_energy_j(-1.0, 1.0),
        lambda: cycle_energy_j(1.0, 1.0, -1.0),
        lambda: transmit_energy_j(-0.1, 1.0),
    ],
)
def test_energies_of_what_makes_no_sense_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=">= 0"):
        wrong()  # type: ignore[operator]
