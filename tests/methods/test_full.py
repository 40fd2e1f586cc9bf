"""Full-parameter fine-tuning by gossip: one vector of all weights, trained, sent and averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.exchange.payload import decode
from orthomesh.methods.full import Full, memory_bytes
from orthomesh.methods.setup import Setup, device_rows
from orthomesh.models.answer import answer
from orthomesh.models.base import load_base
from orthomesh.models.size import size_of
from orthomesh.types import DeviceState, Edge, Envelope, Phase, Round

T = Round(seed=0, index=0, total=1)


def device(k: int, weights: list[float]) -> DeviceState:
    return DeviceState(id=k, own={"weights": np.array(weights, dtype=np.float32)})


# example


def test_merging_by_hand(tiny_setup: Setup) -> None:
    method = Full().build(tiny_setup)
    edge = Edge(1, 0, 0.25)
    phase = Phase(name="gossip", edges=(edge,))
    (message,) = method.send(device(1, [5.0, 3.0]), phase, T)
    assert {n: (a.dtype.name, a.tolist()) for n, a in decode(message.payload).items()} == {
        "weights": ("float16", [5.0, 3.0])
    }
    after = method.merge(device(0, [1.0, -1.0]), [Envelope(edge, message.payload)], phase, T)
    assert after.own["weights"].tolist() == [2.0, 0.0]


def test_two_bytes_a_weight_travel(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup = small(2)
    count = load_base(setup.model).num_parameters
    played = play(Full(topology="radio"), setup, rounds=1)
    sent = played.infos[0].cost.by_device[0].bytes_sent["values"]
    assert 0.8 * 2 * count < sent < 2 * count + 100
    assert {learnt.trained for learnt in played.infos[0].learnt.values()} == {count}


# reference


def test_a_round_is_the_mean_of_what_each_has_trained(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, settings = small(3), Full(topology="radio")
    method = settings.build(setup)
    alone = [method.fit(method.init(k), T)[0].own["weights"] for k in range(3)]
    for state in play(settings, setup, rounds=1).last.values():
        np.testing.assert_allclose(state.own["weights"], np.mean(alone, axis=0), atol=1e-4)


def test_it_answers_with_its_own_weights(small: Callable[..., Setup]) -> None:
    """Trained until it knows its rows: the base knows none, the device's model most, and the base is as before."""
    setup = small(1, steps=30, batch_size=12)
    method, base = Full().build(setup), load_base(setup.model)
    rows = device_rows(setup, 0)
    state = method.fit(method.init(0), T)[0]
    before, after = (answer(base, method.bank(s), rows).right.mean() for s in (method.init(0), state))
    assert before == 0.0
    assert after > 0.3
    assert answer(base, method.bank(method.init(0)), rows).right.mean() == 0.0
    assert answer(base, method.bank(state), rows).chosen.tolist() == [0] * len(rows)


# edge


def test_all_weights_take_a_sixth_of_the_rate_of_adapters(small: Callable[..., Setup]) -> None:
    setup = small(1, steps=1, learning_rate=6e-3)
    default, said = (m.build(setup).fit(m.build(setup).init(0), T)[0] for m in (Full(), Full(learning_rate=1e-3)))
    np.testing.assert_allclose(default.own["weights"], said.own["weights"], atol=1e-8)
    assert np.abs(said.own["weights"]).max() == pytest.approx(1e-3, rel=1e-2)  # the first step of AdamW


def test_memory_on_paper() -> None:
    """Two devices: 4 + 4 + 2 bytes a weight each, and 20 for the one that trains."""
    assert memory_bytes(100, 2) == 100 * (2 * 10 + 20)


def test_a_model_too_large_for_a_message_is_refused(tiny_setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    size = size_of(tiny_setup.model)
    monkeypatch.setattr("orthomesh.models.size.memory_b", lambda: 1 << 50)
    monkeypatch.setattr("orthomesh.models.size.size_of", lambda _: size._replace(parameters=2**31))
    Full().build(tiny_setup)  # two bytes each are just what a message holds
    monkeypatch.setattr("orthomesh.models.size.size_of", lambda _: size._replace(parameters=3 * 2**30))
    with pytest.raises(ValueError, match=r"all weights in 16 bit take 6\.0 GiB, and a message at most 4\.0"):
        Full().build(tiny_setup)


def test_a_model_too_large_for_memory_is_refused(tiny_setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthomesh.models.size.memory_b", lambda: 1 << 20)
    with pytest.raises(ValueError, match=r"takes about 0\.0 GiB beside the base, this machine has 0\.0"):
        Full().build(tiny_setup)


def test_weights_of_another_model_are_refused(tiny_setup: Setup) -> None:
    method = Full().build(tiny_setup)
    edge = Edge(1, 0, 0.5)
    phase = Phase(name="gossip", edges=(edge,))
    (message,) = method.send(device(1, [1.0]), phase, T)
    with pytest.raises(ValueError, match="device 1 sent entries of shape"):
        method.merge(device(0, [1.0, 2.0]), [Envelope(edge, message.payload)], phase, T)
