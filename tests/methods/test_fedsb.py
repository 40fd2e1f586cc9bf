"""Fed-SB: R alone travels, and its mean is the mean of whole updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import matrices_a, matrices_b, matrices_w
from orthomesh.methods.fedsb import FedSb, check_start, frame, started
from orthomesh.methods.ffa import Ffa
from orthomesh.methods.setup import Setup, device_rows
from orthomesh.models.base import load_base
from orthomesh.models.gradient import first_gradient
from orthomesh.rng import stream
from orthomesh.types import Bank, DeviceState, Round
from orthomesh.wireless.air import IdealAir

SEED = FedSb(start="seed")


def update(bank: Bank, layout: Any, layer: int) -> np.ndarray:
    (expert,) = bank.experts
    return np.asarray(matrices_b(expert.B, layout)[layer].astype(float) @ matrices_a(expert.A, layout)[layer])


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, method = load_base(setup.model).layout, SEED.build(setup)
    alone = [update(method.bank(method.fit(method.init(k), Round(0, 0, 1))[0]), layout, 2) for k in range(3)]
    played = play(SEED, setup, rounds=1)
    for state in played.last.values():
        np.testing.assert_allclose(update(method.bank(state), layout, 2), np.mean(alone, axis=0), atol=1e-5)
        assert sorted(state.own) == ["R", "seed"]
    sent = sum(played.sent("values"))
    assert sent < 3 * (2 * len(layout.shapes) * layout.rank**2 + 64)
    assert sent < sum(play(Ffa(), setup, rounds=1).sent("values")) / 5


def test_a_device_answers_with_b_r_a(small: Callable[..., Setup]) -> None:
    setup = small(2)
    layout, method = load_base(setup.model).layout, SEED.build(setup)
    A, B = frame(int(method.init(0).own["seed"]), layout)
    cores = np.random.default_rng(0).standard_normal((len(layout.shapes), layout.rank, layout.rank))
    state = method.init(0)
    bank = method.bank(replace(state, own={**state.own, "R": cores.astype(np.float32).ravel()}))
    for n in (0, 3):
        whole = matrices_b(B, layout)[n].astype(float) @ cores[n] @ matrices_a(A, layout)[n]
        np.testing.assert_allclose(update(bank, layout, n), whole, atol=1e-4)


def test_both_sides_are_orthonormal(small: Callable[..., Setup]) -> None:
    layout = load_base(small(2).model).layout
    A, B = frame(3, layout)
    for a, b in zip(matrices_a(A, layout), matrices_b(B, layout), strict=True):
        np.testing.assert_allclose(a @ a.T, np.eye(layout.rank), atol=1e-5)
        np.testing.assert_allclose(b.T @ b, np.eye(layout.rank), atol=1e-5)


# the start from first gradients


def narrow(setup: Setup) -> Setup:
    """With few layers, since every device decomposes them all."""
    return replace(setup, model=replace(setup.model, layers=("q_proj", "down_proj")))


@dataclass(frozen=True)
class Deaf:
    """An air over which device 2 hears nothing in round 0."""

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox, phase, t):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        return [replace(m, dsts=tuple(j for j in m.dsts if j != 2 or t.index)) for m in sent], cost


def sides(device: DeviceState) -> tuple[bytes, bytes]:
    return device.own["A"].tobytes(), device.own["B"].tobytes()


def test_the_start_is_the_best_approximation_of_adamw_s_first_step(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    """From the gradients of all devices' samples in one place, as the authors have them, by a plain decomposition."""
    setup = narrow(small(3))
    base, c = load_base(setup.model), FedSb(samples=8, warmup=0.5)
    played = play(c, setup, rounds=2)
    total = np.zeros(sum(s.out_features * s.in_features for s in base.layout.shapes))
    for k, count in ((0, 3), (1, 3), (2, 2)):  # eight over three devices
        rows = device_rows(setup, k)
        drawn = stream(setup.seed, "first-gradient", k).choice(len(rows), count, replace=False)
        total += count * first_gradient(base, [rows[n] for n in drawn], setup.train).astype(float)
    rate = setup.train.learning_rate / (0.5 * 2 * setup.train.steps)
    shares = [played.method.bank(d) for d in played.states[0].values()]
    for n, gradient in enumerate(matrices_w(total, base.layout)):
        step = -rate * np.sign(gradient)
        least = np.sqrt((np.linalg.svd(step, compute_uv=False)[base.layout.rank :] ** 2).sum())  # Eckart and Young
        for bank in shares:
            off = np.linalg.norm(step - base.scaling * update(bank, base.layout, n))
            assert 0.999 * least < off < 1.002 * least < 0.9 * np.linalg.norm(step)
    assert len({(*sides(d), d.own["R"].tobytes()) for d in played.states[0].values()}) == 1
    one_off, values = played.sent("one_off"), played.sent("values")
    assert one_off[0] > 2 * 2 * 0.8 * total.size
    assert (one_off[1], values[1] < one_off[0] / 20) == (0, True)


def test_r_is_averaged_from_then_on(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = narrow(small(3))
    played = play(FedSb(), setup, rounds=2)
    alone = [played.method.fit(d, Round(0, 1, 2))[0].own["R"] for d in played.states[0].values()]
    for device in played.last.values():
        np.testing.assert_allclose(device.own["R"], np.mean(alone, axis=0), atol=1e-4)
        assert sides(device) == sides(played.states[0][0])


def test_who_missed_the_start_is_told_in_the_next_round(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(FedSb(), narrow(small(3)), rounds=3, air=Deaf())
    first = played.states[0]
    assert sides(first[0]) == sides(first[1]) != sides(first[2])
    assert len({sides(d) for d in played.states[1].values()}) == 1
    assert played.sent("one_off")[2] == 0
    phases = [[p.name for p in i.plan.phases] for i in played.infos]
    assert phases == [["up", "down"], ["down", "gossip"], ["gossip"]]


def test_a_start_is_orthonormal_and_of_no_higher_rank_than_a_side() -> None:
    gradient = np.random.default_rng(0).standard_normal((6, 9))
    made = started([gradient], 0.1, 2.0, 4)
    A, B, R = made["A"].reshape(4, 9), made["B"].reshape(6, 4), made["R"].reshape(4, 4)
    np.testing.assert_allclose(A @ A.T, np.eye(4), atol=2e-3)
    np.testing.assert_allclose(B.T @ B, np.eye(4), atol=2e-3)
    sigma = np.linalg.svd(np.sign(gradient), compute_uv=False)[:4]
    np.testing.assert_allclose(R, np.diag(0.1 * sigma / 2.0), atol=1e-3)
    with pytest.raises(ValueError, match="rank 7 of a matrix of 6 x 9"):
        started([gradient], 0.1, 2.0, 7)


def test_a_run_of_one_round_has_none_left_for_training(small: Callable[..., Setup]) -> None:
    method = FedSb().build(small(2))
    with pytest.raises(ValueError, match="rounds must be 2 at least"):
        method.fit(method.init(0), Round(0, 0, 1))


def test_gradients_of_more_than_a_message_holds_are_refused() -> None:
    check_start(FedSb(start="seed"), 1, 2**31 + 1)
    check_start(FedSb(), 2, 2**31)  # in two bytes: 4 GiB
    with pytest.raises(ValueError, match=r"gradients of whole matrices .* or start: seed"):
        check_start(FedSb(), 2, 2**31 + 1)


def test_what_a_seed_has_no_use_for_is_refused() -> None:
    with pytest.raises(ValueError, match="start: seed has no use for them"):
        FedSb(start="seed", samples=10)
