"""Arrays as bytes, and bytes that only claim to be arrays."""

from __future__ import annotations

import gc
import struct
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orthomesh.exchange.payload import DTYPES, MAX_SECTIONS, Section, decode, encode
from orthomesh.types import COLUMNS

ONES = np.ones(4000, dtype=np.uint8)  # travels compressed
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMED = st.lists(st.tuples(st.sampled_from(COLUMNS), st.text(max_size=8), ARRAYS), max_size=4, unique_by=lambda s: s[1])
SAMPLE = encode(
    [
        Section("values", "v", np.array([1.5, -2.0, 0.25], dtype=np.float16)),
        Section("mask", "m", np.zeros(400, dtype=np.uint8)),  # travels compressed
        Section("one_off", "", np.array(7, dtype=np.uint64)),
    ]
).payload


def frame(*sections: bytes) -> bytes:
    return b"OM2" + struct.pack("<H", len(sections)) + b"".join(sections)


def number(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    low, rest = value % 128, value // 128
    return bytes([128 + low]) + number(rest) if rest else bytes([low])


def section(
    shape: tuple[int, ...], stored: bytes, *, column: int = 0, kind: int = 0, packed: int = 0, name: bytes = b"x"
) -> bytes:
    """A section written out by hand; `kind` 0 is uint8."""
    head = bytes([32 * column + 2 * kind + packed, len(shape), len(name)]) + number(len(stored))
    return head + name + b"".join(number(side) for side in shape) + stored


def refuses_or_reads(payload: bytes) -> None:
    """Anything else than a ValueError goes through to the test."""
    with suppress(ValueError):
        decode(payload)


@contextmanager
def little_memory(limit: int = 1 << 21) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_small_frame_on_paper() -> None:
    sent = encode(
        [
            Section("values", "ab", np.array([1.0, 2.0], dtype=np.float32)),
            Section("one_off", "s", np.array(513, dtype=np.uint16)),
        ]
    )
    assert sent.payload == (
        b"OM2\x02\x00"
        + bytes([2 * 7, 1, 2, 8]) + b"ab" + bytes([2]) + bytes([0, 0, 0x80, 0x3F, 0, 0, 0, 0x40])
        + bytes([4 * 32 + 2 * 1, 0, 1, 2]) + b"s" + bytes([1, 2])
    )  # fmt: skip
    assert sent.columns == {"control": 5, "values": 4 + 2 + 1 + 8, "one_off": 4 + 1 + 2}


def test_lengths_and_sides_on_paper() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 150)).astype(np.uint8)
    assert encode([Section("values", "n", noise)]).payload == (
        b"OM2\x01\x00"
        + bytes([0, 2, 1, 0x80 | 300 % 128, 300 // 128])
        + b"n"
        + bytes([2, 0x80 | 22, 1])
        + noise.tobytes()
    )


def test_nothing_to_send_is_the_head_alone() -> None:
    assert encode([]) == (b"OM2\x00\x00", {"control": 5})
    assert decode(encode([]).payload) == {}


def test_what_compresses_travels_compressed() -> None:
    raw = np.zeros(10_000, dtype=np.float32)
    sent = encode([Section("mask", "m", raw)])
    assert sent.columns["mask"] == 4 + 1 + 2 + len(zstandard.compress(raw.tobytes()))
    noise = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8)
    assert encode([Section("mask", "m", noise)]).columns["mask"] == 5 + 1 + 2 + 1000


@settings(max_examples=100)
@given(NAMED)
def test_what_is_encoded_comes_back(named: list[tuple[str, str, np.ndarray]]) -> None:
    sent = encode([Section(*parts) for parts in named])
    assert sum(sent.columns.values()) == len(sent.payload)
    assert sent.columns.keys() == {"control", *(column for column, _, _ in named)}
    back = decode(sent.payload)
    assert list(back) == [name for _, name, _ in named]
    for _, name, array in named:
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_layout_in_memory_does_not_matter() -> None:
    straight = np.arange(12, dtype=np.int32).reshape(3, 4)
    sent = encode([Section("values", "a", straight)]).payload
    for other in (np.asfortranarray(straight), straight.astype(">i4"), np.repeat(straight, 2, axis=1)[:, ::2]):
        assert encode([Section("values", "a", other)]).payload == sent


def test_every_truncation_is_refused() -> None:
    for end in range(len(SAMPLE)):
        with pytest.raises(ValueError, match=r"frame|section"):
            decode(SAMPLE[:end])


def test_corrupt_bytes_raise_nothing_but_value_errors_and_take_no_memory() -> None:
    with little_memory():
        for place in range(len(SAMPLE)):
            for flip in (*(1 << bit for bit in range(8)), 0xFF):
                damaged = bytearray(SAMPLE)
                damaged[place] ^= flip
                refuses_or_reads(bytes(damaged))


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 3), st.booleans())
def test_random_bytes_raise_nothing_but_value_errors(noise: bytes, count: int, plausible: bool) -> None:
    refuses_or_reads(noise)
    refuses_or_reads(b"OM2" + struct.pack("<H", count) + noise)
    # as far as types, sizes and names go, all is well
    refuses_or_reads(frame(section((len(noise),), noise, packed=int(plausible))))
    refuses_or_reads(frame(section((1 << 31,), noise, packed=int(plausible))))


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=6), st.integers(0, 255), st.binary(max_size=8))
def test_random_shapes_raise_nothing_but_value_errors(shape: list[int], sides_of_one: int, stored: bytes) -> None:
    for sides in (shape, [0, *shape], [1] * min(sides_of_one, 255 - len(shape)) + shape):
        for packed in (0, 1):
            refuses_or_reads(frame(section(tuple(sides), stored, packed=packed)))


def test_announced_sizes_take_no_memory_before_the_bytes_are_there() -> None:
    short = zstandard.compress(b"abc")
    with little_memory():
        with pytest.raises(ValueError, match="holds 3 bytes"):
            decode(frame(section((1 << 31,), short, packed=1)))
        with pytest.raises(ValueError, match="exceeds"):
            decode(frame(section((1 << 40,), short, packed=1)))


def test_a_stream_that_grows_beyond_its_shape_is_cut_off() -> None:
    bomb = zstandard.compress(bytes(1 << 26))
    assert len(bomb) < 1 << 14
    with little_memory(), pytest.raises(ValueError, match=r"shape \(8,\) needs 8"):
        decode(frame(section((8,), bomb, packed=1)))


def test_all_arrays_together_stay_below_the_limit() -> None:
    sent = encode([Section("values", name, np.zeros(100, dtype=np.uint8)) for name in "abc"]).payload
    assert decode(sent, max_bytes=300).keys() == set("abc")
    with pytest.raises(ValueError, match=r"'c' .* exceeds the 99 bytes left"):
        decode(sent, max_bytes=299)


ONE = section((1,), b"!")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "at least 5 bytes"),
        (b"OM1\x00\x00", "not a frame of this version"),
        (b"OM2" + struct.pack("<H", MAX_SECTIONS + 1), "not a frame of this version"),
        (frame(ONE, ONE), "'x' comes twice"),
        (frame(ONE) + b"?", "1 bytes follow"),
        (frame(section((1,), b"!", column=len(COLUMNS))), "unknown column"),
        (frame(section((1,), b"!", kind=len(DTYPES))), "unknown"),
        (frame(bytes([0, 1, 1, 0x81, 0]) + b"x\x01!"), "more bytes than it takes"),
        (frame(bytes([0, 1, 1, 1]) + b"x" + b"\x81" * 10 + b"!"), "beyond 63 bits"),
        (frame(section((1,), b"!", name=b"\xff")), "not UTF-8"),
        (frame(section((2,), b"!")), "holds 1 bytes"),
        (frame(section((1,), b"!", kind=7)), "needs 4"),
        (frame(section((1,), b"!!!!!!!!", packed=1)), "does not decompress"),
    ],
)
def test_frames_that_are_wrong_are_refused_with_a_reason(payload: bytes, reason: str) -> None:
    assert decode(frame(ONE))["x"].tobytes() == b"!"
    with pytest.raises(ValueError, match=reason):
        decode(payload)


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.complex64, "U3", object])
def test_types_that_do_not_travel_are_refused(kind: object) -> None:
    with pytest.raises(ValueError, match=r"section 'a': dtype .* does not travel"):
        encode([Section("values", "a", np.zeros(1, dtype=kind))])


def test_what_could_not_be_read_back_is_not_sent() -> None:
    one = np.zeros(1, dtype=np.uint8)
    assert decode(encode([Section("values", "é" * 127, one)]).payload).keys() == {"é" * 127}
    with pytest.raises(ValueError, match="at most 255 bytes"):
        encode([Section("values", "é" * 128, one)])
    with pytest.raises(ValueError, match="different names"):
        encode([Section("values", "a", one), Section("mask", "a", one)])
    with pytest.raises(ValueError, match=f"at most {MAX_SECTIONS} sections"):
        encode([Section("values", str(n), one) for n in range(MAX_SECTIONS + 1)])


def test_receivers_of_one_frame_share_its_arrays_and_cannot_write_to_them() -> None:
    frame = encode([Section("values", "values", np.arange(1000, dtype=np.float32)), Section("mask", "mask", ONES)])
    first, again = decode(frame.payload), decode(bytes(bytearray(frame.payload)))
    assert all(first[name] is again[name] for name in ("values", "mask"))
    with pytest.raises(ValueError, match="read-only"):
        first["values"][0] = 1


def test_arrays_are_forgotten_with_their_last_holder() -> None:
    frame = encode([Section("mask", "mask", ONES)])
    held = weakref.ref(decode(frame.payload)["mask"])
    assert held() is decode(frame.payload)["mask"]  # the frame is one
    del frame
    gc.collect()
    assert held() is None


def test_what_is_passed_on_is_the_same_array_in_the_same_bytes() -> None:
    told = encode([Section("mask", "mask", ONES), Section("values", "values", np.arange(9, dtype=np.float16))])
    heard = decode(told.payload)
    passed = encode([Section("values", "3/values", heard["values"]), Section("mask", "3/mask", heard["mask"])])
    assert passed == encode([Section("values", "3/values", heard["values"].copy()), Section("mask", "3/mask", ONES)])
    again = decode(passed.payload)
    assert again["3/mask"] is heard["mask"]
    assert again["3/values"] is heard["values"]
    same = np.zeros(4000, dtype=np.uint16)  # the same bytes of another type or shape are something else
    frames = [encode([Section("mask", "x", a)]).payload for a in (same, same.view(np.float16), same.reshape(4, -1))]
    assert [(*a["x"].shape, a["x"].dtype.name) for a in map(decode, frames)] == [
        (4000, "uint16"),
        (4000, "float16"),
        (4, 1000, "uint16"),
    ]


def test_what_is_shared_is_checked_against_the_limit_of_each_reader() -> None:
    frame = encode([Section("mask", "mask", ONES)])
    held = decode(frame.payload)
    with pytest.raises(ValueError, match="exceeds the 10 bytes left"):
        decode(frame.payload, max_bytes=10)
    assert held["mask"].size == ONES.size
