"""Merging adapters: cat is the weighted sum of updates, linear is peft's, with the terms nobody trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orthomesh.exchange.merging import cat, linear

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
