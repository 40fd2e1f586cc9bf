"""Local-only fine-tuning: gossip LoRA in which nobody talks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orthomesh.checkpoint import digest
from orthomesh.engines.inprocess import InProcess
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.local import Local
from orthomesh.methods.setup import Setup
from orthomesh.round import run_round
from orthomesh.types import Bank, DeviceState, Method, Round
from orthomesh.wireless.air import IdealAir


def play(method: Method, num_devices: int, rounds: int = 2) -> tuple[dict[int, DeviceState], int]:
    """Final states and bytes sent by all."""
    engine, total = InProcess(num_devices), 0
    devices = {k: method.init(k) for k in engine.hosted}
    for index in range(rounds):
        devices, info = run_round(Round(0, index, rounds), devices, method, IdealAir(), engine)
        total += sum(s.total_bytes for s in info.cost.by_device.values())
    return devices, total


def test_nothing_is_planned_and_nothing_costs(tiny_setup: Setup) -> None:
    method = Local().build(tiny_setup)
    assert method.plan({}, Round(0, 0, 1)).phases == ()
    devices, total = play(method, 4)
    assert total == 0
    assert all(not d.bank for d in devices.values())


def test_it_is_gossip_of_a_device_that_is_alone(tiny_setup: Setup) -> None:
    alone = replace(tiny_setup, assignment=("zelk",))
    local, _ = play(Local().build(alone), 1)
    gossip, _ = play(GossipLora().build(alone), 1)
    assert digest(local) == digest(gossip)


def test_a_device_learns_the_same_whoever_else_is_there(tiny_setup: Setup) -> None:
    many, _ = play(Local().build(tiny_setup), 4)
    few, _ = play(Local().build(replace(tiny_setup, assignment=tiny_setup.assignment[:2])), 2)
    assert digest({0: many[0], 1: many[1]}) == digest(few)


def test_it_answers_with_its_own_adapter(tiny_setup: Setup) -> None:
    method = Local().build(tiny_setup)
    devices, _ = play(method, 4, rounds=1)
    bank = method.bank(devices[2])
    assert isinstance(bank, Bank)
    assert (bank.choice, [e.owner for e in bank.experts]) == ("only", [2])
    np.testing.assert_array_equal(bank.experts[0].B, devices[2].own["B"])


def test_a_learning_rate_of_its_own_counts(tiny_setup: Setup) -> None:
    run, _ = play(Local().build(tiny_setup), 1, rounds=1)
    rate = tiny_setup.train.learning_rate
    same, _ = play(Local(learning_rate=rate).build(tiny_setup), 1, rounds=1)
    slow, _ = play(Local(learning_rate=rate / 1000).build(tiny_setup), 1, rounds=1)
    assert digest(run) == digest(same)
    assert np.abs(slow[0].own["B"]).max() <= np.abs(run[0].own["B"]).max() / 100


def test_a_rate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        Local(learning_rate=0.0)
