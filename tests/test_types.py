"""Laws of the house's words: costs add up in any order and grouping, and a round knows where it stands."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.types import COLUMNS, Cost, DeviceState, Edge, Example, Phase, Round, Spend

# quarters of small integers add up without rounding, so that equality can be asked for
quarters = st.integers(0, 4000).map(lambda n: n / 4)
spends = st.builds(
    Spend,
    bytes_sent=st.dictionaries(st.sampled_from(COLUMNS), st.integers(0, 10**9)),
    airtime_s=quarters,
    energy_j=quarters,
    lost=st.integers(0, 100),
    power_w=quarters,
)
costs = st.builds(Cost, st.dictionaries(st.integers(0, 5), spends, max_size=4), quarters)


# example


def test_edges_of_a_phase_by_sender() -> None:
    one, two, three = Edge(0, 1), Edge(2, 1), Edge(0, 2)
    phase = Phase(name="intra", edges=(one, two, three))
    assert phase.outgoing == {0: [one, three], 2: [two]}
    assert phase == Phase(name="intra", edges=(one, two, three))  # having been asked makes no difference


def test_spends_add_up_and_the_highest_power_counts() -> None:
    one = Spend(bytes_sent={"values": 10, "mask": 1}, airtime_s=0.5, energy_j=2.0, lost=1, power_w=0.2)
    two = Spend(bytes_sent={"values": 5, "control": 7}, airtime_s=0.25, energy_j=1.0, lost=0, power_w=0.1)
    total = one + two
    assert total.bytes_sent == {"values": 15, "mask": 1, "control": 7}
    assert (total.airtime_s, total.energy_j, total.lost, total.power_w) == (0.75, 3.0, 1, 0.2)
    assert total.total_bytes == 23


def test_costs_add_up_by_device_and_phases_follow_one_another() -> None:
    one = Cost({1: Spend(lost=1), 0: Spend(lost=2)}, 1.5)
    two = Cost({1: Spend(lost=3), 4: Spend(lost=4)}, 0.5)
    assert one + two == Cost({0: Spend(lost=2), 1: Spend(lost=4), 4: Spend(lost=4)}, 2.0)
    assert list((one + two).by_device) == [0, 1, 4]


def test_only_the_last_round_is_last() -> None:
    assert [Round(0, index, 3).is_last for index in range(3)] == [False, False, True]


# law


@given(spends, spends, spends)
def test_spend_is_a_commutative_monoid(a: Spend, b: Spend, c: Spend) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Spend() == a == Spend() + a
    assert (a + b).total_bytes == a.total_bytes + b.total_bytes


@given(costs, costs, costs)
def test_cost_is_a_commutative_monoid(a: Cost, b: Cost, c: Cost) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Cost() == a == Cost() + a


@given(costs, costs)
def test_adding_changes_neither_part(a: Cost, b: Cost) -> None:
    before = (repr(a), repr(b))
    assert a + b is not a
    assert (repr(a), repr(b)) == before


# edge


def test_what_is_sent_stands_in_the_order_of_the_columns() -> None:
    total = Spend(bytes_sent={"one_off": 1}) + Spend(bytes_sent={"values": 1, "codes": 2})
    assert list(total.bytes_sent) == ["values", "codes", "one_off"]


def test_records_cannot_be_changed() -> None:
    device = DeviceState(id=0, own={"B": np.zeros(2)})
    with pytest.raises(FrozenInstanceError):
        device.id = 1  # type: ignore[misc]
    assert device.bank == {}


def test_defaults_of_the_small_words() -> None:
    assert Edge(1, 2) == Edge(1, 2, weight=1.0, carries=(), fresh=False)
    assert Example("a", "b").choices == ()
