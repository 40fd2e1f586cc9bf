"""Noise, rate, delay and spectral efficiency of one link."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from orthomesh.config import parse
from orthomesh.wireless.link import (
    Radio,
    airtime_s,
    bits_on_air,
    delay_s,
    efficiency,
    link_rate_bps,
    max_power_w,
    noise_w,
    rate_bps,
)
from orthomesh.wireless.power import payload_limit_bits, required_power_w

PAPER = Radio(min_efficiency_bps_per_hz=0.0, noise="fixed")


def test_noise_and_power_limit_on_paper() -> None:
    assert noise_w(Radio(), 1e6) == pytest.approx(10**-13.5, rel=1e-12)  # -174 + 9 + 60 dB = -105 dBm
    assert max_power_w(Radio()) == pytest.approx(0.19953, rel=1e-4)  # 23 dBm


def test_noise_of_half_the_band_is_half_unless_fixed() -> None:
    assert noise_w(Radio(), 0.5e6) == pytest.approx(noise_w(Radio(), 1e6) / 2, rel=1e-12)
    assert noise_w(PAPER, 0.5e6) == noise_w(PAPER, 1e6) == noise_w(Radio(), 1e6)


def test_delay_of_a_transfer_on_paper() -> None:
    rate = rate_bps(power_w=7.0, gain=0.5, bandwidth_hz=1e6, noise_w=0.5)  # log2(1 + 7) = 3
    assert rate == pytest.approx(3e6, rel=1e-12)
    assert delay_s(6_000_000, rate) == pytest.approx(2.0, rel=1e-12)


def test_a_model_of_eight_million_parameters_needs_this_much_spectrum() -> None:
    radio = Radio(bandwidth_hz=20e6, deadline_s=5.0)
    assert efficiency(8_000_000 * 16, 20e6, radio) == pytest.approx(1.28, rel=1e-12)


def test_mean_rate_under_rayleigh_fading_is_the_ergodic_capacity() -> None:
    snr = 10.0
    mean, _ = integrate.quad(lambda rho: rate_bps(snr, float(rho), 1.0, 1.0) * math.exp(-rho), 0, np.inf)
    assert mean == pytest.approx(math.exp(1 / snr) * special.exp1(1 / snr) / math.log(2), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(power=st.floats(1e-6, 10), more=st.floats(1.01, 10), gain=st.floats(1e-14, 1), bits=st.integers(1, 10**9))
def test_more_power_is_a_higher_rate_and_a_shorter_delay(power: float, more: float, gain: float, bits: int) -> None:
    slow, fast = (rate_bps(p, gain, 1e6, 1e-13) for p in (power, power * more))
    assert fast > slow > 0.0
    assert delay_s(bits, fast) < delay_s(bits, slow)
    assert delay_s(bits, slow) * slow == pytest.approx(bits, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(0, 10**9), band=st.floats(1e3, 1e8), lowest=st.floats(0, 2))
def test_airtime_keeps_the_deadline_and_moves_all_bits(bits: int, band: float, lowest: float) -> None:
    radio = Radio(deadline_s=0.5, min_efficiency_bps_per_hz=lowest)
    on_s = airtime_s(bits, band, radio)
    assert 0.0 <= on_s <= 0.5 * (1 + 1e-12)
    assert on_s * band * efficiency(bits, band, radio) == pytest.approx(bits, rel=1e-12)


def test_the_lowest_code_ends_a_small_transfer_early() -> None:
    radio = Radio(min_efficiency_bps_per_hz=0.2)
    assert airtime_s(50_000, 1e6, radio) == pytest.approx(0.25, rel=1e-12)
    slow = replace(radio, min_efficiency_bps_per_hz=0.0)
    assert airtime_s(50_000, 1e6, slow) == pytest.approx(1.0, rel=1e-12)


def test_nothing_to_send_takes_no_time_and_a_dead_link_for_ever() -> None:
    assert delay_s(1, 0.0) == math.inf
    assert delay_s(0, 0.0) == 0.0
    assert rate_bps(0.0, 1.0, 1e6, 1e-13) == 0.0
    assert airtime_s(0, 1e6, PAPER) == 0.0


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="positive band"):
        noise_w(Radio(), 0.0)
    with pytest.raises(ValueError, match="noise > 0"):
        rate_bps(1.0, 1.0, 1e6, 0.0)
    with pytest.raises(ValueError, match="power >= 0"):
        rate_bps(-1.0, 1.0, 1e6, 1.0)
    with pytest.raises(ValueError, match="bits >= 0"):
        delay_s(-1, 1.0)
    with pytest.raises(ValueError, match="positive band"):
        efficiency(1, 0.0, Radio())
    with pytest.raises(ValueError, match=r"radio\.bandwith_hz.*'bandwidth_hz'"):
        parse(Radio, {"bandwith_hz": 1e6}, "radio")


REAL = Radio(gap_db=3.0, max_efficiency_bps_per_hz=6.0, useful_share=0.8, packet_loss=0.1, transmissions=3)


def test_a_real_radio_needs_more_bits_and_more_power_and_ends_at_its_fastest_code() -> None:
    assert bits_on_air(8000, REAL) == pytest.approx(8000 * 1.11 / 0.8)
    assert efficiency(8e5, 1e6, REAL) == pytest.approx(1.11)
    assert airtime_s(8e5, 1e6, REAL) == pytest.approx(1.0)
    ideal = required_power_w(8e5 * 1.11 / 0.8, 1e-9, 1, Radio())
    assert required_power_w(8e5, 1e-9, 1, REAL) == pytest.approx(10**0.3 * ideal, rel=1e-12)
    assert required_power_w(6e6 * 0.8 / 1.11 * 1.001, 1.0, 1, REAL) == math.inf
    assert payload_limit_bits([1.0], REAL, "broadcast") == pytest.approx(6e6 * 0.8 / 1.11, rel=1e-12)
    assert link_rate_bps(0.2, 1.0, 1e6, REAL) == pytest.approx(6e6 * 0.8)


def test_interference_counts_as_noise_and_ideal_links_keep_shannons_rate() -> None:
    noise = noise_w(Radio(), 1e6)
    assert link_rate_bps(0.1, 1e-9, 1e6, Radio()) == rate_bps(0.1, 1e-9, 1e6, noise)
    assert link_rate_bps(0.1, 1e-9, 1e6, Radio(), noise) == pytest.approx(rate_bps(0.1, 1e-9, 1e6, 2 * noise))
    with pytest.raises(ValueError, match="interference"):
        link_rate_bps(0.1, 1e-9, 1e6, Radio(), -1.0)


def test_what_no_radio_has_is_refused() -> None:
    for name, value in {"bandwidth_hz": 0.0, "useful_share": 0.0, "packet_loss": 1.0, "transmissions": 0}.items():
        with pytest.raises(ValueError, match=rf"radio\.{name}"):
            parse(Radio, {name: value}, "radio")
    with pytest.raises(ValueError, match=r"radio\.bandwidth_hz"):
        parse(Radio, {"bandwidth_hz": -1e6}, "radio")
    with pytest.raises(ValueError, match=r"radio\.max_power_dbm: input should be a finite number"):
        parse(Radio, {"max_power_dbm": -math.inf}, "radio")  # a limit of 0 W
