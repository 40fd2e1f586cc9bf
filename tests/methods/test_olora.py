"""O-LoRA's penalty: adapters stay apart, those heard are kept, and all answer by the sum of their updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orthomesh.adapters.lowrank import matrices_a, matrices_b
from orthomesh.methods.olora import OLora
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base


def test_all_answer_by_the_sum_of_their_updates(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(3)
    layout, played = load_base(setup.model).layout, play(OLora(), small(3), rounds=1)
    whole = sum(
        matrices_b(s.own["B"], layout)[1].astype(float) @ matrices_a(s.own["A"], layout)[1]
        for s in played.last.values()
    )
    for state in played.last.values():
        bank = played.method.bank(state)
        assert (bank.choice, bank.top_k, [e.owner for e in bank.experts]) == ("topk", 0, [0, 1, 2])
        made = sum(matrices_b(e.B, layout)[1] @ matrices_a(e.A, layout)[1] for e in bank.experts)
        np.testing.assert_allclose(made, whole, atol=1e-4)


def test_the_penalty_keeps_an_adapter_off_the_others(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2, steps=6)
    layout = load_base(setup.model).layout

    def overlap(settings: OLora) -> float:
        mine, other = (s.own["A"] for s in play(settings, setup).last.values())
        pairs = zip(matrices_a(mine, layout), matrices_a(other, layout), strict=True)
        return sum(float(np.sum((a @ b.T) ** 2)) for a, b in pairs)

    assert overlap(OLora(penalty=5.0)) < 0.7 * overlap(OLora(penalty=0.0))
