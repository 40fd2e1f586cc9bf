"""A projection refined with a task code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a
from orthomesh.adapters.projection import projection
from orthomesh.adapters.refinement import refine

LAYOUT = Layout((Shape("q", 4, 2), Shape("v", 2, 2), Shape("down", 2, 3)), rank=2)
INPUTS = (slice(0, 2), slice(0, 2), slice(2, 5))  # q and v read the same input
A = np.array([1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 2, 0, 1, 0], dtype=np.float32)
CODE = np.array([3, 4, 2, 0, 0], dtype=np.float16)


def drawn(seed: int) -> tuple[Layout, tuple[slice, ...], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 9, size=3).tolist()
    layout = Layout(tuple(Shape(f"layer {n}", 3, k) for n, k in enumerate(widths)), rank=2)
    ends = np.cumsum(widths).tolist()
    inputs = tuple(slice(end - k, end) for end, k in zip(ends, widths, strict=True))
    return layout, inputs, projection(seed, layout), rng.standard_normal(sum(widths)).astype(np.float16)


def test_refinements_on_paper() -> None:
    """h = (3, 4) has norm 5: columns times sqrt(2) 3/5 and sqrt(2) 4/5. A h = (11, 25), over 25 and along h."""
    q, v, down = matrices_a(refine(A, CODE, LAYOUT, INPUTS, "elementwise"), LAYOUT)
    factor = math.sqrt(2) / 5
    np.testing.assert_allclose(q, factor * np.array([[3, 8], [9, 16]]), rtol=1e-6)
    np.testing.assert_allclose(v, factor * np.array([[15, 24], [21, 32]]), rtol=1e-6)
    np.testing.assert_allclose(down, math.sqrt(3) * np.array([[1, 0, 0], [0, 0, 0]]), rtol=1e-6)
    q, _, down = matrices_a(refine(A, CODE, LAYOUT, INPUTS, "outer"), LAYOUT)
    np.testing.assert_allclose(q, np.array([[33, 44], [75, 100]]) / 25, rtol=1e-6)
    np.testing.assert_allclose(down, [[1, 0, 0], [0, 0, 0]], rtol=1e-6)


def test_nothing_is_refined_without_a_reading_or_without_a_code() -> None:
    assert refine(A, CODE, LAYOUT, INPUTS, "none") is A
    for kind in ("elementwise", "outer"):
        half = np.array([0, 0, 2, 0, 0], dtype=np.float16)
        still = matrices_a(refine(A, half, LAYOUT, INPUTS, kind), LAYOUT)  # type: ignore[arg-type]
        np.testing.assert_array_equal(still[0], matrices_a(A, LAYOUT)[0])
        assert all(np.isfinite(m).all() for m in still)


@given(st.integers(0, 2**32 - 1), st.floats(0.25, 4))
def test_refinement_is_a_product_with_a_matrix_of_the_code(seed: int, scale: float) -> None:
    layout, inputs, a, code = drawn(seed)
    for kind in ("elementwise", "outer"):
        refined = refine(a, code, layout, inputs, kind)  # type: ignore[arg-type]
        assert refined.dtype == np.float32
        for plain, made, cut in zip(matrices_a(a, layout), matrices_a(refined, layout), inputs, strict=True):
            h = code[cut].astype(np.float64)
            h /= np.linalg.norm(h)
            factor = np.diag(math.sqrt(h.size) * h) if kind == "elementwise" else np.outer(h, h)
            np.testing.assert_allclose(made, plain @ factor, atol=1e-5)
            assert np.linalg.matrix_rank(made, tol=1e-5) <= (2 if kind == "elementwise" else 1)
        larger = refine(a, code.astype(np.float32) * np.float32(scale), layout, inputs, kind)  # type: ignore[arg-type]
        np.testing.assert_allclose(larger, refined, rtol=1e-5, atol=1e-6)  # the length of a code does not matter


def test_the_scale_of_a_projection_stays_on_average() -> None:
    layout = Layout((Shape("q", 64, 400),), rank=16)
    code = np.random.default_rng(0).standard_normal(400).astype(np.float16)
    a = projection(1, layout)
    refined = refine(a, code, layout, (slice(0, 400),), "elementwise")
    assert np.linalg.norm(refined) / np.linalg.norm(a) == pytest.approx(1.0, abs=0.1)


def test_a_code_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="layer down has 3 inputs, its part of the task code 2"):
        refine(A, CODE, LAYOUT, (slice(0, 2), slice(0, 2), slice(2, 4)), "elementwise")
