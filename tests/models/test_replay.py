"""A pass recorded on a GPU and replayed does what the pass does; batches of few shapes cost nothing in accuracy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orthomesh.adapters.projection import projection
from orthomesh.models.base import Base
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.loss import backward
from orthomesh.models.penalty import Penalty
from orthomesh.models.replay import COLUMNS, WIDTH, shape_of
from orthomesh.models.settings import TrainSettings
from orthomesh.models.tokens import Row, collate, logits_before_targets
from orthomesh.models.whole import fit_whole, wearing

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
@pytest.mark.parametrize("kind", ["B under a mask", "both factors", "A alone", "strongest ranks", "penalty"])
def test_replayed_steps_train_what_plain_steps_train(small: Base, kind: str) -> None:
    small.model.to("cuda")
    num = small.layout.num_expansion
    B = 0.01 * np.random.default_rng(5).standard_normal(num).astype(np.float32)
    start = Factors(A=projection(0, small.layout), B=B)
    starts = {
        "B under a mask": replace(start, active=np.random.default_rng(0).random(num) < 0.3),
        "both factors": replace(start, train_projection=True),
        "A alone": replace(start, train_projection=True, active=np.zeros(num, dtype=bool)),
        "strongest ranks": replace(start, top_k=2),
        "penalty": replace(start, train_projection=True, penalty=Penalty(within=0.1)),
    }
    trained = {}
    for replay in (True, False):
        now, order = starts[kind], np.random.default_rng(1)
        settings = TrainSettings(steps=6, batch_size=4, learning_rate=1e-3, accumulate=2, replay=replay)
        for _ in range(3):
            now, learnt = fit(small, ROWS, now, settings, order)
        trained[replay] = now, learnt
    assert [bool(stage.passes) for stage in small.stages.values()] == [True]
    for factor in ("A", "B"):
        np.testing.assert_allclose(getattr(trained[True][0], factor), getattr(trained[False][0], factor), atol=2e-4)
    assert trained[True][1].last_loss == pytest.approx(trained[False][1].last_loss, rel=1e-3)
    small.stages.clear()
    small.model.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_passes_recorded_on_the_base_are_not_replayed_on_other_weights(small: Base) -> None:
    """FLoRA, FedEx-LoRA and FedALT train on top of what is folded in, after a first round on the base itself."""
    small.model.to("cuda")
    start = Factors(A=projection(0, small.layout), B=np.zeros(small.layout.num_expansion, np.float32))
    change = 0.02 * np.random.default_rng(3).standard_normal(small.num_parameters).astype(np.float32)
    trained = {}
    for replay in (True, False):
        now, order = replace(start, train_projection=True), np.random.default_rng(1)
        settings = TrainSettings(steps=6, batch_size=4, learning_rate=1e-3, replay=replay)
        now, _ = fit(small, ROWS, now, settings, order)
        with wearing(small, change):
            now, learnt = fit(small, ROWS, now, settings, order)
        trained[replay] = fit(small, ROWS, now, settings, order)[0], learnt
    np.testing.assert_allclose(trained[True][0].B, trained[False][0].B, atol=2e-4)
    assert trained[True][1].first_loss == pytest.approx(trained[False][1].first_loss, rel=1e-3)
    small.stages.clear()
    small.model.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_replayed_steps_move_all_weights_as_plain_steps_do(small: Base) -> None:
    small.model.to("cuda")
    trained = {}
    for replay in (True, False):
        change, order = np.zeros(small.num_parameters, dtype=np.float32), np.random.default_rng(1)
        settings = TrainSettings(steps=6, batch_size=4, learning_rate=1e-3, replay=replay)
        for _ in range(3):
            change, _ = fit_whole(small, ROWS, change, settings, order, range(6))
        trained[replay] = change
    assert small.stages["whole"].passes
    np.testing.assert_allclose(trained[True], trained[False], atol=5e-4)
    assert np.abs(trained[True]).max() > 5e-3
    small.stages.clear()
    small.model.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_replayed_pass_leaves_the_gradient_of_the_pass_itself(small: Base) -> None:
    small.model.to("cuda")
    A, num = projection(3, small.layout), small.layout.num_expansion
    B = 0.01 * np.random.default_rng(2).standard_normal(num).astype(np.float32)
    settings = TrainSettings(steps=1, batch_size=2, learning_rate=1e-9)
    fit(small, ROWS, Factors(A=A, B=B), settings, np.random.default_rng(0))
    (stage,) = small.stages.values()
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
