"""A matrix between two frozen factors, against torch's autograd and AdamW on R itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.fedsb import frame
from orthomesh.models.base import load_base
from orthomesh.models.inject import Adapter, holding
from orthomesh.models.inner import fit_inner
from orthomesh.models.loss import backward, draw
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.embedded import examples


def test_three_steps_are_those_of_autograd() -> None:
    base = load_base(ModelSettings(rank=4))
    rows = tokenise(base, examples("zelk", "train", 8, np.random.default_rng(0)), "zelk")
    A, B = frame(7, base.layout)
    core = 0.1 * np.random.default_rng(2).standard_normal(len(base.slots) * 16).astype(np.float32)
    train = TrainSettings(steps=3, batch_size=4, learning_rate=0.01, accumulate=2)
    made, learnt = fit_inner(base, rows, (A, B), core, train, np.random.default_rng(1), range(3))
    R = torch.from_numpy(core.copy()).view(-1, 4, 4).requires_grad_()
    optimiser = torch.optim.AdamW([R], lr=0.01, weight_decay=0.0)
    a, b = ([torch.from_numpy(m.copy()) for m in f(x, base.layout)] for f, x in ((matrices_a, A), (matrices_b, B)))
    order, losses = np.random.default_rng(1), []
    for _ in range(3):
        optimiser.zero_grad()
        held = {name: Adapter(R[n] @ a[n], b[n], base.scaling) for n, name in enumerate(base.slots)}
        with holding(base.slots, held):
            losses += backward(base, [draw(rows, 4, order)], 1)
        torch.nn.utils.clip_grad_norm_([R], train.clip_norm)
        optimiser.step()
    np.testing.assert_allclose(made, R.detach().numpy().ravel(), atol=1e-4)
    assert learnt.trained == core.size
    assert learnt.last_loss == pytest.approx(losses[-1], rel=1e-4)
    assert all(slot.held is None for slot in base.slots.values())


def test_more_steps_than_the_run_has_are_refused() -> None:
    base = load_base(ModelSettings(rank=4))
    none = np.zeros(len(base.slots) * 16, dtype=np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        fit_inner(base, [], frame(7, base.layout), none, TrainSettings(steps=3), np.random.default_rng(1), range(2))
