"""Positions, path loss and fading."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orthomesh.config import parse
from orthomesh.wireless.channel import Channel, gains, mean_gains, pair_gains, path_gain, positions, realistic
from orthomesh.wireless.pathloss import umi_db

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


EVERYTHING = Channel(path_loss="d2d_outdoor", blocks=3, doppler_hz=0.002, speed_mps=0.5, fading="rician", draws="hash")
SOME = st.sampled_from(
    [EVERYTHING, realistic(), Channel(), Channel(region="square", draws="hash", fading="nakagami")]
    + [Channel(path_loss=m, blocks="ergodic") for m in ("umi", "inh_mixed", "v2v_urban", "d2d_indoor")]
)


@settings(max_examples=30, deadline=None)
@given(channel=SOME, seed=st.integers(0, 2**40), index=st.integers(0, 5))
def test_pairs_in_bulk_have_the_numbers_of_the_matrix(channel: Channel, seed: int, index: int) -> None:
    h = gains(channel, seed, index, 7)
    i, j = np.array([5, 1, 0]), np.array([2, 6, 3])
    assert np.array_equal(pair_gains(channel, seed, index, 7, (i, j)), h[i, j])
    assert np.array_equal(h, h.T)
    assert np.all(h[~np.eye(7, dtype=bool)] > 0.0)
    assert np.array_equal(h[:4, :4], gains(channel, seed, index, 4))


def test_hashed_places_are_uniform_too() -> None:
    disk = positions(Channel(radius_m=10.0, draws="hash"), 1, 3000)
    assert stats.kstest((np.hypot(*disk.T) / 10.0) ** 2, "uniform").pvalue > 1e-3
    square = positions(Channel(radius_m=10.0, draws="hash", region="square"), 1, 3000)
    assert stats.kstest(square.ravel(), stats.uniform(-10.0, 20.0).cdf).pvalue > 1e-3


def test_walkers_start_where_they_would_stand() -> None:
    walking = Channel(speed_mps=1.0, round_s=10.0)
    assert np.array_equal(positions(walking, 0, 5), positions(Channel(), 0, 5))
    way_m = np.hypot(*(positions(walking, 0, 5, 3) - positions(walking, 0, 5, 2)).T)
    assert np.all(way_m <= 10.0 + 1e-9)
    assert way_m.max() == pytest.approx(10.0)


def test_shadowing_comes_with_its_table_and_can_have_mean_one() -> None:
    pairs = (np.zeros(20_000, dtype=np.int64), np.arange(1, 20_001))
    far = Channel(positions_m=((0.0, 0.0), *[(50.0, 0.0)] * 20_000), fading="none", path_loss="umi", sight="never")
    plain = mean_gains(replace(far, shadowing_db=0.0), 0, 0, 20_001, pairs)
    assert 10 * np.log10(plain) == pytest.approx(-umi_db(np.array([50.0]), 2.0, False)[0], abs=1e-9)
    ratio_db = 10 * np.log10(mean_gains(far, 0, 0, 20_001, pairs) / plain)
    assert abs(ratio_db.std() - 7.82) < 4 * 7.82 / math.sqrt(40_000)
    scaled = mean_gains(replace(far, shadowing_db=3.0, shadowing_mean_one=True), 0, 0, 20_001, pairs) / plain
    assert abs(scaled.mean() - 1.0) < 4 * scaled.std() / math.sqrt(20_000)


def test_two_devices_in_one_place_count_as_one_metre_apart() -> None:
    together = Channel(positions_m=((1.0, 1.0), (1.0, 1.0)), fading="none", reference_loss_db=0.0)
    assert gains(together, 0, 0, 2)[0, 1] == 1.0


def test_a_pair_with_nobody_is_refused_and_so_are_places_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"does not exist; ids are 0\.\.2"):
        pair_gains(Channel(), 0, 0, 3, (np.array([0]), np.array([3])))
    with pytest.raises(ValueError, match=r"channel\.positions_m\.0\.1"):
        parse(Channel, {"positions_m": [[0.0, math.nan]]}, "channel")
    with pytest.raises(ValueError, match=r"for 2 GHz, got 3\.5"):
        gains(Channel(path_loss="d2d_outdoor", carrier_ghz=3.5), 0, 0, 2)
    with pytest.raises(ValueError, match="lies outside the disk"):
        positions(Channel(radius_m=5.0, speed_mps=1.0, positions_m=((9.0, 0.0),)), 0, 1)
