"""Fading laws against their closed forms, blocks against a root finder, time correlation against Bessel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from orthomesh.wireless.fading import Blocks, Kind, Law, effective, ergodic, gaussians, powers, time_correlation

PAIRS = (np.zeros(20_000, dtype=np.int64), np.arange(1, 20_001))


@pytest.mark.parametrize(
    ("law", "reference"),
    [
        (Law("rayleigh"), stats.expon()),
        (Law("rician", 4.0), stats.ncx2(2, 8.0, scale=0.1)),
        (Law("nakagami", 2.5), stats.gamma(2.5, scale=0.4)),
    ],
)
def test_powers_follow_their_law(law: Law, reference: object) -> None:
    rho = powers(law, gaussians(2, 0, PAIRS, 1))[:, 0]
    assert stats.kstest(rho, reference.cdf).pvalue > 1e-3  # type: ignore[attr-defined]
    assert abs(rho.mean() - 1.0) < 4 * rho.std() / math.sqrt(len(rho))


def test_ergodic_capacity_under_rayleigh_fading() -> None:
    for g in (0.01, 1.0, 10.0, 1e4):
        closed = math.exp(1 / g) * special.exp1(1 / g) / math.log(2)
        blocks = ergodic(Law("rayleigh"))
        assert float(np.log2(1 + g * blocks.powers[0]) @ blocks.weights) == pytest.approx(closed, rel=1e-9)
    g, rho = 10.0, powers(Law("rayleigh"), gaussians(0, 0, PAIRS, 4))
    rate = np.log2(1 + g * rho).ravel()
    assert abs(rate.mean() - 2.9065) < 4 * rate.std() / math.sqrt(rate.size)


@pytest.mark.parametrize("law", [Law("rician", 3.0), Law("nakagami", 0.5), Law("nakagami", 4.0)])
def test_ergodic_grids_have_mean_one_and_the_capacity_of_draws(law: Law) -> None:
    blocks = ergodic(law)
    assert float(blocks.powers[0] @ blocks.weights) == pytest.approx(1.0, rel=1e-6)
    rate = np.log2(1 + 10 * powers(law, gaussians(1, 0, PAIRS, 1))[:, 0])
    mean = float(np.log2(1 + 10 * blocks.powers[0]) @ blocks.weights)
    assert abs(rate.mean() - mean) < 4 * rate.std() / math.sqrt(len(rate))


@settings(max_examples=60, deadline=None)
@given(rho=st.lists(st.floats(1e-4, 10.0), min_size=2, max_size=6), x=st.floats(1e-3, 30.0))
def test_an_effective_gain_carries_the_same_at_the_same_power(rho: list[float], x: float) -> None:
    weights = np.full(len(rho), 1 / len(rho))
    got = float(effective(Blocks(np.array([rho]), weights), x)[0])

    def short(log_g: float) -> float:
        return float(np.log2(1 + math.exp(log_g) * np.array(rho)) @ weights) - x

    g = math.exp(optimize.brentq(short, -40, 80, xtol=1e-13))
    assert got == pytest.approx(math.expm1(x * math.log(2)) / g, rel=1e-7)
    assert stats.gmean(rho) * (1 - 1e-9) <= got <= np.mean(rho) * (1 + 1e-9)


def test_one_block_is_its_own_power_and_no_efficiency_the_mean() -> None:
    assert effective(Blocks(np.array([[0.3], [2.0]]), np.ones(1)), 5.0).tolist() == [0.3, 2.0]
    assert effective(Blocks(np.array([[1.0, 3.0]]), np.full(2, 0.5)), 0.0)[0] == pytest.approx(2.0, rel=1e-6)
    assert effective(Blocks(np.array([[1.0, 4.0]]), np.full(2, 0.5)), 900.0)[0] == pytest.approx(2.0, rel=1e-6)


def test_rounds_are_as_alike_as_bessel_says() -> None:
    a = time_correlation(2.0, 0.05)
    assert a == pytest.approx(special.jv(0, 0.2 * math.pi), rel=1e-12)
    early, late = (gaussians(4, t, PAIRS, 1, a)[0, :, 0] for t in (6, 8))
    n = len(early)
    assert abs(np.mean(early * late) - a**2) < 4 * math.sqrt((1 + a**4) / n)
    assert stats.kstest(late, "norm").pvalue > 1e-3
    assert abs(np.mean(early * gaussians(4, 8, PAIRS, 1)[0, :, 0])) < 4 / math.sqrt(n)
    assert np.array_equal(gaussians(4, 9, PAIRS, 1, 1.0), gaussians(4, 0, PAIRS, 1))


def test_a_subset_has_the_numbers_of_the_whole() -> None:
    part = (PAIRS[0][3:5], PAIRS[1][3:5])
    assert np.array_equal(gaussians(1, 2, part, 3, 0.5), gaussians(1, 2, PAIRS, 3, 0.5)[:, 3:5])


@pytest.mark.parametrize("kind", ["none"])
def test_no_fading_is_one_everywhere(kind: Kind) -> None:
    assert powers(Law(kind), np.zeros((2, 3, 2))).tolist() == [[1.0, 1.0]] * 3
    assert ergodic(Law(kind)).powers.tolist() == [[1.0]]
