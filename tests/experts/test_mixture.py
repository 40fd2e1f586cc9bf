"""The implicit mixture of experts, against a loop over tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from orthomesh.experts.mixture import Mixture, mix

X = torch.tensor([[1.0, 2.0]])
TWO = Mixture(  # A x = 1, 2, -3, 3
    A=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, 1.0]]),
    B=torch.tensor([[1.0, 10.0, 100.0, 1000.0]]),
    code=None,
    top_k=0,
    num=2,
)
SCOPES = ("joint", "expert", "signed")


def drawn(seed: int, gated: bool, top_k: int | None = None, scope: str = "joint") -> tuple[torch.Tensor, Mixture, int]:
    """Input of a few sequences, a layer's experts, and the rank of each."""
    rng = np.random.default_rng(seed)
    num, rank, k, d = (int(n) for n in rng.integers(1, 5, size=4))
    code = rng.standard_normal((num, k))
    layer = Mixture(
        A=torch.from_numpy(rng.standard_normal((num * rank, k))),
        B=torch.from_numpy(rng.standard_normal((d, num * rank))),
        code=torch.from_numpy(code / np.linalg.norm(code, axis=1, keepdims=True)) if gated else None,
        top_k=int(rng.integers(0, num * rank + 2)) if top_k is None else top_k,
        num=num,
        scope=scope,  # type: ignore[arg-type]
    )
    return torch.from_numpy(rng.standard_normal((2, 3, k))), layer, rank


def weighing(seed: int, rule: str, usual: bool = False) -> tuple[torch.Tensor, Mixture, int]:
    """The same, with what a rule that weighs whole experts compares by."""
    x, layer, rank = drawn(seed, gated=False)
    assume(rule == "norm" or layer.A.shape[1] > 1)  # with a single input all directions are one
    pairs = list(zip(layer.A.split(rank), layer.B.split(rank, dim=1), strict=True))
    directions = [torch.linalg.svd(b @ a).Vh[0] for a, b in pairs]
    prints = torch.stack([b.T @ b for _, b in pairs] if rule == "norm" else directions)
    prints = torch.randn(layer.num, layer.A.shape[1], dtype=prints.dtype) if rule == "mixer" else prints
    spread = torch.from_numpy(np.random.default_rng(seed + 1).uniform(0.2, 2, (layer.num, 2))) if usual else None
    return x, replace(layer, rule=rule, prints=prints, usual=spread), rank  # type: ignore[arg-type]


def token_by_token(x: np.ndarray, layer: Mixture, rank: int) -> np.ndarray:
    """Every token on its own: gate each expert's ranks, keep the largest, expand."""
    a, b = layer.A.numpy(), layer.B.numpy()
    out = np.zeros((*x.shape[:-1], b.shape[0]))
    for place in np.ndindex(*x.shape[:-1]):
        token = x[place]
        z = [float(row @ token) for row in a]
        if layer.code is not None:
            for n in range(len(z)):
                h = layer.code.numpy()[n // rank]
                z[n] *= h @ token / (np.linalg.norm(h) * np.linalg.norm(token))
        groups = [list(range(len(z)))]
        if layer.scope == "expert":
            groups = [list(range(first, first + rank)) for first in range(0, len(z), rank)]
        bias = np.zeros(len(z)) if layer.bias is None else layer.bias.numpy()
        for group in groups:
            order = sorted(group, key=lambda n, z=z: -bias[n] - (z[n] if layer.scope == "signed" else abs(z[n])))
            for n in order[: layer.top_k or None]:
                out[place] += z[n] * b[:, n]
    return out


def whole_experts(x: np.ndarray, layer: Mixture, rank: int) -> np.ndarray:
    """Every token on its own: the output of each expert, then the longest of them, or three by direction."""
    pairs = zip(layer.A.split(rank), layer.B.split(rank, dim=1), strict=True)
    updates = [b.numpy() @ a.numpy() for a, b in pairs]
    out = np.zeros((*x.shape[:-1], layer.B.shape[0]))
    for place in np.ndindex(*x.shape[:-1]):
        outputs = [w @ x[place] for w in updates]
        if layer.rule == "norm":
            lengths = [float(np.linalg.norm(y)) for y in outputs]
            if layer.usual is not None:
                lengths = [(n - m) / s for n, (m, s) in zip(lengths, layer.usual.tolist(), strict=True)]
            out[place] = outputs[lengths.index(max(lengths))]
            continue
        if layer.rule == "mixer":
            assert layer.prints is not None
            shares = [math.exp(float(g @ x[place])) for g in layer.prints.numpy()]
            out[place] = sum(share / sum(shares) * y for share, y in zip(shares, outputs, strict=True))
            continue
        along = [abs(float(np.linalg.svd(w)[2][0] @ x[place])) for w in updates]
        best = sorted(range(len(along)), key=lambda n, along=along: -along[n])[:3]
        total = sum(math.exp(along[n]) for n in best)
        out[place] = sum(math.exp(along[n]) / total * outputs[n] for n in best)
    return out


@pytest.mark.parametrize(("top_k", "expected"), [(0, 2721.0), (4, 2721.0), (3, 2720.0), (2, 2700.0), (9, 2721.0)])
def test_strongest_ranks_answer_on_paper(top_k: int, expected: float) -> None:
    assert mix(X, replace(TWO, top_k=top_k)).item() == expected


@pytest.mark.parametrize(
    ("scope", "top_k", "expected"),
    [("joint", 2, 2400.0), ("signed", 1, 3000.0), ("signed", 2, 3002.0), ("expert", 1, -598.0), ("expert", 2, 2412.0)],
)
def test_scopes_on_paper(scope: str, top_k: int, expected: float) -> None:
    x = torch.tensor([[2.0, 1.0]])  # A x = 2, 1, -6, 3
    assert mix(x, replace(TWO, top_k=top_k, scope=scope)).item() == expected  # type: ignore[arg-type]


def test_a_bias_decides_but_is_not_answered_on_paper() -> None:
    x = torch.tensor([[2.0, 1.0], [0.0, 1.0]])  # A x = 2, 1, -6, 3 and 0, 1, 0, 1
    counts, bias = torch.tensor([5.0, 0.0, 0.0, 0.0]), torch.tensor([4.5, 0.0, 0.0, 0.0])
    one = replace(TWO, top_k=1, bias=bias, counts=counts)
    assert mix(x, one).flatten().tolist() == [2.0, 0.0]  # 6.5 before 6, and 4.5 before 1
    assert mix(x, replace(one, scope="signed", bias=-bias)).flatten().tolist()[0] == 3000.0
    assert mix(x[:1], replace(one, bias=bias / 1.5)).item() == -600.0  # 5 after 6
    assert counts[0] == 7.0
    assert counts.sum() == 5 + 2 + 2 + 1


def test_norm_on_paper() -> None:
    # B_1 = (1, 10) and B_2 = (100, 1000): the experts' outputs are 21 and 2700, so the second answers
    prints = torch.stack([b.T @ b for b in TWO.B.split(2, dim=1)])
    norm = replace(TWO, rule="norm", prints=prints)
    assert mix(X, norm).item() == 2700.0
    # at (-9, 1) A x = -9, 1, 27, -8: the outputs are 1 and -5300, and length counts, not sign
    assert mix(torch.tensor([[-9.0, 1.0]]), norm).item() == -5300.0
    # against what they usually are, 1 +- 1 and 5000 +- 1000, the first is 20 deviations above, the second 2.3 below
    assert mix(X, replace(norm, usual=torch.tensor([[1.0, 1.0], [5000.0, 1000.0]]))).item() == 21.0


def test_arrow_on_paper() -> None:
    # four experts of rank one, their outputs 1, 20, -300 and 3000; their directions see 0.5, 2, 1 and 2.2
    directions = torch.tensor([[0.5, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    weights = [math.exp(2), math.exp(1), math.exp(2.2)]
    expected = (weights[0] * 20 + weights[1] * -300 + weights[2] * 3000) / sum(weights)
    assert mix(X, replace(TWO, rule="arrow", num=4, prints=directions)).item() == pytest.approx(expected, rel=1e-6)


def test_gate_is_a_cosine_on_paper() -> None:
    code = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[3.0, 4.0]])  # cosines 0.6 and 0.8; A x = 3, 4, -9, 7
    expected = 0.6 * (3 + 10 * 4) + 0.8 * (100 * -9 + 1000 * 7)
    assert mix(x, replace(TWO, code=code)).item() == pytest.approx(expected, rel=1e-6)
    # a longer input has the same gates; the output grows in proportion
    assert mix(2 * x, replace(TWO, code=code)).item() == pytest.approx(2 * expected, rel=1e-6)
    # 0.6 (3, 4) against 0.8 (-9, 7): the gate acts before the choice
    assert mix(x, replace(TWO, code=code, top_k=1)).item() == pytest.approx(0.8 * -900, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.sampled_from(SCOPES))
def test_mixture_is_a_loop_over_tokens(seed: int, gated: bool, biased: bool, scope: str) -> None:
    x, layer, rank = drawn(seed, gated, scope=scope)
    biases = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(layer.A.shape[0]))
    layer = replace(layer, bias=biases if biased else None)
    np.testing.assert_allclose(mix(x, layer).numpy(), token_by_token(x.numpy(), layer, rank), rtol=1e-9, atol=1e-11)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["norm", "arrow", "mixer"]), st.booleans())
def test_weighing_is_a_loop_over_tokens(seed: int, rule: str, usual: bool) -> None:
    x, layer, rank = weighing(seed, rule, usual and rule == "norm")
    np.testing.assert_allclose(mix(x, layer).numpy(), whole_experts(x.numpy(), layer, rank), rtol=1e-8, atol=1e-10)


@given(st.integers(0, 2**32 - 1))
def test_all_ranks_are_the_sum_of_the_experts(seed: int) -> None:
    x, layer, rank = drawn(seed, gated=False, top_k=0)
    parts = zip(layer.A.split(rank), layer.B.split(rank, dim=1), strict=True)
    total = sum(x @ a.T @ b.T for a, b in parts)
    torch.testing.assert_close(mix(x, layer), total)
    everything = Mixture(layer.A, layer.B, None, layer.A.shape[0])
    torch.testing.assert_close(mix(x, everything), total)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(SCOPES))
def test_order_of_experts_does_not_matter(seed: int, gated: bool, scope: str) -> None:
    x, layer, rank = drawn(seed, gated, scope=scope)
    num = layer.A.shape[0] // rank
    ranks = torch.arange(num * rank).view(num, rank).flip(0).flatten()
    code = None if layer.code is None else layer.code.flip(0)
    turned = replace(layer, A=layer.A[ranks], B=layer.B[:, ranks], code=code)
    torch.testing.assert_close(mix(x, turned), mix(x, layer))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["norm", "arrow"]))
def test_order_of_whole_experts_does_not_matter(seed: int, rule: str) -> None:
    x, layer, rank = weighing(seed, rule)
    assert layer.prints is not None
    ranks = torch.arange(layer.num * rank).view(layer.num, rank).flip(0).flatten()
    turned = replace(layer, A=layer.A[ranks], B=layer.B[:, ranks], prints=layer.prints.flip(0))
    torch.testing.assert_close(mix(x, turned), mix(x, layer))


@given(st.integers(0, 2**32 - 1), st.sampled_from(SCOPES))
def test_a_single_expert_has_one_scope(seed: int, scope: str) -> None:
    x, layer, _ = drawn(seed, gated=False, scope=scope)
    alone = replace(layer, num=1)
    joint = mix(x, replace(alone, scope="joint"))
    assert scope == "signed" or torch.equal(mix(x, alone), joint)
    assert torch.equal(mix(x, replace(alone, top_k=0)), mix(x, replace(alone, top_k=layer.A.shape[0])))


def test_one_ungated_expert_is_its_adapter() -> None:
    a, b, x = torch.randn(3, 5), torch.randn(4, 3), torch.randn(2, 7, 5)
    assert torch.equal(mix(x, Mixture(a, b, None, 0)), x @ a.T @ b.T)


def test_a_silent_input_stays_silent_under_a_gate() -> None:
    code = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert mix(torch.zeros(1, 2), replace(TWO, code=code, top_k=2)).tolist() == [[0.0]]
