"""The split of a band with least power, against a general optimiser and on paper."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from orthomesh.units import from_db
from orthomesh.wireless.bandwidth import optimal_split
from orthomesh.wireless.link import Radio, max_power_w, noise_w
from orthomesh.wireless.power import is_feasible, payload_limit_bits, served, unicast_powers_w

PAPER = Radio(min_efficiency_bps_per_hz=0.0)


@pytest.mark.parametrize("bits", [1e5, 3e6])
@pytest.mark.parametrize("gains_db", [(-90.0, -100.0, -97.0), (-80.0, -120.0), (-95.0, -96.0, -99.0, -104.0, -110.0)])
def test_a_general_optimiser_finds_the_same(bits: float, gains_db: tuple[float, ...]) -> None:
    h = np.array([from_db(g) for g in gains_db])
    bands_hz, powers_w = optimal_split(bits, h.tolist(), PAPER)
    noise = noise_w(PAPER, 1.0) * 1e6 / h

    def total(share: np.ndarray) -> float:
        return float(np.sum(noise * share * np.expm1(bits / 1e6 / share * math.log(2.0))))

    scale = total(bands_hz / 1e6)
    n = len(h)
    found = optimize.minimize(
        lambda b: math.log(total(b) / scale), np.full(n, 1 / n), method="SLSQP", bounds=[(0.02, 1.0)] * n,
        constraints={"type": "eq", "fun": lambda b: b.sum() - 1.0}, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert powers_w.sum() == pytest.approx(scale, rel=1e-12)
    assert found.fun == pytest.approx(0.0, abs=1e-7)
    assert bands_hz.sum() == pytest.approx(1e6, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    gains_db=st.lists(st.floats(-140.0, -60.0), min_size=1, max_size=6),
    bits=st.floats(1e3, 5e6),
    lowest=st.sampled_from([0.0, 0.15, 1.0]),
)
def test_never_dearer_than_equal_parts_and_no_band_wider_than_the_code(
    gains_db: list[float], bits: float, lowest: float
) -> None:
    radio = Radio(min_efficiency_bps_per_hz=lowest)
    h = [from_db(g) for g in gains_db]
    bands_hz, powers_w = optimal_split(bits, h, radio)
    assert powers_w.sum() <= sum(unicast_powers_w(bits, h, radio)) * (1 + 1e-9)
    assert bands_hz.sum() <= 1e6 * (1 + 1e-9)
    if lowest:
        assert bands_hz.max() <= bits / lowest * (1 + 1e-9)
    assert powers_w.tolist() == list(unicast_powers_w(bits, h, replace(radio, split="optimal")))


def test_weaker_links_get_more_band_and_one_link_gets_all() -> None:
    bands_hz, _ = optimal_split(2e6, [1e-9, 1e-11], PAPER)
    assert bands_hz[1] > bands_hz[0]
    assert optimal_split(2e6, [1e-9], PAPER)[0].tolist() == pytest.approx([1e6])


def test_the_payload_limit_and_who_is_served_follow_the_split() -> None:
    radio = Radio(min_efficiency_bps_per_hz=0.0, split="optimal")
    h = [1e-9, 1e-11, 3e-13]
    limit = payload_limit_bits(h, radio, "unicast")
    assert limit > payload_limit_bits(h, PAPER, "unicast")
    assert is_feasible(limit * (1 - 1e-9), h, radio, "unicast")
    assert not is_feasible(limit * (1 + 1e-9), h, radio, "unicast")
    assert served(limit * 1.5, dict(enumerate(h)), radio, "unicast") == (0, 1)
    assert served(1e5, {0: 1e-9, 1: 0.0}, radio, "unicast") == (0,)
    assert sum(optimal_split(limit, h, radio)[1]) == pytest.approx(max_power_w(radio), rel=1e-6)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match="receivers with gains > 0"):
        optimal_split(1e5, [1e-9, 0.0], PAPER)
    with pytest.raises(ValueError, match="receivers with gains > 0"):
        optimal_split(1e5, [], PAPER)
    with pytest.raises(ValueError, match="noise that shrinks with the band"):
        optimal_split(1e5, [1e-9], Radio(noise="fixed"))
