"""FlyLoRA: a sparse common A at rest, B averaged, the strongest ranks alone at work, and biases that balance them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.experts.mixture import mix
from orthomesh.methods.fly import Fly
from orthomesh.methods.setup import Setup
from orthomesh.models.answer import mixtures
from orthomesh.models.base import load_base
from orthomesh.types import Round


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, Fly().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    played = play(Fly(), setup, rounds=1)
    for k, state in played.last.items():
        np.testing.assert_allclose(state.own["B"], np.mean([own["B"] for own in alone], axis=0), atol=1e-4)
        np.testing.assert_array_equal(state.own["bias"], alone[k]["bias"])  # a device's own, and never sent
        bank = method.bank(state)
        assert (bank.choice, bank.top_k, bank.scope) == ("topk", layout.rank // 4, "joint")
        (expert,) = bank.experts
        assert expert.bias is state.own["bias"]
        np.testing.assert_array_equal(expert.A, projection(int(state.own["seed"]), layout, "sparse"))
        for a in matrices_a(expert.A, layout):
            assert set((a != 0).sum(axis=1)) == {round(a.shape[1] / 4)}
    assert not np.array_equal(alone[0]["bias"], alone[1]["bias"])
    assert {2} <= set(np.abs(1000 * alone[0]["bias"]).round(3).tolist()) <= {0, 1, 2}  # two steps of 1e-3, either way


@pytest.mark.parametrize("ranking", ["magnitude", "value"])
def test_what_answers_is_what_was_trained(small: Callable[..., Setup], ranking: Any) -> None:
    """Against NumPy: s B of the ranks of largest |a x| + d, or of largest a x + d, d with a step that decides a lot."""
    setup = small(2, steps=3)
    base, method = load_base(setup.model), Fly(ranking=ranking, balance=0.5).build(setup)
    own = (state := method.fit(method.init(0), Round(0, 0, 1))[0]).own
    rank, x = base.layout.rank, np.random.default_rng(1).standard_normal((6, base.layout.shapes[1].in_features))
    A = matrices_a(projection(int(own["seed"]), base.layout, "sparse"), base.layout)[1]
    z, d = x @ A.T, own["bias"][rank : 2 * rank]
    assert set(np.abs(d).tolist()) >= {0.5}
    kept = np.argsort(-((np.abs(z) if ranking == "magnitude" else z) + d), axis=1)[:, : rank // 4]
    acting = np.put_along_axis(mask := np.zeros_like(z), kept, 1.0, axis=1) or z * mask
    layer = list(mixtures(base, method.bank(state)).values())[1]
    made = mix(torch.from_numpy(x).float(), layer).numpy()
    np.testing.assert_allclose(made, base.scaling * acting @ matrices_b(own["B"], base.layout)[1].T, atol=1e-5)
    assert np.abs(made).max() > 1e-3


def test_without_a_step_there_are_no_biases(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2)
    plain, small_, balanced = (play(Fly(balance=step), setup, rounds=1) for step in (0.0, 1e-12, 0.5))
    assert "bias" not in plain.last[0].own
    assert plain.method.bank(plain.last[0]).experts[0].bias is None
    assert plain.sent("values") == small_.sent("values")  # biases stay where they are
    np.testing.assert_array_equal(plain.last[0].own["B"], small_.last[0].own["B"])
    assert np.abs(plain.last[0].own["B"] - balanced.last[0].own["B"]).max() > 1e-3


def test_fewer_ranks_learn_something_else(small: Callable[..., Setup]) -> None:
    setup, t = small(2), Round(0, 0, 1)
    methods = [c.build(setup) for c in (Fly(), Fly(active=1.0), Fly(ranking="value"))]
    some, all_, by_value = (m.fit(m.init(0), t)[0].own["B"] for m in methods)
    assert np.abs(some - all_).max() > 1e-3
    assert np.abs(some - by_value).max() > 1e-3
