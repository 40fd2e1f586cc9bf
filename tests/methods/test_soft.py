"""SOFT and TSFA as a method: strongest ranks by NumPy, means over those that sent a rank, the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.methods.setup import Setup
from orthomesh.methods.soft import Soft, first_rank, importance, mean_ranks, opened, strongest, structural
from orthomesh.models.base import load_base
from orthomesh.planning.tsfa import Uplinks, tail_energy
from orthomesh.types import Facts, Round

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 3, 7)), rank=3)


def adapter(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"A": LAYOUT.num_projection, "B": LAYOUT.num_expansion}
    return {name: rng.standard_normal(n).astype(np.float16).astype(np.float32) for name, n in sizes.items()}


# reference


def test_the_strongest_ranks_travel() -> None:
    own = adapter(0)
    back, mask = opened(strongest(own, 2, LAYOUT), LAYOUT, 0)
    for n in range(2):
        a, b = matrices_a(own["A"], LAYOUT)[n], matrices_b(own["B"], LAYOUT)[n]
        norms = [np.linalg.norm(np.outer(b[:, j], a[j])) for j in range(3)]
        assert mask[n].tolist() == [j != int(np.argmin(norms)) for j in range(3)]
        made = matrices_b(back["B"], LAYOUT)[n] @ matrices_a(back["A"], LAYOUT)[n]
        np.testing.assert_allclose(made, sum(np.outer(b[:, j], a[j]) for j in range(3) if mask[n, j]), rtol=1e-5)


def test_every_rank_is_averaged_over_those_that_sent_it() -> None:
    held = {k: opened(strongest(adapter(k), m, LAYOUT), LAYOUT, k) for k, m in ((1, 1), (4, 2), (6, 3))}
    made = mean_ranks(held, LAYOUT)
    for n in range(2):
        for j in range(3):
            sent = [k for k in held if held[k][1][n, j]]
            assert 6 in sent
            rows = [matrices_a(adapter(k)["A"], LAYOUT)[n][j] for k in sent]
            columns = [matrices_b(adapter(k)["B"], LAYOUT)[n][:, j] for k in sent]
            np.testing.assert_allclose(matrices_a(made["A"], LAYOUT)[n][j], np.mean(rows, axis=0), rtol=1e-5)
            np.testing.assert_allclose(matrices_b(made["B"], LAYOUT)[n][:, j], np.mean(columns, axis=0), rtol=1e-5)


# example


def test_with_room_for_all_it_is_the_mean_of_factors(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    method = Soft().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    for state in play(Soft(slack=0.0), setup, rounds=1).last.values():
        for name in "AB":
            np.testing.assert_allclose(state.own[name], np.mean([o[name] for o in alone], axis=0), atol=1e-3)
        assert float(state.own["queue"]) == 0.0


def test_the_structural_rank_is_chosen_once_and_stays(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout = load_base(setup.model).layout
    played = play(Soft(slack=0.3), setup)
    alone = [played.method.fit(played.method.init(k), Round(0, 0, 2))[0].own for k in range(3)]
    lost = np.mean([tail_energy(importance(o, layout)) for o in alone], axis=0)
    rank = int(np.argmax(lost <= 0.3)) + 1
    assert 1 < rank < layout.rank
    for states in played.states:
        assert {structural(s.own, layout) for s in states.values()} == {rank}
    assert played.sent("values")[1] < 0.75 * sum(play(Soft(slack=0.0), setup, rounds=1).sent("values"))


def test_the_rank_meets_the_limit_where_one_does() -> None:
    links = Uplinks(snr_hz=np.full(2, 1e6), compute_s=np.zeros(2), band_hz=2e6)  # an SNR of one each: 1e6 bit/s
    lost = np.array([0.5, 0.2, 0.1, 0.0])
    ranks = [first_rank(lost, 1e6, links, Soft(latency_s=s, slack=0.0)) for s in (0.5, 1.01, 2.01, 9.0)]
    assert ranks == [1, 1, 2, 4]
    assert first_rank(lost, 1e6, links, Soft(latency_s=9.0, slack=0.15)) == 3


def test_a_queue_cuts_ranks_and_is_carried_on(small: Callable[..., Setup]) -> None:
    setup, t = small(3), Round(0, 0, 1)
    method = Soft(latency_s=0.01).build(setup)
    states = {k: method.fit(method.init(k), t)[0] for k in range(3)}
    gains = {0: {1: 1e-11, 2: 1e-12}, 1: {0: 1e-11, 2: 1e-13}, 2: {0: 1e-12, 1: 1e-13}}

    def rooms(queue: float) -> tuple[list[float], float]:
        facts = {}
        for k, s in states.items():
            f = method.describe(s, t)
            public = {**f.public, "queue": np.array(queue)}
            facts[k] = Facts(id=k, public=public, columns={}, payload_bits=f.payload_bits, gains=gains[k])
        up, down = method.plan(facts, Round(0, 1, 2)).phases
        return [e.room_bits for e in up.edges], down.edges[0].weight

    free, pressed = rooms(0.0), rooms(1e4)
    assert sum(pressed[0]) < sum(free[0])
    assert pressed[1] < free[1]


# edge


def test_factors_that_do_not_fit_their_ranks_are_refused() -> None:
    parts = strongest(adapter(0), 2, LAYOUT)
    with pytest.raises(ValueError, match="device 5 sent"):
        opened({**parts, "A": parts["A"][1:]}, LAYOUT, 5)
