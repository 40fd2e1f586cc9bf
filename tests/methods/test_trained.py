"""What devices answer with between training and exchange; that every method has it is in the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.methods.lori import Lori
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.methods.trained import alone, as_trained
from orthomesh.types import Bank, DeviceState, Expert


def test_alone_nothing_of_others_is_there() -> None:
    def bank(device: DeviceState) -> Bank:
        ids = [device.id, *(int(name) for name in device.bank)]
        return Bank(experts=tuple(Expert(owner=k, A=np.zeros(0), B=np.zeros(0)) for k in ids))

    device = DeviceState(id=4, own={}, bank={"7": np.zeros(1)})
    assert [e.owner for e in bank(device).experts] == [4, 7]
    assert [e.owner for e in alone(device, bank).experts] == [4]


def test_experts_are_whole_where_joining_divides_them(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """The plain mean of two disjoint masks halves what each has trained."""
    settings, setup = SparseOrthogonal(aggregation="mean", density=0.5), small(2)
    played = play(settings, setup, rounds=1)
    for k, device in played.last.items():
        (trained,) = as_trained(settings, played.method, setup)(device).experts
        joined = next(e for e in played.method.bank(device).experts if e.owner == k)
        np.testing.assert_array_equal(trained.B, device.own["B"])
        active = trained.B != 0
        np.testing.assert_allclose(joined.B[active], trained.B[active] / 2, rtol=2e-3)  # it has travelled in 16 bit


def test_what_is_merged_only_to_answer_is_apart(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2)
    played = play(Lori(), setup, rounds=2)
    assert played.owners() == [[0, 1], [0, 1]]
    (expert,) = as_trained(Lori(), played.method, setup)(played.last[1]).experts
    np.testing.assert_array_equal(expert.B, played.last[1].own["B"])
