"""Closed forms of over-the-air aggregation against simulation, numeric search and paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from orthomesh.exchange.powercontrol import (
    best_threshold,
    counted_error,
    inversion_error,
    received_snr,
    static_control,
    truncation,
)
from orthomesh.rng import stream


def test_inversion_at_20_db_on_paper() -> None:
    """E1(0.2) = 1.2227, E1(0.003) = 5.2350; silence 0.0443 and 6.01e-4, noise over n = 5 as in the module's words."""
    assert truncation(0.2) / (1 - truncation(0.2)) / 5 == pytest.approx(0.0443, abs=5e-5)
    high, low = (received_snr(g, [100.0] * 5, math.inf) for g in (0.2, 0.003))
    assert (high, low) == (pytest.approx(100 / 1.2227, rel=1e-4), pytest.approx(100 / 5.2350, rel=1e-4))
    assert inversion_error(0.2, 5, high) == pytest.approx(0.04428 + 7.30e-4, rel=1e-3)
    assert inversion_error(0.003, 5, low) == pytest.approx(6.009e-4 + 2.107e-3, rel=1e-3)


def test_mean_power_of_truncated_inversion_is_that_of_the_exponential_integral() -> None:
    """E[1/rho; rho > g] = E1(g); of 0.03: 2.9591."""
    rho = stream(0, "rho").standard_exponential(400_000)
    spent = np.where(rho > 0.03, 1 / rho, 0.0)
    assert spent.mean() == pytest.approx(1 / received_snr(0.03, [1.0], math.inf), abs=4 * spent.std() / 400_000**0.5)
    assert 1 / received_snr(0.03, [1.0], math.inf) == pytest.approx(2.9591, abs=5e-5)


def test_the_weakest_device_and_the_peak_limit_everybody() -> None:
    assert received_snr(0.2, [50.0, 10.0], math.inf) == received_snr(0.2, [10.0], math.inf)
    assert received_snr(0.01, [10.0], 4.0) == pytest.approx(0.4)  # peak: 10 x 4 x 0.01, mean would allow 10 / 4.04


@pytest.mark.parametrize(
    ("n", "g", "gamma", "phase"), [(2, 0.2, 10.0, 0.0), (5, 0.05, 100.0, 0.0), (4, 0.1, 30.0, 0.3)]
)
def test_both_errors_are_those_of_an_independent_simulation(n: int, g: float, gamma: float, phase: float) -> None:
    rng, draws = stream(1, "air", n), 200_000
    rho = received_snr(g, [gamma], 4.0)
    x = (rng.standard_normal((2, n, draws)) * [[[1.0]], [[1j]]]).sum(axis=0) / np.sqrt(2)  # unit power
    on = rng.standard_exponential((n, draws)) >= g
    z = (rng.standard_normal((2, draws)) * [[1.0], [1j]]).sum(axis=0) / np.sqrt(2 * rho)
    y = (x * on * np.exp(1j * phase * rng.standard_normal((n, draws)))).sum(axis=0) + z
    y /= np.exp(-(phase**2) / 2)
    count = on.sum(axis=0)
    counted = np.where(count > 0, y / np.maximum(count, 1), 0.0)
    expecting = y / (n * np.exp(-g))
    for estimate, formula in ((counted, counted_error), (expecting, inversion_error)):
        # a symbol of power 1 holds two entries of power 1/2; scaled to variance 1 each, the error of one is this
        squared = np.abs(estimate - x.mean(axis=0)) ** 2
        assert squared.mean() == pytest.approx(formula(g, n, rho, phase), abs=4 * squared.std() / draws**0.5)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 12), db=st.floats(0, 30), peak_db=st.floats(0, 12))
def test_no_threshold_of_a_grid_beats_the_best(n: int, db: float, peak_db: float) -> None:
    snr, peak = [10 ** (db / 10)] * n, 10 ** (peak_db / 10)

    def error(threshold: float) -> float:
        return counted_error(threshold, n, received_snr(threshold, snr, peak))

    best = best_threshold(snr, peak)
    assert error(best) <= min(error(g) for g in np.geomspace(1e-5, 4.0, 97)) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 8))
def test_static_control_is_the_best_of_a_numeric_search(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    q, noise = rng.exponential(size=n) + 1e-3, float(rng.uniform(0.01, 3.0))

    def error(root: float) -> float:
        """For a given eta the best received power is the nearest allowed to it."""
        eta = root**2
        return float(((np.sqrt(np.minimum(q, eta) / eta) - 1) ** 2).sum() + noise / eta)

    found = static_control(q.tolist(), noise)
    grid = np.geomspace(1e-2, 1e3, 200)
    start = grid[np.argmin([error(x) for x in grid])]
    searched = minimize_scalar(error, bounds=(start / 1.2, start * 1.2), method="bounded", options={"xatol": 1e-10})
    assert found.error == pytest.approx(error(math.sqrt(found.eta)), rel=1e-12)
    assert found.error <= searched.fun + 1e-9
    assert found.error <= noise / q.min()  # forcing all to the weakest is never better


def test_static_control_is_what_comes_out_of_the_air() -> None:
    q, noise, draws = [0.2, 1.0, 3.0], 0.5, 200_000
    found = static_control(q, noise)
    rng = stream(0, "static")
    x = rng.standard_normal((3, draws))
    y = np.sqrt(found.received) @ x + math.sqrt(noise) * rng.standard_normal(draws)
    squared = (y / math.sqrt(found.eta) - x.sum(axis=0)) ** 2
    assert squared.mean() == pytest.approx(found.error, abs=4 * squared.std() / draws**0.5)
    assert found.received[0] == 0.2 < found.eta  # the weakest has no more to give


def test_bad_input_is_refused() -> None:
    for n in (0, 1):
        for error in (inversion_error, counted_error):
            with pytest.raises(ValueError, match="at least 2 devices"):
                error(0.1, n, 1.0)
        with pytest.raises(ValueError, match="at least 2 devices"):
            static_control([1.0] * n, 1.0)
        with pytest.raises(ValueError, match="at least 2 devices"):
            best_threshold([1.0] * n, 4.0)
    for threshold, snr in ((0.0, [1.0]), (math.nan, [1.0]), (0.1, []), (0.1, [1.0, 0.0]), (0.1, [math.nan])):
        with pytest.raises(ValueError, match="above 0"):
            received_snr(threshold, snr, 4.0)
    for q, noise in (([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0), ([math.nan, 1.0], 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            static_control(q, noise)
