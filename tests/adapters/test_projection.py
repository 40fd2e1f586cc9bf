"""Projections from seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a
from orthomesh.adapters.projection import Kind, projection
from orthomesh.rng import stream

LAYOUT = Layout((Shape("q", 8, 12), Shape("k", 8, 12), Shape("up", 30, 5)), rank=4)
KINDS: tuple[Kind, ...] = ("orthonormal", "gaussian")


def one_layer(rank: int, in_features: int) -> Layout:
    return Layout((Shape("only", rank, in_features),), rank)


def gram_schmidt(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows, one after the other, each with a positive share of the row it comes from."""
    done: list[np.ndarray] = []
    for row in rows:
        rest = row - sum((row @ other * other for other in done), start=np.zeros_like(row))
        rest = rest - sum((rest @ other * other for other in done), start=np.zeros_like(row))
        done.append(rest / np.linalg.norm(rest))
    return np.stack(done)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """||A_i A_j^T||_F against ||A_i A_i^T||_F."""
    return float(np.linalg.norm(a @ b.T) / np.linalg.norm(a @ a.T))


def test_rank_one_on_paper() -> None:
    g = stream(7, "projection", 0).standard_normal((5, 1))[:, 0]
    np.testing.assert_allclose(projection(7, one_layer(1, 5)), g / math.sqrt(g @ g), rtol=1e-6)
    np.testing.assert_allclose(projection(7, one_layer(1, 5), "gaussian"), g / math.sqrt(5), rtol=1e-6)
    assert abs(projection(7, one_layer(1, 1))[0]) == 1.0


def test_rows_are_the_drawn_ones_made_orthonormal() -> None:
    for index, a in enumerate(matrices_a(projection(3, LAYOUT), LAYOUT)):
        g = stream(3, "projection", index).standard_normal((a.shape[1], 4)).T
        np.testing.assert_allclose(a, gram_schmidt(g), atol=1e-6)


@given(seed=st.integers(0, 2**64 - 1), rank=st.integers(1, 6), wider=st.integers(0, 30))
def test_rows_are_orthonormal(seed: int, rank: int, wider: int) -> None:
    (a,) = matrices_a(projection(seed, one_layer(rank, rank + wider)), one_layer(rank, rank + wider))
    np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=1e-6)


@pytest.mark.parametrize(("in_features", "measured"), [(896, 0.182), (1536, 0.146), (3584, 0.092)])
def test_projections_of_different_seeds_are_nearly_orthogonal(in_features: int, measured: float) -> None:
    # r^2 nearly independent entries of variance 1/k: one pair's ratio is known to 1/sqrt(2 r^2), here 2.2 %
    rank, num_pairs = 32, 6
    layout = one_layer(rank, in_features)
    for kind in KINDS:
        drawn = [matrices_a(projection(seed, layout, kind), layout)[0] for seed in range(2 * num_pairs)]
        ratio = np.mean([overlap(drawn[2 * n], drawn[2 * n + 1]) for n in range(num_pairs)])
        # E ||A A^T||^2 is r for orthonormal rows and r (1 + (r + 1) / k) for Gaussian ones
        own = 1.0 if kind == "orthonormal" else 1 + (rank + 1) / in_features
        deviation = 1 / math.sqrt(2 * rank**2)
        assert ratio == pytest.approx(math.sqrt(rank / in_features / own), rel=4 * deviation / math.sqrt(num_pairs))
        assert ratio == pytest.approx(measured, rel=4 * deviation * math.sqrt(1 + 1 / num_pairs))


def test_orthonormal_overlap_is_the_mean_of_random_subspaces() -> None:
    layout = one_layer(3, 10)
    drawn = [matrices_a(projection(seed, layout), layout)[0] for seed in range(600)]
    squares = np.array([np.sum((drawn[n] @ drawn[n + 1].T) ** 2) for n in range(0, 600, 2)])
    assert abs(squares.mean() - 9 / 10) < 4 * squares.std(ddof=1) / math.sqrt(len(squares))  # r^2 / k exactly


def test_gaussian_entries_have_variance_one_over_k() -> None:
    a = projection(11, one_layer(40, 500), "gaussian").astype(np.float64)
    assert stats.kstest(a * math.sqrt(500), "norm").pvalue > 0.01
    assert abs(a.var() * 500 - 1) < 4 * math.sqrt(2 / a.size)


@given(st.sampled_from(KINDS), st.integers(0, 2**64 - 1))
def test_a_seed_is_the_whole_projection(kind: Kind, seed: int) -> None:
    first = projection(seed, LAYOUT, kind)
    assert first.dtype == np.float32
    assert first.shape == (LAYOUT.num_projection,)
    assert first.tobytes() == projection(seed, LAYOUT, kind).tobytes()
    alone = projection(seed, Layout(LAYOUT.shapes[:1], 4), kind)  # what other layers there are does not matter
    assert first[: alone.size].tobytes() == alone.tobytes()
    q, k, _ = matrices_a(first, LAYOUT)
    assert abs(overlap(q, k)) < 0.99  # layers of one shape have projections of their own
    assert not np.array_equal(first, projection(seed ^ 1, LAYOUT, kind))


def test_default_is_orthonormal() -> None:
    assert projection(5, LAYOUT).tobytes() == projection(5, LAYOUT, "orthonormal").tobytes()
    assert projection(5, LAYOUT).tobytes() != projection(5, LAYOUT, "gaussian").tobytes()
