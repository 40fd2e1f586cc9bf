"""DeCAF: the mean of products, cut to rank r, against NumPy on whole matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.checkpoint import digest
from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.decaf import Decaf, mean_update
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.types import Edge, Envelope, Phase, Round

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 3, 7)), rank=2)


def adapter(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"A": LAYOUT.num_projection, "B": LAYOUT.num_expansion}
    return {name: rng.standard_normal(n).astype(np.float32) for name, n in sizes.items()}


def updates(parts: dict[str, np.ndarray], layout: Layout = LAYOUT) -> list[np.ndarray]:
    pairs = zip(matrices_b(parts["B"], layout), matrices_a(parts["A"], layout), strict=True)
    return [b.astype(np.float64) @ a for b, a in pairs]


def cut(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


# reference


def test_every_layer_is_the_truncated_mean_of_products() -> None:
    own, got = adapter(0), {4: (0.25, adapter(4)), 1: (0.5, adapter(1))}
    made = updates(mean_update(own, got, LAYOUT))
    for n in range(2):
        mean = 0.25 * updates(own)[n] + 0.5 * updates(got[1][1])[n] + 0.25 * updates(got[4][1])[n]
        np.testing.assert_allclose(made[n], cut(mean, 2), atol=1e-5)


def test_a_round_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    setup, settings = small(3), Decaf(topology="radio")
    layout = load_base(setup.model).layout
    method = settings.build(setup)
    alone = [method.fit(method.init(k), Round(0, 0, 1))[0].own for k in range(3)]
    mean = np.mean([updates(dict(own), layout)[0] for own in alone], axis=0)
    for state in play(settings, setup, rounds=1).last.values():
        np.testing.assert_allclose(updates(dict(state.own), layout)[0], cut(mean, layout.rank), atol=1e-4)


def test_on_a_star_a_leaf_is_averaged_with_the_hub_only(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Metropolis: the hub has two neighbours, so an edge weighs 1 / 3."""
    setup, settings = small(3), Decaf(topology="star")
    layout = load_base(setup.model).layout
    method = settings.build(setup)
    alone = [updates(dict(method.fit(method.init(k), Round(0, 0, 1))[0].own), layout)[0] for k in range(3)]
    played = play(settings, setup, rounds=1)
    leaf = 2 / 3 * alone[2] + 1 / 3 * alone[0]
    np.testing.assert_allclose(updates(dict(played.last[2].own), layout)[0], cut(leaf, layout.rank), atol=1e-4)


# law


def test_equal_adapters_stay_what_they_are_as_products() -> None:
    own = adapter(7)
    made = mean_update(own, {1: (0.4, own), 2: (0.3, own)}, LAYOUT)
    for new, old in zip(updates(made), updates(own), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)


# edge


def test_whoever_hears_nothing_keeps_its_factors(tiny_setup: Setup) -> None:
    method, t = Decaf().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    after = method.merge(state, [Envelope(edge, None)], Phase(name="gossip", edges=(edge,)), t)
    assert digest({0: after}) == digest({0: state})


def test_factors_of_another_size_are_refused(tiny_setup: Setup) -> None:
    method, t = Decaf().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    frame = encode([Section("values", name, np.zeros(3, dtype=np.float16)) for name in "AB"])
    with pytest.raises(ValueError, match="device 1 sent entries"):
        method.merge(state, [Envelope(edge, frame.payload)], Phase(name="gossip", edges=(edge,)), t)
