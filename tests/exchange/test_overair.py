"""The mean out of the air: its error, its power, its time, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.exchange.overair import OverAir, airtime_s, break_even_efficiency, control_bytes, superpose
from orthomesh.exchange.powercontrol import counted_error, inversion_error, received_snr
from orthomesh.exchange.union import support
from orthomesh.rng import stream


def normals(n: int, size: int) -> dict[int, np.ndarray]:
    """Of root mean square 1, exactly, so that the unit of amplitude is 1."""
    drawn = {k: stream(0, "values", k).standard_normal(size) for k in range(n)}
    return {k: x / np.sqrt(np.mean(x**2)) for k, x in drawn.items()}


# example


def test_without_fading_losses_noise_and_phase_it_is_the_mean() -> None:
    values = {3: np.array([1.0, 0.0, -2.0]), 7: np.array([3.0, 0.0, 0.0])}
    got = superpose(values, {3: 1e24, 7: 1e24}, OverAir(threshold=1e-9), 0)
    np.testing.assert_allclose(got.mean, [2.0, 0.0, -1.0], atol=1e-6)
    assert got.active.tolist() == [2]
    assert got.symbols == 2


def test_time_and_break_even_on_paper() -> None:
    assert airtime_s(5, 1.0) == 3.0
    assert break_even_efficiency(0.25, 16) == 8.0
    assert break_even_efficiency(0.125, 16, support=1.0) == 4.0
    four = {k: np.arange(32) % 8 == k for k in range(4)}  # quarter of an eighth each, none collide
    s_u = float(support(four).mean())
    assert s_u == 0.5
    assert break_even_efficiency(0.125, 16, s_u) == 8.0
    size, band = 32, 1e6
    digital_s = 0.125 * size * 16 / (band * 8.0)
    assert airtime_s(int(s_u * size), band) == pytest.approx(digital_s)  # at the break-even both take as long
    assert control_bytes(5, 28) == 4 * 5 * 28


# reference


@pytest.mark.parametrize(
    ("n", "c"),
    [
        (2, OverAir(threshold=0.2, block_symbols=4)),
        (5, OverAir(block_symbols=4)),
        (5, OverAir(block_symbols=4, phase_std_rad=0.2)),
    ],
)
def test_its_error_is_that_of_the_formulas(n: int, c: OverAir) -> None:
    values, blocks = normals(n, 8 * 12_000), 12_000
    got = superpose(values, dict.fromkeys(range(n), 100.0), c, 5)
    rho = received_snr(got.threshold, [100.0] * n, c.peak_to_mean)
    truth = np.mean([values[k] for k in range(n)], axis=0)
    expecting = got.mean * np.repeat(got.active, 8) / (n * np.exp(-got.threshold))
    for estimate, formula in ((got.mean, counted_error), (expecting, inversion_error)):
        squared = np.square(estimate - truth).reshape(blocks, 8).mean(axis=1)
        expected = formula(got.threshold, n, rho, c.phase_std_rad)
        assert squared.mean() == pytest.approx(expected, abs=4 * squared.std() / blocks**0.5)


def test_blocks_in_which_nobody_speaks_are_zero() -> None:
    got = superpose(normals(2, 4000), {0: 10.0, 1: 10.0}, OverAir(threshold=2.0, block_symbols=10), 0)
    silent = np.repeat(got.active == 0, 20)
    assert silent.any()
    assert (got.mean[silent] == 0.0).all()
    assert (got.mean[~silent] != 0.0).all()
    share = (1 - np.exp(-2.0)) ** 2
    assert np.mean(got.active == 0) == pytest.approx(share, abs=4 * (share * (1 - share) / 200) ** 0.5)


# law


@settings(max_examples=8, deadline=None)
@given(n=st.integers(2, 6), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_it_scales_with_its_values_and_keeps_power(n: int, scale: float, seed: int) -> None:
    values = normals(n, 50)
    snr = {k: 10.0 * (k + 1) for k in range(n)}
    got = superpose(values, snr, OverAir(), seed, 3)
    larger = superpose({k: scale * v for k, v in values.items()}, snr, OverAir(), seed, 3)
    np.testing.assert_allclose(larger.mean, scale * got.mean, rtol=1e-6, atol=1e-9 * scale)
    assert all(0.0 < share <= 1.0 + 1e-12 for share in got.mean_power.values())
    assert min(got.mean_power, key=lambda k: got.mean_power[k]) == n - 1  # the strongest holds back most


def test_draws_are_keyed() -> None:
    values, snr = normals(3, 40), dict.fromkeys(range(3), 10.0)
    one, same, other = (superpose(values, snr, OverAir(), 1, t) for t in (0, 0, 1))
    np.testing.assert_array_equal(one.mean, same.mean)
    assert (one.mean != other.mean).any()
    backwards = superpose(dict(reversed(values.items())), snr, OverAir(), 1, 0)
    np.testing.assert_array_equal(one.mean, backwards.mean)


# edge


def test_all_zero_is_a_mean_of_noise_without_amplitude() -> None:
    got = superpose({0: np.zeros(3), 1: np.zeros(3)}, {0: 1.0, 1: 1.0}, OverAir(), 0)
    np.testing.assert_array_equal(got.mean, np.zeros(3))


def test_bad_input_is_refused() -> None:
    two, snr = normals(2, 4), {0: 1.0, 1: 1.0}
    with pytest.raises(ValueError, match="one sends a frame"):
        superpose({0: np.ones(3)}, {0: 1.0}, OverAir(), 0)
    for odd in (np.ones(3), np.array([1.0, 2.0, np.nan, 0.0])):
        with pytest.raises(ValueError, match="one length above 0 and finite"):
            superpose({**two, 1: odd}, snr, OverAir(), 0)
    with pytest.raises(ValueError, match=r"SNR of devices \[1\] is missing"):
        superpose(two, {0: 1.0}, OverAir(), 0)
    with pytest.raises(ValueError, match="above 0"):
        superpose(two, {0: 1.0, 1: 0.0}, OverAir(), 0)
    for bad in ({"threshold": 0.0}, {"peak_to_mean": 0.0}, {"phase_std_rad": -1.0}, {"block_symbols": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            OverAir(**bad)  # type: ignore[arg-type]
    for shares in ((0.0, 16, 1.0), (0.5, 16, 0.4), (0.5, 0, 1.0), (0.5, 16, 1.1)):
        with pytest.raises(ValueError, match="shares are"):
            break_even_efficiency(*shares)
    for size, band in ((-1, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="a slot has"):
            airtime_s(size, band)
