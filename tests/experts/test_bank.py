"""What a device keeps of clusters, and what it refuses to believe."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.exchange.payload import Section, decode, encode
from orthomesh.experts.bank import ClusterRecord, each, get, load, places, put, put_each, read, record_at, store

RECORD = ClusterRecord(
    members=(2, 5),
    joined=np.array([[1.5, 0.0, -2.0, 0.25, 0.0, 0.0, 0.0, 0.0, 4.0]], dtype=np.float32),
    masks=np.array([[1, 0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0, 1]], dtype=bool),
    seeds=np.array([7, 2**64 - 1], dtype=np.uint64),
    codes=np.array([[0.5, 1.0], [2.0, -4.0]], dtype=np.float32),
    sketches=np.array([[1.0, 2.0, 1.5], [-1.0, 0.5, 2.0]], dtype=np.float16),
    versions=np.array([3, 0], dtype=np.uint32),
)


def drawn(seed: int, apart: bool = False) -> ClusterRecord:
    rng = np.random.default_rng(seed)
    num, size = int(rng.integers(1, 5)), int(rng.integers(1, 40))
    masks = rng.random((num, size)) < rng.random()
    held = masks if apart else masks.any(axis=0, keepdims=True)
    return ClusterRecord(
        members=tuple(sorted(int(k) for k in rng.choice(50, size=num, replace=False))),
        joined=np.where(held, rng.standard_normal(held.shape), 0).astype(np.float16).astype(np.float32),
        masks=masks,
        seeds=rng.integers(0, 2**64, size=num, dtype=np.uint64),
        codes=rng.standard_normal((num, 3)).astype(np.float16).astype(np.float32),
        sketches=rng.standard_normal((num, 6)).astype(np.float16),
        versions=rng.integers(0, 9, size=num, dtype=np.uint32),
    )


def same(one: ClusterRecord, other: ClusterRecord) -> bool:
    names = ("joined", "masks", "seeds", "codes", "sketches", "versions")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.members == other.members and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_stored_record_on_paper() -> None:
    parts = store(RECORD)
    assert parts["members"].tolist() == [2, 5]
    assert parts["values"].tolist() == [1.5, -2.0, 0.25, 4.0]
    assert parts["masks"].tolist() == [[0b10100000, 0], [0b00110000, 0b10000000]]
    assert {name: part.dtype.itemsize for name, part in parts.items()} == {
        "members": 4,
        "values": 2,
        "masks": 1,
        "seeds": 8,
        "codes": 2,
        "sketches": 2,
        "versions": 4,
    }


def test_members_are_read_through_their_masks_on_paper() -> None:
    assert read(RECORD, 2).tolist() == [1.5, 0, -2.0, 0, 0, 0, 0, 0, 0]
    assert read(RECORD, 5).tolist() == [0, 0, -2.0, 0.25, 0, 0, 0, 0, 4.0]


def test_a_member_that_was_not_joined_keeps_what_it_shares_with_others_on_paper() -> None:
    """Entry 2 is held by both, with -2 and 3: two values travel for it, in order of member."""
    rows = np.array([[1.5, 0, -2.0, 0, 0, 0, 0, 0, 0], [0, 0, 3.0, 0.25, 0, 0, 0, 0, 4.0]], dtype=np.float32)
    whole = ClusterRecord(**{**vars(RECORD), "joined": rows})
    assert store(whole)["values"].tolist() == [1.5, -2.0, 3.0, 0.25, 4.0]
    assert [read(whole, k).tolist() for k in (2, 5)] == rows.tolist()
    assert same(load(store(whole), 9, apart=True), whole)
    with pytest.raises(ValueError, match="5 values do not fit a support of 4"):
        load(store(whole), 9)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_record_comes_back_also_over_the_air(seed: int, apart: bool) -> None:
    record = drawn(seed, apart)
    parts, size = store(record), record.masks.shape[1]
    assert same(load(parts, size, apart), record)
    sent = encode([Section("values", name, part) for name, part in parts.items()])
    assert same(load(decode(sent.payload), size, apart), record)


@given(st.integers(0, 2**32 - 1))
def test_experts_without_a_common_position_come_back_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = rng.integers(-1, 3, size=20)  # -1: nobody's
    record = ClusterRecord(
        members=(1, 4, 6),
        joined=np.where(owner >= 0, rng.standard_normal((1, 20)), 0).astype(np.float32),
        masks=owner == np.arange(3)[:, None],
        seeds=np.arange(3, dtype=np.uint64),
        codes=np.zeros((3, 1), dtype=np.float32),
        sketches=np.zeros((3, 0), dtype=np.float16),
        versions=np.zeros(3, dtype=np.uint32),
    )
    experts = [read(record, k) for k in record.members]
    assert all(not expert[owner != row].any() for row, expert in enumerate(experts))
    assert np.sum(experts, axis=0).tolist() == record.joined[0].tolist()


def test_values_are_rounded_to_16_bit_and_no_further() -> None:
    third = ClusterRecord(**{**vars(RECORD), "joined": RECORD.joined / 3})
    back = load(store(third), 9).joined
    assert not np.array_equal(back, third.joined)
    np.testing.assert_allclose(back, third.joined, rtol=2**-11)


@pytest.mark.parametrize("name", ["members", "values", "masks", "seeds", "codes", "sketches", "versions"])
def test_missing_truncated_and_swollen_parts_are_refused(name: str) -> None:
    parts = store(RECORD)
    assert same(load(parts, 9), RECORD)
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load({n: part for n, part in parts.items() if n != name}, 9)
    for spoilt in (parts[name][:-1], parts[name][:0], np.concatenate([parts[name], parts[name][:1]])):
        with pytest.raises(ValueError, match=r"fit|members"):
            load({**parts, name: spoilt}, 9)


@pytest.mark.parametrize("name", ["members", "values", "masks", "seeds", "codes", "sketches", "versions"])
def test_parts_of_another_type_or_shape_are_refused(name: str) -> None:
    parts = store(RECORD)
    for spoilt in (
        parts[name].astype(np.float64),
        parts[name][..., None],
        parts[name].ravel()[0],
        np.zeros((), parts[name].dtype),
    ):
        with pytest.raises(ValueError, match=f"{name} of a cluster must be"):
            load({**parts, name: np.asarray(spoilt)}, 9)


@pytest.mark.parametrize("name", ["values", "codes", "sketches"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_parts_that_are_not_finite_are_refused(name: str, value: float) -> None:
    parts = store(RECORD)
    spoilt = parts[name].copy()
    spoilt.flat[1] = value
    with pytest.raises(ValueError, match=r"devices \(2, 5\) holds values that are not finite"):
        load({**parts, name: spoilt}, 9)


@pytest.mark.parametrize("members", [[5, 2], [2, 2]])
def test_members_out_of_order_or_named_twice_are_refused(members: list[int]) -> None:
    with pytest.raises(ValueError, match="once and in order"):
        load({**store(RECORD), "members": np.array(members, dtype=np.uint32)}, 9)


def test_a_record_of_another_layout_is_refused() -> None:
    for size in (8, 17):
        with pytest.raises(ValueError, match=f"do not fit 2 members and {size} entries"):
            load(store(RECORD), size)


def test_a_device_that_is_no_member_has_no_expert() -> None:
    with pytest.raises(ValueError, match=r"tuple\.index"):
        read(RECORD, 3)


def test_places_of_a_bank() -> None:
    old, new = {"values": np.ones(2), "code": np.ones(1)}, {"values": np.zeros(2)}
    bank = put(put(put({}, "member/12", old), "member/1", old), "cluster/3", new)
    assert places(bank, "member") == (1, 12)
    assert places(bank, "cluster") == (3,)
    replaced = put(bank, "member/1", new)
    assert {n: a.tolist() for n, a in get(replaced, "member/1").items()} == {"values": [0.0, 0.0]}
    assert get(replaced, "member/12").keys() == old.keys()  # 1 is not a beginning of 12
    assert get(bank, "member/1").keys() == old.keys()  # put leaves what it was given alone
    assert get(bank, "member/2") == {}
    assert places({}, "member") == ()
    assert each(bank, "member") == {1: old, 12: old}
    assert put_each(bank, "member", {7: new}) == {"cluster/3/values": new["values"], "member/7/values": new["values"]}
    assert record_at(put(bank, "cluster/33", old), 3) == new
