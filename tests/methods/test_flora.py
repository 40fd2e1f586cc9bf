"""FLoRA: what is folded in is the mean of whole updates, and training begins anew on top of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.adapters.projection import projection
from orthomesh.checkpoint import digest
from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.flora import Flora, stacked
from orthomesh.methods.folds import blocks_of, folded
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.models.whole import change_of, wearing
from orthomesh.types import Edge, Envelope, Phase, Round
from orthomesh.wireless.air import IdealAir


def updates(own: dict[str, np.ndarray], setup: Setup) -> list[np.ndarray]:
    layout = load_base(setup.model).layout
    pairs = zip(matrices_b(own["B"], layout), matrices_a(own["A"], layout), strict=True)
    return [b.astype(np.float64) @ a for b, a in pairs]


# reference


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    base, method = load_base(setup.model), Flora().build(setup)
    alone = [updates(dict(method.fit(method.init(k), Round(0, 0, 1))[0].own), setup) for k in range(3)]
    mean = [np.mean(same, axis=0) for same in zip(*alone, strict=True)]
    played = play(Flora(), setup, rounds=1)
    prints = set()
    for state in played.last.values():
        assert not {"A", "B"} & state.own.keys()
        made = folded(blocks_of(state.own), base.layout)
        for ours, oracle in zip(made, mean, strict=True):
            np.testing.assert_allclose(ours, oracle, atol=2e-5)  # what is heard comes in 16 bit
        (expert,) = played.method.bank(state).experts
        prints.add(expert.weights.tobytes())
        np.testing.assert_allclose(expert.weights, change_of(base, [base.scaling * m for m in mean]), atol=1e-4)
    assert len(prints) == 1  # the same base on every device


def test_the_second_round_trains_on_the_folded_base(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2)
    base = load_base(setup.model)
    played = play(Flora(), setup, rounds=1)
    state, t = played.last[1], Round(0, 1, 2)
    begun, _ = played.method.fit(state, t)
    bare = {name: a for name, a in state.own.items() if not name.startswith("fold/")}
    with wearing(base, played.method.bank(state).experts[0].weights):
        oracle, _ = Flora().build(setup).fit(type(state)(id=1, own=bare), t)
    np.testing.assert_array_equal(begun.own["B"], oracle.own["B"])
    own = projection(int(state.own["seed"]), base.layout)
    assert np.abs(begun.own["A"] - own).max() < 0.1 < np.abs(own).max()
    assert state.own["seed"] != played.last[0].own["seed"]


def test_ranks_may_differ() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal((r, 4)), rng.standard_normal((5, r))) for r in (1, 3, 2)]
    blocks = stacked(pairs)
    whole = np.concatenate([b for _, b in blocks], axis=1) @ np.concatenate([a for a, _ in blocks])
    np.testing.assert_allclose(whole, np.mean([b @ a for a, b in pairs], axis=0))


def test_the_server_passes_every_adapter_on(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Everybody sends its own, the server every other one too: n + (n - 1) frames."""
    sent = {n: sum(play(Flora(), small(n), rounds=1).sent("values")) for n in (2, 4)}
    assert 0.98 * 7 < sent[4] / (sent[2] / 2) < 1.02 * 7  # of two, none needs passing on


# what is lost


@dataclass(frozen=True)
class Deaf:
    """An air over which one device hears nothing in round 0."""

    device: int

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        return [replace(m, dsts=tuple(j for j in m.dsts if j != self.device or t.index)) for m in sent], cost


@pytest.mark.parametrize(("count", "device"), [(2, 1), (3, 0), (3, 2)])  # 0 serves
def test_whoever_has_told_but_hears_nobody_folds_its_own_in(
    count: int, device: int, small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """The others have folded it in, so that in the next round it must not tell them the same again."""
    setup = small(count)
    layout = load_base(setup.model).layout
    played = play(Flora(), setup, air=Deaf(device))
    alone = updates(dict(played.method.fit(played.method.init(device), Round(0, 0, 2))[0].own), setup)
    after = played.states[0][device]
    assert not {"A", "B"} & after.own.keys()
    assert not after.bank
    for ours, oracle in zip(folded(blocks_of(after.own), layout), alone, strict=True):
        np.testing.assert_allclose(ours, oracle, atol=2e-5)
    if device:  # else nothing was passed on either
        other = played.states[0][0]
        assert len(blocks_of(other.own)) == count
    later = {k: updates(dict(played.method.fit(s, Round(0, 1, 2))[0].own), setup) for k, s in played.states[0].items()}
    added = [folded(blocks_of(played.states[n][0].own), layout) for n in range(2)]
    for n, (before, now) in enumerate(zip(*added, strict=True)):
        mean = np.mean([later[k][n] for k in range(count)], axis=0)
        np.testing.assert_allclose(now - before, mean, atol=5e-5)  # of round 1 alone: what round 0 gave came once


# edge


def test_whoever_can_tell_nobody_goes_on_with_its_adapter(tiny_setup: Setup) -> None:
    """Nobody has folded it in, so all of it is still to be told; also where it would have heard somebody."""
    method, t = Flora().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    for edges, inbox in (((edge,), [Envelope(edge, None)]), ((Edge(1, 2, 0.5),), [])):
        after = method.merge(state, inbox, Phase(name="gossip", edges=edges), t)
        assert digest({0: after}) == digest({0: state})


def test_passing_on_is_not_telling(tiny_setup: Setup) -> None:
    method, t = Flora().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    after = method.merge(state, [], Phase(name="gossip", edges=(Edge(0, 2, 0.5, (1,)),)), t)
    assert digest({0: after}) == digest({0: state})


def test_factors_of_another_size_are_refused(tiny_setup: Setup) -> None:
    method, t = Flora().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    frame = encode([Section("values", name, np.zeros(3, dtype=np.float16)) for name in "AB"])
    with pytest.raises(ValueError, match="device 1 sent factors of another size"):
        method.merge(state, [Envelope(edge, frame.payload)], Phase(name="gossip", edges=(edge,)), t)
