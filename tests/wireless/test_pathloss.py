"""Path loss tables: figures worked out from the formulas, continuity, order, and a second implementation of UMi."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.wireless.pathloss import (
    TABLES,
    PathLoss,
    blockage_db,
    d2d_indoor_db,
    d2d_outdoor_db,
    free_space_db,
    indoor_office_db,
    sight_probability,
    table_db,
    umi_db,
    vehicles_db,
)

MODELS = tuple(m for m in get_args(PathLoss) if m != "power_law")
HUNDRED = np.array([100.0])


def test_losses_at_a_hundred_metres_on_paper() -> None:
    assert free_space_db(HUNDRED, 5.0)[0] == pytest.approx(86.6, abs=1e-12)
    far = math.hypot(100.0, 8.5)  # UMi: the break point of 3.5 GHz lies at 210 m
    assert umi_db(HUNDRED, 3.5, True)[0] == pytest.approx(32.4 + 21 * math.log10(far) + 20 * math.log10(3.5), abs=1e-12)
    hidden = 22.4 + 35.3 * math.log10(far) + 21.3 * math.log10(3.5)
    assert umi_db(HUNDRED, 3.5, False)[0] == pytest.approx(hidden, abs=1e-12)
    assert indoor_office_db(HUNDRED, 1.0, True)[0] == pytest.approx(67.0, abs=1e-12)
    assert indoor_office_db(HUNDRED, 1.0, False)[0] == pytest.approx(93.9, abs=1e-12)
    assert d2d_indoor_db(HUNDRED, True)[0] == pytest.approx(72.6, abs=1e-12)
    assert d2d_indoor_db(HUNDRED, False)[0] == pytest.approx(104.1, abs=1e-12)
    beyond = 80 + 7.56 - 34.6 * math.log10(0.8) + 2.7 * math.log10(2.0)  # the break point lies at 17 m
    assert d2d_outdoor_db(HUNDRED, 2.0, True)[0] == pytest.approx(beyond, abs=1e-12)
    assert vehicles_db(HUNDRED, 1.0, "urban")[0] == pytest.approx(72.17, abs=1e-12)
    assert vehicles_db(HUNDRED, 1.0, "highway")[0] == pytest.approx(72.4, abs=1e-12)
    assert vehicles_db(HUNDRED, 1.0, "corner")[0] == pytest.approx(96.85, abs=1e-12)


def test_a_vehicle_in_between_takes_five_or_nine_decibels_and_never_gives() -> None:
    assert blockage_db(HUNDRED, np.zeros(1))[0] == 5.0  # 15 log10(100) = 30 < 41
    assert blockage_db(np.array([1000.0]), np.ones(1), both_below=True)[0] == pytest.approx(9 + 4 + 4.5)
    assert blockage_db(HUNDRED, np.array([-10.0]))[0] == 0.0


@pytest.mark.parametrize(("model", "break_m"), [("umi", 4 * 9 * 0.5 * 2e9 / 299792458), ("d2d_outdoor", 17.0784)])
def test_both_sides_of_the_break_point_meet(model: PathLoss, break_m: float) -> None:
    below, above = table_db(model, np.array([break_m - 0.01, break_m + 0.01]), 2.0, True)
    assert abs(above - below) < 0.5  # TR 36.843 itself jumps by 0.4 dB


@settings(max_examples=60, deadline=None)
@given(model=st.sampled_from(MODELS), distance_m=st.floats(0.0, 4000.0), sight=st.booleans())
def test_no_loss_falls_with_distance_and_hidden_is_never_less(model: PathLoss, distance_m: float, sight: bool) -> None:
    d = np.array([distance_m, distance_m * 1.2 + 0.1])
    near, far = table_db(model, d, 2.0, sight)
    assert far >= near - 0.5
    crossed = model == "d2d_indoor" and distance_m < 6.5  # its lines cross there, and it always sees that far
    assert crossed or table_db(model, d, 2.0, False)[0] >= table_db(model, d, 2.0, True)[0] - 1e-9
    assert math.isfinite(near)
    p = sight_probability(model, d)
    assert np.all((p >= 0.0) & (p <= 1.0))
    assert p[1] <= p[0] + 1e-9 or model in ("v2v_highway",)


def test_sight_at_its_corners() -> None:
    at = np.array([0.0, 10.0, 60.0])
    assert sight_probability("d2d_outdoor", at).tolist() == pytest.approx(
        [1.0, 1.0, 0.3 * (1 - math.exp(-60 / 36)) + math.exp(-60 / 36)]
    )
    assert sight_probability("d2d_indoor", at).tolist() == [1.0, 1.0, 0.5]
    assert sight_probability("inh_open", at)[2] == pytest.approx(0.54 * math.exp(-11 / 211.7))
    assert sight_probability("inh_mixed", at)[1] == pytest.approx(0.32 * math.exp(-3.5 / 32.6))
    assert sight_probability("v2v_urban", at)[2] == pytest.approx(1.05 * math.exp(-0.684))
    assert sight_probability("power_law", at).tolist() == [1.0] * 3


def test_two_devices_in_one_place_count_as_the_nearest_the_table_knows() -> None:
    for model in MODELS:
        together, nearest = table_db(model, np.array([0.0, TABLES[model].nearest_m]), 2.0, True)
        assert together == nearest


def test_what_a_table_does_not_cover_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is for 2 GHz, got 3\.5"):
        table_db("d2d_outdoor", HUNDRED, 3.5, True)
    with pytest.raises(ValueError, match="constants of its own"):
        table_db("power_law", HUNDRED, 2.0, True)


def test_umi_agrees_with_sionna() -> None:
    """Against an implementation by others (extra `channels`); heights as in the table, no shadowing."""
    pytest.importorskip("sionna")
    import torch
    from sionna.phy.channel.tr38901 import PanelArray, UMi

    array = PanelArray(
        num_rows_per_panel=1, num_cols_per_panel=1, polarization="single", polarization_type="V",
        antenna_pattern="omni", carrier_frequency=3.5e9,
    )  # fmt: skip
    umi = UMi(
        carrier_frequency=3.5e9, o2i_model="low", ut_array=array, bs_array=array, direction="downlink",
        enable_shadow_fading=False,
    )  # fmt: skip
    d = np.array([15.0, 50.0, 100.0, 200.0, 205.0, 500.0, 1500.0])
    n, zero = len(d), torch.zeros(1, len(d), 3)
    users = torch.zeros(1, n, 3)
    users[0, :, 0], users[0, :, 2] = torch.tensor(d), 1.5
    base = torch.tensor([[[0.0, 0.0, 10.0]]])
    for sight in (True, False):
        umi.set_topology(users, base, zero, zero[:, :1], zero, torch.zeros(1, n, dtype=torch.bool), los=sight)
        theirs = np.asarray(umi._scenario.basic_pathloss).reshape(-1)
        assert np.abs(umi_db(d, 3.5, sight) - theirs).max() < 0.05
