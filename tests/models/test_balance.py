"""Ranks that are chosen alike often: biases against a count in NumPy, and what they do to the loads."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.adapters.lowrank import matrices_a
from orthomesh.adapters.projection import projection
from orthomesh.experts.mixture import Mixture, mix
from orthomesh.models.balance import Balance, loads_of, rebalance
from orthomesh.models.base import Base, load_base
from orthomesh.models.finetune import Factors, fit
from orthomesh.models.inject import watching
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.models.tokens import Row, collate

Scope = Literal["joint", "signed"]
ROW = Row(tuple(range(3, 12)), (7, 8), (), False)


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelSettings(rank=4))


def start(base: Base, bias: np.ndarray, scope: Scope) -> Factors:
    """A device that has learnt nothing, with ranks that compete."""
    zeros = np.zeros(base.layout.num_expansion, dtype=np.float32)
    A = projection(3, base.layout, "sparse")
    return Factors(A=A, B=zeros, top_k=2, scope=scope, balance=Balance(bias.astype(np.float32), 0.25))


# reference


@pytest.mark.parametrize("scope", ["joint", "signed"])
def test_a_step_moves_every_bias_by_how_often_its_rank_was_chosen(base: Base, scope: Scope) -> None:
    """While B is zero the layers read what those of the base read, so that choices can be counted from outside."""
    bias = 0.3 * np.random.default_rng(1).standard_normal((len(base.slots), 4)).astype(np.float32)
    once = TrainSettings(steps=1, batch_size=4, learning_rate=1e-3, accumulate=2)
    ended, _ = fit(base, [ROW], start(base, bias, scope), once, np.random.default_rng(0))
    batch = collate(base, [(ROW.prompt, ROW.target)])
    with watching(base.slots, tuple(base.slots)) as seen, torch.no_grad():
        base.model(input_ids=batch.ids)
    assert ended.balance is not None
    found = ended.balance.bias.reshape(bias.shape)
    for n, (name, A) in enumerate(zip(base.slots, matrices_a(ended.A, base.layout), strict=True)):
        strength = seen[name][0].numpy() @ A.T
        strength = (np.abs(strength) if scope == "joint" else strength) + bias[n]
        chosen = np.argsort(-strength, axis=1)[:, :2]
        counts = np.bincount(chosen.ravel(), minlength=4)
        np.testing.assert_allclose(found[n], bias[n] + 0.25 * np.sign(counts.mean() - counts), atol=1e-6)
    assert np.abs(found - bias).max() > 0.2


# law


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["joint", "signed"]))
def test_loads_even_out(seed: int, scope: Scope) -> None:
    """Rows of A up to four times as long as others are chosen too often, until their biases have fallen."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((400, 16)))
    A = torch.from_numpy(rng.standard_normal((8, 16)) * np.linspace(0.25, 1.0, 8)[:, None])
    loads, spreads = loads_of(Balance(np.zeros(8), 0.05), 8, 1.0, x.device), []
    layer = Mixture(
        A=A, B=torch.zeros(1, 8), code=None, top_k=2, scope=scope, bias=loads.bias[0], counts=loads.counts[0]
    )
    for _ in range(60):
        mix(x, layer)
        assert loads.counts.sum() == 400 * 2
        spreads.append(float(loads.counts.std()))
        rebalance(loads)
    assert np.mean(spreads[-10:]) < 0.4 * spreads[0]


def test_what_was_trained_goes_on_where_it_stood(base: Base) -> None:
    rows, first = [ROW, ROW._replace(target=(9, 10))], start(base, np.zeros((len(base.slots), 4)), "joint")
    two = TrainSettings(steps=2, batch_size=2, learning_rate=1e-2)
    whole, _ = fit(base, rows, first, two, np.random.default_rng(2))
    order = np.random.default_rng(2)
    half, _ = fit(base, rows, first, replace(two, steps=1), order, total=2)
    rest, _ = fit(base, rows, half, replace(two, steps=1), order, done=1, total=2)
    assert whole.balance is not None
    assert rest.balance is not None
    np.testing.assert_array_equal(whole.balance.bias, rest.balance.bias)
    assert first.balance is not None
    assert not first.balance.bias.any()  # where it started is as it was


# edge


def test_a_balance_needs_ranks_that_compete(base: Base) -> None:
    one = replace(start(base, np.zeros((len(base.slots), 4)), "joint"), top_k=0)
    with pytest.raises(ValueError, match="only ranks that compete"):
        fit(base, [ROW], one, TrainSettings(steps=1), np.random.default_rng(0))


def test_where_all_ranks_act_no_bias_moves(base: Base) -> None:
    one = replace(start(base, np.zeros((len(base.slots), 4)), "joint"), top_k=4)
    ended, _ = fit(base, [ROW], one, TrainSettings(steps=1, batch_size=1), np.random.default_rng(0))
    assert ended.balance is not None
    assert not ended.balance.bias.any()
