"""Penalties on factors: gradients against autograd, and what training under them does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a
from orthomesh.adapters.projection import projection
from orthomesh.models import finetune
from orthomesh.models.base import Base, load_base
from orthomesh.models.finetune import Factors
from orthomesh.models.penalty import Penalty, add_slopes
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.embedded import examples

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 3, 7)), rank=2)


def value(theta: torch.Tensor, within: float, between: float, others: np.ndarray) -> torch.Tensor:
    """Eq. (12) and SOFT's regulariser, written out."""
    total, at_b, at_a = torch.zeros(()), 0, LAYOUT.num_expansion
    start = 0
    for s in LAYOUT.shapes:
        B, A = theta[at_b : at_b + 2 * s.out_features].view(-1, 2), theta[at_a : at_a + 2 * s.in_features].view(2, -1)
        for square in (A @ A.T, B.T @ B):
            total = total + within * (square**2 * (1 - torch.eye(2))).sum()
        for other in others:
            far = torch.from_numpy(other[start : start + 2 * s.in_features]).view(2, -1)
            total = total + between * ((A @ far.T) ** 2).sum()
        at_b, at_a, start = at_b + 2 * s.out_features, at_a + 2 * s.in_features, start + 2 * s.in_features
    return total


# reference


def test_slopes_are_those_of_autograd() -> None:
    rng = np.random.default_rng(0)
    others = rng.standard_normal((3, LAYOUT.num_projection)).astype(np.float32)
    size = LAYOUT.num_expansion + LAYOUT.num_projection
    theta = torch.from_numpy(rng.standard_normal(size).astype(np.float32)).requires_grad_()
    value(theta, 0.3, 0.7, others).backward()  # type: ignore[no-untyped-call]
    grad = torch.ones(size)
    add_slopes(Penalty(within=0.3, between=0.7, others=others), LAYOUT, theta.detach(), grad)
    assert theta.grad is not None
    torch.testing.assert_close(grad, 1 + theta.grad, rtol=1e-4, atol=1e-4)


# example


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelSettings(rank=4))


@pytest.fixture(scope="module")
def rows(base: Base) -> list[Row]:
    return tokenise(base, examples("zelk", "train", 8, np.random.default_rng(0)), "zelk")


def trained(base: Base, rows: list[Row], start: Factors) -> Factors:
    train = TrainSettings(steps=6, batch_size=4, learning_rate=0.02)
    return finetune.fit(base, rows, start, train, np.random.default_rng(1))[0]


def test_ranks_come_apart_and_stay_off_the_others(base: Base, rows: list[Row]) -> None:
    rng = np.random.default_rng(3)
    mixed = projection(1, base.layout) + 0.1 * rng.standard_normal(base.layout.num_projection).astype(np.float32)
    others = projection(2, base.layout)[None]
    B = 0.01 * rng.standard_normal(base.layout.num_expansion).astype(np.float32)
    start = Factors(A=mixed, B=B, train_projection=True)
    free = trained(base, rows, start)
    held = trained(base, rows, replace(start, penalty=Penalty(within=1.0, between=1.0, others=others)))

    def off(A: np.ndarray) -> float:
        squares = [a @ a.T for a in matrices_a(A, base.layout)]
        return sum(float(np.sum((q - np.diag(np.diag(q))) ** 2)) for q in squares)

    def near(A: np.ndarray) -> float:
        pairs = zip(matrices_a(A, base.layout), matrices_a(others[0], base.layout), strict=True)
        return sum(float(np.sum((a @ b.T) ** 2)) for a, b in pairs)

    assert off(held.A) < 0.5 * off(free.A)
    assert near(held.A) < 0.5 * near(free.A)


def test_no_penalty_changes_no_bit(base: Base, rows: list[Row]) -> None:
    start = Factors(A=projection(1, base.layout), B=np.zeros(base.layout.num_expansion, "f4"), train_projection=True)
    plain, none = trained(base, rows, start), trained(base, rows, replace(start, penalty=Penalty()))
    np.testing.assert_array_equal(plain.A, none.A)


def test_with_all_ranks_at_work_competition_changes_nothing(base: Base, rows: list[Row]) -> None:
    start = Factors(A=projection(1, base.layout), B=np.zeros(base.layout.num_expansion, "f4"))
    plain, all_, one = (trained(base, rows, replace(start, top_k=k)) for k in (0, 4, 1))
    np.testing.assert_allclose(all_.B, plain.B, atol=2e-3)
    assert np.abs(one.B - plain.B).max() > 0.01


# edge


def test_what_does_not_go_together_is_refused(base: Base, rows: list[Row]) -> None:
    start = Factors(A=projection(1, base.layout), B=np.zeros(base.layout.num_expansion, "f4"))
    with pytest.raises(ValueError, match="trains both"):
        trained(base, rows, replace(start, penalty=Penalty(within=1.0)))
    with pytest.raises(ValueError, match="frozen A"):
        trained(base, rows, replace(start, top_k=1, train_projection=True))
