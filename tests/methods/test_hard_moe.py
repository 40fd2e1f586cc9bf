"""The hard-routing oracle: devices alone, full or sparse experts, nothing on the air."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.checkpoint import digest
from orthomesh.methods.full import Full
from orthomesh.methods.hard_moe import HardMoe
from orthomesh.methods.parts import unpack
from orthomesh.methods.setup import Setup
from orthomesh.types import Round

# reference


def test_full_experts_are_full_fine_tuning_alone(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    many = play(HardMoe(), small(2), rounds=2)
    alone = play(Full(), small(1), rounds=2)
    assert digest({0: many.last[0]}) == digest({0: alone.last[0]})
    np.testing.assert_array_equal(many.method.bank(many.last[1]).experts[0].weights, many.last[1].own["weights"])


# example


@pytest.mark.parametrize("experts", ["full", "sparse", "lora", "lori"])
def test_nothing_travels_and_each_has_one_expert(
    experts: Any, small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    played = play(HardMoe(experts=experts), small(2), rounds=2)
    assert all(s.total_bytes == 0 for info in played.infos for s in info.cost.by_device.values())
    assert played.owners() == [[0], [1]]


def test_sparse_experts_have_the_density_asked_for(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    played = play(HardMoe(experts="sparse", density=0.25), small(2), rounds=2)
    for state in played.last.values():
        active = unpack(state.own["mask"], state.own["B"].size)
        assert active.mean() == pytest.approx(0.25, abs=1e-3)
        assert not state.own["B"][~active].any()
    learnt = played.infos[1].learnt[0]
    assert learnt.trained == active.sum()


# edge


def test_experts_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="experts"):
        HardMoe(experts="dense")  # type: ignore[arg-type]


def test_before_the_first_round_there_is_no_expert(tiny_setup: Setup) -> None:
    for experts in ("full", "sparse"):
        method = HardMoe(experts=experts).build(tiny_setup)  # type: ignore[arg-type]
        assert method.bank(method.init(0)).experts == ()
        assert method.plan({}, Round(0, 0, 1)).phases == ()
