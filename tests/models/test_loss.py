"""The loss of fine-tuning: a mean over target tokens, however many parts a batch is read in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from orthomesh.models.base import Base
from orthomesh.models.loss import backward, draw, told
from orthomesh.models.tokens import Row, tokenise
from orthomesh.tasks.embedded import examples


@pytest.fixture(scope="module")
def rows(small: Base) -> list[Row]:
    return tokenise(small, examples("zelk", "train", 6, np.random.default_rng(0)), "zelk")


# reference


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_the_loss_is_the_mean_over_target_tokens(small: Base, rows: list[Row], num_parts: int) -> None:
    """Against torch, row by row and without padding."""
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = small.model(input_ids=torch.tensor([[*row.prompt, *row.target]]), use_cache=False).logits[0]
        total += F.cross_entropy(logits[len(row.prompt) - 1 : -1], torch.tensor(row.target), reduction="sum").item()
        count += len(row.target)
    weight = next(small.model.parameters()).requires_grad_()  # something must ask for a gradient
    try:
        (loss,) = backward(small, [rows], num_parts)
        assert weight.grad is not None
    finally:
        weight.requires_grad_(False).grad = None
    assert loss == pytest.approx(total / count, rel=1e-5)


# example


def test_first_and_last_tenth() -> None:
    learnt = told([float(n) for n in range(20)], 3)
    assert (learnt.first_loss, learnt.last_loss, learnt.steps, learnt.trained) == (0.5, 18.5, 20, 3)


def test_batches_are_drawn_with_replacement(rows: list[Row]) -> None:
    drawn = draw(rows, 30, np.random.default_rng(0))
    assert len(drawn) == 30
    assert len({id(row) for row in drawn}) <= 6
    assert drawn == draw(rows, 30, np.random.default_rng(0))


# edge


def test_a_loss_that_is_not_finite_is_refused(small: Base, rows: list[Row]) -> None:
    weight = next(small.model.parameters())
    kept = weight.data
    try:
        weight.data = torch.full_like(kept, float("nan"))
        weight.requires_grad_()
        with pytest.raises(ValueError, match="the loss became nan"):
            backward(small, [rows], 1)
    finally:
        weight.requires_grad_(False).grad = None
        weight.data = kept
