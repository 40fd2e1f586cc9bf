"""Outage, packet errors and repetition: closed forms against simulation with four standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special

from orthomesh.wireless.errors import (
    chase_outage,
    incremental_outage,
    mean_packet_error,
    mean_transmissions,
    outage,
    packet_error,
    payload_loss,
    residual_loss,
    short_codeword_error,
)

N = 100_000


def rho(*shape: int) -> np.ndarray:
    return np.random.default_rng(11).standard_exponential(shape)


def close(found: np.ndarray, expected: float) -> bool:
    return bool(abs(found.mean() - expected) < 4 * found.std() / math.sqrt(len(found)))


def test_outage_of_one_link_and_of_a_broadcast() -> None:
    assert outage(2.0, 10.0) == pytest.approx(1 - math.exp(-0.3), rel=1e-12)
    assert close(np.log2(1 + 10 * rho(N)) < 2.0, outage(2.0, 10.0))
    assert close(np.log2(1 + 10 * rho(N, 4)).min(axis=1) < 2.0, outage(2.0, 10.0, receivers=4))
    assert outage(2.0, 10.0, receivers=4) == pytest.approx(1 - math.exp(-4 * 0.3), rel=1e-12)


def test_packet_errors_and_their_mean_over_rayleigh_fading() -> None:
    assert packet_error(0.0) == 1.0
    assert packet_error(1e9) == pytest.approx(1e-9, rel=1e-6)
    assert mean_packet_error(10.0, 1.08) == pytest.approx(0.24498, abs=5e-6)
    for m, g in ((1.08, 10.0), (0.023, 2.0), (3.0, 1.0)):
        whole = integrate.quad(lambda x, m=m, g=g: packet_error(g * x, m) * math.exp(-x), 0, np.inf)[0]
        assert mean_packet_error(g, m) == pytest.approx(whole, rel=1e-6)
    assert close(1 - np.exp(-1.08 / (10 * rho(N))), mean_packet_error(10.0, 1.08))


def test_truncated_inversion_needs_the_exponential_integral() -> None:
    """Mean power of a link that inverts its fading above a, E[1/rho; rho > a] = E1(a)."""
    x = rho(N)
    assert special.exp1(0.03) == pytest.approx(2.9591, abs=5e-5)
    assert close(np.where(x > 0.03, 1 / x, 0.0), special.exp1(0.03))


def test_repetition_until_it_arrives() -> None:
    lost = np.random.default_rng(5).random((N, 4)) < 0.3
    tries = np.where(lost.all(axis=1), 4, lost.argmin(axis=1) + 1)
    assert close(tries, mean_transmissions(0.3, 4))
    assert close(lost.all(axis=1), residual_loss(0.3, 4))
    assert mean_transmissions(0.0, 7) == 1.0


def test_a_payload_misses_a_packet() -> None:
    assert payload_loss(3001, 1500, 0.1, 1) == pytest.approx(1 - 0.9**3, rel=1e-12)
    assert payload_loss(3000, 1500, 0.1, 3) == pytest.approx(1 - 0.999**2, rel=1e-9)
    assert payload_loss(10**9, 1500, 0.0, 1) == payload_loss(0, 1500, 0.5, 1) == 0.0


def test_chase_combining_adds_powers_and_redundancy_adds_information() -> None:
    x = rho(N, 3)
    assert close(np.log2(1 + 2 * x.sum(axis=1)) < 3.0, chase_outage(3.0, 2.0, 3))
    assert chase_outage(3.0, 2.0, 1) == pytest.approx(outage(3.0, 2.0), rel=1e-12)
    information = np.log2(1 + 2 * x).sum(axis=1) < 3.0
    found = incremental_outage(3.0, 2.0, 3, seed=1)
    assert abs(found - information.mean()) < 4 * information.std() * math.sqrt(2 / N)
    assert found <= chase_outage(3.0, 2.0, 3)


def test_short_codewords() -> None:
    assert short_codeword_error(418, 500, 1.0) == pytest.approx(1e-3, rel=0.05)
    assert short_codeword_error(400, 500, 1.0) < 1e-3 < short_codeword_error(440, 500, 1.0)
    assert short_codeword_error(10**5 * 3 // 4, 10**5, 1.0) < 1e-12  # long codewords come up to capacity
    at_capacity = short_codeword_error(500, 500, 1.0)
    reference = special.ndtr(-0.5 * math.log2(500) / math.sqrt(500 * 0.75 * math.log2(math.e) ** 2))
    assert at_capacity == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: outage(1.0, 0.0),
        lambda: packet_error(-1.0),
        lambda: mean_packet_error(1.0, 0.0),
        lambda: residual_loss(1.0, 2),
        lambda: mean_transmissions(0.1, 0),
        lambda: chase_outage(1.0, math.nan, 2),
        lambda: short_codeword_error(0, 10, 1.0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"need|has bits|is > 0"):
        wrong()  # type: ignore[operator]
