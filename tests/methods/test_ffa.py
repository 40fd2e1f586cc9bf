"""FFA-LoRA: A never moves and never travels, B is the plain mean over all, so the mean update is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from orthomesh.adapters.projection import projection
from orthomesh.exchange.payload import decode
from orthomesh.methods.ffa import Ffa
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import DeviceState, Edge, Envelope, Phase, Round

T = Round(seed=0, index=0, total=1)


def device(k: int, b: list[float]) -> DeviceState:
    return DeviceState(id=k, own={"A": np.full(2, float(k + 1), np.float32), "B": np.array(b, dtype=np.float32)})


# example


def test_b_is_mixed_and_a_stays(tiny_setup: Setup) -> None:
    method = Ffa().build(tiny_setup)
    me, other = device(0, [1.0, -1.0]), device(1, [5.0, 3.0])
    edge = Edge(1, 0, 0.25)
    phase = Phase(name="gossip", edges=(edge,))
    (message,) = method.send(other, phase, T)
    assert {n: a.tolist() for n, a in decode(message.payload).items()} == {"B": [5.0, 3.0]}
    after = method.merge(me, [Envelope(edge, message.payload)], phase, T)
    assert after.own["B"].tolist() == [2.0, 0.0]
    assert after.own["A"].tolist() == [1.0, 1.0]


# reference


def test_the_mean_of_b_is_the_mean_of_the_updates(small: Callable[..., Setup], play: Callable[..., object]) -> None:
    """Against NumPy: what each device has after training alone, averaged as whole updates B A."""
    setup, rank = small(4), load_base(small(4).model).layout.rank
    method = Ffa().build(setup)
    alone = {k: method.fit(method.init(k), T)[0].own for k in range(4)}
    played = play(Ffa(), setup, rounds=1)
    d, k = (load_base(setup.model).layout.shapes[0][n] for n in (1, 2))
    updates = [o["B"][: d * rank].reshape(d, rank) @ o["A"][: rank * k].reshape(rank, k) for o in alone.values()]
    for state in played.last.values():  # type: ignore[attr-defined]
        own = state.own
        mixed = own["B"][: d * rank].reshape(d, rank) @ own["A"][: rank * k].reshape(rank, k)
        np.testing.assert_allclose(mixed, np.mean(updates, axis=0), atol=2e-5)  # neighbours' values come in 16 bit
        np.testing.assert_array_equal(own["A"], projection(int(own["seed"]), load_base(setup.model).layout))


def test_bytes_are_those_of_b(tiny_setup: Setup) -> None:
    layout = load_base(tiny_setup.model).layout
    method, both = Ffa().build(tiny_setup), GossipLora().build(tiny_setup)
    state = method.fit(method.init(0), T)[0]
    saved = both.describe(state, T).payload_bits - method.describe(state, T).payload_bits
    assert abs(saved - 16 * layout.num_projection) < 0.1 * saved  # what is random in 16 bit hardly compresses


# edge


def test_only_b_is_trained(tiny_setup: Setup) -> None:
    method = Ffa().build(tiny_setup)
    _, learnt = method.fit(method.init(0), T)
    assert learnt.trained == load_base(tiny_setup.model).layout.num_expansion


def test_a_message_with_both_factors_is_refused(tiny_setup: Setup) -> None:
    method, both = Ffa().build(tiny_setup), GossipLora().build(tiny_setup)
    edge = Edge(1, 0, 0.5)
    phase = Phase(name="gossip", edges=(edge,))
    (message,) = both.send(device(1, [1.0, 2.0]), phase, T)
    with pytest.raises(ValueError, match=r"device 1 sent \['A', 'B'\] where B belong"):
        method.merge(device(0, [1.0, 2.0]), [Envelope(edge, message.payload)], phase, T)


def test_a_rate_of_its_own_counts(tiny_setup: Setup) -> None:
    slow = Ffa(learning_rate=tiny_setup.train.learning_rate / 1000).build(tiny_setup)
    fast = Ffa().build(replace(tiny_setup))
    moved = [np.abs(m.fit(m.init(0), T)[0].own["B"]).max() for m in (slow, fast)]
    assert moved[0] < moved[1] / 100
