"""What a device of the paper's method keeps, by hand on six entries of B."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orthomesh.experts.bank import get, keep_records, load, newest, places, put, read, store
from orthomesh.methods.parts import (
    agreed,
    change,
    cluster_record,
    cuts_of,
    holds,
    made_of,
    member_parts,
    shape,
    taken,
    under_mask,
    unpack,
    values,
)
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Array, Arrays, DeviceState, Round

T = Round(seed=0, index=2, total=5)
LAST = Round(seed=0, index=4, total=5)
MASKS = {0: [1, 1, 0, 0, 1, 0], 1: [0, 1, 1, 0, 0, 0], 2: [0, 0, 0, 1, 0, 0]}
VALUES = {0: [1.0, 2.0, 3.0], 1: [6.0, 5.0], 2: [9.0]}


def bits(mask: list[int]) -> Array:
    return np.packbits(np.array(mask, dtype=bool))


def own_of(k: int) -> dict[str, Array]:
    b = np.zeros(6, dtype=np.float32)
    b[np.array(MASKS[k], dtype=bool)] = VALUES[k]
    return {
        "seed": np.array(100 + k, dtype=np.uint64),
        "code": np.array([k, -k], dtype=np.float16),
        "sketch": np.array([k], dtype=np.float16),
        "B": b,
        "mask": bits(MASKS[k]),
        "masked": np.array(0, dtype=np.uint32),
        "sent": np.array(VALUES[k], dtype=np.float16),
        "version": np.array(2, dtype=np.uint32),
    }


def told(k: int) -> dict[str, Array]:
    """What device k tells its cluster."""
    own = own_of(k)
    return {"values": own["sent"], **{n: own[n] for n in ("version", "mask", "code", "sketch", "seed")}}


def knowing(k: int, *others: int) -> DeviceState:
    bank: Arrays = {}
    for other in others:
        bank = put(bank, f"member/{other}", told(other))
    return DeviceState(id=k, own=own_of(k), bank=bank)


# example


def test_members_of_a_cluster_have_banks_made_of_the_same() -> None:
    one, other = knowing(0, 1, 2), knowing(1, 2, 0)
    assert made_of(one) == made_of(other)
    trained = replace(other, own={**other.own, "B": 2 * other.own["B"]})
    assert made_of(trained) == made_of(one)  # what it has sent counts
    assert made_of(knowing(0, 1)) != made_of(one)
    changed = {**one.bank, "member/2/values": 2 * one.bank["member/2/values"]}
    assert made_of(replace(one, bank=changed)) != made_of(one)
    heard = replace(one, bank={**one.bank, "cluster/5/values": np.ones(1, dtype=np.float16)})
    assert made_of(heard) != made_of(one)
    assert made_of(replace(heard, bank={**heard.bank, "cluster/5/versions": np.ones(1, np.uint32)})) == made_of(heard)


def test_only_active_entries_travel_in_16_bit() -> None:
    sent = values({"B": np.array([1, 0, 1 / 3, 4, 0, 0], dtype=np.float32), "mask": bits([1, 0, 1, 0, 0, 0])})
    assert sent.dtype == np.float16
    assert sent.tolist() == [1.0, float(np.float16(1 / 3))]


def test_a_mask_clears_what_is_off_it_and_keeps_moments_of_the_rest() -> None:
    own = {
        "B": np.arange(1, 7, dtype=np.float32),
        "moment/exp_avg": np.arange(10, 16, dtype=np.float32),
        "moment/step": np.array(3.0, dtype=np.float32),
        "seed": np.array(5, dtype=np.uint64),
        "sizes": np.array([2, 4], dtype=np.uint32),
        "quota": np.array([2, 1], dtype=np.uint32),
        "saliency": np.ones(6, dtype=np.float32),
    }
    masked = under_mask(own, bits([0, 1, 0, 0, 1, 1]), T)
    assert masked["B"].tolist() == [0, 2, 0, 0, 5, 6]
    assert masked["moment/exp_avg"].tolist() == [11, 14, 15]
    assert float(masked["moment/step"]) == 3.0
    assert unpack(masked["mask"], 6).tolist() == [False, True, False, False, True, True]
    assert own["B"].tolist() == [1, 2, 3, 4, 5, 6]
    assert int(masked["masked"]) == T.index
    assert masked["quota"].tolist() == [1, 2]  # what each matrix has got of what both had together
    assert "saliency" not in masked


def test_shape_is_by_group_of_matrices() -> None:
    own = {
        "sizes": np.array([4, 6, 8], dtype=np.uint32),
        "quota": np.array([1, 2, 4], dtype=np.uint32),
        "spans": np.array([2, 1], dtype=np.uint32),
    }
    sizes, quota = shape(own)
    assert (sizes, quota.tolist()) == ((10, 8), [3, 4])


def test_every_layer_finds_its_input_in_a_code(tiny_setup: Setup) -> None:
    base = load_base(tiny_setup.model)
    cuts = cuts_of(base)
    assert [cut.stop - cut.start for cut in cuts] == [s.in_features for s in base.layout.shapes]
    by_name = dict(zip(base.slots, cuts, strict=True))
    assert all(by_name[name] == by_name[source] for name, source in base.source.items())
    assert len({cut.start for cut in cuts}) == len(base.inputs)
    assert max(cut.stop for cut in cuts) == sum(base.widths)


def test_the_record_of_a_cluster_by_hand() -> None:
    """Entry 1 is held by devices 0 and 1 with 2 and 6: the union averages them, the mean divides all by three."""
    union = cluster_record(knowing(0, 1, 2), "union")
    assert union.members == (0, 1, 2)
    assert union.joined.tolist() == [[1.0, 4.0, 5.0, 9.0, 3.0, 0.0]]
    mean = cluster_record(knowing(0, 1, 2), "mean")
    np.testing.assert_allclose(mean.joined, np.array([[1, 8, 5, 9, 3, 0]]) / 3, rtol=1e-6)
    stack = cluster_record(knowing(0, 1, 2), "stack")
    assert stack.joined.tolist() == [[1, 2, 0, 0, 3, 0], [0, 6, 5, 0, 0, 0], [0, 0, 0, 9, 0, 0]]
    assert union.seeds.tolist() == [100, 101, 102]
    assert union.codes.tolist() == [[0, 0], [1, -1], [2, -2]]
    assert union.masks.astype(int).tolist() == list(MASKS.values())


def test_relative_change_by_hand() -> None:
    own = {**own_of(0), "sent": np.array([1.0, 2.0, 0.0], dtype=np.float16)}  # 3.0 against 0.0 of norm sqrt(14)
    assert change(own, T, True) == pytest.approx(3 / math.sqrt(14), rel=1e-6)
    assert change(own_of(0), T, True) == 0.0


def test_the_first_time_counts_as_an_infinite_change() -> None:
    own = {n: a for n, a in own_of(0).items() if n != "sent"}
    assert change(own, T, True) == math.inf


def test_what_was_masked_this_round_waits_unless_there_is_no_other() -> None:
    own = {n: a for n, a in own_of(0).items() if n != "sent"}
    fresh = {**own, "masked": np.array(T.index, dtype=np.uint32)}
    assert change(fresh, T, True) == -1.0
    assert change(fresh, T, False) == math.inf  # an independent mask is told at once
    assert change({**own, "masked": np.array(T.index - 1, dtype=np.uint32)}, T, True) == math.inf
    assert change({**own, "masked": np.array(LAST.index, dtype=np.uint32)}, LAST, True) == math.inf
    assert change({n: a for n, a in own.items() if n != "mask"}, T, True) == -1.0


def test_in_a_group_the_first_does_not_wait_and_any_change_is_enough() -> None:
    group = {**own_of(0), "group": np.array([0, 3], dtype=np.uint32)}
    assert change(group, T, True) == math.inf
    fresh = {**group, "masked": np.array(T.index, dtype=np.uint32)}
    assert change(fresh, T, True) == -1.0  # has begun from nothing
    assert change({**fresh, "moment/step": np.array(2.0, dtype=np.float32)}, T, True) == math.inf


def test_who_is_known_and_in_which_version() -> None:
    state = knowing(1, 0)
    beyond = store(cluster_record(knowing(2), "union"))
    state = DeviceState(id=1, own=state.own, bank=put(state.bank, "cluster/2", {**beyond, "versions": np.array([7])}))
    assert holds(state).tolist() == [[0, 2], [1, 2], [2, 7]]
    hinted = DeviceState(id=1, own=state.own, bank=put(state.bank, "member/5", {"mask": bits(MASKS[2])}))
    assert holds(hinted).tolist() == holds(state).tolist()  # the mask of a bid is no expert
    new = DeviceState(id=4, own={})
    assert holds(new).tolist() == [[4, 0]]


# law


@given(st.integers(1, 4), st.data())
def test_all_members_hold_the_same_record(num: int, data: Any) -> None:
    size = data.draw(st.integers(1, 20))
    parts = {}
    for k in range(num):
        mask = data.draw(hnp.arrays(bool, size))
        sent = data.draw(hnp.arrays(np.float16, int(mask.sum()), elements=st.floats(-8, 8, width=16)))
        b = np.zeros(size, dtype=np.float32)
        b[mask] = data.draw(hnp.arrays(np.float32, int(mask.sum()), elements=st.floats(-8, 8, width=32)))
        parts[k] = {**told(0), "mask": np.packbits(mask), "values": sent, "seed": np.array(k, dtype=np.uint64), "B": b}
    stored = []
    for k in range(num):
        bank: Arrays = {}
        for other in reversed(range(num)):
            if other != k:
                bank = put(bank, f"member/{other}", {n: a for n, a in parts[other].items() if n != "B"})
        own = {**parts[k], "sent": parts[k]["values"]}  # has trained on since it sent
        stored.append(store(cluster_record(DeviceState(id=k, own=own, bank=bank), "union")))
    for other in stored[1:]:
        assert {n: a.tobytes() for n, a in other.items()} == {n: a.tobytes() for n, a in stored[0].items()}


def test_without_collisions_every_member_is_read_back_exactly() -> None:
    record = cluster_record(knowing(0, 2), "union")
    for k in (0, 2):
        np.testing.assert_array_equal(read(record, k), own_of(k)["B"])
    again = load(store(record), 6)
    assert again.members == record.members
    np.testing.assert_array_equal(again.joined, record.joined)


@given(hnp.arrays(bool, st.integers(1, 40)))
def test_masks_survive_packing(mask: Array) -> None:
    np.testing.assert_array_equal(unpack(np.packbits(mask), mask.size), mask)


# edge


def test_who_takes_all_masks_to_be_the_same_says_so() -> None:
    assert agreed(knowing(0, 1, 2)) == agreed(knowing(1, 0, 2))
    assert agreed(knowing(0, 1, 2)) != agreed(knowing(0, 1))  # one mask is not known
    other = knowing(1, 0, 2)
    assert agreed(replace(other, bank=put(other.bank, "member/2", {"mask": bits(MASKS[0])}))) != agreed(other)
    assert agreed(replace(other, bank=put(other.bank, "member/2", {}))) == agreed(knowing(1, 0))


def test_a_member_told_twice_is_replaced_and_keeps_what_is_told_once() -> None:
    news = {"values": np.array([7.0, 8.0], dtype=np.float16), "version": np.array(3, dtype=np.uint32)}
    known = member_parts(1, told(1), news, 6)
    assert known["values"].tolist() == [7.0, 8.0]
    assert int(known["version"]) == 3
    np.testing.assert_array_equal(known["mask"], told(1)["mask"])


def test_values_without_what_is_told_once_are_of_no_use() -> None:
    assert member_parts(1, {}, {"values": np.ones(2, dtype=np.float16)}, 6) == {}
    hint = {"mask": bits(MASKS[1])}
    assert member_parts(1, hint, {"values": np.ones(2, dtype=np.float16)}, 6).keys() == {"mask"}


def test_positions_taken_are_those_of_all_whose_masks_are_known() -> None:
    state = knowing(0, 1)
    assert taken(state, (0, 1, 2)).astype(int).tolist() == [1, 1, 1, 0, 1, 0]
    assert taken(state, (2,)).astype(int).tolist() == [1, 1, 0, 0, 1, 0]
    hinted = DeviceState(id=0, own=state.own, bank=put(state.bank, "member/2", {"mask": bits(MASKS[2])}))
    assert taken(hinted, (0, 1, 2)).astype(int).tolist() == [1, 1, 1, 1, 1, 0]


def record(*members: int, version: int = 2) -> dict[str, Array]:
    """What the cluster of some devices knows, all values of one version."""
    parts = store(cluster_record(knowing(members[0], *members[1:]), "union"))
    return {**parts, "versions": np.full(len(members), version, dtype=np.uint32)}


def test_a_cluster_that_has_grown_replaces_its_older_record() -> None:
    bank = keep_records(put({}, "member/9", {"mask": bits(MASKS[0])}), {1: record(1, 2)})
    assert (places(bank, "cluster"), places(bank, "member")) == ((1,), (9,))
    grown = keep_records(bank, {0: record(0, 1, 2)})
    assert places(grown, "cluster") == (0,)
    assert get(grown, "cluster/0")["members"].tolist() == [0, 1, 2]
    stale = keep_records(grown, {1: record(1, 2)})
    assert places(stale, "cluster") == (0,)  # brings nothing new
    newer = keep_records(grown, {1: record(1, 2, version=3)})
    assert places(newer, "cluster") == (0, 1)  # of device 0 the older one is the newest there is
    assert holds(DeviceState(id=0, own={}, bank=newer)).tolist() == [[0, 0], [1, 3], [2, 3]]


def test_of_a_device_that_has_left_the_newer_record_counts_and_the_others_stay_known() -> None:
    bank = keep_records({}, {0: record(0, 1, 2)})
    apart = keep_records(bank, {0: record(0, version=5)})
    assert {k: get(apart, f"cluster/{k}")["members"].tolist() for k in places(apart, "cluster")} == {
        0: [0],
        1: [0, 1, 2],
    }
    stale = keep_records(apart, {0: record(0, 1, 2)})
    assert stale == apart
    known = newest([load(get(apart, f"cluster/{k}"), 6) for k in (0, 1)])
    assert {k: int(r.versions[n]) for k, (r, n) in known.items()} == {0: 5, 1: 2, 2: 2}
    again = keep_records(apart, {1: record(1, 2, version=6)})
    assert {k: get(again, f"cluster/{k}")["members"].tolist() for k in places(again, "cluster")} == {0: [0], 1: [1, 2]}


@given(st.lists(st.tuples(st.sets(st.integers(0, 2), min_size=1), st.integers(1, 9)), max_size=8))
def test_whatever_comes_every_member_is_known_by_its_newest_values(told: list[tuple[set[int], int]]) -> None:
    bank: dict[str, Array] = {}
    for members, version in told:
        bank = keep_records(bank, {min(members): record(*sorted(members), version=version)})
    kept = [get(bank, f"cluster/{k}") for k in places(bank, "cluster")]
    best = {k: max(v for members, v in told if k in members) for members, _ in told for k in members}
    found = newest([load(a, 6) for a in kept])
    assert {k: int(r.versions[n]) for k, (r, n) in found.items()} == best
    assert len({id(r) for r, _ in found.values()}) == len(kept)  # none is kept for nothing


def test_records_that_come_together_are_kept_as_if_one_by_one() -> None:
    news = {0: record(0), 1: record(1, version=3), 2: record(2, version=3)}
    bank = keep_records({}, {0: record(0, version=5), 1: record(1, 2)})
    together, apart = keep_records(bank, news), bank
    for k, told in news.items():
        apart = keep_records(apart, {k: told})
    assert together == apart
    assert places(together, "cluster") == (0, 1, 2)  # 1 and 2 were together; now each is in a newer record
    assert get(together, "cluster/0")["versions"].tolist() == [5]


def test_half_a_record_goes_with_what_is_known_of_the_same_members() -> None:
    told = record(1, 2)
    news = {name: a for name, a in record(1, 2, version=3).items() if name in ("values", "members", "versions")}
    again = keep_records(keep_records({}, {1: told}), {1: news})
    assert get(again, "cluster/1")["versions"].tolist() == [3, 3]
    np.testing.assert_array_equal(get(again, "cluster/1")["masks"], told["masks"])
    assert keep_records({}, {1: news}) == {}
    other = keep_records({}, {0: record(0, 1, 2)})
    left = keep_records(other, {1: news})  # 0 is in another cluster now
    assert get(left, "cluster/0")["versions"].tolist() == [2, 2, 2]
    both = record(1, 2, version=3)
    assert get(left, "cluster/1").keys() == both.keys()
    for name, array in both.items():
        np.testing.assert_array_equal(get(left, "cluster/1")[name], array)
    grown = {name: a for name, a in record(0, 1, 2, version=3).items() if name in news}
    assert places(keep_records(left, {0: grown}), "cluster") == (0,)
    assert places(keep_records({}, {0: record(1), 1: news}), "cluster") == (0,)  # of 2 nothing is known


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"values": np.ones(3, dtype=np.float16)}, "device 1 sent 3 values that do not fit its mask"),
        ({"mask": np.zeros(2, dtype=np.uint8)}, "device 1 sent 2 values that do not fit its mask"),
        ({"values": np.array([1, np.nan], dtype=np.float16)}, "device 1 sent values that are not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_sender(wrong: Arrays, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        member_parts(1, told(1), wrong, 6)


def test_a_device_that_learnt_nothing_has_not_changed() -> None:
    own = {**own_of(0), "B": np.zeros(6, dtype=np.float32), "sent": np.zeros(3, dtype=np.float16)}
    assert change(own, T, True) == 0.0
