"""Lemma 1: least power under a deadline."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from orthomesh.units import from_db, to_dbm
from orthomesh.wireless.link import Radio, airtime_s, delay_s, max_power_w, noise_w, rate_bps
from orthomesh.wireless.power import (
    Cast,
    broadcast_power_w,
    is_feasible,
    pair_powers_w,
    payload_limit_bits,
    required_power_w,
    required_powers_w,
    served,
    unicast_powers_w,
)

PAPER = Radio(min_efficiency_bps_per_hz=0.0)
WIDE = Radio(bandwidth_hz=20e6, deadline_s=5.0)
GAIN = st.floats(-150.0, -60.0).map(from_db)  # from hopeless to next door
BITS = st.sampled_from([0, 1, 10**4, 10**9])
CASTS: tuple[Cast, ...] = ("broadcast", "unicast")
CAST = st.sampled_from(CASTS)


def delay_at_s(power_w: float, bits: float, gain: float, share: int, radio: Radio) -> float:
    band_hz = radio.bandwidth_hz / share
    return delay_s(bits, rate_bps(power_w, gain, band_hz, noise_w(radio, band_hz)))


def test_eight_receivers_at_a_hundred_metres_on_paper() -> None:
    bits, gain = 128e6, 10**-9.8  # 38 + 30 log10(100) dB
    noise_over_gain_dbm = -174 + 9 + 10 * math.log10(20e6) + 98
    one = noise_over_gain_dbm + 10 * math.log10(2**1.28 - 1)  # 7.6 dBm
    all_eight = noise_over_gain_dbm + 10 * math.log10(2**10.24 - 1)  # 36.8 dBm: the eighths add up to one noise
    assert to_dbm(broadcast_power_w(bits, [gain] * 8, WIDE)) == pytest.approx(one, abs=1e-9)
    assert to_dbm(sum(unicast_powers_w(bits, [gain] * 8, WIDE))) == pytest.approx(all_eight, abs=1e-9)
    assert is_feasible(bits, [gain] * 8, WIDE, "broadcast")
    assert not is_feasible(bits, [gain] * 8, WIDE, "unicast")


def test_fixed_noise_is_dearer_by_the_share() -> None:
    fixed = replace(WIDE, noise="fixed")
    split = required_power_w(1e7, 1e-9, 4, WIDE)
    assert required_power_w(1e7, 1e-9, 4, fixed) == pytest.approx(4 * split, rel=1e-12)


@pytest.mark.parametrize("share", [1, 3])
@pytest.mark.parametrize("bits", [1.0, 2e5, 3e6])
def test_least_power_is_the_root_of_the_delay(bits: float, share: int) -> None:
    def late(log_w: float) -> float:
        return math.log(delay_at_s(math.exp(log_w), bits, 1e-10, share, PAPER) / PAPER.deadline_s)

    root_w = math.exp(optimize.brentq(late, -60, 30, xtol=1e-13, rtol=1e-14))
    assert required_power_w(bits, 1e-10, share, PAPER) == pytest.approx(root_w, rel=1e-9)


def test_outage_and_mean_power_under_rayleigh_fading() -> None:
    bits, mean_gain, n = 1_500_000, 2e-13, 10_000
    rho = np.random.default_rng(5).standard_exponential(n)
    theta = required_power_w(bits, mean_gain, 1, PAPER) / max_power_w(PAPER)
    reached = [bool(served(bits, {1: float(mean_gain * r)}, PAPER, "broadcast")) for r in rho]
    outage = 1 - math.exp(-theta)
    assert 0.1 < outage < 0.9
    assert abs(1 - np.mean(reached) - outage) < 4 * math.sqrt(outage * (1 - outage) / n)
    spent_w = np.array(
        [
            required_power_w(bits, float(mean_gain * r), 1, PAPER) if ok else 0.0
            for r, ok in zip(rho, reached, strict=True)
        ]
    )
    mean_w = max_power_w(PAPER) * theta * special.exp1(theta)
    assert abs(spent_w.mean() - mean_w) < 4 * spent_w.std() / math.sqrt(n)


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(1, 8_000_000), gain=GAIN, share=st.integers(1, 6))
def test_the_deadline_is_met_exactly_and_not_with_less(bits: int, gain: float, share: int) -> None:
    p = required_power_w(bits, gain, share, PAPER)
    assert delay_at_s(p, bits, gain, share, PAPER) == pytest.approx(PAPER.deadline_s, rel=1e-12)
    assert delay_at_s(p * (1 - 1e-6), bits, gain, share, PAPER) > PAPER.deadline_s


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(1, 8_000_000), gain=GAIN, share=st.integers(1, 6))
def test_with_a_lowest_code_the_transfer_lasts_as_announced(bits: int, gain: float, share: int) -> None:
    radio = Radio(min_efficiency_bps_per_hz=0.5)
    lasts_s = airtime_s(bits, radio.bandwidth_hz / share, radio)
    p = required_power_w(bits, gain, share, radio)
    assert delay_at_s(p, bits, gain, share, radio) == pytest.approx(lasts_s, rel=1e-12)
    assert p >= required_power_w(bits, gain, share, replace(radio, min_efficiency_bps_per_hz=0.0))


@settings(max_examples=100, deadline=None)
@given(gains=st.lists(GAIN, min_size=1, max_size=6), cast=CAST, lowest=st.sampled_from([0.0, 0.15]))
def test_the_payload_limit_is_where_feasibility_ends(gains: list[float], cast: Cast, lowest: float) -> None:
    radio = Radio(min_efficiency_bps_per_hz=lowest)
    limit = payload_limit_bits(gains, radio, cast)
    if limit > 0.0:
        assert is_feasible(limit * (1 - 1e-9), gains, radio, cast)
        assert not is_feasible(limit * (1 + 1e-9), gains, radio, cast)
    else:
        assert not is_feasible(1, gains, radio, cast)


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(1, 4_000_000), gain=GAIN)
def test_one_receiver_makes_no_difference_between_casts(bits: int, gain: float) -> None:
    assert unicast_powers_w(bits, [gain], Radio()) == (broadcast_power_w(bits, [gain], Radio()),)
    both = {payload_limit_bits([gain], Radio(), cast) for cast in CASTS}
    assert max(both) == pytest.approx(min(both), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(1, 3_000_000), gains=st.lists(GAIN, max_size=6), cast=CAST)
def test_no_choice_of_receivers_serves_more(bits: int, gains: list[float], cast: Cast) -> None:
    radio, limit_w = Radio(), max_power_w(Radio())
    got = served(bits, dict(enumerate(gains)), radio, cast)
    share = len(gains) if cast == "unicast" else 1
    needed = [required_power_w(bits, g, share, radio) for g in gains]
    total = math.fsum if cast == "unicast" else max
    fits = [
        set(some)
        for k in range(1, len(gains) + 1)
        for some in combinations(range(len(gains)), k)
        if total([needed[j] for j in some]) <= limit_w
    ]
    assert len(got) == max(map(len, fits), default=0)
    assert not got or set(got) in fits
    assert list(got) == sorted(got)


def test_equal_gains_are_served_by_lower_id_first() -> None:
    radio = Radio(min_efficiency_bps_per_hz=1.0)
    one_w = required_power_w(1, 1e-13, 3, radio)
    tight = replace(radio, max_power_dbm=to_dbm(2.5 * one_w))
    assert served(1, {7: 1e-13, 2: 1e-13, 5: 1e-13}, tight, "unicast") == (2, 5)


def test_links_that_no_power_can_serve() -> None:
    assert required_power_w(1, 0.0, 1, Radio()) == math.inf
    assert required_power_w(1_001_000_000, 1.0, 1, Radio()) == math.inf
    assert required_power_w(999_000_000, 1e-300, 1, Radio()) == math.inf
    for cast in CASTS:
        assert payload_limit_bits([1e-9, 0.0], PAPER, cast) == 0.0
        assert not is_feasible(1, [1e-9, 0.0], Radio(), cast)


def test_nothing_to_send_or_nobody_to_hear_it() -> None:
    assert required_power_w(0, 0.0, 1, Radio()) == 0.0
    assert broadcast_power_w(10, [], Radio()) == 0.0
    assert unicast_powers_w(10, [], Radio()) == ()
    for cast in CASTS:
        assert payload_limit_bits([], Radio(), cast) == math.inf
        assert is_feasible(10**12, [], Radio(), cast)
        assert served(10, {}, Radio(), cast) == ()


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one link"):
        required_power_w(1, 1.0, 0, Radio())
    with pytest.raises(ValueError, match="gain is >= 0"):
        required_power_w(1, -1.0, 1, Radio())
    with pytest.raises(ValueError, match="gain is >= 0"):
        required_power_w(1, math.nan, 1, Radio())
    with pytest.raises(ValueError, match="bits >= 0"):
        required_power_w(-1, 1.0, 1, Radio())
    with pytest.raises(ValueError, match="gains are >= 0"):
        payload_limit_bits([-1.0], Radio(), "unicast")


@settings(max_examples=60, deadline=None)
@given(
    links=st.lists(
        st.tuples(st.sampled_from([0, 1, 10**4, 10**9]), GAIN | st.just(0.0), st.integers(1, 6)), min_size=1
    ),
    noise=st.sampled_from(["per_band", "fixed"]),
)
def test_many_links_at_once_are_as_one_by_one(links: list[tuple[int, float, int]], noise: Literal["per_band"]) -> None:
    radio = Radio(noise=noise)
    bits, gains, share = (np.array(column) for column in zip(*links, strict=True))
    one_by_one = [required_power_w(b, g, n, radio) for b, g, n in links]
    assert required_powers_w(bits, gains, radio, share).tolist() == pytest.approx(one_by_one, rel=1e-12)


@settings(max_examples=40)
@given(
    st.lists(BITS, min_size=1, max_size=4), st.lists(st.just(0.0) | GAIN | st.just(math.inf), min_size=4, max_size=4)
)
def test_pairs_are_as_one_by_one_to_the_last_bit(bits: list[int], gains: list[float]) -> None:
    matrix = np.array([np.roll(gains, k) for k in range(len(bits))])
    one_by_one = [[required_power_w(b, h, 1, WIDE) for h in row] for b, row in zip(bits, matrix.tolist(), strict=True)]
    assert pair_powers_w(bits, matrix, WIDE).tolist() == one_by_one


def test_bad_numbers_among_many_are_refused() -> None:
    good = np.array([1e-9, 1e-8])
    with pytest.raises(ValueError, match="share is below 1"):
        required_powers_w(1.0, good, Radio(), np.array([1, 0]))
    with pytest.raises(ValueError, match="gain is negative or not a number"):
        required_powers_w(1.0, np.array([1.0, math.nan]), Radio())
    with pytest.raises(ValueError, match="payload is negative"):
        required_powers_w(np.array([1.0, -1.0]), good, Radio())
    with pytest.raises(ValueError, match="gain is negative or not a number"):
        pair_powers_w([1], np.array([[math.nan]]), Radio())
