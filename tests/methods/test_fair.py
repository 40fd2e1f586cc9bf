"""LoRA-FAIR: the server's B against NumPy on whole matrices: least squares of a ridge, or descent along a cosine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.fair import Fair
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Envelope, Round


def test_a_cosine_by_descent_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, Fair().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    A = [matrices_a(o["A"].astype(np.float16), layout)[1].astype(float) for o in alone]
    B = [matrices_b(o["B"].astype(np.float16), layout)[1].astype(float) for o in alone]
    a, b, whole = np.mean(A, axis=0), np.mean(B, axis=0), np.mean([y @ x for y, x in zip(B, A, strict=True)], axis=0)

    def objective(x: np.ndarray) -> float:
        return float(1 - (whole * (x @ a)).sum() / norm(whole) / norm(x @ a) + 0.01 * norm(x - b))

    norm, x, rate = np.linalg.norm, b, (np.linalg.norm(b @ a) / np.linalg.norm(a, 2)) ** 2
    for _ in range(100):
        unit = x @ a / norm(x @ a)
        slope = ((unit * whole).sum() * unit - whole) @ a.T / norm(whole) / norm(x @ a)
        new = x - rate * (slope + (0.01 * (x - b) / norm(x - b) if (x != b).any() else 0))
        x, rate = (new, rate) if objective(new) < objective(x) else (x, rate / 2)
    states = play(Fair(), setup, rounds=1).last
    for state in states.values():
        np.testing.assert_allclose(matrices_b(state.own["B"], layout)[1], x, rtol=2e-3, atol=1e-5)
        np.testing.assert_array_equal(state.own["B"], states[0].own["B"])
    assert objective(x) < 0.9 * objective(b)
    assert np.abs(x - b).max() > 3e-4


def test_a_ridge_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, ridge = small(3), 0.1
    layout, method = load_base(setup.model).layout, Fair(similarity="ridge", ridge=ridge).build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    A = [matrices_a(o["A"], layout)[1].astype(float) for o in alone]
    B = [matrices_b(o["B"], layout)[1].astype(float) for o in alone]
    a, b, whole = np.mean(A, axis=0), np.mean(B, axis=0), np.mean([y @ x for y, x in zip(B, A, strict=True)], axis=0)
    rows = np.concatenate([a.T, np.sqrt(ridge) * np.eye(layout.rank)])
    oracle = np.linalg.lstsq(rows, np.concatenate([whole.T, np.sqrt(ridge) * b.T]), rcond=None)[0].T
    states = play(Fair(similarity="ridge", ridge=ridge), setup, rounds=1).last
    for state in states.values():
        np.testing.assert_allclose(matrices_b(state.own["B"], layout)[1], oracle, atol=2e-4)
        np.testing.assert_allclose(matrices_a(state.own["A"], layout)[1], a, atol=1e-3)
        np.testing.assert_array_equal(state.own["B"], states[0].own["B"])  # all alike, the server too


def test_a_round_that_is_lost_leaves_everybody_alone(small: Callable[..., Setup]) -> None:
    setup, t = small(2), Round(0, 0, 1)
    method = Fair().build(setup)
    states = {k: method.fit(method.init(k), t)[0] for k in range(2)}
    plan = method.plan({k: method.describe(s, t) for k, s in states.items()}, t)
    for phase in plan.phases:
        lost = [[e for e in phase.edges if e.dst == k] for k in range(2)]
        states = {k: method.merge(s, [Envelope(e, None) for e in lost[k]], phase, t) for k, s in states.items()}
    alone = method.fit(method.init(1), t)[0].own["B"]
    np.testing.assert_array_equal(states[1].own["B"], alone)
