"""Centralised training: one adapter, all rows, everybody's steps; the same on every device, and nothing on the air."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from orthomesh.adapters.projection import projection
from orthomesh.methods.centralised import Centralised
from orthomesh.methods.setup import Setup, device_rows
from orthomesh.models import finetune
from orthomesh.models.base import load_base
from orthomesh.rng import stream

# reference


def test_a_round_is_one_run_over_all_rows(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    base = load_base(setup.model)
    played = play(Centralised(), setup, rounds=1)
    rows = [row for k in range(3) for row in device_rows(setup, k)]
    A = projection(int(played.last[0].own["seed"]), base.layout)
    start = finetune.Factors(A=A, B=np.zeros(base.layout.num_expansion, np.float32), train_projection=True)
    train = replace(setup.train, steps=3 * setup.train.steps)
    ended, learnt = finetune.fit(base, rows, start, train, stream(setup.seed, "pooled-batches", 0))
    for k, state in played.last.items():
        np.testing.assert_array_equal(state.own["A"], ended.A)
        np.testing.assert_array_equal(state.own["B"], ended.B)
        assert played.infos[0].learnt[k] == replace(learnt, steps=setup.train.steps)


# example


def test_nothing_is_charged(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(Centralised(), small(2), rounds=2)
    assert all(s.total_bytes == 0 for info in played.infos for s in info.cost.by_device.values())
    assert [info.plan.phases for info in played.infos] == [(), ()]


# edge


def test_a_rate_of_its_own_counts(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    rate = small(1).train.learning_rate
    moved = [
        np.abs(play(Centralised(learning_rate=r), small(1), rounds=1).last[0].own["B"]).max()
        for r in (rate, rate / 1e3)
    ]
    assert moved[1] < moved[0] / 100
