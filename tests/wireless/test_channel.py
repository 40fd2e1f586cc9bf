"""Positions, path loss and fading."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orthomesh.config import parse
from orthomesh.wireless.channel import Channel, gains, path_gain, positions

LINE = Channel(positions_m=((0.0, 0.0), (30.0, 40.0), (0.0, 0.5)), exponent=2.0, reference_loss_db=0.0, fading="none")


def test_gains_follow_the_inverse_square_law_on_paper() -> None:
    h = gains(LINE, seed=0, round_index=0, num_devices=3)
    assert h[0, 1] == pytest.approx(1 / 2500, rel=1e-12)  # 50 m
    assert h[0, 2] == 1.0  # half a metre counts as one
    assert h[1, 2] == pytest.approx(1 / (30.0**2 + 39.5**2), rel=1e-12)


def test_reference_loss_is_taken_off_once() -> None:
    gain = path_gain(np.array([100.0]), 3.0, 38.0)
    assert 10.0 * math.log10(gain[0]) == pytest.approx(-98.0, abs=1e-9)


def test_positions_are_uniform_in_the_disk() -> None:
    xy_m = positions(Channel(radius_m=150.0), seed=1, num_devices=2000)
    area_within = (np.hypot(*xy_m.T) / 150.0) ** 2
    angle = np.arctan2(xy_m[:, 1], xy_m[:, 0])
    assert stats.kstest(area_within, "uniform").pvalue > 1e-3
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


def test_pair_distances_match_the_closed_forms() -> None:
    xy = positions(Channel(radius_m=1.0), seed=2, num_devices=3000)
    distance = np.hypot(*(xy[0::2] - xy[1::2]).T)  # independent pairs
    n = len(distance)
    mean = 128 / (45 * math.pi)
    assert abs(distance.mean() - mean) < 4 * math.sqrt((1 - mean**2) / n)  # E d^2 = R^2
    t = 0.5
    cdf = 1 + 2 / math.pi * (t**2 - 1) * math.acos(t / 2)
    cdf -= t / math.pi * (1 + t**2 / 2) * math.sqrt(1 - t**2 / 4)
    assert abs(np.mean(distance < t) - cdf) < 4 * math.sqrt(cdf * (1 - cdf) / n)


def test_fading_is_exponential_with_mean_one_and_new_every_round() -> None:
    upper = np.triu_indices(70, 1)
    still = gains(Channel(fading="none"), 3, 0, 70)[upper]
    rho = gains(Channel(), 3, 0, 70)[upper] / still
    later = gains(Channel(), 3, 1, 70)[upper] / still
    assert stats.kstest(rho, "expon").pvalue > 1e-3
    assert abs(np.corrcoef(rho, later)[0, 1]) < 4 / math.sqrt(len(rho))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 10**6), m=st.integers(1, 6), more=st.integers(0, 3))
def test_links_are_reciprocal_and_do_not_depend_on_who_else_is_there(seed: int, index: int, m: int, more: int) -> None:
    h = gains(Channel(), seed, index, m + more)
    assert np.array_equal(h, h.T)
    assert np.all(np.diag(h) == 0.0)
    assert np.all(h[~np.eye(m + more, dtype=bool)] > 0.0)
    assert np.array_equal(h[:m, :m], gains(Channel(), seed, index, m))


@settings(max_examples=50, deadline=None)
@given(near=st.floats(0, 1e4), far=st.floats(0, 1e4), exponent=st.floats(0.1, 6), loss_db=st.floats(0, 60))
def test_gain_never_grows_with_distance_nor_beyond_the_reference(
    near: float, far: float, exponent: float, loss_db: float
) -> None:
    near, far = sorted((near, far))
    gain = path_gain(np.array([[near, far]]), exponent, loss_db)
    assert gain.shape == (1, 2)
    assert 10.0 ** (-loss_db / 10.0) * (1 + 1e-12) >= gain[0, 0] >= gain[0, 1] > 0.0


def test_positions_that_are_missing_or_devices_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="3 entries for 2 devices"):
        positions(LINE, 0, 2)
    with pytest.raises(ValueError, match="at least one device"):
        positions(Channel(), 0, 0)


@pytest.mark.parametrize("distance_m", [-1.0, math.nan])
def test_distances_that_make_no_sense_are_refused(distance_m: float) -> None:
    with pytest.raises(ValueError, match="metres >= 0"):
        path_gain(np.array([1.0, distance_m]), 3.0, 0.0)


def test_settings_are_bounded() -> None:
    with pytest.raises(ValueError, match=r"channel\.radius_m.*greater than 0"):
        parse(Channel, {"radius_m": 0.0}, "channel")
    with pytest.raises(ValueError, match=r"channel\.reference_loss_db"):
        parse(Channel, {"reference_loss_db": -1.0}, "channel")
