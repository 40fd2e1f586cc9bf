"""Adaptive federated LoRA: steps by NumPy, unbiased over who joins, and ranks that are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.engines.inprocess import InProcess
from orthomesh.methods.sampled import Sampled, joins, opened, sketch, sketched, stepped
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.planning.sampling import split
from orthomesh.round import exchange
from orthomesh.types import Facts, Round
from orthomesh.wireless.air import IdealAir

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 6, 7)), rank=4)
T = Round(0, 0, 3)


def moved(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"A": LAYOUT.num_projection, "B": LAYOUT.num_expansion}
    return {f"moved/{name}": rng.standard_normal(n).astype(np.float16) for name, n in sizes.items()}


# reference


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_sketch_comes_back_with_zeros_elsewhere(count: int) -> None:
    own, held = moved(0), sketch(count, 2, T, 4)
    assert held.sum() == count
    back = opened(sketched(own, held, LAYOUT), 2, T, LAYOUT)
    for n in range(2):
        a, b = matrices_a(own["moved/A"], LAYOUT)[n], matrices_b(own["moved/B"], LAYOUT)[n]
        np.testing.assert_array_equal(matrices_a(back["A"], LAYOUT)[n], a * held[:, None])
        np.testing.assert_array_equal(matrices_b(back["B"], LAYOUT)[n], b * held)


def test_on_average_over_who_joins_it_is_the_mean_of_updates() -> None:
    begun = {"A": np.zeros(3), "B": np.ones(2)}
    updates = {k: {"A": np.arange(3.0) + k, "B": np.full(2, -1.0 * k)} for k in range(3)}
    chance = {0: 1.0, 1: 0.5, 2: 0.25}
    total = {name: np.zeros_like(a) for name, a in begun.items()}
    for who in range(8):
        here = [k for k in range(3) if who >> k & 1]
        weight = np.prod([chance[k] if k in here else 1 - chance[k] for k in range(3)])
        after = stepped(begun, {k: (1 / chance[k], updates[k]) for k in here}, 3)
        total = {name: total[name] + weight * after[name] for name in "AB"}
    for name in "AB":
        np.testing.assert_allclose(
            total[name], begun[name] + np.mean([u[name] for u in updates.values()], axis=0), atol=1e-6
        )


def test_the_first_round_is_the_mean_of_all(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    method = Sampled().build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    for state in play(Sampled(), setup, rounds=1).last.values():
        for name in "AB":
            np.testing.assert_allclose(state.own[name], np.mean([o[name] for o in alone], axis=0), atol=1e-3)


# what is lost, and who is there


@dataclass(frozen=True)
class Lossy:
    """An air where a round's device of `near` has the best links, and transfers (round, sender, receiver) are lost."""

    near: tuple[int, ...]
    lost: tuple[tuple[int, int, int], ...] = ()

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        best, (told, cost) = self.near[t.index], IdealAir().announce(facts, t)
        gains = {k: {j: 1e-3 if best in (j, k) else 1e-9 for j in told if j != k} for k in told}
        return {k: replace(f, gains=gains[k]) for k, f in told.items()}, cost

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        kept = [tuple(j for j in m.dsts if (t.index, m.src, j) not in self.lost) for m in sent]
        return [replace(m, dsts=dsts) for m, dsts in zip(sent, kept, strict=True)], cost


def servers(played: Any) -> list[int]:
    return [i.plan.phases[1].edges[0].src for i in played.infos]


def test_whoever_missed_the_model_does_not_serve(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Device 1 has the best links in rounds 1 and 2, yet what it has in round 1 is its own and not the model."""
    setup = small(3)
    played = play(Sampled(), setup, rounds=3, air=Lossy(near=(0, 1, 1), lost=((0, 0, 1),)))
    assert servers(played) == [0, 0, 1]
    control = [s.bytes_sent["control"] for s in played.infos[1].cost.by_device.values()]
    assert control[0] == control[2] < control[1] < control[0] + 20  # it says so, and that is charged
    first, last = played.states[0], played.states[1]
    alone = {k: played.method.fit(s, Round(0, 1, 3))[0].own for k, s in first.items()}
    assert (first[0].own["A"] != first[1].own["A"]).any()
    weights = {e.src: e.weight for e in played.infos[1].plan.phases[0].edges}
    t, layout = Round(0, 1, 3), load_base(setup.model).layout
    share = {k: float(s.own["share"]) for k, s in first.items()}
    held = {k: sketch(split(share[k])[1], k, t, layout.rank) for k in weights}
    got = {k: (w, opened(sketched(alone[k], held[k], layout), k, t, layout)) for k, w in weights.items()}
    if joins(share[0], 0, t):
        got[0] = 1 / split(share[0])[0], {n: alone[0][f"moved/{n}"] for n in "AB"}
    for name in "AB":
        model = stepped(first[0].own, got, 3)[name]
        for k in range(3):
            np.testing.assert_allclose(last[k].own[name], model, atol=1e-3)


def test_where_nothing_is_lost_the_best_links_serve_and_nothing_is_said(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(Sampled(), small(3), rounds=3, air=Lossy(near=(0, 1, 2)))
    assert servers(played) == [0, 1, 2]
    for n, states in enumerate(played.states):
        for state in states.values():
            assert set(played.method.describe(state, Round(0, n + 1, 4)).public) == {"norm", "share"}


def test_a_server_that_starts_anew_hands_over(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """To one that has the latest model, and serves again once it has it too."""
    played = play(Sampled(), small(3), rounds=3, air=Lossy(near=(0, 0, 0), lost=((0, 0, 1),)), fresh={1: (0,)})
    assert servers(played) == [0, 2, 0]


def test_where_nobody_has_the_latest_model_who_is_least_behind_serves(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """In round 2 device 0, which had it, starts anew; device 1 heard it never, device 2 in round 0."""
    air = Lossy(near=(0, 0, 1), lost=((0, 0, 1), (1, 0, 1), (1, 0, 2)))
    assert servers(play(Sampled(), small(3), rounds=3, air=air, fresh={2: (0,)})) == [0, 0, 2]


@pytest.mark.parametrize("drawn", [True, False])
def test_where_no_other_is_drawn_the_server_s_part_counts_once(drawn: bool, small: Callable[..., Setup]) -> None:
    """X + D / (q N) if the server is drawn, else X; on both devices, and what comes down is charged."""
    setup = small(2)
    method = Sampled(least_ranks=0.25).build(setup)
    t = next(r for n in range(200) if joins(0.5, 0, r := Round(0, n, 200)) == drawn and not joins(0.25, 1, r))
    share, states = {0: 0.5, 1: 0.25}, {}
    for k in range(2):
        own = method.fit(method.init(k), Round(0, 0, 200))[0].own  # a common X before, and what each then moves
        common = {n: own[n] - own[f"moved/{n}"] for n in "AB"}
        begun = replace(
            method.init(k), own={**own, **common, "share": np.array(share[k]), "version": np.array(t.index)}
        )
        states[k] = method.fit(begun, t)[0]
    before = {n: states[0].own[n] - states[0].own[f"moved/{n}"] for n in "AB"}
    after, info = exchange(t, states, {}, method, IdealAir(), InProcess(2))
    assert not info.plan.phases[0].edges
    for name in "AB":
        moved_ = states[0].own[f"moved/{name}"]
        assert moved_.any()
        for state in after.values():
            np.testing.assert_allclose(state.own[name], before[name] + drawn * moved_ / (0.5 * 2), atol=1e-3)
    assert info.cost.by_device[0].bytes_sent["values"] > 0
    assert float(after[1].own["share"]) == info.plan.phases[1].edges[0].weight


# law


def test_ranks_out_of_the_sketch_stay(small: Callable[..., Setup]) -> None:
    setup, t = small(2), Round(0, 1, 3)
    method, layout = Sampled().build(setup), load_base(setup.model).layout
    first = method.fit(method.init(1), Round(0, 0, 3))[0]
    cut = replace(first, own={**first.own, "share": np.array(2.5)})
    after, held = method.fit(cut, t)[0].own, sketch(3, 1, t, layout.rank)
    for a, b, c, d in zip(
        *(matrices_a(x["A"], layout) for x in (cut.own, after)),
        *(matrices_b(x["B"], layout) for x in (cut.own, after)),
        strict=True,
    ):
        assert ((a != b).any(axis=1) == held).all()
        assert ((c != d).any(axis=0) == held).all()


def test_far_devices_join_less_and_a_share_is_its_chance(small: Callable[..., Setup]) -> None:
    setup = small(3)
    method = Sampled(least_ranks=0.25).build(setup)
    states = {k: method.fit(method.init(k), T)[0] for k in range(3)}
    gains = {0: {1: 1e-9, 2: 1e-14}, 1: {0: 1e-9, 2: 1e-14}, 2: {0: 1e-14, 1: 1e-14}}
    facts = {k: replace(method.describe(s, T), gains=gains[k]) for k, s in states.items()}
    down = method.plan(facts, T).phases[1]
    share = {e.dst: e.weight for e in down.edges}
    assert share[2] < share[1] <= setup.model.rank
    often = np.mean([joins(0.25, 1, Round(0, n, 4000)) for n in range(4000)])
    assert abs(often - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_whoever_joins_is_weighed_by_its_chance(small: Callable[..., Setup]) -> None:
    """Shares of a quarter and of a half rank: chances of 1/4 and 1/2; a share of three ranks always joins."""
    setup, share = small(4), {0: 3.0, 1: 0.25, 2: 0.5, 3: 3.0}
    method = Sampled(least_ranks=0.25).build(setup)
    states = {k: method.fit(method.init(k), T)[0] for k in range(4)}
    states = {k: replace(s, own={**s.own, "share": np.array(share[k])}) for k, s in states.items()}
    facts = {k: method.describe(s, T) for k, s in states.items()}
    met: dict[int, float] = {}
    for n in range(40):
        met |= {e.src: e.weight for p in method.plan(facts, Round(0, n, 40)).phases[:1] for e in p.edges}
    assert met == {1: 4.0, 2: 2.0, 3: 1.0}


# edge


def test_values_that_are_no_sketch_are_refused(small: Callable[..., Setup]) -> None:
    parts = sketched(moved(0), sketch(2, 5, T, 4), LAYOUT)
    with pytest.raises(ValueError, match="device 5 sent"):
        opened({**parts, "B": parts["B"][1:]}, 5, T, LAYOUT)
    with pytest.raises(ValueError, match="exceed the rank"):
        Sampled(least_ranks=99.0).build(small(2))


def test_facts_hold_the_norm_of_all_ranks(small: Callable[..., Setup]) -> None:
    method = Sampled().build(small(2))
    state = method.fit(method.init(0), T)[0]
    whole: Facts = method.describe(state, T)
    half = method.describe(replace(state, own={**state.own, "share": np.array(state.own["share"] / 2)}), T)
    assert float(half.public["norm"]) == pytest.approx(2**0.5 * float(whole.public["norm"]), rel=1e-6)
