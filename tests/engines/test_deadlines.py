"""Deadlines follow what was observed, and there always is one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.deadlines import Pace, Patience

PATIENCE = Patience(first_s=100, least_s=2, factor=3, slowest_bps=8000)


def test_facts_are_waited_for_as_long_as_work_and_earlier_waits_suggest() -> None:
    pace = Pace(PATIENCE)
    assert pace.facts_s(1, own_s=5) == 100  # nothing is known
    pace.saw_wait(1, 0.5)
    assert pace.facts_s(1, own_s=5) == 3 * 5.5
    assert pace.facts_s(1, own_s=0) == 2  # never below the least
    for _ in range(5):
        pace.saw_wait(1, 0.1)
    assert pace.facts_s(1, own_s=5) == pytest.approx(3 * 5.1)  # one slow round is forgotten
    assert pace.facts_s(2, own_s=5) == 100


def test_transfers_follow_the_rate_of_the_link() -> None:
    pace = Pace(PATIENCE)
    assert pace.transfer_s(1, 1000) == 2 + 3 * 1.0  # 8000 bit at the 8000 bit/s it is taken to have
    pace.saw_transfer(1, 25_000, 1.0)
    assert pace.rates_bps() == {1: 200_000}
    assert pace.transfer_s(1, 25_000) == 2 + 3 * 1.0
    pace.saw_transfer(1, 25_000, 2.0)
    assert pace.rates_bps() == {1: 150_000}
    pace.saw_transfer(1, 10, 1.0)  # says nothing
    assert pace.rates_bps() == {1: 150_000}


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1e6)), max_size=20), st.floats(0, 1e6))
def test_every_wait_has_an_end(seen: list[tuple[int, float]], own_s: float) -> None:
    pace = Pace(PATIENCE)
    for num_bytes, seconds in seen:
        pace.saw_wait(1, seconds)
        pace.saw_transfer(1, num_bytes, seconds)
    assert 2 <= pace.facts_s(1, own_s) < math.inf
    assert 2 <= pace.transfer_s(1, 1 << 30) < math.inf


def test_a_device_that_became_slow_is_waited_for_longer_until_it_is_given_up() -> None:
    pace = Pace(PATIENCE)
    pace.saw_wait(1, 1.0)
    limits = [pace.facts_s(1, own_s=3)]
    while limits[-1] > 2 and len(limits) < 20:
        pace.missed_facts(1, limits[-1])
        limits.append(pace.facts_s(1, own_s=3))
    assert limits == [12, 24, 48, 96, 100, 2]  # doubled up to first_s; silent even for that long: the least
    pace.saw_wait(1, 50.0)  # it was heard from
    assert pace.facts_s(1, own_s=0) == 150


def test_a_link_that_became_slow_gets_longer_deadlines() -> None:
    pace = Pace(PATIENCE)
    pace.saw_transfer(1, 1 << 20, 1.0)  # 8 Mbit/s, then 20 kbit/s
    needed_s, tries = 8 * 25_000 / 20_000, 0
    while pace.transfer_s(1, 25_000) < needed_s:
        pace.missed_transfer(1)
        tries += 1
        assert tries < 12
    for _ in range(20):
        pace.missed_transfer(1)
    assert pace.rates_bps()[1] == 8000  # but no wait grows without end
    pace.saw_transfer(1, 5000, 10.0)  # 4000 bit/s: measured, so believed
    pace.missed_transfer(1)
    assert pace.rates_bps()[1] == pytest.approx(6000)


def test_each_direction_has_its_own_rate() -> None:
    pace = Pace(PATIENCE)
    assert pace.arrival_s(1, 1000) == pace.transfer_s(1, 1000)
    pace.saw_transfer(1, 100_000, 0.1)  # 8 Mbit/s there
    assert pace.arrival_s(1, 1000) == pace.transfer_s(1, 1000)  # until something has come
    pace.saw_arrival(1, 10_000, 1.0)  # 80 kbit/s back
    assert pace.arrival_s(1, 10_000) == pytest.approx(2 + 3 * 1.0)
    assert pace.transfer_s(1, 10_000) == pytest.approx(2 + 3 * 0.01)
    pace.saw_arrival(1, 10, 1.0)
    pace.saw_arrival(1, 10_000, 0.0)  # came before it was waited for: says nothing
    assert pace.arrival_s(1, 10_000) == pytest.approx(2 + 3 * 1.0)
    pace.missed_arrival(1)
    assert pace.arrival_s(1, 10_000) == pytest.approx(2 + 3 * 2.0)
