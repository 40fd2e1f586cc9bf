"""Quantised values: by hand, against plain NumPy, bounds, error feedback, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orthomesh.exchange.entropy import decode_levels
from orthomesh.exchange.quantise import BLOCK, Precision, dequantise, num_bytes, quantise, tell, tell_change

ALL: tuple[Precision, ...] = ("float16", "bfloat16", "int8", "int4", "int3")
vectors = arrays(np.float32, st.integers(0, 300), elements=st.floats(-1000, 1000, width=32))


def oracle(code: bytes, top: int, num: int) -> list[float]:
    """Plain reading: scales in bfloat16 of every 64, then codes raised by `top`, two to a byte for 4 bit."""
    blocks = (num + 63) // 64
    scales = [np.frombuffer(b"\0\0" + code[2 * b : 2 * b + 2], "<f4")[0] for b in range(blocks)]
    rest = list(code[2 * blocks :])
    codes = rest if top == 127 else [half for byte in rest for half in (byte & 15, byte >> 4)]
    return [float(scales[i // 64]) * (codes[i] - top) for i in range(num)]


def test_four_bits_on_paper() -> None:
    # Largest 7, so the scale is 1 (bfloat16 0x3f80): codes 7, -3, 0 (from 0.4) raised by 7 are 14, 4, 7.
    code = quantise(np.array([7.0, -3.0, 0.4]), "int4")
    assert code.tobytes() == bytes([0x80, 0x3F, 14 | 4 << 4, 7])
    assert dequantise(code, "int4", 3).tolist() == [7.0, -3.0, 0.0]


def test_eleven_codes_on_paper() -> None:
    # Largest 5, so the scale is 1 (bfloat16 0x3f80): codes 5, -3, 0 (from 0.4), -1 (from -0.6) raised by 5.
    code = quantise(np.array([5.0, -3.0, 0.4, -0.6]), "int3")
    assert code[:2].tobytes() == bytes([0x80, 0x3F])
    assert decode_levels(code[2:], 11, 4).tolist() == [10, 2, 5, 4]
    assert dequantise(code, "int3", 4).tolist() == [5.0, -3.0, 0.0, -1.0]


@pytest.mark.parametrize("spread", ["even", "normal", "one"])
def test_eleven_codes_take_their_entropy_and_never_more_than_is_said(spread: str) -> None:
    rng, n = np.random.default_rng(5), 20_000
    values = {"even": rng.integers(-5, 6, n) / 5, "normal": rng.normal(size=n), "one": np.ones(n)}[spread]
    code = quantise(values, "int3")
    blocks = -(-n // 256)
    scales = np.frombuffer(b"".join(b"\0\0" + code[2 * b : 2 * b + 2].tobytes() for b in range(blocks)), "<f4")
    codes = np.rint(dequantise(code, "int3", n) / np.repeat(scales, 256)[:n])
    share = np.unique(codes, return_counts=True)[1] / n
    entropy = -(share * np.log2(share)).sum() / 8 * n
    assert entropy <= code.size - 2 * blocks - 22 <= 1.01 * entropy + 16
    assert code.size <= num_bytes(n, "int3")


@pytest.mark.parametrize(("precision", "top"), [("int8", 127), ("int4", 7)])
def test_a_plain_reader_reads_the_same(precision: Precision, top: int) -> None:
    values = np.random.default_rng(0).normal(size=333)
    code = quantise(values, precision)
    assert dequantise(code, precision, 333).tolist() == pytest.approx(oracle(code.tobytes(), top, 333), rel=1e-7)


def test_bfloat16_is_torchs() -> None:
    import torch

    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    expected = torch.tensor(values).bfloat16().float().numpy()
    assert (dequantise(quantise(values, "bfloat16"), "bfloat16", 1000) == expected).all()


@pytest.mark.parametrize("precision", ALL)
@settings(max_examples=25, deadline=None)
@given(vectors)
def test_the_error_is_bounded_and_coding_twice_changes_nothing(precision: Precision, values: np.ndarray) -> None:
    code = quantise(values, precision)
    read = dequantise(code, precision, values.size)
    length = num_bytes(values.size, precision)
    assert code.size <= length if precision == "int3" else code.size == length
    relative = {
        "float16": 2.0**-11,
        "bfloat16": 2.0**-8,
        "int8": 0.5 * 1.01 / 127 + 2.0**-9,
        "int4": 0.5 * 1.01 / 7 + 2.0**-9,
        "int3": 0.5 * 1.01 / 5 + 2.0**-9,
    }
    width = BLOCK.get(precision, 64)
    for first in range(0, values.size, width):
        now = values[first : first + width]
        worst = np.abs(now - read[first : first + width]).max()
        assert worst <= relative[precision] * np.abs(now).max() + 2.0**-24
    assert (dequantise(quantise(read, precision), precision, values.size) == read).all()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_error_feedback_adds_up_to_the_truth(precision: Precision) -> None:
    rng, residual = np.random.default_rng(2), None
    told = truth = np.zeros(100)
    for _ in range(20):
        values = rng.normal(size=100).astype(np.float32)
        step = tell(values, residual, precision)
        told, truth, residual = told + step.sent, truth + values, step.residual
        assert np.abs(told + residual - truth).max() < 1e-4
    assert np.abs(told - truth).max() < 0.5  # one step, after twenty of them


def test_changes_come_closer_than_values_of_as_many_bits() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(size=640).astype(np.float32)
    known = dequantise(quantise(before, "int8"), "int8", 640)
    now = before + np.float32(0.1) * rng.normal(size=640).astype(np.float32)
    changed, whole = tell_change(now, known, "int4"), tell(now, None, "int4")
    assert np.linalg.norm(changed.residual) < 0.2 * np.linalg.norm(whole.residual)
    again = tell_change(now, changed.sent, "int4")
    assert np.linalg.norm(again.residual) < 0.2 * np.linalg.norm(changed.residual)
    assert (known + dequantise(changed.code, "int4", 640) == changed.sent).all()


def test_random_rounding_is_keyed_and_right_on_average() -> None:
    values = np.full(64 * 200, 0.3, dtype=np.float32)
    values[::64] = 7.0
    one, same, other = (tell(values, None, "int4", (0, 1, device)) for device in (4, 4, 5))
    assert (one.code == same.code).all()
    assert (one.code != other.code).any()
    rest = np.delete(one.sent, np.s_[::64])
    assert rest.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / rest.size))


def test_what_cannot_travel_is_refused() -> None:
    for precision in ALL:
        with pytest.raises(ValueError, match="finite"):
            quantise(np.array([1.0, np.nan]), precision)
    with pytest.raises(ValueError, match="65504"):
        quantise(np.array([1e5]), "float16")


def test_what_was_not_coded_so_is_refused() -> None:
    good = quantise(np.arange(5.0), "int4")
    with pytest.raises(ValueError, match="take 5 bytes"):
        dequantise(good[:-1], "int4", 5)
    for place, byte, sentence in ((1, 0x7F, "scales"), (1, 0xFF, "scales"), (2, 0xFF, "beyond 7"), (4, 0xFF, "follow")):
        bad = good.copy()
        bad[place] = byte
        bad[0] = 0x80 if place == 1 else bad[0]
        with pytest.raises(ValueError, match=sentence):
            dequantise(bad, "int4", 5)
    fine = quantise(np.arange(5.0), "int3")
    for bad in (fine[:1], fine[:-1], fine[:-2], np.append(fine, np.zeros(2, np.uint8)), np.zeros(40, np.uint8)):
        with pytest.raises(ValueError, match=r"take 37 bytes|code"):
            dequantise(bad, "int3", 5)
    odd = fine.copy()
    odd[2] ^= 1
    with pytest.raises(ValueError, match="add up"):
        dequantise(odd, "int3", 5)
    with pytest.raises(ValueError, match="finite"):
        dequantise(np.array([0, 0x7C], dtype=np.uint8), "float16", 1)
    with pytest.raises(ValueError, match="finite"):
        dequantise(np.array([0x7F, 0x7F, 254], dtype=np.uint8), "int8", 1)
