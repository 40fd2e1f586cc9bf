"""Lemma 1 over arrays is Lemma 1 one link at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.planning.problem import Limits, Problem, all_pairs
from orthomesh.planning.reach import pair_powers_w, power_per_loss_w, usable
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import Cast, broadcast_power_w, unicast_powers_w

RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)  # 1e-9 W in 1 MHz, 1 mW, 1 s


def problem(cast: Cast = "broadcast", radio: Radio = RADIO, bits: float = 1e6) -> Problem:
    gains = np.array([[0.0, 1.1e-6, 1.0], [1.1e-6, 0.0, 0.9e-6], [1.0, 1.0, 0.0]])
    return Problem(
        radio=radio,
        limits=Limits(max_collision=0.1, cast=cast),
        sizes=(1,),
        densities=np.full((3, 1), 0.25),
        payload_bits=np.full(3, bits),
        links=all_pairs(gains),
    )


def test_a_link_must_work_both_ways() -> None:
    """1 Mbit takes 1e-9 W over the gain: 0.9e-6 is too little for 1 mW."""
    assert usable(problem()).tolist() == [True, True, False]
    assert pair_powers_w(problem())[0].tolist() == pytest.approx([1e-9 / 1.1e-6] * 2)


@given(
    bits=st.floats(0.0, 1e7),
    n=st.integers(1, 6),
    cast=st.sampled_from(["broadcast", "unicast"]),
    noise=st.sampled_from(["per_band", "fixed"]),
)
def test_powers_are_those_of_single_links(bits: float, n: int, cast: Cast, noise: str) -> None:
    radio = replace(RADIO, noise=noise)
    factor = power_per_loss_w(problem(cast, radio, bits), np.array([1]), np.array([n]))[0]
    gains = (np.arange(n) + 1.0).tolist()
    one_by_one = (
        broadcast_power_w(bits, gains, radio) if cast == "broadcast" else sum(unicast_powers_w(bits, gains, radio))
    )
    loss = 1.0 if cast == "broadcast" else sum(1.0 / g for g in gains)
    assert factor * loss == pytest.approx(one_by_one, rel=1e-12)


def test_no_bits_need_no_power_and_too_many_no_power_is_enough_for() -> None:
    assert power_per_loss_w(problem(bits=0.0), np.array([0]), np.array([1])).tolist() == [0.0]
    assert power_per_loss_w(problem(bits=1e12), np.array([0]), np.array([1])).tolist() == [np.inf]
    assert usable(problem(bits=0.0)).all()
    assert not usable(problem(bits=1e12)).any()
