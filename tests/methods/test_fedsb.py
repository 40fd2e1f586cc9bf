"""Fed-SB: R alone travels, and its mean is the mean of whole updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.fedsb import FedSb, frame
from orthomesh.methods.ffa import Ffa
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Bank, Round


def update(bank: Bank, layout: Any, layer: int) -> np.ndarray:
    (expert,) = bank.experts
    return np.asarray(matrices_b(expert.B, layout)[layer].astype(float) @ matrices_a(expert.A, layout)[layer])


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, FedSb().build(setup)
    alone = [update(method.bank(method.fit(method.init(k), Round(0, 0, 1))[0]), layout, 2) for k in range(3)]
    played = play(FedSb(), setup, rounds=1)
    for state in played.last.values():
        np.testing.assert_allclose(update(method.bank(state), layout, 2), np.mean(alone, axis=0), atol=1e-5)
        assert sorted(state.own) == ["R", "seed"]
    sent = sum(played.sent("values"))
    assert sent < 3 * (2 * len(layout.shapes) * layout.rank**2 + 64)
    assert sent < sum(play(Ffa(), setup, rounds=1).sent("values")) / 5


def test_a_device_answers_with_b_r_a(small: Callable[..., Setup]) -> None:
    setup = small(2)
    layout, method = load_base(setup.model).layout, FedSb().build(setup)
    A, B = frame(int(method.init(0).own["seed"]), layout)
    cores = np.random.default_rng(0).standard_normal((len(layout.shapes), layout.rank, layout.rank))
    state = method.init(0)
    bank = method.bank(replace(state, own={**state.own, "R": cores.astype(np.float32).ravel()}))
    for n in (0, 3):
        whole = matrices_b(B, layout)[n].astype(float) @ cores[n] @ matrices_a(A, layout)[n]
        np.testing.assert_allclose(update(bank, layout, n), whole, atol=1e-4)


def test_both_sides_are_orthonormal(small: Callable[..., Setup]) -> None:
    layout = load_base(small(2).model).layout
    A, B = frame(3, layout)
    for a, b in zip(matrices_a(A, layout), matrices_b(B, layout), strict=True):
        np.testing.assert_allclose(a @ a.T, np.eye(layout.rank), atol=1e-5)
        np.testing.assert_allclose(b.T @ b, np.eye(layout.rank), atol=1e-5)
