"""FedALT: the own adapter is never overwritten, and beside it rests the mean of the others' factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.experts.mixture import mix
from orthomesh.methods.fedalt import FedAlt
from orthomesh.methods.folds import blocks_of
from orthomesh.methods.local import Local
from orthomesh.methods.setup import Setup
from orthomesh.models.answer import mixtures
from orthomesh.models.bank_io import Portable
from orthomesh.models.base import load_base
from orthomesh.models.whole import change_of
from orthomesh.types import Envelope, Round


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    base, alone = load_base(setup.model), play(Local(), setup, rounds=1).last
    played = play(FedAlt(others=0.25), setup, rounds=1)
    for k, state in played.last.items():
        np.testing.assert_array_equal(state.own["B"], alone[k].own["B"])
        ((A, B),) = blocks_of(state.own)
        others = [alone[j].own for j in range(3) if j != k]
        a, b = (np.mean([o[name] for o in others], axis=0) for name in "AB")
        np.testing.assert_allclose(A, a, atol=2e-3)
        np.testing.assert_allclose(B, 0.25 * b, atol=1e-3)
        layers = zip(matrices_b(state.own["B"], base.layout), matrices_a(state.own["A"], base.layout), strict=True)
        rest = zip(matrices_b(B, base.layout), matrices_a(A, base.layout), strict=True)
        whole = [base.scaling * (y @ x + v @ u) for (y, x), (v, u) in zip(layers, rest, strict=True)]
        (expert,) = played.method.bank(state).experts
        np.testing.assert_allclose(expert.weights, change_of(base, whole), atol=1e-5)


def test_whoever_was_not_heard_takes_the_mean_as_it_is(small: Callable[..., Setup]) -> None:
    setup, t = small(3), Round(0, 0, 1)
    method = FedAlt(others=1.0).build(setup)
    states = {k: method.fit(method.init(k), t)[0] for k in range(3)}
    up, down = method.plan({k: method.describe(s, t) for k, s in states.items()}, t).phases
    frames = {k: method.send(states[k], up, t)[0].payload for k in (1, 2)}
    inbox = [Envelope(e, frames[e.src] if e.src == 1 else None) for e in up.edges]
    server = method.merge(states[0], inbox, up, t)
    (message,) = method.send(server, down, t)
    (edge,) = [e for e in down.edges if e.dst == 2]
    after = method.merge(states[2], [Envelope(edge, message.payload)], down, t)
    ((_, B),) = blocks_of(after.own)
    np.testing.assert_allclose(B, (states[0].own["B"] + states[1].own["B"]) / 2, atol=1e-3)


def test_a_trained_mixer_weighs_own_and_others_for_every_token(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """Against NumPy: the mean of the others, whole, and s (a B A x + (1 - a) B' A' x) with a of a softmax of G x."""
    setup = small(3)
    base, method = load_base(setup.model), FedAlt(mixer="trained").build(setup)
    played, constant = (play(c, setup) for c in (FedAlt(mixer="trained"), FedAlt()))
    for one, other in zip(played.sent("values"), constant.sent("values"), strict=True):
        assert one == pytest.approx(other, rel=0.01)  # the mixer, 6 % as much, stays where it is
    before = {k: method.fit(s, Round(0, 1, 2))[0].own for k, s in played.states[0].items()}
    for k, state in played.last.items():
        ((A, B),) = blocks_of(state.own)
        for n, rest in (("A", A), ("B", B)):
            np.testing.assert_array_equal(state.own[n], before[k][n])
            np.testing.assert_allclose(rest, np.mean([before[j][n] for j in range(3) if j != k], axis=0), atol=2e-3)
    own, x = state.own, np.random.default_rng(0).standard_normal(base.layout.shapes[0].in_features)
    outputs = [
        base.scaling * matrices_b(b, base.layout)[0] @ (matrices_a(a, base.layout)[0] @ x)
        for a, b in ((own["A"], own["B"]), (A, B))
    ]
    shares = np.exp(own["mixer"][:, : x.size] @ x)
    assert abs(shares[0] / shares[1] - 1) > 1e-3  # it has moved
    layer = next(iter(mixtures(base, played.method.bank(state)).values()))
    made = mix(torch.from_numpy(x).float(), layer).numpy()
    np.testing.assert_allclose(made, shares @ np.stack(outputs) / shares.sum(), atol=1e-5)


def test_a_bank_has_no_place_for_a_mixer(small: Callable[..., Setup]) -> None:
    setup = small(2)
    method, base = FedAlt(mixer="trained").build(setup), load_base(setup.model)
    bank = method.bank(method.fit(method.init(0), Round(0, 0, 1))[0])
    with pytest.raises(ValueError, match="weighed by a trained mixer"):
        Portable(bank=bank, labels=("a",), layout=base.layout, scaling=2.0, base_model="x", fingerprint="y")
