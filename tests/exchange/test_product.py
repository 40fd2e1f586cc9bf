"""The nearest low-rank product: against the singular value decomposition of the whole matrix."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.exchange.product import aligned, mended, nearest_factors, with_signs

Sizes = tuple[int, int, int, int]
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))


def drawn(seed: int, size: Sizes) -> tuple[list[float], list[np.ndarray], list[np.ndarray]]:
    d, k, rank, count = size
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(count)).tolist()
    return weights, [rng.standard_normal((d, rank)) for _ in weights], [rng.standard_normal((rank, k)) for _ in weights]


def whole(weights: list[float], b: list[np.ndarray], a: list[np.ndarray]) -> np.ndarray:
    return np.sum([w * x @ y for w, x, y in zip(weights, b, a, strict=True)], axis=0)


# example


def test_the_stronger_of_two_directions_is_kept_on_paper() -> None:
    """0.5 * diag(4, 0) + 0.5 * diag(0, 2) = diag(2, 1); of rank one the nearest is diag(2, 0)."""
    b = [np.array([[4.0], [0.0]]), np.array([[0.0], [2.0]])]
    a = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    made = nearest_factors([0.5, 0.5], b, a, 1)
    np.testing.assert_allclose(made[0] @ made[1], [[2.0, 0.0], [0.0, 0.0]], atol=1e-6)
    assert np.linalg.norm(made[0]) == pytest.approx(np.linalg.norm(made[1])) == pytest.approx(np.sqrt(2.0))


# reference


@given(st.integers(0, 2**32 - 1), sizes)
def test_the_product_is_the_truncated_svd_of_the_whole(seed: int, size: Sizes) -> None:
    weights, b, a = drawn(seed, size)
    rank = size[2]
    u, s, v = np.linalg.svd(whole(weights, b, a), full_matrices=False)
    expansion, projection = nearest_factors(weights, b, a, rank)
    assert (expansion.shape, projection.shape) == ((size[0], rank), (rank, size[1]))
    kept = min(rank, s.size)
    np.testing.assert_allclose(expansion @ projection, (u[:, :kept] * s[:kept]) @ v[:kept], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(expansion, axis=0)[:kept] ** 2, s[:kept], atol=1e-4)


# law


@given(st.integers(0, 2**32 - 1), sizes)
def test_a_sum_that_fits_the_rank_is_exact(seed: int, size: Sizes) -> None:
    weights, b, a = drawn(seed, size)
    expansion, projection = nearest_factors(weights, b, a, size[2] * size[3])
    np.testing.assert_allclose(expansion @ projection, whole(weights, b, a), atol=1e-4)


@given(st.integers(0, 2**32 - 1), sizes)
def test_signs_are_those_of_the_product_alone(seed: int, size: Sizes) -> None:
    d, k, rank, _ = size
    rng = np.random.default_rng(seed)
    b, a, signs = rng.standard_normal((d, rank)), rng.standard_normal((rank, k)), rng.choice([-1.0, 1.0], rank)
    made, other = with_signs(b, a), with_signs(b * signs, a * signs[:, None])
    for one, same in zip(made, other, strict=True):
        np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(made[0] @ made[1], b @ a)


# edge


def test_adapters_that_are_all_zero_stay_zero() -> None:
    expansion, projection = nearest_factors([1.0], [np.zeros((3, 2))], [np.ones((2, 3))], 2)
    assert not expansion.any()
    assert not projection.any()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        nearest_factors([1.5, -0.5], [np.ones((1, 1))] * 2, [np.ones((1, 1))] * 2, 1)


# mended


def test_a_mended_b_is_where_the_gradient_is_zero() -> None:
    rng = np.random.default_rng(4)
    B, A = [rng.standard_normal((5, 2)) for _ in range(3)], [rng.standard_normal((2, 7)) for _ in range(3)]
    w, ridge = [0.2, 0.5, 0.3], 0.4
    b, a = sum(p * x for p, x in zip(w, B, strict=True)), sum(p * x for p, x in zip(w, A, strict=True))
    whole = sum(p * y @ x for p, y, x in zip(w, B, A, strict=True))
    made = mended(B, A, w, ridge).astype(float)
    np.testing.assert_allclose((made @ a - whole) @ a.T + ridge * (made - b), 0, atol=1e-5)


def test_a_heavy_ridge_keeps_the_mean_and_none_is_refused() -> None:
    rng = np.random.default_rng(5)
    B, A = [rng.standard_normal((5, 2)) for _ in range(2)], [rng.standard_normal((2, 7)) for _ in range(2)]
    np.testing.assert_allclose(mended(B, A, [0.5, 0.5], 1e9), (B[0] + B[1]) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="must be positive"):
        mended(B, A, [0.5, 0.5], 0.0)


# aligned


def unlikeness(x: torch.Tensor, weights: list[float], b: list[np.ndarray], a: list[np.ndarray], weight: float) -> Any:
    """One minus the cosine of whole matrices, and the weighted distance from the mean; with torch's own slope."""
    mean_b, mean_a = (
        torch.from_numpy(np.sum([w * m for w, m in zip(weights, ms, strict=True)], axis=0)) for ms in (b, a)
    )
    away = (x - mean_b).norm()  # its slope at zero is zero
    return (
        1
        - torch.cosine_similarity(torch.from_numpy(whole(weights, b, a)).ravel(), (x @ mean_a).ravel(), dim=0)
        + weight * away
    )


def begun(weights: list[float], b: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.sum([w * m for w, m in zip(weights, b, strict=True)], axis=0)).requires_grad_()


def test_the_first_step_follows_the_slope_of_whole_matrices() -> None:
    weights, b, a = drawn(3, (12, 9, 3, 4))
    x = begun(weights, b)
    unlikeness(x, weights, b, a, 0.01).backward()
    mean_a = np.sum([w * m for w, m in zip(weights, a, strict=True)], axis=0)
    rate = np.linalg.norm(x.detach().numpy() @ mean_a) ** 2 / np.linalg.norm(mean_a, 2) ** 2
    assert x.grad is not None
    made = aligned(b, a, weights, 0.01, steps=1)
    np.testing.assert_allclose(made, (x - rate * x.grad).detach().numpy(), atol=1e-6)
    assert np.abs(made - x.detach().numpy()).max() > 1e-2


def test_where_it_ends_the_slope_of_whole_matrices_is_zero() -> None:
    weights, b, a = drawn(8, (12, 9, 3, 4))
    x = torch.from_numpy(aligned(b, a, weights, 0.01, steps=3000).astype(float)).requires_grad_()
    unlikeness(x, weights, b, a, 0.01).backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-5


@given(st.integers(0, 2**32 - 1), sizes, st.sampled_from([0.0, 0.01, 0.3]))
@settings(max_examples=30)
def test_the_objective_falls_with_every_step(seed: int, size: Sizes, weight: float) -> None:
    weights, b, a = drawn(seed, size)
    made = [aligned(b, a, weights, weight, steps=n) for n in (0, 1, 2, 5, 100)]
    values = [float(unlikeness(torch.from_numpy(x.astype(float)), weights, b, a, weight)) for x in made]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(values))
    np.testing.assert_allclose(made[0], begun(weights, b).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_heavy_weight_keeps_the_mean_and_none_is_refused() -> None:
    weights, b, a = drawn(5, (5, 7, 2, 2))
    np.testing.assert_allclose(aligned(b, a, weights, 100.0), begun(weights, b).detach().numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="must not be negative"):
        aligned(b, a, weights, -1.0)


def test_where_there_is_no_direction_the_mean_stays() -> None:
    a, b = np.ones((2, 4)), np.ones((3, 2))
    assert not aligned([0 * b, 0 * b], [a, a], [0.5, 0.5], 0.01).any()
    np.testing.assert_array_equal(aligned([b, -b], [a, -a], [0.5, 0.5], 0.01), 0 * b)  # the mean of either is zero
    np.testing.assert_array_equal(aligned([b, b], [a, -a], [0.5, 0.5], 0.01), b)
