"""RoLoRA: B in the first round, A in the second; the other factor neither moves nor travels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.payload import decode
from orthomesh.methods.rolora import Rolora, turn
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Round

# reference


def test_each_round_averages_what_it_trained(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Against NumPy, two rounds on a complete graph: the mean of B, then the mean of A, the rest untouched."""
    setup, settings = small(3), Rolora(topology="radio")
    method = settings.build(setup)
    played = play(settings, setup, rounds=2)
    before = {k: method.init(k) for k in range(3)}
    for index, (moving, resting) in enumerate((("B", "A"), ("A", "B"))):
        fitted = {k: method.fit(s, Round(setup.seed, index, 2))[0] for k, s in before.items()}
        mean = np.mean([fitted[k].own[moving] for k in range(3)], axis=0)
        for k, state in played.states[index].items():
            np.testing.assert_allclose(state.own[moving], mean, atol=1e-3)
            np.testing.assert_array_equal(state.own[resting], fitted[k].own[resting])
            if index:
                np.testing.assert_array_equal(state.own[resting], before[k].own[resting])
                assert np.abs(state.own[moving] - before[k].own[moving]).max() > 1e-3
        before = played.states[index]


# example


def test_the_factor_whose_turn_it_is_is_trained_and_sent(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2)
    layout = load_base(setup.model).layout
    played = play(Rolora(), setup, rounds=2)
    sizes = {"A": layout.num_projection, "B": layout.num_expansion}
    for index, factor in enumerate("BA"):
        t = Round(setup.seed, index, 2)
        info, state = played.infos[index], played.states[index][0]
        (message,) = played.method.send(state, info.plan.phases[0], t)
        assert turn(t) == factor
        assert {n: a.size for n, a in decode(message.payload).items()} == {factor: sizes[factor]}
        assert {learnt.trained for learnt in info.learnt.values()} == {sizes[factor]}


# edge


def test_a_negative_number_of_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="num_neighbours"):
        Rolora(num_neighbours=-1)
