"""SLoRA: a sparse mean, its best low-rank part, and a mean of factors from there, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.setup import Setup
from orthomesh.methods.slora import SLora, masks, spread, started
from orthomesh.models.base import load_base
from orthomesh.models.whole import updates_of
from orthomesh.types import Round
from orthomesh.wireless.air import IdealAir

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


def test_signs_do_not_depend_on_who_decomposes(small: Callable[..., Setup]) -> None:
    setup = small(2)
    layout = load_base(setup.model).layout
    rng = np.random.default_rng(1)
    b = started([rng.standard_normal((s.out_features, s.in_features)) for s in layout.shapes], setup)["B"]
    for matrix in matrices_b(b, layout):
        assert (matrix[np.abs(matrix).argmax(axis=0), np.arange(layout.rank)] > 0).all()


# what is lost


@dataclass(frozen=True)
class Deaf:
    """An air over which some devices hear nothing in some rounds. (round, device)"""

    to: tuple[tuple[int, int], ...]

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        return [replace(m, dsts=tuple(j for j in m.dsts if (t.index, j) not in self.to)) for m in sent], cost


def up(played: Any, round_: int) -> list[tuple[int, int]]:
    return [(e.src, e.dst) for e in played.infos[round_].plan.phases[0].edges]


def means_of(played: Any, round_: int, ids: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What a round's mean is over some devices, each trained from the state after the round before."""
    t, before = Round(0, round_, len(played.infos)), played.states[round_ - 1]
    alone = [played.method.fit(before[k], t)[0].own for k in ids]
    return {name: np.mean([o[name] for o in alone], axis=0) for name in "AB"}


def test_whoever_missed_the_last_sparse_mean_takes_the_others_factors(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """Of round 1 of stage two it is left out, and told what comes of it; from then on it is one of them."""
    setup = small(3)
    played, whole = play(SLora(), setup, rounds=3, air=Deaf(((0, 2),))), play(SLora(), setup, rounds=3)
    assert [up(played, n) for n in range(3)] == [[(1, 0), (2, 0)], [(1, 0)], [(1, 0), (2, 0)]]
    for round_, ids in ((1, (0, 1)), (2, (0, 1, 2))):
        mean = means_of(played, round_, ids)
        for state in played.states[round_].values():
            for name in "AB":
                np.testing.assert_allclose(state.own[name], mean[name], atol=1e-3)
    control = [played.sent("control")[n] - whole.sent("control")[n] for n in range(3)]
    assert control[0] == control[2] == 0 < control[1] < 40
    assert played.sent("values")[1] < whole.sent("values")[1]  # and nothing is sent twice


def test_where_the_server_alone_has_the_last_mean_all_take_its_factors(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(SLora(), small(3), rounds=2, air=Deaf(((0, 1), (0, 2))))
    mean = means_of(played, 1, (0,))
    assert up(played, 1) == []
    for state in played.last.values():
        for name in "AB":
            np.testing.assert_allclose(state.own[name], mean[name], atol=1e-3)


def test_a_server_that_starts_anew_in_stage_two_takes_the_others_factors(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(SLora(), small(3), rounds=2, fresh={1: (0,)})
    assert up(played, 1) == [(2, 1)]
    mean = means_of(played, 1, (1, 2))
    for state in played.last.values():
        for name in "AB":
            np.testing.assert_allclose(state.own[name], mean[name], atol=1e-3)


def test_who_missed_an_earlier_mean_is_one_of_all(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Entries under a common mask may be averaged whatever they began from."""
    played = play(SLora(first_share=0.6), small(3), rounds=3, air=Deaf(((0, 2),)))
    assert [len(up(played, n)) for n in range(3)] == [2, 2, 2]


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
