"""A round of gossip LoRA over an ideal air is W (X + Delta), in NumPy; a silent round is local fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from orthomesh.checkpoint import digest
from orthomesh.engines.inprocess import InProcess
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.local import Local
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.round import run_round
from orthomesh.types import DeviceState, Message, Method, Phase, Round
from orthomesh.wireless.air import IdealAir

DEVICES, ROUNDS = 4, 2


@pytest.fixture(scope="module")
def brief(tiny_setup: Setup) -> Setup:
    """One step a round: what is said here holds for any number."""
    return replace(tiny_setup, train=replace(tiny_setup.train, steps=1))


@dataclass(frozen=True)
class Silence:
    """An air that tells the facts and lets no message through."""

    def announce(self, facts, t):  # type: ignore[no-untyped-def]
        return IdealAir().announce(facts, t)

    def transmit(self, outbox: list[Message], phase: Phase, t: Round):  # type: ignore[no-untyped-def]
        sent, cost = IdealAir().transmit(outbox, phase, t)
        return [replace(m, dsts=()) for m in sent], cost


def fitted(devices: Mapping[int, DeviceState], method: Method, t: Round) -> dict[int, DeviceState]:
    """X + Delta: what local fine-tuning alone makes of the devices; it does not see the bank."""
    return {k: replace(method.fit(replace(d, bank={}), t)[0], bank=d.bank) for k, d in sorted(devices.items())}


def neighbours_of(num_neighbours: int, edges: set[tuple[int, int]]) -> np.ndarray:
    """W by Metropolis and Hastings from the edges alone, written as in the textbook. [M, M]"""
    degree = [sum(i == k for i, _ in edges) for k in range(DEVICES)]
    assert max(degree) <= (num_neighbours or DEVICES)
    w = np.zeros((DEVICES, DEVICES))
    for i, j in edges:
        w[j, i] = 1.0 / (1.0 + max(degree[i], degree[j]))
    return w + np.diag(1.0 - w.sum(axis=1))


@pytest.mark.parametrize("num_neighbours", [0, 1, 2])
def test_gossip_over_an_ideal_air_is_w_times_x_plus_delta(num_neighbours: int, brief: Setup) -> None:
    method, engine = GossipLora(num_neighbours=num_neighbours).build(brief), InProcess(DEVICES)
    devices = {k: method.init(k) for k in engine.hosted}
    for index in range(ROUNDS):
        t = Round(brief.seed, index, ROUNDS)
        local = fitted(devices, method, t)
        devices, info = run_round(t, devices, method, IdealAir(), engine)
        edges = {(e.src, e.dst) for phase in info.plan.phases for e in phase.edges}
        w = neighbours_of(num_neighbours, edges)
        assert num_neighbours or np.allclose(w, 1 / DEVICES)  # without a limit: the plain mean
        for name in ("A", "B"):
            x = np.stack([local[k].own[name] for k in range(DEVICES)]).astype(np.float64)
            heard = np.stack([local[k].own[name].astype(np.float16) for k in range(DEVICES)]).astype(np.float64)
            own = np.diag(np.diag(w))
            expected = own @ x + (w - own) @ heard  # a device knows itself exactly, the others in 16 bit
            after = np.stack([devices[k].own[name] for k in range(DEVICES)])
            np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-6 * np.abs(x).max())


def test_full_averaging_brings_everybody_to_the_mean(brief: Setup) -> None:
    method, t = GossipLora(num_neighbours=0).build(brief), Round(0, 0, 1)
    start = {k: method.init(k) for k in range(DEVICES)}
    local = fitted(start, method, t)
    after, _ = run_round(t, start, method, IdealAir(), InProcess(DEVICES))
    for name in ("A", "B"):
        mean = np.mean([local[k].own[name].astype(np.float64) for k in range(DEVICES)], axis=0)
        rounding = 2.0**-11 * max(np.abs(local[k].own[name]).max() for k in range(DEVICES))
        for device in after.values():
            np.testing.assert_allclose(device.own[name], mean, rtol=0, atol=rounding)


@pytest.mark.parametrize("settings", [Local(), GossipLora()])
def test_a_silent_round_of_averaging_is_local_fine_tuning(settings: Local | GossipLora, brief: Setup) -> None:
    method, engine = settings.build(brief), InProcess(DEVICES)
    devices = {k: method.init(k) for k in engine.hosted}
    for index in range(ROUNDS):
        t = Round(brief.seed, index, ROUNDS)
        local = fitted(devices, method, t)
        devices, _ = run_round(t, devices, method, Silence(), engine)
        assert digest(devices) == digest(local)


@pytest.mark.parametrize("settings", [SparseOrthogonal(), paper_reading()])
def test_a_silent_round_of_experts_moves_no_value(settings: SparseOrthogonal, brief: Setup) -> None:
    method, engine = settings.build(brief), InProcess(DEVICES)
    devices = {k: method.init(k) for k in engine.hosted}
    devices, _ = run_round(Round(0, 0, 3), devices, method, Silence(), engine)  # masks are found in the first
    for index in (1, 2):
        t = Round(brief.seed, index, 3)
        local = fitted(devices, method, t)
        devices, _ = run_round(t, devices, method, Silence(), engine)
        for k, device in devices.items():
            assert not device.bank
            noted = {"sent", "version"}  # what it sent, for all that it arrived nowhere
            assert device.own.keys() - noted == local[k].own.keys() - noted
            for name in device.own.keys() - noted:
                np.testing.assert_array_equal(device.own[name], local[k].own[name], err_msg=name)


def test_sparse_experts_arrive_as_their_owners_hold_them(brief: Setup) -> None:
    """Without collisions the union is no mixture: every expert is its owner's B, off by half precision only."""
    method = SparseOrthogonal(density=0.25).build(brief)  # four quarters fill the positions exactly
    devices = {k: method.init(k) for k in range(DEVICES)}
    after, _ = run_round(Round(0, 0, 1), devices, method, IdealAir(), InProcess(DEVICES))
    for holder in after.values():
        experts = {e.owner: e for e in method.bank(holder).experts}
        assert sorted(experts) == list(range(DEVICES))
        for k, expert in experts.items():
            np.testing.assert_array_equal(expert.B, after[k].own["B"].astype(np.float16).astype(np.float32))
            np.testing.assert_array_equal(expert.A, method.bank(after[k]).experts[k].A)
