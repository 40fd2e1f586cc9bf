"""The gradient of the adapted matrices, against torch's autograd on a copy of the model and finite differences."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from orthomesh.adapters.lowrank import matrices_w
from orthomesh.models.base import Base
from orthomesh.models.gradient import first_gradient
from orthomesh.models.settings import TrainSettings
from orthomesh.models.tokens import Row, tokenise
from orthomesh.models.whole import change_of, wearing
from orthomesh.tasks.embedded import examples

TRAIN = TrainSettings(batch_size=4)


@pytest.fixture(scope="module")
def rows(small: Base) -> list[Row]:
    return tokenise(small, examples("zelk", "train", 5, np.random.default_rng(0)), "zelk")


def loss(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    """Mean over all targets' tokens, row by row without padding."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.target]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt) - 1 : -1]
        total = total + F.cross_entropy(logits, torch.tensor(row.target), reduction="sum")
    return total / sum(len(row.target) for row in rows)


def test_it_is_that_of_autograd_in_however_many_parts(small: Base, rows: list[Row]) -> None:
    model, slots = copy.deepcopy((small.model, small.slots))
    weights = [slot.base.weight.requires_grad_() for slot in slots.values()]
    made = torch.autograd.grad(loss(model, rows), weights)
    for train in (TRAIN, TrainSettings(batch_size=4, accumulate=4), TrainSettings(batch_size=24, checkpointing=True)):
        found = matrices_w(first_gradient(small, rows, train), small.layout)
        for mine, theirs in zip(found, made, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=2e-6)
    assert not any(p.requires_grad or p.grad is not None for p in small.model.parameters())


def test_the_loss_falls_along_it_by_its_square(small: Base, rows: list[Row]) -> None:
    flat = first_gradient(small, rows, TRAIN)
    unit = matrices_w(flat / np.linalg.norm(flat), small.layout)
    ends = []
    for step in (0.01, -0.01):
        with torch.no_grad(), wearing(small, change_of(small, [np.float32(step) * u for u in unit])):
            ends.append(float(loss(small.model, rows)))
    assert (ends[0] - ends[1]) / 0.02 == pytest.approx(np.linalg.norm(flat), rel=0.02)


def test_no_rows_are_refused(small: Base) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        first_gradient(small, [], TRAIN)
