"""Projections from seeds: the same bits everywhere, and the right distribution."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from orthomesh.adapters import projection as drawing
from orthomesh.adapters.lowrank import Layout, Shape, matrices_a
from orthomesh.adapters.projection import Kind, _draw, ln, projection
from orthomesh.rng import key

LAYOUT = Layout((Shape("q", 8, 12), Shape("k", 8, 12), Shape("up", 30, 5)), rank=4)
KINDS: tuple[Kind, ...] = ("orthonormal", "gaussian", "unit", "sparse")

# Stored output, here alone: neighbours rebuild A from its seed, so every version on every machine must give these
# bytes (little-endian float32). A change of one of them is a change of the protocol.
BYTES: tuple[tuple[int, int, list[int], Kind, str], ...] = (
    (0, 4, [12, 12, 5], "orthonormal", "05803d8584e1a9ee1f66ca70d416f05ab5b3f06bc2fdfd3bc3ca9cf3f579252a"),
    (0, 4, [12, 12, 5], "gaussian", "668dcba899e505487a4a515f1c3f29d830d3cca425d5deb18ffdd077efd1c002"),
    (0, 4, [12, 12, 5], "unit", "077aae20002f0a4354bdafab9f9f3a28496c2a8052e343308283f4c3fe9c0136"),
    (0, 4, [12, 12, 5], "sparse", "835f36713d7ddb181b973405d68554aa506eac72d5e9fc96e4c2f4df0eb486b9"),
    (2**64 - 1, 16, [96, 256, 96], "orthonormal", "5995bf3fd240c8cee48cd1d2a30286e95e92f79d45625ae02ae0039173e6ab65"),
    (1, 8, [8, 8], "orthonormal", "0086e481bb9501b0a46e468a2e06717c50078176960dab8e55a0181a0e2c9578"),
    (2, 3, [20001], "gaussian", "8427415c87c13306077ce58303d32b9dc5cb90b891b9b36052ca726c0bd6f76f"),
    (3, 32, [1536], "orthonormal", "f2472a8901687398d4bd38226e3ddcb85d5a283677b436bad32706f99fb396a8"),
    (3, 32, [1536], "sparse", "388558d19739533586b267b4473231ef80335d57ba05d208b6ddc4c20c650860"),
)  # fmt: skip
ELSEWHERE = """
import hashlib, json, sys
import numpy as np
from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.adapters.projection import _draw, projection
singles, doubles = [], []
for seed, rank, widths, kind in json.loads(sys.argv[1]):
    layout = Layout(tuple(Shape(str(n), rank, k) for n, k in enumerate(widths)), rank)
    singles.append(hashlib.sha256(projection(seed, layout, kind).astype("<f4").tobytes()).hexdigest())
    doubles.append(hashlib.sha256(_draw(seed, [0, 1], (rank, widths[0]), kind).tobytes()).hexdigest())
try:
    projection(0, layout, "dense")
except ValueError as error:
    units = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    print(json.dumps([units, singles, doubles, str(error)]))
"""


def one_layer(rank: int, in_features: int) -> Layout:
    return Layout((Shape("only", rank, in_features),), rank)


def drawn(seed: int, rank: int, in_features: int, kind: Kind) -> np.ndarray:
    layout = one_layer(rank, in_features)
    return matrices_a(projection(seed, layout, kind), layout)[0].astype(np.float64)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """||A_i A_j^T||_F against ||A_i A_i^T||_F."""
    return float(np.linalg.norm(a @ b.T) / np.linalg.norm(a @ a.T))


def philox(seed: int, purpose: str, layer: int) -> Iterator[int]:
    """Philox4x64-10 as published (Salmon et al., 2011), counting from one."""
    word, count = 2**64, 0
    while True:
        count += 1
        c, k = [count, 0, 0, 0], [key(seed, purpose, layer), 0]
        for _ in range(10):
            high, low = divmod(0xD2E7470EE14C6C93 * c[0], word)
            high2, low2 = divmod(0xCA5A826395121157 * c[2], word)
            c = [high2 ^ c[1] ^ k[0], low2, high ^ c[3] ^ k[1], low]
            k = [(k[0] + 0x9E3779B97F4A7C15) % word, (k[1] + 0xBB67AE8584CAA73B) % word]
        yield from c


def plain_ln(x: float) -> float:
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m, e = 2 * m, e - 1
    z = (m - 1) / (m + 1)
    series = 2 / 19
    for power in range(17, 0, -2):
        series = series * (z * z) + 2 / power
    return e * 0.6931471805599453 + z * series


def plain_normals(seed: int, layer: int) -> Iterator[float]:
    for word in philox(seed, "projection", layer):
        u, v = ((2 * (word % 2**32) + 1) / 2**32 - 1, (2 * (word >> 32) + 1) / 2**32 - 1)
        s = u * u + v * v
        if s < 1:
            radius = math.sqrt(-2 * plain_ln(s) / s)
            yield from (u * radius, v * radius)


def plain_dot(a: list[float], b: list[float]) -> float:
    """The second half onto the first until one is left; the middle one of an odd number waits."""
    x = [p * q for p, q in zip(a, b, strict=True)]
    while len(x) > 1:
        half = len(x) // 2
        x = [p + q for p, q in zip(x[:half], x[-half:], strict=True)] + x[half : len(x) - half]
    return x[0]


def plain_orthonormal(rows: list[list[float]]) -> list[list[float]]:
    done = []
    while rows:
        first, *rest = rows
        own = plain_dot(first, first)
        shares = [plain_dot(row, first) / own for row in rest]
        rows = [
            [x - y * share for x, y in zip(row, first, strict=True)] for row, share in zip(rest, shares, strict=True)
        ]
        done.append([x / math.sqrt(own) for x in first])
    return done


def plain_layer(seed: int, layer: int, r: int, k: int, kind: Kind) -> list[list[float]]:
    """One layer without NumPy: Python's floats are IEEE doubles, its integers exact."""
    normals = plain_normals(seed, layer)
    if kind != "sparse":
        g = [list(islice(normals, k)) for _ in range(r)]
        return (
            plain_orthonormal(g)
            if kind == "orthonormal"
            else [[x / (1 if kind == "unit" else math.sqrt(k)) for x in row] for row in g]
        )
    words, place = philox(seed, "projection-support", layer), 2 ** k.bit_length()
    rows = []
    for _ in range(r):
        keys = sorted(word // place * place + x for x, word in enumerate(islice(words, k)))
        held = {x % place for x in keys[: max(1, round(k / 4))]}
        rows.append([next(normals) / r if x in held else 0.0 for x in range(k)])
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_every_bit_is_that_of_plain_arithmetic(seed: int, kind: Kind) -> None:
    rows = [plain_layer(seed, n, 4, shape.in_features, kind) for n, shape in enumerate(LAYOUT.shapes)]
    plain = [x for layer in rows for row in layer for x in row]
    assert projection(seed, LAYOUT, kind).tobytes() == np.array(plain, dtype=np.float32).tobytes()
    # float32 hides all but one in some 10^8 differences of a double's last bit
    for layers, width in (([0, 1], 12), ([2], 5)):
        assert _draw(seed, layers, (4, width), kind).tolist() == [rows[layer] for layer in layers]


def test_every_bit_of_a_wide_layer_is_that_of_plain_arithmetic() -> None:
    assert _draw(1, [0], (2, 9001), "unit")[0].tolist() == plain_layer(1, 0, 2, 9001, "unit")


@pytest.mark.parametrize(("seed", "rank", "widths", "kind", "sha256"), BYTES)
def test_bytes_never_change(seed: int, rank: int, widths: list[int], kind: Kind, sha256: str) -> None:
    layout = Layout(tuple(Shape(str(n), rank, k) for n, k in enumerate(widths)), rank)
    assert hashlib.sha256(projection(seed, layout, kind).astype("<f4").tobytes()).hexdigest() == sha256


def test_neither_threads_nor_vector_units_change_a_bit() -> None:
    units = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    threads = {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps([case[:-1] for case in BYTES])],
        capture_output=True, text=True, check=True,
        env={**os.environ, **threads, "NPY_DISABLE_CPU_FEATURES": " ".join(units)},
    )  # fmt: skip
    left, singles, doubles, refusal = json.loads(done.stdout)
    assert left == []
    assert singles == [case[-1] for case in BYTES]
    here = [_draw(seed, [0, 1], (rank, widths[0]), kind) for seed, rank, widths, kind, _ in BYTES]
    assert doubles == [hashlib.sha256(a.tobytes()).hexdigest() for a in here]
    assert refusal == "kind 'dense' of a projection is unknown; known are orthonormal, gaussian, unit, sparse"


def test_however_many_are_drawn_side_by_side_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tuple(Shape(f"h.{n}", 2, 64) for n in range(3)), 2)
    alone = drawing._drawn(5, layout, "orthonormal")
    monkeypatch.setattr(drawing, "SMALL", 0)
    monkeypatch.setattr(drawing, "ENTRIES", 1)
    assert drawing._drawn(5, layout, "orthonormal").tobytes() == alone.tobytes()


def test_small_projections_on_paper() -> None:
    g = drawn(7, 2, 3, "unit")
    first = g[0] / math.sqrt(g[0] @ g[0])
    rest = g[1] - (g[1] @ first) * first
    np.testing.assert_allclose(drawn(7, 2, 3, "orthonormal"), [first, rest / math.sqrt(rest @ rest)], rtol=1e-5)
    np.testing.assert_allclose(drawn(7, 2, 3, "gaussian"), g / math.sqrt(3), rtol=1e-6)
    assert abs(drawn(7, 1, 1, "orthonormal")[0, 0]) == 1.0


def test_logarithm_is_that_of_the_c_library() -> None:
    x = np.concatenate([np.random.default_rng(0).random(20000), 2.0 ** -np.arange(64), 1 - 2.0 ** -np.arange(1, 54)])
    np.testing.assert_allclose(ln(x), [math.log(v) for v in x], rtol=1e-15)
    assert ln(x).tolist() == [plain_ln(v) for v in x.tolist()]


def test_entries_are_independent_standard_normals() -> None:
    x = drawn(11, 40, 5000, "unit").ravel()
    n = x.size
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(stats.kurtosis(x)) < 4 * math.sqrt(24 / n)
    assert stats.kstest(x, "norm").pvalue > 0.01
    beyond = 2 * stats.norm.sf(3)
    assert abs(np.mean(np.abs(x) > 3) - beyond) < 4 * math.sqrt(beyond / n)
    pairs = x.reshape(-1, 2)  # a point gives two: neither they nor their sizes may depend on each other
    for of in (pairs, pairs**2):
        assert abs(np.corrcoef(of.T)[0, 1]) < 4 / math.sqrt(n / 2)


def test_scales_of_the_kinds() -> None:
    unit = drawn(11, 40, 500, "unit")
    np.testing.assert_allclose(drawn(11, 40, 500, "gaussian"), unit / math.sqrt(500), rtol=1e-6)
    sparse = drawn(11, 40, 500, "sparse")
    values = sparse[sparse != 0] * 40
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / values.size)


@given(seed=st.integers(0, 2**64 - 1), rank=st.integers(1, 6), wider=st.integers(0, 30))
def test_rows_are_orthonormal(seed: int, rank: int, wider: int) -> None:
    a = drawn(seed, rank, rank + wider, "orthonormal")
    np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=5e-7)


@pytest.mark.parametrize(("rank", "in_features"), [(1, 1), (2, 2), (8, 8), (16, 16), (64, 64), (32, 1536)])
def test_rows_are_those_of_householder(rank: int, in_features: int) -> None:
    a, g = drawn(5, rank, in_features, "orthonormal"), drawn(5, rank, in_features, "unit")
    np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=3e-7)  # entries are float32
    q, r = np.linalg.qr(g.T)
    np.testing.assert_allclose(a, (q * np.sign(np.diag(r))).T, atol=1e-7 * np.linalg.cond(g) + 1e-7)
    assert linalg.subspace_angles(a.T, g.T).max() < 1e-6 * np.linalg.cond(g)


@given(st.integers(0, 2**64 - 1), st.integers(1, 5), st.integers(0, 20))
def test_sparse_rows_hold_a_quarter(seed: int, rank: int, wider: int) -> None:
    k = rank + wider
    a = drawn(seed, rank, k, "sparse")
    assert np.count_nonzero(a, axis=1).tolist() == [max(1, round(k / 4))] * rank


def test_sparse_positions_are_uniform() -> None:
    counts = np.count_nonzero(drawn(3, 400, 400, "sparse"), axis=0)  # 400 rows with 100 entries in each
    # a column's count has variance 400 x 1/4 x 3/4 = 75, and rows that hold exactly 100 tie the columns together
    deviation = np.sum((counts - 100) ** 2) / 75 * (1 - 1 / 400)
    assert 0.005 < stats.chi2(399).sf(deviation) < 0.995


@pytest.mark.parametrize(("in_features", "measured"), [(896, 0.182), (1536, 0.146), (3584, 0.092)])
def test_projections_of_different_seeds_are_nearly_orthogonal(in_features: int, measured: float) -> None:
    # r^2 nearly independent entries of variance 1/k: one pair's ratio is known to 1/sqrt(2 r^2), here 2.2 %
    rank, num_pairs = 32, 4
    for kind in ("orthonormal", "unit", "sparse"):
        a = [drawn(seed, rank, in_features, kind) for seed in range(2 * num_pairs)]
        ratio = np.mean([overlap(a[2 * n], a[2 * n + 1]) for n in range(num_pairs)])
        # E ||A A^T||^2 is r for orthonormal rows and r (1 + 2/p + (r - 1)/k) for p Gaussian entries in each
        held = in_features / 4 if kind == "sparse" else in_features
        own = 1.0 if kind == "orthonormal" else 1 + 2 / held + (rank - 1) / in_features
        deviation = 1 / math.sqrt(2 * rank**2)
        assert ratio == pytest.approx(math.sqrt(rank / in_features / own), rel=4 * deviation / math.sqrt(num_pairs))
        assert ratio == pytest.approx(measured, rel=4 * deviation * math.sqrt(1 + 1 / num_pairs))


def test_orthonormal_overlap_is_the_mean_of_random_subspaces() -> None:
    layout = Layout((Shape("one of many", 3, 10),) * 300, 3)
    one, other = (np.stack(matrices_a(projection(seed, layout), layout)) for seed in (0, 1))
    squares = np.sum((one @ other.swapaxes(1, 2)) ** 2, axis=(1, 2), dtype=np.float64)
    assert abs(squares.mean() - 9 / 10) < 4 * squares.std(ddof=1) / math.sqrt(len(squares))  # r^2 / k exactly


@given(st.sampled_from(KINDS), st.integers(0, 2**64 - 1))
@settings(max_examples=20)
def test_a_seed_is_the_whole_projection(kind: Kind, seed: int) -> None:
    first = projection(seed, LAYOUT, kind)
    assert first.dtype == np.float32
    assert first.shape == (LAYOUT.num_projection,)
    assert first.tobytes() == projection(seed, LAYOUT, kind).tobytes()
    alone = projection(seed, Layout(LAYOUT.shapes[:1], 4), kind)  # what other layers there are does not matter
    assert first[: alone.size].tobytes() == alone.tobytes()
    q, k, _ = matrices_a(first, LAYOUT)
    assert not np.array_equal(q, k)  # layers of one shape have projections of their own
    assert not np.array_equal(first, projection(seed ^ 1, LAYOUT, kind))


def test_default_is_orthonormal() -> None:
    assert projection(5, LAYOUT).tobytes() == projection(5, LAYOUT, "orthonormal").tobytes()
    assert projection(5, LAYOUT).tobytes() != projection(5, LAYOUT, "gaussian").tobytes()
