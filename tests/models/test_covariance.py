"""Spectra of W0 C~ against NumPy's singular values, and covariances against prompts read one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from orthomesh.adapters.density import spectral_entropy
from orthomesh.models import covariance as module
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.covariance import Inputs, accumulator_bytes, layer_entropies, layer_inputs, singular_values
from orthomesh.models.settings import ModelSettings
from orthomesh.models.tokens import Row

FAMILY_NAMES = [*LIKE_LLAMA, *sorted(FAMILIES.keys() - {"llama"})]


def prompts(num_rows: int, longest: int = 7, seed: int = 0) -> list[Row]:
    """Rows of random tokens, of any length up to the longest."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, size=num_rows)
    return [Row(tuple(int(t) for t in rng.integers(2, 258, size=n)), (5, 1), (), False) for n in lengths]


def tokens_of(base: Base, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Inputs of every linear layer, prompt by prompt without padding, past the slots. {name: [n k]}"""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in base.slots}
    hooks = [
        slot.base.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0][0]))
        for name, slot in base.slots.items()
    ]
    with torch.no_grad():
        for row in rows:
            base.model(input_ids=torch.tensor([row.prompt]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in seen.items()}


def damped(x: np.ndarray, damping: float) -> np.ndarray:
    c = x.T @ x / len(x)
    return c + damping * np.diag(c).mean() * np.eye(len(c))


def entropies_by_svd(base: Base, seen: dict[str, np.ndarray], damping: float = 0.01) -> list[float]:
    weights = {name: slot.base.weight.double().numpy() for name, slot in base.slots.items()}
    products = [weights[name] @ damped(x, damping) for name, x in seen.items()]
    return [spectral_entropy(np.linalg.svd(z, compute_uv=False)) for z in products]


def layer(d: int, k: int, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, [d k], and n inputs with a few directions that stand out, [n k]."""
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((d, k)) / math.sqrt(k), rng.standard_normal((n, k))
    x[:, : max(1, k // 8)] *= 20.0
    return torch.from_numpy(w).float(), torch.from_numpy(x).float()


def unfolded(x: torch.Tensor) -> Inputs:
    return Inputs(x.float(), False, len(x))


def folded(x: torch.Tensor) -> Inputs:
    return Inputs(x.double().T @ x.double(), True, len(x))


def test_singular_values_on_paper() -> None:
    """C = diag(1, 0), mean diag 1/2, so C~ = diag(1.005, 0.005); W stretches the second direction by 3."""
    x, w = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    for inputs in (unfolded(x), folded(x)):
        np.testing.assert_allclose(singular_values(w, inputs, 0.01), [0.015, 1.005], rtol=1e-9)


@pytest.mark.parametrize(("d", "k", "n"), [(24, 60, 12), (60, 24, 12), (24, 60, 90), (60, 24, 90), (33, 33, 20)])
def test_singular_values_are_those_of_numpy(d: int, k: int, n: int) -> None:
    w, x = layer(d, k, n)
    expected = np.linalg.svd(w.double().numpy() @ damped(x.double().numpy(), 0.01), compute_uv=False)[::-1]
    for inputs in (unfolded(x), folded(x)):
        sigma = singular_values(w, inputs, 0.01)
        np.testing.assert_allclose(sigma, expected, atol=1e-8 * expected[-1], rtol=0)
        assert spectral_entropy(sigma) == pytest.approx(spectral_entropy(expected), abs=1e-7)


def test_inputs_of_which_one_is_a_thousand_times_the_rest() -> None:
    """As large models have them: the smallest values lie a million times below the largest, the entropy holds."""
    w, x = layer(96, 400, 64)
    x[0, 7], x[1, 7] = 3e4, -3e4
    expected = np.linalg.svd(w.double().numpy() @ damped(x.double().numpy(), 0.01), compute_uv=False)
    assert expected[0] / expected[-1] > 2e4
    entropy = spectral_entropy(singular_values(w, unfolded(x), 0.01))
    assert entropy == pytest.approx(spectral_entropy(expected), abs=1e-7)


def test_a_weight_of_rank_one_leaves_one_value() -> None:
    w, x = layer(6, 30, 12)
    w = w[:, :1] * w[:1]
    sigma = singular_values(w, unfolded(x), 0.01)
    assert np.all(sigma[:-1] <= 1e-7 * sigma[-1])
    assert spectral_entropy(sigma) < 1e-5


def test_weights_of_half_precision_are_taken_as_they_are() -> None:
    w, x = layer(20, 30, 10)
    exact = w.bfloat16().double()
    np.testing.assert_array_equal(
        singular_values(w.bfloat16(), unfolded(x), 0.01), singular_values(exact, unfolded(x), 0.01)
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([(6, 10), (10, 6), (8, 8)]), st.integers(1, 15))
def test_rotation_scale_and_order_of_inputs_do_not_matter(seed: int, sides: tuple[int, int], n: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = layer(*sides, n, seed)
    turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((sides[1], sides[1])))[0])
    entropy = spectral_entropy(singular_values(w, folded(x), 0.01))
    turned = singular_values(w.double() @ turn.T, folded(x.double() @ turn.T), 0.01)
    assert spectral_entropy(turned) == pytest.approx(entropy, abs=1e-7)
    for other in (-3e4 * x, 2.0**-20 * x, x.flip(0), torch.cat([x, x])):
        assert spectral_entropy(singular_values(w, folded(other), 0.01)) == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("n", [1, 5, 50])
def test_constant_inputs_leave_one_direction_and_what_damping_gives(n: int) -> None:
    """C = x x^T: one value |x|^2 (1 + lambda / k), the others |x|^2 lambda / k."""
    k, x = 8, torch.full((n, 8), 0.5)
    for inputs in (unfolded(x), folded(x)):
        sigma = singular_values(torch.eye(k), inputs, 0.01)
        np.testing.assert_allclose(sigma, [2.0 * 0.01 / k] * (k - 1) + [2.0 * (1 + 0.01 / k)], rtol=1e-8)
    first, rest = (1 + 0.01 / k) / 1.01, 0.01 / k / 1.01
    expected = -first * math.log(first) - (k - 1) * rest * math.log(rest)
    assert spectral_entropy(sigma) == pytest.approx(expected, rel=1e-8)


class Largest(TorchFunctionMode):
    """Entries of the largest tensor that is made."""

    entries = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.entries = max(self.entries, made.nelement())
        return made


@pytest.mark.parametrize(("d", "k", "n"), [(16, 500, 10), (500, 500, 10), (500, 16, 10)])
def test_no_matrix_is_larger_than_the_weight(d: int, k: int, n: int) -> None:
    w, x = layer(d, k, n)
    with Largest() as made:
        singular_values(w, unfolded(x), 0.01)
    assert made.entries == d * k  # never k x k where d < k and n < k, nor d x d where k < d


def test_accumulators_of_qwen_7b_fit() -> None:
    """28 blocks; q, k and v share an input, so do gate and up: at 1,024 tokens all are kept as float32 vectors."""
    widths = (3584, 3584, 3584, 18944) * 28
    assert accumulator_bytes(widths, 1024) == 4 * 1024 * 28 * (3 * 3584 + 18944)
    assert accumulator_bytes(widths, 1024) < 4e9
    assert accumulator_bytes(widths, 4096) == 28 * (3 * 8 * 3584**2 + 4 * 4096 * 18944)


@pytest.mark.parametrize("max_tokens", [1, 31, 32, 47, 48, 1000])  # inputs are 32 and 48 wide
def test_accumulators_are_what_was_predicted(small: Base, max_tokens: int) -> None:
    rows = prompts(30)
    num_tokens = min(max_tokens, sum(len(row.prompt) for row in rows))
    seen = layer_inputs(small, rows, max_tokens)
    held = sum(one.kept.untyped_storage().nbytes() for one in seen.values())
    assert held == accumulator_bytes(small.widths, num_tokens)
    assert tuple(seen) == small.inputs  # once for all layers that read it
    assert {one.num_tokens for one in seen.values()} == {num_tokens}


@pytest.mark.parametrize("num_rows", [2, 30])  # fewer tokens than inputs are wide, and more
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_entropies_are_those_of_prompts_read_alone(
    family: str, num_rows: int, save_model: Callable[[str], Path]
) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    rows = prompts(num_rows)
    seen = tokens_of(base, rows)
    entropies = layer_entropies(base, rows, damping=0.05)
    assert entropies.shape == (len(base.layout.shapes),)
    np.testing.assert_allclose(entropies, entropies_by_svd(base, seen, 0.05), atol=2e-5)  # of float32 activations


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_tokens_are_spread_evenly_over_all_prompts(small: Base, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", batch)
    rows = prompts(12)
    total = sum(len(row.prompt) for row in rows)
    picked = [j * total // 13 for j in range(13)]
    assert total > 26
    seen, alone = layer_inputs(small, rows, 13), tokens_of(small, rows)
    for name, inputs in seen.items():
        np.testing.assert_allclose(inputs.kept.numpy(), alone[name][picked], atol=1e-5)


def test_one_pass_over_the_rows(small: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 4)
    read: list[int] = []
    hook = small.model.register_forward_pre_hook(lambda _, args, kwargs: read.append(len(kwargs["input_ids"])),
                                                 with_kwargs=True)  # fmt: skip
    rows = prompts(10)
    layer_entropies(small, rows)
    assert read == [4, 4, 2]
    read.clear()
    layer_entropies(small, rows, max_tokens=1)  # the first token: prompts of which nothing is taken are not read
    assert read == [4]
    hook.remove()


def test_the_same_prompts_give_the_same_bits(small: Base) -> None:
    first, second = (layer_entropies(small, prompts(12)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    other = layer_entropies(small, prompts(12, seed=1))
    assert np.abs(first - other).max() > 1e-3


def test_one_token_will_do(small: Base) -> None:
    entropies = layer_entropies(small, [Row((7,), (5, 1), (), False)])
    assert np.isfinite(entropies).all()
    assert (entropies > 0.0).all()


def fresh(save_model: Callable[[str], Path]) -> Base:
    """A model of its own, to be damaged."""
    base: Base = load_base.__wrapped__(ModelSettings(source=str(save_model("qwen2")), rank=4))
    return base


def test_a_layer_that_reads_nothing_is_named(save_model: Callable[[str], Path]) -> None:
    base = fresh(save_model)
    base.model.model.layers[1].input_layernorm.weight.data.zero_()
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.q_proj: W0 C of \(20\) is zero over \d+ tokens"):
        layer_entropies(base, prompts(4))
    base = fresh(save_model)
    base.slots["model.layers.1.mlp.down_proj"].base.weight.data.zero_()
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj: W0 C of \(20\) is zero"):
        layer_entropies(base, prompts(4))


def test_a_layer_that_is_not_finite_is_named(save_model: Callable[[str], Path]) -> None:
    base = fresh(save_model)
    base.slots["model.layers.0.mlp.up_proj"].base.weight.data[3, 5] = math.nan
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj: W0 C of \(20\) is not finite"):
        layer_entropies(base, prompts(4))


@pytest.mark.parametrize("damping", [0.0, -0.01, math.nan, math.inf])
def test_damping_is_above_zero(small: Base, damping: float) -> None:
    with pytest.raises(ValueError, match="damping must be a finite number above 0"):
        layer_entropies(small, prompts(2), damping=damping)


def test_there_must_be_something_to_read(small: Base) -> None:
    for rows, max_tokens in (([], 10), (prompts(2), 0)):
        with pytest.raises(ValueError, match="at least one prompt and one token"):
            layer_entropies(small, rows, max_tokens=max_tokens)


def test_nothing_watches_afterwards(small: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    layer_entropies(small, prompts(3))
    assert not any(slot._forward_pre_hooks for slot in small.slots.values())

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(small.model, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        layer_entropies(small, prompts(3))
    assert not any(slot._forward_pre_hooks for slot in small.slots.values())
