"""ADF-LoRA: one factor is trained for T rounds, both are averaged in every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.methods.adf import Adf, trained
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Round

# example


def test_phases_on_paper() -> None:
    assert "".join(trained(Round(0, n, 12), 3) for n in range(12)) == "BBBAAABBBAAA"
    assert "".join(trained(Round(0, n, 5), None) for n in range(5)) == "BABAB"
    assert "".join(trained(Round(0, n, 150), None) for n in range(11)) == "BBBBBAAAAAB"  # T = 5, as the authors


# reference


def test_both_factors_are_averaged_whichever_is_trained(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Against NumPy on a complete graph, two rounds: the mean of B and that of A, and only one of them had moved."""
    setup, settings = small(3), Adf(topology="radio", phase_length=1)
    layout = load_base(setup.model).layout
    method, played = settings.build(setup), play(settings, setup, rounds=2)
    before = {k: method.init(k) for k in range(3)}
    for index, factor in enumerate("BA"):
        t = Round(setup.seed, index, 2)
        fitted = {k: method.fit(s, t) for k, s in before.items()}
        moved = {"A": layout.num_projection, "B": layout.num_expansion}[factor]
        assert {learnt.trained for _, learnt in fitted.values()} == {moved}
        for name in "AB":
            mean = np.mean([state.own[name] for state, _ in fitted.values()], axis=0)
            for state in played.states[index].values():
                np.testing.assert_allclose(state.own[name], mean, atol=1e-3)
        before = played.states[index]
    rested = np.stack([played.states[0][k].own["B"] for k in range(3)])
    assert np.abs(rested - np.mean(rested, axis=0)).max() < 1e-3  # what rested had been averaged before


# edge


def test_a_phase_of_no_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="phase_length"):
        Adf(phase_length=0)
