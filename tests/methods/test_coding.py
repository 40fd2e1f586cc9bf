"""Coded messages: what arrives is what was told, relays send the same bytes, damage is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.quantise import num_bytes, quantise, tell
from orthomesh.experts.bank import get, put
from orthomesh.experts.sketch import pack, task_sketch, unpack
from orthomesh.methods.coding import (
    bid_payload_bits,
    code_bid,
    code_mask,
    code_sketch,
    coded,
    opened,
    read_bid,
    read_mask,
    read_record,
    read_sketch,
    record,
    wish,
)
from orthomesh.methods.parts import every_run
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.types import DeviceState

SIZES = np.array([64, 128], dtype=np.uint32)
CODED = SparseOrthogonal(values="int4", mask_code="entropy", sketch_bits=8, run=8)


def member(seed: int, runs: tuple[int, ...]) -> dict[str, Any]:
    """Parts of a device that holds the given runs of eight, of 24."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(np.isin(np.arange(24), runs), 8)
    sketch = rng.normal(size=4).astype(np.float16)
    return {
        "values": tell(rng.normal(size=8 * len(runs)), None, "int4").sent,
        "mask": np.packbits(mask),
        "code": np.zeros(0, dtype=np.float16),
        "sketch": code_sketch(np.concatenate([sketch[:2], np.ones(3, np.float16), [np.float16(2)]]), 2),
        "seed": np.array(seed, dtype=np.uint64),
        "version": np.array(2, dtype=np.uint32),
    }


def cluster(*runs: tuple[int, ...]) -> tuple[DeviceState, list[np.ndarray]]:
    """Device 0 and what it knows of its cluster; every member's whole expansion."""
    parts = {k: member(k, held) for k, held in enumerate(runs)}
    bank: dict[str, Any] = {}
    for k in range(1, len(runs)):
        bank = put(bank, f"member/{k}", parts[k])
    own = {**parts[0], "sent": parts[0]["values"], "B": np.zeros(192, np.float32), "sizes": SIZES}
    full = []
    for a in parts.values():
        row = np.zeros(192, dtype=np.float32)
        row[np.unpackbits(a["mask"]).astype(bool)] = a["values"]
        full.append(row)
    return DeviceState(id=0, own=own, bank=bank), full


def test_plain_settings_change_nothing() -> None:
    parts, c = {"values": np.arange(3, dtype=np.float16)}, SparseOrthogonal(run=8, mask_code="raw")
    assert coded(parts, SIZES, c)["values"] is parts["values"]
    assert opened(1, parts, {}, SIZES, c) == parts


@pytest.mark.parametrize("rule", ["union", "mean", "stack"])
def test_masks_at_their_entropy_leave_16_bit_values_as_they_are(rule: Any) -> None:
    c = SparseOrthogonal(run=8, aggregation=rule)
    assert c.mask_code == "entropy"
    parts = {**member(3, (0, 5, 20)), "values": np.arange(24, dtype=np.float16)}
    told = coded(parts, SIZES, c)
    assert told["values"] is parts["values"]
    assert told["mask"].size < parts["mask"].size
    read = opened(3, told, {}, SIZES, c)
    assert {n: a.tobytes() for n, a in read.items()} == {n: a.tobytes() for n, a in parts.items()}
    device, _ = cluster((0, 5), (5, 6))
    plain, packed = record(device, replace(c, mask_code="raw")), record(device, c)
    assert {n for n in plain if plain[n].tobytes() != packed[n].tobytes()} == {"masks"}
    one, other = read_record(plain, SIZES, replace(c, mask_code="raw")), read_record(packed, SIZES, c)
    np.testing.assert_array_equal(one.joined, other.joined)
    np.testing.assert_array_equal(one.masks, other.masks)


def test_a_message_arrives_as_told() -> None:
    parts = member(3, (0, 5, 20))
    sent = coded(parts, SIZES, CODED)
    assert sent["values"].nbytes == num_bytes(24, "int4") == 14
    assert sent["mask"].nbytes < 24  # not the 192 bits
    for known, told in (({}, sent), ({"mask": parts["mask"]}, {"values": sent["values"]})):
        read = opened(3, told, known, SIZES, CODED)
        assert (read["values"] == parts["values"]).all()
        assert (read.get("mask", parts["mask"]) == parts["mask"]).all()
    assert "values" not in opened(3, {"values": sent["values"]}, {}, SIZES, CODED)  # of no use without a mask


def test_a_relay_sends_the_very_bytes_and_adds_no_error() -> None:
    runs = (0, 5), (1, 6, 7), (2,)
    device, full = cluster(*runs)
    told = record(device, CODED)
    codes = [quantise(row.reshape(24, 8)[list(held)].ravel(), "int4") for row, held in zip(full, runs, strict=True)]
    assert told["values"].tobytes() == b"".join(c.tobytes() for c in codes)
    read = read_record(told, SIZES, CODED)
    assert read.members == (0, 1, 2)
    np.testing.assert_array_equal(read.joined, np.sum(full, axis=0)[None])
    kept = get(put({}, "cluster/0", told), "cluster/0")
    assert {n: a.tobytes() for n, a in kept.items()} == {n: a.tobytes() for n, a in told.items()}


@pytest.mark.parametrize("mask_code", ["raw", "entropy"])
def test_codes_of_any_length_go_through_relays(mask_code: Any) -> None:
    c = SparseOrthogonal(values="int3", mask_code=mask_code, run=8)
    runs = (0, 5), (1, 6, 7), (2,)
    device, _ = cluster(*runs)
    told = record(device, c)
    read = read_record(told, SIZES, c)
    values = {k: get(device.bank, f"member/{k}")["values"] for k in (1, 2)} | {0: device.own["sent"]}
    for k, held in enumerate(runs):
        expected = tell(values[k], None, "int3").sent
        np.testing.assert_array_equal(read.joined[0].reshape(24, 8)[list(held)].ravel(), expected)
    for bad in (told["values"][:-1], told["values"][:3], np.append(told["values"], np.uint8(0))):
        with pytest.raises(ValueError, match="are not the values or masks of 3 members"):
            read_record({**told, "values": bad}, SIZES, c)


@pytest.mark.parametrize("mask_code", ["raw", "entropy"])
def test_members_that_collide_are_joined_by_the_receiver(mask_code: Any) -> None:
    c = SparseOrthogonal(values="int8", mask_code=mask_code, run=8)
    device, full = cluster((0, 5), (5, 6))
    read = read_record(record(device, c), SIZES, c)
    both = slice(40, 48)
    np.testing.assert_allclose(read.joined[0, both], (full[0][both] + full[1][both]) / 2, atol=0.02)
    np.testing.assert_allclose(read.joined[0, :8], full[0][:8], atol=0.02)


def test_a_sketch_keeps_mean_and_reach_and_its_covariance_nearly() -> None:
    told = task_sketch(np.random.default_rng(0).normal(size=(200, 16)))
    code = code_sketch(pack(told), 16)
    assert code.nbytes == 2 * 17 + 136 + 2 * 3
    read = unpack(read_sketch(code))
    np.testing.assert_allclose(read.mean, told.mean, rtol=1e-3)
    assert read.reach == pytest.approx(told.reach, rel=1e-3)
    np.testing.assert_allclose(read.covariance, told.covariance, atol=np.abs(told.covariance).max() / 250)
    with pytest.raises(ValueError, match="no task sketch"):
        read_sketch(code[:-1])


def test_what_cannot_be_read_is_refused() -> None:
    sent = coded(member(3, (0, 5, 20)), SIZES, CODED)
    for bad in ({"values": sent["values"][:-1]}, {"mask": sent["mask"][:-1]}, {"mask": sent["mask"][:0]}):
        with pytest.raises(ValueError, match="device 3 sent values or a mask that cannot be read"):
            opened(3, {**sent, **bad}, {}, SIZES, CODED)
    told = record(cluster((0, 5), (1,))[0], CODED)
    for name in ("values", "masks"):
        for bad_part in (told[name][:-1], told[name][:0]):
            with pytest.raises(ValueError, match=r"values|mask"):
                read_record({**told, name: bad_part}, SIZES, CODED)
    with pytest.raises(ValueError, match=r"lacks|masks"):
        read_record({n: a for n, a in told.items() if n != "members"}, SIZES, CODED)


def test_densities_that_add_up_to_one_fit_in_runs_too() -> None:
    # Ten devices of a tenth each: 77 of 768 entries are 4.8 of 48 runs, of which ten times 5 would be too many.
    assert every_run((768, 16), np.array([77, 2]), 16)[1].tolist() == [4, 1]
    assert every_run((768,), np.array([77]), 1)[1].tolist() == [77]


def test_runs_must_fit() -> None:
    with pytest.raises(ValueError, match="run 7 must divide"):
        code_mask(np.zeros(24, dtype=np.uint8), SIZES, SparseOrthogonal(mask_code="entropy", run=7))
    mask = np.packbits(np.repeat(np.arange(24) % 3 == 0, 8))
    assert (read_mask(code_mask(mask, SIZES, CODED), SIZES, CODED) == mask).all()


def test_coded_devices_end_with_what_was_sent_over_relays_too(
    play: Callable[..., Any], small: Callable[..., Setup]
) -> None:
    c = SparseOrthogonal(
        density=0.5,
        max_collision=0.0,
        values="int4",
        mask_code="entropy",
        sketch=8,
        sketch_bits=8,
        run=4,
        exchange="last",
    )
    coarse, plain = (
        play(c, small(3), rounds=3),
        play(SparseOrthogonal(density=0.5, max_collision=0.0), small(3), rounds=3),
    )
    assert [n > 0 for n in coarse.sent("values")] == [False, False, True]
    banks = [{e.owner: e.B for e in coarse.method.bank(d).experts} for d in coarse.last.values()]
    for k, device in coarse.last.items():
        mask = np.unpackbits(device.own["mask"], count=device.own["B"].size).astype(bool)
        assert (mask.reshape(-1, 4).all(axis=1) == mask.reshape(-1, 4).any(axis=1)).all()
        for bank in banks:
            np.testing.assert_array_equal(bank[k][mask], device.own["sent"])
        worst = np.abs(device.own["sent"] - device.own["B"][mask]).max()
        assert worst <= 0.08 * np.abs(device.own["B"]).max()
    assert sum(coarse.sent("values")) < 0.3 * plain.sent("values")[-1]
    assert sum(coarse.sent("one_off")) < 0.5 * sum(plain.sent("one_off"))
    assert sum(coarse.sent("codes")) < 0.1 * sum(plain.sent("codes"))


def test_a_group_owes_what_coarse_values_left_out(play: Callable[..., Any], small: Callable[..., Setup]) -> None:
    played = play(SparseOrthogonal(pool=4.0, values="int4"), small(("zelk", "zelk"), steps=3), rounds=3)
    one, other = (d.own for d in played.last.values())
    assert one["group"].tolist() == other["group"].tolist() == [0, 1]
    assert np.abs(one["owed"]).max() > 0
    np.testing.assert_array_equal(one["B"], other["B"])  # the mean of what was told, the same on both


@pytest.mark.parametrize(("levels", "mask_code"), [(7, "raw"), (7, "entropy"), (1, "entropy")])
def test_a_bid_arrives_as_told_in_no_more_than_was_announced(levels: Any, mask_code: Any) -> None:
    c, rng = SparseOrthogonal(mask_code=mask_code, bid_levels=levels), np.random.default_rng(1)
    sizes = np.array([4000, 6000], np.uint32)
    own = {"code": np.zeros(0, np.float16), "quota": np.array([250, 700], np.uint32), "sizes": sizes}
    own["spans"] = np.ones(2, np.uint32)
    wanted = wish(rng.random(10_000), (4000, 6000), own["quota"].astype(np.int64), c)
    assert wanted.max() == levels
    code = code_bid(wanted, c)
    assert 0.9 * bid_payload_bits(own, c) - 2048 <= 8 * code.size <= bid_payload_bits(own, c)
    np.testing.assert_array_equal(read_bid(code, 10_000, c), wanted)
    with pytest.raises(ValueError, match=r"a bid for|a code"):
        read_bid(code[:-2], 10_000, c)


def test_raw_bids_have_all_levels(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="bid_levels other than 7 need mask_code: entropy"):
        SparseOrthogonal(mask_code="raw", bid_levels=1).build(tiny_setup)


def test_coarse_values_are_told_whole(tiny_setup: Setup) -> None:
    with pytest.raises(ValueError, match="drop_link"):
        SparseOrthogonal(values="int8", on_infeasible="partial").build(tiny_setup)
