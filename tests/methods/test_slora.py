"""SLoRA: a sparse mean, its best low-rank part, and a mean of factors from there, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.setup import Setup
from orthomesh.methods.slora import SLora, masks, spread, started
from orthomesh.models.base import load_base
from orthomesh.models.whole import updates_of
from orthomesh.types import Round

# reference


def test_the_sparse_stage_averages_entries(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, base = small(3), load_base(small(3).model)
    method, where = SLora().build(setup), masks(SLora(), setup)
    alone = [method.fit(method.init(k), Round(0, 0, 2))[0].own["sparse"] for k in range(3)]
    assert all(a.any() for a in alone)
    played = play(SLora(), setup)
    for state in played.states[0].values():
        np.testing.assert_allclose(state.own["sparse"], np.mean(alone, axis=0), atol=1e-5)
        (expert,) = played.method.bank(state).experts
        assert not expert.weights[np.flatnonzero(expert.weights)].size > sum(m.sum() for m in where)
        for update, mask, made in zip(
            updates_of(base, expert.weights), where, spread(state.own["sparse"], where), strict=True
        ):
            np.testing.assert_array_equal(update, made)
            assert not update[~mask].any()


def test_adapters_start_from_the_best_low_rank_part(small: Callable[..., Setup]) -> None:
    setup, base = small(2), load_base(small(2).model)
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal((s.out_features, s.in_features)) for s in base.layout.shapes]
    own = started(updates, setup)
    for n, update in enumerate(updates):
        a, b = matrices_a(own["A"], base.layout)[n], matrices_b(own["B"], base.layout)[n]
        left, sigma, right = np.linalg.svd(update, full_matrices=False)
        best = (left[:, : base.layout.rank] * sigma[: base.layout.rank]) @ right[: base.layout.rank]
        np.testing.assert_allclose(base.scaling * b @ a, best, atol=1e-3 * sigma[0])
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0), rtol=1e-3)


def test_the_second_stage_averages_factors(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    played = play(SLora(), setup)
    alone = [played.method.fit(played.states[0][k], Round(0, 1, 2))[0].own for k in range(3)]
    begun = started(spread(played.states[0][0].own["sparse"], masks(SLora(), setup)), setup)
    assert all(np.abs(o["A"] - begun["A"]).max() < 0.05 for o in alone)
    for state in played.last.values():
        assert "sparse" not in state.own
        for name in "AB":
            np.testing.assert_allclose(state.own[name], np.mean([o[name] for o in alone], axis=0), atol=1e-3)


# example


def test_the_mask_has_as_many_entries_as_an_adapter(small: Callable[..., Setup]) -> None:
    setup = small(2)
    layout = load_base(setup.model).layout
    for mask, shape in zip(masks(SLora(), setup), layout.shapes, strict=True):
        d, k = shape.out_features, shape.in_features
        expected = min(1.0, layout.rank * (d + k) / (d * k))
        assert abs(mask.mean() - expected) < 5 * (expected / (d * k)) ** 0.5
    assert abs(np.mean([m.mean() for m in masks(SLora(density=0.01), setup)]) - 0.01) < 0.002


# edge


def test_one_round_has_no_sparse_stage_and_a_stranger_starts_from_nothing(small: Callable[..., Setup]) -> None:
    method = SLora().build(small(2))
    for t in (Round(0, 0, 1), Round(0, 1, 2)):
        own = method.fit(method.init(0), t)[0].own
        assert "sparse" not in own
        assert own["B"].any()
