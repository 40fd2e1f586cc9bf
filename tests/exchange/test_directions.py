"""The largest singular values of one matrix: against the whole decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.exchange.directions import leading


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_leading_directions_are_those_of_the_whole_decomposition(seed: int, d: int, k: int, rank: int) -> None:
    rank, m = min(rank, d, k), np.random.default_rng(seed).standard_normal((d, k))
    u, sigma, v = leading(m, rank)
    np.testing.assert_allclose(sigma, np.linalg.svd(m, compute_uv=False)[:rank], atol=1e-6)
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(v @ v.T, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(u.T @ m @ v.T, np.diag(sigma), atol=1e-6)
    turned = leading(-m, rank)
    np.testing.assert_allclose(turned[0], u, atol=1e-9)  # whatever sign the eigenvectors come with
    np.testing.assert_allclose(turned[2], -v, atol=1e-9)


def test_directions_of_a_matrix_of_zeros_are_orthonormal_too() -> None:
    u, sigma, v = leading(np.zeros((3, 5), dtype=np.float32), 2)
    np.testing.assert_allclose(np.r_[u.T @ u, v @ v.T], np.r_[np.eye(2), np.eye(2)], atol=1e-12)
    assert sigma.tolist() == [0.0, 0.0]


def test_a_rank_that_exceeds_a_side_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 4 of a matrix of 3 x 5: 1 to 3"):
        leading(np.ones((3, 5)), 4)
