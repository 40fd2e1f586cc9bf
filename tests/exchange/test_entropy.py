"""Entropy codes: by hand, against a scalar coder, near the entropy, and damaged."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.exchange import entropy
from orthomesh.exchange.entropy import (
    decode_levels,
    decode_mask,
    decode_symbols,
    encode_levels,
    encode_mask,
    encode_symbols,
    entropy_bits,
    frequencies,
)


def one_lane(code: bytes, counts: list[int], num: int) -> list[int]:
    """Plain reading of a code of one lane, one symbol at a time with Python's integers."""
    assert int.from_bytes(code[:2], "little") == 1
    x, at, out = int.from_bytes(code[2:6], "little"), 6, []
    for _ in range(num):
        slot, symbol = x % 65536, 0
        while sum(counts[: symbol + 1]) <= slot:
            symbol += 1
        out.append(symbol)
        x = counts[symbol] * (x // 65536) + slot - sum(counts[:symbol])
        if x < 65536:
            x, at = x * 65536 + int.from_bytes(code[at : at + 2], "little"), at + 2
    assert (x, at) == (65536, len(code))
    return out


def test_two_even_symbols_take_a_bit_each() -> None:
    # State 65536, frequencies 32768 each: symbol 0 doubles the upper half, so that 16 of them add one word.
    code = encode_symbols(np.zeros(16, dtype=np.uint8), np.array([32768, 32768]))
    assert code.tobytes() == bytes([1, 0]) + (65536).to_bytes(4, "little") + bytes(2)


def test_a_plain_reader_reads_the_same() -> None:
    symbols = np.random.default_rng(0).choice(4, size=500, p=[0.6, 0.2, 0.15, 0.05]).astype(np.uint8)
    counts = frequencies(np.array([0.6, 0.2, 0.15, 0.05]))
    code = encode_symbols(symbols, counts)
    assert one_lane(code.tobytes(), counts.tolist(), 500) == symbols.tolist()
    assert (decode_symbols(code, counts, 500) == symbols).all()


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(0, 99), st.data())
def test_symbol_by_symbol_is_all_lanes_at_once(num: int, seed: int, data: st.DataObject) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(5))
    symbols, counts = np.random.default_rng(seed).choice(5, num, p=shares).astype(np.uint8), frequencies(shares)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "LANE_BYTES", 40)  # several lanes
        few = encode_symbols(symbols, counts).copy()
        patch.setattr(entropy, "FEW", 0)
        assert encode_symbols(symbols, counts).tobytes() == few.tobytes()
        if data.draw(st.booleans()):
            few[data.draw(st.integers(2, few.size - 1))] ^= data.draw(st.integers(1, 255))
        read = []
        for most in (0, 99):
            patch.setattr(entropy, "FEW", most)
            try:
                read.append(decode_symbols(few, counts, num).tolist())
            except ValueError as error:
                read.append([str(error)])
        assert read[0] == read[1]


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.125, 0.25, 0.38, 0.5, 0.9])
def test_masks_come_within_two_percent_of_their_entropy(density: float) -> None:
    mask = np.random.default_rng(1).random(200_000) < density
    s = mask.mean()
    entropy_bytes = mask.size * (-s * math.log2(s) - (1 - s) * math.log2(1 - s)) / 8
    code = encode_mask(mask)
    assert entropy_bytes <= code.size <= 1.02 * entropy_bytes
    assert (decode_mask(code, mask.size) == mask).all()


def test_matrices_of_different_density_pay_for_their_own() -> None:
    rng = np.random.default_rng(2)
    mask = np.concatenate([rng.random(40_000) < 0.05, rng.random(40_000) < 0.5])
    sizes = (40_000, 40_000)
    own = 40_000 * (entropy_bits(mask[:40_000].mean()) + entropy_bits(mask[40_000:].mean())) / 8
    code = encode_mask(mask, sizes)
    assert own <= code.size <= 1.02 * own < 0.9 * encode_mask(mask).size
    assert (decode_mask(code, 80_000, sizes) == mask).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=300), st.integers(1, 5))
def test_masks_come_back(bits: list[bool], parts: int) -> None:
    mask = np.array(bits, dtype=bool)
    cuts = np.linspace(0, mask.size, parts + 1).astype(int)
    sizes = tuple(np.diff(cuts).tolist())
    assert (decode_mask(encode_mask(mask, sizes), mask.size, sizes) == mask).all()


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("num", [0, 1, 5000])
def test_none_and_all_take_three_bytes(value: bool, num: int) -> None:
    code = encode_mask(np.full(num, value))
    assert code.size == 3
    assert (decode_mask(code, num) == np.full(num, value)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=200))
def test_bids_come_back(levels: list[int]) -> None:
    bid = np.array(levels, dtype=np.uint8)
    assert (decode_levels(encode_levels(bid, 8), 8, bid.size) == bid).all()


def test_bids_come_within_two_percent_of_their_entropy() -> None:
    bid = np.random.default_rng(3).choice(8, size=50_000, p=[0.63, 0.12, 0.06, 0.06, 0.04, 0.03, 0.03, 0.03])
    p = np.bincount(bid) / bid.size
    entropy_bytes = bid.size * float(-(p * np.log2(p)).sum()) / 8
    assert entropy_bytes <= encode_levels(bid.astype(np.uint8), 8).size <= 1.02 * entropy_bytes


def test_what_is_cut_short_or_goes_on_is_refused() -> None:
    mask = np.random.default_rng(4).random(5000) < 0.2
    code = encode_mask(mask)
    for bad in (code[:0], code[:2], code[:6], code[:-1], code[:-2], np.append(code, np.zeros(2, np.uint8))):
        with pytest.raises(ValueError, match=r"cut short|damaged|no mask"):
            decode_mask(bad, 5000)
    with pytest.raises(ValueError, match=r"cut short|damaged|no mask"):
        decode_mask(code, 5040)
    bid = encode_levels(np.arange(200, dtype=np.uint8) % 8, 8)
    for bad in (bid[:3], bid[:-2], bid[:16]):
        with pytest.raises(ValueError, match=r"cut short|no bid|damaged"):
            decode_levels(bad, 8, 200)
    bid = bid.copy()
    bid[0] ^= 1
    with pytest.raises(ValueError, match="add up"):
        decode_levels(bid, 8, 200)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_are_read_or_refused_with_a_sentence(raw: bytes, num: int) -> None:
    code = np.frombuffer(raw, dtype=np.uint8)
    for read in (lambda: decode_mask(code, num), lambda: decode_levels(code, 8, num)):
        with suppress(ValueError):
            assert read().shape == (num,)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="exclude"):
        encode_symbols(np.array([2], dtype=np.uint8), np.array([32768, 32768, 0]))
    with pytest.raises(ValueError, match="add up to 7"):
        encode_mask(np.zeros(8, dtype=bool), (3, 4))
    with pytest.raises(ValueError, match="below 8, got 8"):
        encode_levels(np.array([8], dtype=np.uint8), 8)
    with pytest.raises(ValueError, match="density"):
        entropy_bits(1.5)


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.9, 0.05, 0.04, 0.01, 0.0], [1 - 4e-5, 1e-5, 1e-5, 1e-5, 1e-5]])
def test_many_lanes_at_once_code_as_whole_numbers_do_symbol_by_symbol(shares: list[float]) -> None:
    """Quotients by products in double precision are exact, whatever the frequency."""
    drawn = np.random.default_rng(3).choice(5, 30_000, p=[0.2, 0.3, 0.3, 0.1, 0.1])
    counts = frequencies(np.array(shares))
    symbols = np.where(counts[drawn] > 0, drawn, 0).astype(np.uint8)
    lanes, word = 100, np.empty(symbols.size, dtype="<u2")
    states, full = entropy._encode_many(symbols, counts, lanes, word)
    assert states.astype("<u4").tobytes() + word[full].tobytes() == entropy._encode_few(symbols, counts, lanes)
