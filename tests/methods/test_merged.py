"""Merging after training: adapters travel once, and the merged update is NumPy's on whole matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orthomesh.adapters.lowrank import Layout, Shape, matrices_a, matrices_b
from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.merged import Merged, Rule, merged
from orthomesh.methods.setup import Setup
from orthomesh.models.base import load_base
from orthomesh.models.whole import change_of
from orthomesh.types import Edge, Envelope, Phase, Round

LAYOUT = Layout((Shape("one", 5, 4), Shape("two", 3, 7)), rank=2)


def adapter(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"A": LAYOUT.num_projection, "B": LAYOUT.num_expansion}
    return {name: rng.standard_normal(n).astype(np.float32) for name, n in sizes.items()}


def updates(parts: dict[str, np.ndarray], layout: Layout = LAYOUT) -> list[np.ndarray]:
    pairs = zip(matrices_b(parts["B"], layout), matrices_a(parts["A"], layout), strict=True)
    return [b.astype(np.float64) @ a for b, a in pairs]


# reference


def test_ties_layer_by_layer() -> None:
    members = {k: adapter(k) for k in (1, 4, 6)}
    made = merged(members, Merged(density=1.0), LAYOUT, 0)
    for n in range(2):
        each = np.stack([updates(m)[n] for m in members.values()])
        sign = np.sign(each.sum(0))
        agree = np.sign(each) == sign
        np.testing.assert_allclose(made[n], (each * agree).sum(0) / agree.sum(0), atol=1e-5)


@pytest.mark.parametrize("rule", ["cat", "dare"])
def test_with_all_entries_it_is_the_mean(rule: Rule) -> None:
    members = {k: adapter(k) for k in (0, 3)}
    made = merged(members, Merged(rule=rule, density=1.0), LAYOUT, 0)
    for n in range(2):
        np.testing.assert_allclose(made[n], np.mean([updates(m)[n] for m in members.values()], axis=0), atol=1e-5)


def test_knots_merges_in_the_common_basis() -> None:
    """[U_1, U_2, U_3] = W S V^T of whole matrices; TIES of the blocks S V_i^T, half of each kept, then W again."""
    members = {k: adapter(k) for k in (1, 4, 6)}
    made = merged(members, Merged(rule="knots", density=0.5), LAYOUT, 0)
    for n, (_, _, width) in enumerate(LAYOUT.shapes):
        w, s, v = np.linalg.svd(np.concatenate([updates(m)[n] for m in members.values()], axis=1), full_matrices=False)
        blocks = np.stack([(s[:, None] * v)[s > 1e-9, i * width : (i + 1) * width] for i in range(3)])
        least = [np.sort(np.abs(block), axis=None)[-(block.size // 2)] for block in blocks]
        kept = np.where(np.abs(blocks) >= np.array(least)[:, None, None], blocks, 0)
        agree = (np.sign(kept) == np.sign(kept.sum(axis=0))) & (kept != 0)
        whole = w[:, s > 1e-9] @ ((kept * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1))
        np.testing.assert_allclose(made[n], whole, atol=1e-5)


def test_two_rounds_over_an_ideal_air(small: Callable[..., Setup], play: Callable[..., Any]) -> None:
    """Nothing travels in the first; then the update that answers is the mean of all, and training went on alone."""
    setup, settings = small(3), Merged(rule="cat")
    base = load_base(setup.model)
    played = play(settings, setup)
    assert played.sent("values")[0] == 0 < played.sent("values")[1]
    alone = play(Merged(rule="cat", topology="complete"), setup).last
    mean = np.mean([change_of(base, updates(dict(s.own), base.layout)) for s in played.last.values()], axis=0)
    for k, state in played.last.items():
        np.testing.assert_array_equal(state.own["B"], alone[k].own["B"])
        (expert,) = played.method.bank(state).experts
        assert expert.weights is not None
        np.testing.assert_allclose(expert.weights, base.scaling * mean, atol=1e-4)


# law


def test_knots_of_one_adapter_is_that_adapter() -> None:
    made = merged({2: adapter(2)}, Merged(rule="knots", density=1.0), LAYOUT, 0)
    for n in range(2):
        np.testing.assert_allclose(made[n], updates(adapter(2))[n], atol=1e-5)


# edge


def test_whoever_hears_nothing_answers_alone(tiny_setup: Setup) -> None:
    method, t = Merged().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    after = method.merge(state, [Envelope(edge, None)], Phase(name="gossip", edges=(edge,)), t)
    (expert,) = method.bank(after).experts
    np.testing.assert_array_equal(expert.B, state.own["B"])


@pytest.mark.parametrize(("value", "size", "why"), [(0.0, 3, "another size"), (np.nan, 0, "not finite")])
def test_what_cannot_be_merged_is_refused(tiny_setup: Setup, value: float, size: int, why: str) -> None:
    method, t = Merged().build(tiny_setup), Round(0, 0, 1)
    state = method.fit(method.init(0), t)[0]
    edge = Edge(1, 0, 0.5)
    parts = {name: np.full(size or state.own[name].size, value, dtype=np.float16) for name in "AB"}
    frame = encode([Section("values", name, a) for name, a in parts.items()])
    with pytest.raises(ValueError, match=why):
        method.merge(state, [Envelope(edge, frame.payload)], Phase(name="gossip", edges=(edge,)), t)
