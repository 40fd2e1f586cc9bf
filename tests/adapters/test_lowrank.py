"""Where the matrices of an adapter lie in flat vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.adapters.lowrank import Layout, Shape, density, matrices_a, matrices_b, slices

LAYOUT = Layout((Shape("q", 3, 2), Shape("v", 4, 5)), rank=2)


SIDES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4)  # above the rank


def layout_of(rank: int, sides: list[tuple[int, int]]) -> Layout:
    return Layout(tuple(Shape(f"layer{n}", rank + d, rank + k) for n, (d, k) in enumerate(sides)), rank)


def test_sizes_on_paper() -> None:
    assert LAYOUT.names == ("q", "v")
    assert LAYOUT.expansion_sizes == (6, 8)
    assert LAYOUT.projection_sizes == (4, 10)
    assert (LAYOUT.num_expansion, LAYOUT.num_projection) == (14, 14)


def test_matrices_on_paper() -> None:
    flat = np.arange(14.0)
    q, v = matrices_a(flat, LAYOUT)
    assert q.tolist() == [[0, 1], [2, 3]]
    assert v.tolist() == [[4, 5, 6, 7, 8], [9, 10, 11, 12, 13]]
    q, v = matrices_b(flat, LAYOUT)
    assert q.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert v.tolist() == [[6, 7], [8, 9], [10, 11], [12, 13]]


def test_density_on_paper() -> None:
    mask = np.zeros(14, dtype=bool)
    mask[[0, 1, 2, 6]] = True
    assert density(mask, LAYOUT).tolist() == [0.5, 0.125]


@given(st.integers(1, 4), SIDES)
def test_matrices_are_views_that_cover_the_vector_once(rank: int, sides: list[tuple[int, int]]) -> None:
    layout = layout_of(rank, sides)
    for matrices, expected in (
        (matrices_a, [(rank, s.in_features) for s in layout.shapes]),
        (matrices_b, [(s.out_features, rank) for s in layout.shapes]),
    ):
        size = sum(rows * columns for rows, columns in expected)
        flat = np.arange(float(size))
        parts = matrices(flat, layout)
        assert [part.shape for part in parts] == expected
        assert np.concatenate([part.ravel() for part in parts]).tolist() == flat.tolist()
        for part in parts:
            part += 1.0
        assert flat.tolist() == np.arange(1.0, size + 1).tolist()


@given(st.integers(1, 4), SIDES, st.integers(0, 2**32 - 1))
def test_densities_weighted_by_size_count_the_mask(rank: int, sides: list[tuple[int, int]], seed: int) -> None:
    layout = layout_of(rank, sides)
    mask = np.random.default_rng(seed).random(layout.num_expansion) < 0.3
    shares = density(mask, layout)
    assert np.all((shares >= 0) & (shares <= 1))
    assert shares @ np.array(layout.expansion_sizes) == pytest.approx(mask.sum(), abs=1e-9)


@given(st.lists(st.integers(0, 5), max_size=5))
def test_slices_follow_one_another(sizes: list[int]) -> None:
    cuts = slices(sizes)
    assert [cut.stop - cut.start for cut in cuts] == sizes
    assert [cut.start for cut in cuts] == [sum(sizes[:n]) for n in range(len(sizes))]


def test_a_layout_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one linear layer"):
        Layout((), 1)


@pytest.mark.parametrize("shape", [Shape("wide", 3, 9), Shape("tall", 9, 3)])
def test_a_rank_above_a_side_is_refused(shape: Shape) -> None:
    assert Layout((Shape("first", 9, 9), shape), 3).rank == 3
    with pytest.raises(ValueError, match=f"rank 4 exceeds layer {shape.name} .* at most 3"):
        Layout((Shape("first", 9, 9), shape), 4)


def test_a_vector_too_short_for_the_layout_is_refused() -> None:
    for matrices in (matrices_a, matrices_b):
        with pytest.raises(ValueError, match="reshape"):
            matrices(np.zeros(13), LAYOUT)
