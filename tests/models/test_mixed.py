"""An adapter beside one at rest under a trained mixer, against torch's autograd and AdamW on all three."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orthomesh.adapters.lowrank import matrices_a, matrices_b, slices
from orthomesh.adapters.projection import projection
from orthomesh.experts.mixture import Mixture
from orthomesh.models.base import load_base
from orthomesh.models.inject import holding
from orthomesh.models.loss import backward, draw
from orthomesh.models.mixed import Mixed, fit_mixed
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import tokenise
from orthomesh.tasks.embedded import examples


def test_three_steps_are_those_of_autograd() -> None:
    base, rng = load_base(ModelSettings(rank=4)), np.random.default_rng(2)
    layout, rows = base.layout, tokenise(base, examples("zelk", "train", 8, np.random.default_rng(0)), "zelk")
    widths = [shape.in_features for shape in layout.shapes]
    start = Mixed(
        projection(7, layout),
        0.1 * rng.standard_normal(layout.num_expansion).astype(np.float32),
        rng.standard_normal((2, sum(widths))).astype(np.float32),
    )
    rest = projection(8, layout), 0.1 * rng.standard_normal(layout.num_expansion).astype(np.float32)
    train = TrainSettings(steps=3, batch_size=4, learning_rate=0.01, accumulate=2)
    made, learnt = fit_mixed(base, rows, start, rest, train, np.random.default_rng(1), range(3))
    A, B, G = (torch.from_numpy(part.copy()).requires_grad_() for part in start)
    optimiser = torch.optim.AdamW([A, B, G], lr=0.01, weight_decay=0.0)
    cuts, order = slices(widths), np.random.default_rng(1)
    sides = list(zip(base.slots, slices(layout.projection_sizes), slices(layout.expansion_sizes), cuts, strict=True))
    other = [
        (torch.from_numpy(a), torch.from_numpy(b))
        for a, b in zip(matrices_a(rest[0], layout), matrices_b(rest[1], layout), strict=True)
    ]
    for _ in range(3):
        optimiser.zero_grad()
        held = {
            name: Mixture(
                A=base.scaling * torch.cat([A[at_a].view(4, -1), a]), B=torch.cat([B[at_b].view(-1, 4), b], dim=1),
                code=None, top_k=0, num=2, rule="mixer", prints=G[:, cut],
            )
            for (name, at_a, at_b, cut), (a, b) in zip(sides, other, strict=True)
        }  # fmt: skip
        with holding(base.slots, held):  # type: ignore[arg-type]
            losses = backward(base, [draw(rows, 4, order)], 1)
        torch.nn.utils.clip_grad_norm_([A, B, G], train.clip_norm)
        optimiser.step()
    for ours, theirs in zip(made, (A, B, G), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-4)
    assert np.abs(made.mixer - start.mixer).max() > 0.02
    assert learnt.trained == sum(part.size for part in start)
    assert learnt.last_loss == pytest.approx(losses[-1], rel=1e-3)


def test_more_steps_than_the_run_has_are_refused() -> None:
    base = load_base(ModelSettings(rank=4))
    none = np.zeros(0, dtype=np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        fit_mixed(
            base, [], Mixed(none, none, none), (none, none), TrainSettings(steps=3), np.random.default_rng(1), range(2)
        )
