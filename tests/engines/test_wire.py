"""Messages between devices: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.wire import (
    HEAD_BYTES,
    Kind,
    Letter,
    Refusal,
    Refused,
    Stage,
    pack,
    pack_facts,
    unpack,
    unpack_facts,
)
from orthomesh.exchange.payload import Section, encode
from orthomesh.types import Facts

LETTER = Letter(
    kind=Kind.PARCEL, run=bytes(range(8)), src=3, dst=258, life=2, stage=Stage(1, 7), phase=4, body=b"values"
)
letters = st.builds(
    Letter,
    kind=st.sampled_from(Kind),
    run=st.binary(min_size=8, max_size=8),
    src=st.integers(0, 2**16 - 1),
    dst=st.integers(0, 2**16 - 1),
    life=st.integers(0, 2**64 - 1),
    stage=st.builds(Stage, st.integers(0, 255), st.integers(0, 2**24 - 1)),
    phase=st.integers(0, 2**12 - 1),
    body=st.binary(max_size=300),
)


def refusal(data: bytes, max_body: int = 1 << 20) -> Refusal:
    with pytest.raises(Refused) as caught:
        unpack(data, max_body)
    return caught.value.why


def facts(**changes: object) -> Facts:
    public = {"density": np.array([0.25, 0.5], dtype=np.float32), "have": np.array([[1, 2]], dtype=np.uint32)}
    columns = encode([Section("control", n, a) for n, a in public.items()]).columns
    made = Facts(id=2, public=public, columns=columns, payload_bits=4096, gains={0: 1e-9, 1: 0.0})
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_head_is_as_documented() -> None:
    data = pack(LETTER)
    assert data[:5] == b"OMW1\x01"
    assert data[5] == Kind.PARCEL
    assert data[6] == 1  # method
    assert data[8:16] == bytes(range(8))
    assert struct.unpack("<HH", data[16:20]) == (3, 258)
    assert struct.unpack("<QIHQ", data[20:42]) == (2, 7, 4, 6)
    assert len(data) == HEAD_BYTES + 6 == 56
    assert data.endswith(b"values")


@given(letters)
def test_what_is_packed_is_unpacked(letter: Letter) -> None:
    assert unpack(pack(letter)) == letter


@given(letters, st.data())
def test_any_bit_that_flips_is_noticed(letter: Letter, data: st.DataObject) -> None:
    sent = bytearray(pack(letter))
    place = data.draw(st.integers(0, 8 * len(sent) - 1))
    sent[place // 8] ^= 1 << place % 8
    assert refusal(bytes(sent)) in (Refusal.MALFORMED, Refusal.OVERSIZED)


@given(st.binary(max_size=400), st.integers(0, 90))
def test_any_bytes_end_in_a_refusal(noise: bytes, kept: int) -> None:
    for data in (noise, pack(LETTER)[:kept] + noise):
        if data != pack(LETTER):
            refusal(data)


def test_a_length_is_refused_before_its_bytes_are_looked_at() -> None:
    data = bytearray(pack(LETTER))
    data[34:42] = struct.pack("<Q", 1 << 60)
    assert refusal(bytes(data)) is Refusal.OVERSIZED
    assert refusal(pack(replace(LETTER, body=b"x" * 11)), max_body=10) is Refusal.OVERSIZED
    assert unpack(pack(replace(LETTER, body=b"x" * 10)), 10).body == b"x" * 10


@pytest.mark.parametrize(
    "changes",
    [
        {"src": 1 << 16},
        {"dst": -1},
        {"stage": Stage(256, 0)},
        {"stage": Stage(0, 1 << 24)},
        {"phase": 4096},
        {"run": b""},
    ],
)
def test_nothing_beyond_bounds_is_sent(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is not below|a run is 8 bytes"):
        pack(replace(LETTER, **changes))  # type: ignore[arg-type]


def test_facts_come_back_bit_for_bit() -> None:
    told = facts(gains={0: 0.1 + 0.2, 9: 5e-324})
    back = unpack_facts(pack_facts(told), 2, 1 << 20)
    assert back.gains == told.gains
    assert back.columns == told.columns
    assert (back.id, back.payload_bits) == (2, 4096)
    assert back.public.keys() == told.public.keys()
    for name, array in told.public.items():
        assert back.public[name].dtype == array.dtype
        np.testing.assert_array_equal(back.public[name], array)


@given(st.binary(max_size=200), st.integers(0, 120))
def test_any_bytes_are_facts_or_a_refusal(noise: bytes, kept: int) -> None:
    held = 0
    with contextlib.suppress(Refused):
        read = unpack_facts(pack_facts(facts())[:kept] + noise, 2, 1 << 16)
        held = sum(array.nbytes for array in read.public.values())
    assert held <= 1 << 16


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), -1.0])
def test_a_gain_that_is_none(gain: float) -> None:
    with pytest.raises(Refused, match="a gain that is no gain"):
        unpack_facts(pack_facts(facts(gains={0: gain})), 2, 1 << 20)


def test_facts_that_swell_are_refused_before_they_take_memory() -> None:
    swollen = facts(public={"density": np.zeros(1 << 24, dtype=np.float64)})  # 128 MiB, a few kB when compressed
    body = pack_facts(swollen)
    assert len(body) < 1 << 17
    tracemalloc.start()
    with pytest.raises(Refused, match="exceeds"):
        unpack_facts(body, 2, 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22
