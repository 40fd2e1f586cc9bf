"""Updates folded into a base: sums of products, layer by layer."""

from __future__ import annotations

import numpy as np

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.methods.folds import blocks_of, folded, with_blocks

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 3, 7)), rank=2)


def drawn(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [
        (rng.standard_normal(LAYOUT.num_projection), rng.standard_normal(LAYOUT.num_expansion)) for _ in range(count)
    ]


def test_the_sum_of_products() -> None:
    blocks = drawn(3)
    for n, made in enumerate(folded(blocks, LAYOUT)):
        each = [matrices_b(b, LAYOUT)[n] @ matrices_a(a, LAYOUT)[n] for a, b in blocks]
        np.testing.assert_allclose(made, np.sum(each, axis=0))


def test_blocks_are_kept_beside_the_rest() -> None:
    own = with_blocks({"A": np.ones(2)}, drawn(2))
    assert own["A"].tolist() == [1.0, 1.0]
    for (a, b), (x, y) in zip(blocks_of(own), drawn(2), strict=True):
        np.testing.assert_allclose((*a, *b), (*x, *y), rtol=1e-6)
    assert blocks_of({"A": np.ones(2)}) == []
