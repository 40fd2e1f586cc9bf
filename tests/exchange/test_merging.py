"""Merging adapters: cat is the weighted sum of updates, linear is peft's, with the terms nobody trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orthomesh.exchange.merging import cat, dare, knots, linear, ties

RANK, OUT, IN = 2, 5, 4


def drawn(seed: int, count: int, shared: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(RANK * IN).astype(np.float32)
    made = []
    for _ in range(count):
        a = common if shared else rng.standard_normal(RANK * IN).astype(np.float32)
        made.append((a, rng.standard_normal(OUT * RANK).astype(np.float32)))
    return made


def update(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.asarray(pair[1].reshape(OUT, RANK) @ pair[0].reshape(RANK, IN))


# example


def test_a_shared_projection_is_counted_n_times_by_linear() -> None:
    """The trap: three adapters of weight 1/3 that share A come out three times as large as their mean."""
    pairs = drawn(0, 3, shared=True)
    mean = np.sum([update(p) for p in cat(pairs, [1 / 3] * 3)], axis=0)
    np.testing.assert_allclose(update(linear(pairs, [1 / 3] * 3)), 3 * mean, rtol=1e-4, atol=1e-5)


# reference


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["cat", "linear"])
@pytest.mark.parametrize("shared", [False, True])
def test_merging_is_that_of_peft(kind: str, shared: bool) -> None:
    """A layer of peft with three adapters; alpha = r, so that its scaling is one."""
    from peft import LoraConfig, get_peft_model

    pairs, weights = drawn(1, 3, shared), [0.4, 0.4, 0.7]
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"])
    model = get_peft_model(nn.Sequential(nn.Linear(IN, OUT, bias=False)), config, adapter_name="n0")  # type: ignore[arg-type]
    for n in (1, 2):
        model.add_adapter(f"n{n}", config)
    layer = model.base_model.model[0]
    for n, (a, b) in enumerate(pairs):
        layer.lora_A[f"n{n}"].weight.data = torch.from_numpy(a.reshape(RANK, IN))
        layer.lora_B[f"n{n}"].weight.data = torch.from_numpy(b.reshape(OUT, RANK))
    model.add_weighted_adapter(["n0", "n1", "n2"], weights, "merged", combination_type=kind)
    theirs = layer.get_delta_weight("merged").detach().numpy()
    ours = update(linear(pairs, weights)) if kind == "linear" else sum(update(p) for p in cat(pairs, weights))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# law


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_linear_is_cat_and_cross_terms(seed: int, count: int) -> None:
    pairs = drawn(seed, count)
    weights = np.random.default_rng(seed).uniform(0, 2, count).tolist()
    whole = np.sum([update(p) for p in cat(pairs, weights)], axis=0)
    for i in range(count):
        for j in range(count):
            if i != j:
                whole = whole + np.sqrt(weights[i] * weights[j]) * update((pairs[j][0], pairs[i][1]))
    np.testing.assert_allclose(update(linear(pairs, weights)), whole, rtol=1e-3, atol=1e-3)


# edge


def test_linear_refuses_what_has_no_root() -> None:
    with pytest.raises(ValueError, match="negative"):
        linear(drawn(0, 2), [1.0, -0.5])
    assert len(cat(drawn(0, 2), [1.0, -0.5])) == 2


# TIES, DARE, KnOTS


def plain_ties(updates: list[np.ndarray], weights: list[float], density: float) -> np.ndarray:
    """Entry by entry, as the paper tells it."""
    made = np.zeros(updates[0].shape)
    trimmed = []
    for update in updates:
        least = np.sort(np.abs(update).ravel())[-max(1, int(density * update.size))]
        trimmed.append(np.where(np.abs(update) >= least, update, 0))
    for place in np.ndindex(made.shape):
        values = [u[place] for u in trimmed]
        agree = [w * v for w, v in zip(weights, values, strict=True) if v * sum(values) > 0]
        made[place] = np.mean(agree) if agree else 0
    return made


@pytest.mark.parametrize("density", [0.3, 0.7, 1.0])
def test_ties_is_a_loop_over_entries(density: float) -> None:
    updates = [update(p).astype(np.float64) for p in drawn(3, 4)]
    weights = [1.0, 0.5, 2.0, 1.0]
    np.testing.assert_allclose(ties(updates, weights, density), plain_ties(updates, weights, density), rtol=1e-12)


def test_ties_is_that_of_peft() -> None:
    from peft.utils.merge_utils import ties as theirs

    updates = [update(p) for p in drawn(5, 3)]
    weights = [1.0, 0.5, 2.0]
    made = theirs([torch.from_numpy(u) for u in updates], torch.tensor(weights), 0.4)
    np.testing.assert_allclose(ties(updates, weights, 0.4), made.numpy(), rtol=1e-5, atol=1e-6)


def test_dare_is_the_weighted_sum_in_the_mean_over_draws() -> None:
    updates, weights = [update(p).astype(np.float64) for p in drawn(6, 2)], [0.3, 0.7]
    runs = [dare(updates, weights, 0.5, [np.random.default_rng((n, i)) for i in range(2)]) for n in range(2000)]
    whole = 0.3 * updates[0] + 0.7 * updates[1]
    spread = np.std(runs, axis=0) / np.sqrt(2000)
    assert np.all(np.abs(np.mean(runs, axis=0) - whole) <= 4.5 * spread)
    assert np.unique(np.round(np.stack([r[0, 0] for r in runs]), 9)).size == 4  # each kept or not
    kept = dare(updates, weights, 1.0, [np.random.default_rng(i) for i in range(2)])
    np.testing.assert_allclose(kept, whole)


def test_knots_is_that_of_whole_matrices() -> None:
    pairs = drawn(8, 2)
    wide = np.concatenate([update(p).astype(np.float64) for p in pairs], axis=1)
    u, s, v = np.linalg.svd(wide, full_matrices=False)
    held = s > 1e-5
    blocks = np.split(s[held, None] * v[held], 2, axis=1)
    whole = u[:, held] @ plain_ties(blocks, [1.0, 1.0], 0.5)
    b, a = [p[1].reshape(OUT, RANK) for p in pairs], [p[0].reshape(RANK, IN) for p in pairs]
    basis, merged = knots(b, a, [1.0, 1.0], 0.5)
    np.testing.assert_allclose(basis @ merged, whole, atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(held.sum()), atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_equal_updates_merge_into_themselves(seed: int, count: int) -> None:
    (pair,) = drawn(seed, 1)
    whole = update(pair).astype(np.float64)
    np.testing.assert_allclose(ties([whole] * count, [1.0] * count, 1.0), whole, atol=1e-9)
    b, a = pair[1].reshape(OUT, RANK), pair[0].reshape(RANK, IN)
    basis, merged = knots([b] * count, [a] * count, [1.0] * count, 1.0)
    np.testing.assert_allclose(basis @ merged, whole, atol=1e-4)


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density: float) -> None:
    updates = [update(p) for p in drawn(0, 2)]
    with pytest.raises(ValueError, match="density must lie"):
        ties(updates, [1.0, 1.0], density)
    with pytest.raises(ValueError, match="density must lie"):
        dare(updates, [1.0, 1.0], density, [np.random.default_rng(i) for i in range(2)])
