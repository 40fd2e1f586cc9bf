"""FedSA-LoRA: A is averaged, B is the device's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.payload import decode
from orthomesh.methods.fedsa import FedSa
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Round

# reference


def test_a_is_the_mean_of_all_and_b_what_each_has_trained(
    small: Callable[..., Setup], play: Callable[..., Any]
) -> None:
    setup, settings = small(4), FedSa(topology="radio")
    method = settings.build(setup)
    alone = {k: method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(4)}
    played = play(settings, setup, rounds=1)
    mean = np.mean([alone[k]["A"] for k in range(4)], axis=0)
    for k, state in played.last.items():
        np.testing.assert_allclose(state.own["A"], mean, atol=1e-3)
        np.testing.assert_array_equal(state.own["B"], alone[k]["B"])
    assert np.abs(alone[0]["A"] - alone[1]["A"]).max() > 1e-3  # or the mean would be no mean


# example


def test_what_travels_is_a(small: Callable[..., Setup]) -> None:
    setup = small(2)
    layout = load_base(setup.model).layout
    method, t = FedSa().build(setup), Round(0, 0, 1)
    state, learnt = method.fit(method.init(0), t)
    (phase,) = method.plan({k: method.describe(method.fit(method.init(k), t)[0], t) for k in (0, 1)}, t).phases
    (message,) = method.send(state, phase, t)
    sent = decode(message.payload)
    assert {n: a.shape for n, a in sent.items()} == {"A": (layout.num_projection,)}
    assert 8 * len(message.payload) == method.describe(state, t).payload_bits
    assert learnt.trained == layout.num_projection + layout.num_expansion


# edge


def test_a_rate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        FedSa(learning_rate=0.0)
