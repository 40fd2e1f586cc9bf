"""What two experts do to each other."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from orthomesh.adapters.interference import (
    between,
    functional_interference,
    gram,
    gram_ratio,
    principal_cosines,
    weight_cosine,
)
from orthomesh.adapters.lowrank import Layout, Shape, matrices_a
from orthomesh.adapters.projection import projection
from orthomesh.rng import stream

T, D, R, K = 7, 9, 3, 12
SEEDS = st.integers(0, 2**32)


def expert(seed: int, d: int = D, r: int = R, k: int = K) -> tuple[np.ndarray, np.ndarray]:
    """Random factors B, A."""
    rng = stream(seed, "expert")
    return rng.standard_normal((d, r)), rng.standard_normal((r, k))


def seeded(seed: int, r: int, k: int, num: int) -> list[np.ndarray]:
    """Independent projections as devices have them."""
    layout = Layout((Shape("one of many", r, k),) * num, r)
    return matrices_a(projection(seed, layout), layout)


def test_numbers_on_paper() -> None:
    a_i, a_j = np.array([[1.0, 0.0, 0.0]]), np.array([[0.6, 0.8, 0.0]])
    b_i, b_j = np.array([[1.0], [0.0]]), np.array([[-2.0], [0.0]])
    assert gram(a_i, a_j).tolist() == [[0.6]]
    assert gram_ratio(a_i, 5 * a_j) == pytest.approx(0.6)
    assert principal_cosines(a_i, 5 * a_j) == pytest.approx([0.6])
    assert weight_cosine(b_i, a_i, b_j, a_j) == pytest.approx(-0.6)
    assert weight_cosine(b_i, a_i, b_j[::-1], a_j) == 0.0
    # on the token e_1, i says (1, 0) and j says (-1.2, 0)
    assert functional_interference(np.eye(3)[:1], b_i, a_i, b_j, a_j) == pytest.approx((1.2, -1.0))
    assert functional_interference(np.eye(3)[:1], b_i, a_i, b_j[::-1], a_j) == pytest.approx((1.2, 0.0))


def test_an_expert_and_itself() -> None:
    b, a = expert(0)
    same = between([np.ones((T, K))], [b], [a], [b], [a])
    assert [float(getattr(same, f.name).min()) for f in fields(same)] == pytest.approx([1.0] * 5)


def test_disjoint_rows_are_orthogonal_and_as_loud() -> None:
    b, _ = expert(0, k=2 * R)
    left, right = np.eye(2 * R)[:R], np.eye(2 * R)[R:]
    assert gram_ratio(left, right) == 0.0
    assert principal_cosines(left, right).tolist() == [0.0] * R
    assert weight_cosine(b, left, b, right) == 0.0
    # the same input on both halves: outputs agree entirely, orthogonal weights or not
    assert functional_interference(np.tile(np.arange(R) + 1.0, (T, 2)), b, left, b, right) == pytest.approx((1.0, 1.0))


@given(SEEDS)
def test_same_as_dense_matrices(seed: int) -> None:
    (b_i, a_i), (b_j, a_j) = expert(seed), expert(seed + 1, r=R + 1)
    x = stream(seed, "activations").standard_normal((T, K))
    w_i, w_j = b_i @ a_i, b_j @ a_j
    y_i, y_j = x @ w_i.T, x @ w_j.T
    norm = np.linalg.norm
    np.testing.assert_allclose(gram(a_i, a_j), np.einsum("rk,qk->rq", a_i, a_j), atol=1e-12)
    assert weight_cosine(b_i, a_i, b_j, a_j) == pytest.approx(np.sum(w_i * w_j) / norm(w_i) / norm(w_j), abs=1e-12)
    ratio, cosine = functional_interference(x, b_i, a_i, b_j, a_j)
    assert ratio == pytest.approx(norm(y_j) / norm(y_i), rel=1e-9)
    assert cosine == pytest.approx(np.sum(y_i * y_j) / norm(y_i) / norm(y_j), abs=1e-9)


@given(SEEDS, st.sampled_from([np.float32, np.float64]))
def test_cosines_are_those_of_scipy(seed: int, dtype: type) -> None:
    a_i, a_j = (expert(s)[1].astype(dtype) for s in (seed, seed + 1))
    cosines = principal_cosines(a_i, a_j)
    angles = linalg.subspace_angles(a_i.T.astype(np.float64), a_j.T.astype(np.float64))
    np.testing.assert_allclose(cosines, np.cos(angles)[::-1], atol=1e-9)
    assert np.all(np.diff(cosines) <= 0)
    assert principal_cosines(a_i, a_i).max() <= 1.0


@given(SEEDS)
@settings(max_examples=20)
def test_measures_belong_to_updates_and_subspaces(seed: int) -> None:
    (b_i, a_i), (b_j, a_j) = expert(seed), expert(seed + 1)
    x = stream(seed, "activations").standard_normal((T, K))
    mix = np.eye(R) + np.tri(R, k=-1)  # (B mix^-1)(mix A) is the same update, mix A the same rows' space
    other = b_j @ np.linalg.inv(mix), mix @ a_j
    assert weight_cosine(b_i, a_i, *other) == pytest.approx(weight_cosine(b_i, a_i, b_j, a_j), abs=1e-9)
    assert functional_interference(x, b_i, a_i, *other) == pytest.approx(
        functional_interference(x, b_i, a_i, b_j, a_j), abs=1e-9, rel=1e-9
    )
    np.testing.assert_allclose(principal_cosines(a_i, other[1]), principal_cosines(a_i, a_j), atol=1e-9)
    assert 0.0 <= gram_ratio(a_i, a_j) <= 1.0 + 1e-12
    assert gram_ratio(3 * a_j, a_i) == pytest.approx(gram_ratio(a_i, a_j))
    # every direction once: outputs are the weights themselves
    ratio, cosine = functional_interference(np.eye(K), b_i, a_i, b_j, a_j)
    assert ratio == pytest.approx(np.linalg.norm(b_j @ a_j) / np.linalg.norm(b_i @ a_i))
    assert cosine == pytest.approx(weight_cosine(b_i, a_i, b_j, a_j), abs=1e-9)


@given(SEEDS)
def test_ratio_of_orthonormal_rows_is_the_mean_of_squared_cosines(seed: int) -> None:
    a_i, a_j = seeded(seed, R, K, 2)
    assert R * gram_ratio(a_i, a_j) ** 2 == pytest.approx(np.sum(principal_cosines(a_i, a_j) ** 2), rel=1e-5, abs=1e-6)


def test_independent_projections_come_to_sqrt_r_over_k() -> None:
    squares = [gram_ratio(a, b) ** 2 for a, b in zip(seeded(1, 8, 64, 150), seeded(2, 8, 64, 150), strict=True)]
    assert abs(np.mean(squares) - 8 / 64) < 4 * np.std(squares, ddof=1) / math.sqrt(150)


def test_theorem_2_holds_in_expectation_and_silences_nobody() -> None:
    num, d, r, k = 300, 24, 4, 64
    b, _ = expert(3, d, r, k)  # the same expansion in both: orthogonality is the projections' alone
    x = stream(3, "activations").standard_normal((40, k))
    pairs = list(zip(seeded(1, r, k, num), seeded(2, r, k, num), strict=True))
    inner = np.array([np.sum((b @ a_i) * (b @ a_j)) for a_i, a_j in pairs])
    cosine = np.array([weight_cosine(b, a_i, b, a_j) for a_i, a_j in pairs])
    for sample in (inner, cosine):
        assert abs(sample.mean()) < 4 * sample.std(ddof=1) / math.sqrt(num)
    # one pair's is not zero: <B A_i, B A_j> has variance ||B^T B||^2 / k over ||B||^4, with independent A of unit rows
    share = np.linalg.norm(b.T @ b) / np.linalg.norm(b) ** 2
    assert np.sqrt(np.mean(cosine**2)) == pytest.approx(share / math.sqrt(k), rel=4 / math.sqrt(2 * num))
    logs = np.log([functional_interference(x, b, a_i, b, a_j)[0] for a_i, a_j in pairs])
    assert abs(logs.mean()) < 4 * logs.std(ddof=1) / math.sqrt(num)
    assert np.abs(logs).max() < math.log(2)


@pytest.mark.parametrize("others", [1, 4, 9])
def test_others_together_are_as_loud_as_the_root_of_their_number(others: int) -> None:
    d, r, k = 64, 4, 128
    x = stream(others, "activations").standard_normal((40, k))
    a = seeded(4, r, k, others + 1)
    b = [expert(n, d, r, k)[0] for n in range(others + 1)]
    ratio, _ = functional_interference(x, b[0], a[0], np.hstack(b[1:]), np.vstack(a[1:]))
    assert ratio == pytest.approx(math.sqrt(others), rel=0.25)  # of one pair: each norm is known to about 7 %


def test_a_pair_layer_by_layer() -> None:
    widths = (K, K + 4)
    inputs = [stream(n, "activations").standard_normal((T, k)) for n, k in enumerate(widths)]
    (b_i, a_i), (b_j, a_j) = (zip(*(expert(s + n, k=k) for n, k in enumerate(widths)), strict=True) for s in (0, 10))
    pair = between(inputs, b_i, a_i, b_j, a_j)
    for n in range(2):
        assert pair.gram_ratio[n] == gram_ratio(a_i[n], a_j[n])
        assert pair.principal_cosines[n].tolist() == principal_cosines(a_i[n], a_j[n]).tolist()
        assert pair.weight_cosine[n] == weight_cosine(b_i[n], a_i[n], b_j[n], a_j[n])
        ratio, cosine = functional_interference(inputs[n], b_i[n], a_i[n], b_j[n], a_j[n])
        assert (pair.output_ratio[n], pair.output_cosine[n]) == (ratio, cosine)
    with pytest.raises(FrozenInstanceError):
        pair.gram_ratio = pair.weight_cosine  # type: ignore[misc]


def test_what_cannot_be_compared_is_refused() -> None:
    b, a = expert(0)
    x = np.ones((T, K))
    with pytest.raises(ValueError, match="projection of zeros has no direction"):
        gram_ratio(a, 0 * a)
    with pytest.raises(ValueError, match="the 3 rows of a projection depend on each other"):
        principal_cosines(a, a[[0, 1, 1]])
    with pytest.raises(ValueError, match="an update that is zero has no direction"):
        weight_cosine(b, a, 0 * b, a)
    with pytest.raises(ValueError, match="output is zero on all tokens"):
        functional_interference(0 * x, b, a, b, a)
    with pytest.raises(ValueError, match="output is zero on all tokens"):
        functional_interference(np.full((T, K), math.nan), b, a, b, a)
    with pytest.raises(ValueError, match=r"hold \[1, 2, 1, 1, 1\] matrices"):
        between([x], [b, b], [a], [b], [a])
    with pytest.raises(ValueError, match=r"hold \[0, 0, 0, 0, 0\] matrices"):
        between([], [], [], [], [])
