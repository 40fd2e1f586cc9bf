"""FlyLoRA: a sparse common A at rest, B averaged, and the strongest ranks alone at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a
from orthomesh.adapters.projection import projection
from orthomesh.methods.fly import Fly
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Round


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, Fly().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own["B"] for k in range(3)]
    for state in play(Fly(), setup, rounds=1).last.values():
        np.testing.assert_allclose(state.own["B"], np.mean(alone, axis=0), atol=1e-4)
        bank = method.bank(state)
        assert (bank.choice, bank.top_k) == ("topk", layout.rank // 4)
        (expert,) = bank.experts
        np.testing.assert_array_equal(expert.A, projection(int(state.own["seed"]), layout, "sparse"))
        for a in matrices_a(expert.A, layout):
            assert set((a != 0).sum(axis=1)) == {round(a.shape[1] / 4)}


def test_fewer_ranks_learn_something_else(small: Callable[..., Setup]) -> None:
    setup, t = small(2), Round(0, 0, 1)
    some, all_ = (Fly(active=share).build(setup) for share in (0.25, 1.0))
    B = [m.fit(m.init(0), t)[0].own["B"] for m in (some, all_)]
    assert np.abs(B[0] - B[1]).max() > 1e-3
