"""The implicit mixture of experts, against a loop over tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.experts.mixture import Mixture, mix

X = torch.tensor([[1.0, 2.0]])
TWO = Mixture(  # A x = 1, 2, -3, 3
    A=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, 1.0]]),
    B=torch.tensor([[1.0, 10.0, 100.0, 1000.0]]),
    code=None,
    top_k=0,
)


def drawn(seed: int, gated: bool, top_k: int | None = None) -> tuple[torch.Tensor, Mixture, int]:
    """Input of a few sequences, a layer's experts, and the rank of each."""
    rng = np.random.default_rng(seed)
    num, rank, k, d = (int(n) for n in rng.integers(1, 5, size=4))
    code = rng.standard_normal((num, k))
    layer = Mixture(
        A=torch.from_numpy(rng.standard_normal((num * rank, k))),
        B=torch.from_numpy(rng.standard_normal((d, num * rank))),
        code=torch.from_numpy(code / np.linalg.norm(code, axis=1, keepdims=True)) if gated else None,
        top_k=int(rng.integers(0, num * rank + 2)) if top_k is None else top_k,
    )
    return torch.from_numpy(rng.standard_normal((2, 3, k))), layer, rank


def token_by_token(x: np.ndarray, layer: Mixture, rank: int) -> np.ndarray:
    """Every token on its own: gate each expert's ranks, keep the largest of all, expand."""
    a, b = layer.A.numpy(), layer.B.numpy()
    out = np.zeros((*x.shape[:-1], b.shape[0]))
    for place in np.ndindex(*x.shape[:-1]):
        token = x[place]
        z = [float(row @ token) for row in a]
        if layer.code is not None:
            for n in range(len(z)):
                h = layer.code.numpy()[n // rank]
                z[n] *= h @ token / (np.linalg.norm(h) * np.linalg.norm(token))
        order = sorted(range(len(z)), key=lambda n, z=z: -abs(z[n]))
        for n in order[: layer.top_k or None]:
            out[place] += z[n] * b[:, n]
    return out


@pytest.mark.parametrize(("top_k", "expected"), [(0, 2721.0), (4, 2721.0), (3, 2720.0), (2, 2700.0), (9, 2721.0)])
def test_strongest_ranks_answer_on_paper(top_k: int, expected: float) -> None:
    assert mix(X, Mixture(TWO.A, TWO.B, None, top_k)).item() == expected


def test_gate_is_a_cosine_on_paper() -> None:
    code = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[3.0, 4.0]])  # cosines 0.6 and 0.8; A x = 3, 4, -9, 7
    expected = 0.6 * (3 + 10 * 4) + 0.8 * (100 * -9 + 1000 * 7)
    assert mix(x, Mixture(TWO.A, TWO.B, code, 0)).item() == pytest.approx(expected, rel=1e-6)
    # a longer input has the same gates; the output grows in proportion
    assert mix(2 * x, Mixture(TWO.A, TWO.B, code, 0)).item() == pytest.approx(2 * expected, rel=1e-6)
    # 0.6 (3, 4) against 0.8 (-9, 7): the gate acts before the choice
    assert mix(x, Mixture(TWO.A, TWO.B, code, 1)).item() == pytest.approx(0.8 * -900, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_mixture_is_a_loop_over_tokens(seed: int, gated: bool) -> None:
    x, layer, rank = drawn(seed, gated)
    np.testing.assert_allclose(mix(x, layer).numpy(), token_by_token(x.numpy(), layer, rank), rtol=1e-9, atol=1e-11)


@given(st.integers(0, 2**32 - 1))
def test_all_ranks_are_the_sum_of_the_experts(seed: int) -> None:
    x, layer, rank = drawn(seed, gated=False, top_k=0)
    parts = zip(layer.A.split(rank), layer.B.split(rank, dim=1), strict=True)
    total = sum(x @ a.T @ b.T for a, b in parts)
    torch.testing.assert_close(mix(x, layer), total)
    everything = Mixture(layer.A, layer.B, None, layer.A.shape[0])
    torch.testing.assert_close(mix(x, everything), total)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_experts_does_not_matter(seed: int, gated: bool) -> None:
    x, layer, rank = drawn(seed, gated)
    num = layer.A.shape[0] // rank
    ranks = torch.arange(num * rank).view(num, rank).flip(0).flatten()
    code = None if layer.code is None else layer.code.flip(0)
    turned = Mixture(layer.A[ranks], layer.B[:, ranks], code, layer.top_k)
    torch.testing.assert_close(mix(x, turned), mix(x, layer))


def test_one_ungated_expert_is_its_adapter() -> None:
    a, b, x = torch.randn(3, 5), torch.randn(4, 3), torch.randn(2, 7, 5)
    assert torch.equal(mix(x, Mixture(a, b, None, 0)), x @ a.T @ b.T)


def test_a_silent_input_stays_silent_under_a_gate() -> None:
    code = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert mix(torch.zeros(1, 2), Mixture(TWO.A, TWO.B, code, 2)).tolist() == [[0.0]]
