"""A walk that keeps places uniform."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orthomesh.wireless.mobility import Region, walk


def bounce(at: np.ndarray, way: np.ndarray, radius_m: float, step_m: float) -> np.ndarray:
    """Reflection after reflection, the plain way."""
    left = step_m
    while True:
        b = float(at @ way)
        to_edge = -b + math.sqrt(b * b + radius_m**2 - float(at @ at))
        if left <= to_edge:
            return at + left * way
        at = at + to_edge * way
        normal = at / np.hypot(*at)
        way, left = way - 2 * float(way @ normal) * normal, left - to_edge


@settings(max_examples=60, deadline=None)
@given(x=st.floats(-6, 6), y=st.floats(-6, 6), step_m=st.floats(0.1, 300), seed=st.integers(0, 10**6))
def test_reflections_in_a_disk_are_those_done_one_by_one(x: float, y: float, step_m: float, seed: int) -> None:
    start = np.array([[x, y]])
    short, long = (walk(start, "disk", 10.0, s, seed, 1)[1][0] for s in (1e-3, step_m))
    way = (short - start[0]) / np.hypot(*(short - start[0]))
    assert np.allclose(long, bounce(start[0], way, 10.0, step_m), atol=1e-6 * (1 + step_m))


@pytest.mark.parametrize("region", ["disk", "square"])
@pytest.mark.parametrize("step_m", [7.0, 500.0])
def test_places_stay_uniform(region: Region, step_m: float) -> None:
    draw = np.random.default_rng(3)
    n, radius_m = 4000, 20.0
    start = draw.uniform(-radius_m, radius_m, (n, 2))
    if region == "disk":
        r, angle = radius_m * np.sqrt(draw.random(n)), draw.uniform(0, 2 * np.pi, n)
        start = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    ended = walk(start, region, radius_m, step_m, 0, 6)[-1]
    if region == "disk":
        assert stats.kstest((np.hypot(*ended.T) / radius_m) ** 2, "uniform").pvalue > 1e-3
        assert np.hypot(*ended.T).max() <= radius_m * (1 + 1e-12)
    else:
        for side in ended.T:
            assert stats.kstest(side, stats.uniform(-radius_m, 2 * radius_m).cdf).pvalue > 1e-3


def test_a_step_is_as_long_as_it_should_be_and_keyed_by_device_and_round() -> None:
    start = np.zeros((3, 2))
    places = walk(start, "square", 100.0, 5.0, 1, 2)
    assert np.allclose(np.hypot(*(places[2] - places[1]).T), 5.0)
    assert np.array_equal(walk(start[:2], "square", 100.0, 5.0, 1, 1)[1], places[1][:2])
    assert not np.allclose(places[1][0], places[1][1])
    assert np.array_equal(walk(start, "disk", 100.0, 0.0, 1, 3)[3], start)


def test_who_starts_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device 1 at \[3.0, 0.0\] m lies outside the disk of 2.0 m"):
        walk(np.array([[0.0, 0.0], [3.0, 0.0]]), "disk", 2.0, 1.0, 0, 1)
    with pytest.raises(ValueError, match=r"device 0 .* outside the square"):
        walk(np.array([[0.0, math.nan]]), "square", 2.0, 1.0, 0, 1)
    with pytest.raises(ValueError, match="metres >= 0"):
        walk(np.zeros((1, 2)), "disk", 2.0, -1.0, 0, 1)
