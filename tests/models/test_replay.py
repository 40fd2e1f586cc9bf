"""A pass recorded on a GPU and replayed does what the pass does; batches of few shapes cost nothing in accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orthomesh.adapters.projection import projection
from orthomesh.models.base import Base
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.loss import backward
from orthomesh.models.replay import COLUMNS, WIDTH, shape_of
from orthomesh.models.settings import TrainSettings
from orthomesh.models.tokens import Row, collate, logits_before_targets

ROWS = [Row(tuple(range(3, 3 + n)), (7, 8, 9, 10)[: 1 + n % 4], (), False) for n in range(1, 40)]


@torch.no_grad()
def test_padding_to_few_shapes_moves_nothing_that_is_scored(small: Base) -> None:
    pairs = [(row.prompt, row.target) for row in ROWS[:6]]
    tight, wide = collate(small, pairs), collate(small, pairs, COLUMNS, WIDTH)
    assert shape_of(tight) == (6, max(len(p) + len(t) for p, t in pairs), 4)
    assert shape_of(wide) == (6, COLUMNS, WIDTH)
    assert wide.targets[:, -4:].equal(tight.targets)
    assert bool((wide.targets[:, :-4] == -100).all())
    torch.testing.assert_close(
        logits_before_targets(small, wide)[:, -4:], logits_before_targets(small, tight), atol=1e-5, rtol=1e-4
    )


def test_a_row_of_targets_only_still_has_a_column_before_them(small: Base) -> None:
    wide = collate(small, [((3,), tuple(range(4, 4 + WIDTH * 4)))], COLUMNS, WIDTH)
    assert shape_of(wide) == (1, 2 * COLUMNS, COLUMNS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_replayed_steps_train_what_plain_steps_train(small: Base) -> None:
    small.model.to("cuda")
    active = np.random.default_rng(0).random(small.layout.num_expansion) < 0.3
    start = Factors(
        A=projection(0, small.layout), B=np.zeros(small.layout.num_expansion, dtype=np.float32), active=active
    )
    trained = {}
    for replay in (True, False):
        now, order = start, np.random.default_rng(1)
        settings = TrainSettings(steps=6, batch_size=4, learning_rate=1e-2, accumulate=2, replay=replay)
        for _ in range(3):
            now, learnt = fit(small, ROWS, now, settings, order)
        trained[replay] = now, learnt
    assert small.stages[0].passes
    np.testing.assert_allclose(trained[True][0].B, trained[False][0].B, atol=2e-3)
    assert trained[True][1].last_loss == pytest.approx(trained[False][1].last_loss, rel=1e-3)
    small.stages.clear()
    small.model.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_replayed_pass_leaves_the_gradient_of_the_pass_itself(small: Base) -> None:
    small.model.to("cuda")
    A, num = projection(3, small.layout), small.layout.num_expansion
    B = 0.01 * np.random.default_rng(2).standard_normal(num).astype(np.float32)
    settings = TrainSettings(steps=1, batch_size=2, learning_rate=1e-9)
    fit(small, ROWS, Factors(A=A, B=B), settings, np.random.default_rng(0))
    stage = small.stages[0]
    from orthomesh.models.inject import holding

    found = []
    with holding(small.slots, stage.held):
        for _ in range(3):  # as it is, recorded and replayed, replayed
            stage.grad.zero_()
            losses = backward(small, [ROWS[10:16]], 1, stage)
            found.append((losses, stage.grad.clone()))
        stage.grad.zero_()
        plain = backward(small, [ROWS[10:16]], 1)
        found.append((plain, stage.grad.clone()))
    for losses, grad in found[1:]:
        assert losses == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(grad, found[0][1], atol=1e-6, rtol=1e-3)
    small.stages.clear()
    small.model.to("cpu")
