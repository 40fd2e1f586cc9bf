"""Devices with the same task: who belongs together, and what they average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experts.bank import put
from orthomesh.methods.parts import unpack
from orthomesh.methods.pooling import averaged, groups
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.types import Array, DeviceState, Facts, Round
from orthomesh.wireless.air import IdealAir

Play = Callable[..., Any]
Small = Callable[..., Setup]
T = Round(seed=0, index=2, total=5)


def facts(codes: dict[int, float], error: float = 0.5) -> dict[int, Facts]:
    """Devices whose codes are single numbers; two of them are (difference)^2 / (2 error) apart."""
    return {
        k: Facts(
            id=k,
            public={"code": np.array([x], np.float16), "error": np.array([error], np.float32)},
            columns={},
            payload_bits=0,
        )
        for k, x in codes.items()
    }


def everybody(members: tuple[int, ...]) -> bool:
    return True


# example


def test_groups_on_paper() -> None:
    """Squared differences: 0 and 2 are 1 apart, 0 and 5 are 4; 2 and 5 are 1, but 5 is not like all of (0, 2)."""
    told = facts({0: 0.0, 2: 1.0, 5: 2.0, 7: 9.0, 8: 9.5})
    assert groups(told, (1,), 2.0, everybody) == ((0, 2), (5,), (7, 8))
    assert groups(told, (1,), 4.0, everybody) == ((0, 2, 5), (7, 8))
    assert groups(told, (1,), 0.2, everybody) == ((0,), (2,), (5,), (7,), (8,))
    assert groups(told, (1,), 2.0, lambda members: len(members) == 1) == ((0,), (2,), (5,), (7,), (8,))
    assert groups({}, (1,), 2.0, everybody) == ()


def member(k: int, sent: list[float], **other: Any) -> dict[str, Array]:
    return {
        "values": np.array(sent, np.float16),
        "version": np.array(3, np.uint32),
        "mask": np.packbits(np.array([1, 0, 1, 1], bool)),
        "code": np.zeros(1, np.float16),
        "seed": np.array(77, np.uint64),
        **other,
    }


def device_of_a_group() -> DeviceState:
    told = member(4, [4.0, 8.0, 0.0])
    own = {
        **{name: told[name] for name in ("version", "mask", "code", "seed")},
        "sent": told["values"],
        "B": np.array([4.1, 0, 8.1, 0.1], np.float32),
        "group": np.array([1, 4, 6], np.uint32),
        "moment/exp_avg": np.ones(3, np.float32),
    }
    return DeviceState(id=4, own=own)


def test_averages_on_paper() -> None:
    alone = device_of_a_group()
    assert averaged(alone, T)["B"].tolist() == [4.0, 0.0, 8.0, 0.0]  # at least what it sent, in 16 bit
    bank = put(alone.bank, "member/1", member(1, [2.0, 2.0, 3.0]))
    two = replace(alone, bank=bank)
    assert averaged(two, T)["B"].tolist() == [3.0, 0.0, 5.0, 1.5]
    three = replace(alone, bank=put(bank, "member/6", member(6, [0.0, 2.0, 3.0])))
    assert averaged(three, T)["B"].tolist() == [2.0, 0.0, 4.0, 2.0]
    np.testing.assert_array_equal(averaged(three, T)["moment/exp_avg"], alone.own["moment/exp_avg"])


@pytest.mark.parametrize(
    "other",
    [
        {"seed": np.array(78, np.uint64)},  # it stayed by itself
        {"version": np.array(2, np.uint32)},  # of an earlier round
        {"mask": np.packbits(np.array([1, 1, 1, 0], bool))},  # it heard other bids
    ],
)
def test_what_belongs_to_another_adapter_or_round_does_not_count(other: dict[str, Array]) -> None:
    alone = device_of_a_group()
    state = replace(alone, bank=put({}, "member/1", member(1, [2.0, 2.0, 3.0], **other)))
    np.testing.assert_array_equal(averaged(state, T)["B"], averaged(alone, T)["B"])
    mask_only = replace(alone, bank=put({}, "member/1", {"mask": alone.own["mask"]}))
    np.testing.assert_array_equal(averaged(mask_only, T)["B"], averaged(alone, T)["B"])


def test_who_sent_nothing_or_has_no_group_keeps_what_it_has() -> None:
    state = device_of_a_group()
    assert averaged(state, Round(0, 3, 5)) is state.own
    new = replace(state, own={n: a for n, a in state.own.items() if n not in ("sent", "version")})
    assert averaged(new, T) is new.own
    began = replace(new, bank=put({}, "member/1", member(1, [2.0, 2.0, 3.0])))
    assert averaged(began, T)["B"].tolist() == [2.0, 0.0, 2.0, 3.0]
    single = replace(state, own={n: a for n, a in state.own.items() if n != "group"})
    assert averaged(single, T) is single.own


# law


@given(st.dictionaries(st.integers(0, 50), st.floats(-4, 4, width=16), max_size=8), st.floats(0.1, 8))
def test_groups_are_a_partition_in_which_all_are_alike(codes: dict[int, float], most: float) -> None:
    told = facts(codes)
    found = groups(told, (1,), most, everybody)
    assert sorted(k for members in found for k in members) == sorted(codes)
    assert list(found) == sorted(found)
    for members in found:
        assert list(members) == sorted(members)
        spread = [float(told[k].public["code"][0]) for k in members]
        assert (max(spread) - min(spread)) ** 2 <= most * (1 + 1e-9)
    assert groups(dict(reversed(list(told.items()))), (1,), most, everybody) == found


# a whole run


@pytest.fixture(scope="module")
def pairs(play: Play, small: Small) -> Any:
    """Two tasks, two devices each, and one more; groups go by their first."""
    return play(SparseOrthogonal(pool=8.0, density=0.25), small(("zelk", "morv", "zelk", "morv", "quib")), rounds=3)


def test_a_group_shares_seed_and_mask_and_holds_positions_once(pairs: Any) -> None:
    last, masks = pairs.last, pairs.masks()
    assert [int(last[k].own["seed"]) == int(last[g].own["seed"]) for k, g in ((2, 0), (3, 1), (4, 0))] == [
        True,
        True,
        False,
    ]
    np.testing.assert_array_equal(masks[[2, 3]], masks[[0, 1]])
    assert pairs.infos[0].plan.clusters == ((0, 1, 2, 3, 4),)  # three holders of a quarter each
    assert masks[[0, 1, 4]].sum(axis=0).max() == 1
    assert [last[k].own.get("group", np.array([k])).tolist() for k in range(5)] == [[0, 2], [1, 3]] * 2 + [[4]]


def test_a_group_has_one_expansion_after_every_round(pairs: Any) -> None:
    for states in pairs.states[1:]:
        for one, other in ((0, 2), (1, 3)):
            np.testing.assert_array_equal(states[one].own["B"], states[other].own["B"])
            assert not np.array_equal(states[one].own["sent"], states[other].own["sent"])
            assert not np.array_equal(states[one].own["moment/exp_avg"], states[other].own["moment/exp_avg"])
    expert = pairs.method.bank(pairs.last[4]).experts[0]
    np.testing.assert_allclose(expert.B, pairs.last[2].own["B"], rtol=1e-3, atol=1e-7)
    assert pairs.owners() == [[0, 1, 4]] * 5


def test_all_but_the_first_of_a_group_start_again(pairs: Any) -> None:
    """From what the first has left of its warm-up, as sent, with moments of their own."""
    before, after = pairs.states[0][0], pairs.states[0][2]
    assert before.own["B"].any()
    np.testing.assert_array_equal(after.own["B"], before.own["B"])
    np.testing.assert_array_equal(before.own["B"], before.own["B"].astype(np.float16))
    assert "moment/exp_avg" in before.own
    assert not [name for name in after.own if name.startswith("moment/")]
    assert float(pairs.states[1][2].own["moment/step"]) == 2.0  # of one round
    assert float(pairs.states[1][0].own["moment/step"]) == 4.0


def test_groups_send_every_round_and_others_when_they_have_changed(play: Play, small: Small) -> None:
    setup = small(("zelk", "zelk", "morv"))
    played = play(SparseOrthogonal(pool=8.0, change=1e6), setup, rounds=4)
    told = [{k: s.bytes_sent.get("values", 0) > 0 for k, s in i.cost.by_device.items()} for i in played.infos]  # type: ignore
    assert told == [
        {0: True, 1: False, 2: False},  # 0 to 1 only: it begins from what 0 has
        {0: True, 1: True, 2: True},
        {0: True, 1: True, 2: False},
        {0: True, 1: True, 2: True},
    ]


def test_who_does_not_hear_the_first_of_its_group_stays_by_itself(play: Play, small: Small) -> None:
    class Deaf:
        """Device 2 hears no bid."""

        def announce(self, facts, t):  # type: ignore[no-untyped-def]
            return IdealAir().announce(facts, t)

        def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
            sent, cost = IdealAir().transmit(outbox, phase, t)
            return [replace(m, dsts=tuple(j for j in m.dsts if j != 2 or phase.name != "masks")) for m in sent], cost

    setup = small(("zelk", "morv", "zelk", "zelk"))
    played = play(SparseOrthogonal(pool=8.0), setup, rounds=3, air=Deaf())
    last = played.last
    assert [int(last[k].own["seed"]) == int(last[0].own["seed"]) for k in (1, 2, 3)] == [False, False, True]
    assert "group" not in last[2].own
    np.testing.assert_array_equal(last[0].own["B"], last[3].own["B"])
    assert unpack(last[2].own["mask"], last[2].own["B"].size).sum() == int(last[2].own["quota"].sum())
    assert played.owners() == [[0, 1, 2]] * 4


def test_a_refined_projection_is_the_group_s(play: Play, small: Small) -> None:
    played = play(SparseOrthogonal(pool=8.0, refinement="elementwise"), small(("zelk", "zelk")))
    codes = [d.own["code"] for d in played.last.values()]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(played.last[0].own["B"], played.last[1].own["B"])
    assert played.owners() == [[0], [0]]
