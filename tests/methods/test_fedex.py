"""FedEx-LoRA: mean factors and residual together are the mean of whole updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.fedex import FedEx, split
from orthomesh.methods.folds import blocks_of, folded
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Round

# reference


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, FedEx().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    for state in play(FedEx(), setup, rounds=1).last.values():
        for name in "AB":
            np.testing.assert_allclose(state.own[name], np.mean([o[name] for o in alone], axis=0), atol=1e-3)
        rest = folded(blocks_of(state.own), layout)
        for n, residual in enumerate(rest):
            each = [matrices_b(o["B"], layout)[n].astype(float) @ matrices_a(o["A"], layout)[n] for o in alone]
            mean = matrices_b(state.own["B"], layout)[n] @ matrices_a(state.own["A"], layout)[n]
            np.testing.assert_allclose(mean + residual, np.mean(each, axis=0), atol=5e-5)


# law


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_nothing_is_missed_and_the_residual_has_a_rank_less(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(rng.standard_normal((2, 12)), rng.standard_normal((11, 2))) for _ in range(count)]
    (A, B), rest = split(pairs)
    residual = np.sum([b @ a for a, b in rest], axis=0)
    np.testing.assert_allclose(B @ A + residual, np.mean([b @ a for a, b in pairs], axis=0), atol=1e-9)
    assert np.linalg.matrix_rank(residual, tol=1e-9) == 2 * (count - 1)
