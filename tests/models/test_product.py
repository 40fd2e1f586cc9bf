"""The adapted layer with a frozen A against NumPy, plain autograd and finite differences, in both forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from orthomesh.models import product
from orthomesh.models.product import adapted, form

FORMS = ("merged", "apart")


class Case(NamedTuple):
    """One layer with D adapters. x: [D N, T, k]  dy: [D N, T, d]"""

    x: Tensor
    linear: nn.Linear
    A: Tensor
    B: Tensor
    scale: float
    dy: Tensor


def case(seed: int, count: int = 1, dtype: torch.dtype = torch.float64, bias: bool = True) -> Case:
    """Sides below 8; B asks for a gradient, x does not yet."""
    draw = torch.Generator().manual_seed(seed)
    d, k, r, n, t = (int(v) for v in torch.randint(1, 8, (5,), generator=draw))

    def normal(*sides: int) -> Tensor:
        return torch.randn(sides, generator=draw, dtype=torch.float64).to(dtype)

    linear = nn.Linear(k, d, bias=bias).requires_grad_(False)
    linear.weight.data = normal(d, k)
    if bias:
        linear.bias.data = normal(d)
    a, b = normal(count, r, k), normal(count, d, r)
    x, dy = normal(count * n, t, k), normal(count * n, t, d)
    return Case(x, linear, a, b.requires_grad_(), 0.5 + seed % 3, dy)


@contextmanager
def always(how: str) -> Iterator[None]:
    """One form for layers of every size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "MERGED_FROM", 0.0 if how == "merged" else float("inf"))
        yield


def by_numpy(c: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, dx and dB of every device by itself, with the weights written out."""
    x, dy = (v.numpy().reshape(len(c.A), -1, v.shape[-1]) for v in (c.x.detach(), c.dy))
    a, b, w0 = c.A.numpy(), c.B.detach().numpy(), c.linear.weight.numpy()
    b0 = 0.0 if c.linear.bias is None else c.linear.bias.numpy()
    w = [w0 + c.scale * b_n @ a_n for a_n, b_n in zip(a, b, strict=True)]
    y = np.stack([x_n @ w_n.T + b0 for x_n, w_n in zip(x, w, strict=True)])
    dx = np.stack([g @ w_n for g, w_n in zip(dy, w, strict=True)])
    db = np.stack([c.scale * g.T @ x_n @ a_n.T for g, x_n, a_n in zip(dy, x, a, strict=True)])
    return y.reshape(c.dy.shape), dx.reshape(c.x.shape), db


@pytest.mark.parametrize("how", FORMS)
def test_gradients_on_paper(how: str) -> None:
    linear = nn.Linear(2, 2).requires_grad_(False)
    linear.weight.data, linear.bias.data = torch.eye(2), torch.tensor([0.5, 0.0])
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    b = torch.tensor([[1.0], [10.0]], requires_grad=True)
    with always(how):
        y = adapted(x, linear, torch.tensor([[1.0, 1.0]]), b, 2.0)  # A x = 3
        y.backward(torch.tensor([[1.0, -1.0]]))
    assert y.tolist() == [[1.5 + 6.0, 2.0 + 60.0]]
    assert b.grad.tolist() == [[6.0], [-6.0]]  # s dy (A x)^T
    assert x.grad.tolist() == [[1.0 - 18.0, -1.0 - 18.0]]  # dy + s A^T (B^T dy), and B^T dy = -9


@pytest.mark.parametrize("how", FORMS)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_output_and_gradients_are_those_of_numpy(how: str, seed: int, count: int, bias: bool) -> None:
    c = case(seed, count, bias=bias)
    x = c.x.requires_grad_()
    with always(how):
        y = adapted(x, c.linear, c.A, c.B, c.scale)
        y.backward(c.dy)
    for made, expected in zip((y.detach(), x.grad, c.B.grad), by_numpy(c), strict=True):
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_finite_differences(how: str, count: int, bias: bool) -> None:
    c = case(5, count, bias=bias)
    with always(how):
        assert torch.autograd.gradcheck(lambda x, b: adapted(x, c.linear, c.A, b, c.scale), (c.x.requires_grad_(), c.B))


@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize("flat", [True, False])
def test_one_adapter_is_what_plain_autograd_makes_of_it(how: str, flat: bool) -> None:
    c = case(11)
    a, b = c.A[0], c.B.detach()[0].requires_grad_()
    x = (c.x[0] if flat else c.x).requires_grad_()
    dy = c.dy[0] if flat else c.dy
    expected_y = c.linear(x) + c.scale * F.linear(F.linear(x, a), b)
    expected = torch.autograd.grad(expected_y, (x, b), dy)
    with always(how):
        y = adapted(x, c.linear, a, b, c.scale)
        made = torch.autograd.grad(y, (x, b), dy)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("how", FORMS)
def test_gradients_are_made_only_where_asked_for(how: str) -> None:
    c = case(3)
    _, dx, db = by_numpy(c)
    with always(how):
        adapted(c.x, c.linear, c.A, c.B, c.scale).backward(c.dy)  # the first block: x owes nothing
        x = c.x.detach().clone().requires_grad_()
        adapted(x, c.linear, c.A, c.B.detach(), c.scale).backward(c.dy)
        with torch.no_grad():
            assert not adapted(x, c.linear, c.A, c.B, c.scale).requires_grad
    assert c.x.grad is None
    assert c.A.grad is None
    np.testing.assert_allclose(c.B.grad.numpy(), db)
    np.testing.assert_allclose(x.grad.numpy(), dx)
    assert c.linear.weight.grad is None


@pytest.mark.parametrize("how", FORMS)
def test_of_the_activations_only_the_ranks_are_kept(how: str) -> None:
    linear = nn.Linear(40, 30).requires_grad_(False)
    x, a, b = torch.randn(2, 50, 40, requires_grad=True), torch.randn(3, 40), torch.randn(30, 3, requires_grad=True)
    kept: list[Tensor] = []
    with always(how), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        adapted(x, linear, a, b, 1.0)
    owned = {f.data_ptr() for f in (a, b)}
    activations = [t for t in kept if t.data_ptr() not in owned]
    assert [t.numel() for t in activations] == [2 * 50 * 3]


@pytest.mark.parametrize("how", FORMS)
def test_under_checkpointing_and_with_strides_nothing_changes(how: str) -> None:
    c = case(21, count=2)
    x = c.x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    dy = c.dy.transpose(0, 1).contiguous().transpose(0, 1)
    call = partial(adapted, linear=c.linear, A=c.A, B=c.B, scale=c.scale)
    with always(how):
        checkpoint(call, x, use_reentrant=False).backward(dy)
    _, dx, db = by_numpy(c)
    np.testing.assert_allclose(x.grad.numpy(), dx)
    np.testing.assert_allclose(c.B.grad.numpy(), db)


def test_sixteen_bit_computes_apart_and_keeps_a_float32_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 48, bias=False).requires_grad_(False).bfloat16()
    linear.weight.fill_(1.0)
    a = torch.randn(8, 64, generator=draw).bfloat16()
    b = (1e-4 * torch.randn(48, 8, generator=draw)).requires_grad_()  # 1 + B A is 1 in 16 bit
    half = torch.randn(300, 32, generator=draw)
    x = torch.cat([half, -half], dim=1).bfloat16().requires_grad_()  # so W0 x = 0, and y is what B adds
    dy = torch.randn(300, 48, generator=draw).bfloat16()
    with always("merged"):  # asked for in vain
        y = adapted(x, linear, a, b, 1.0)
        y.backward(dy)
    wide_x, wide_dy, wide_a, wide_b = (v.detach().double() for v in (x, dy, a, b))
    expected = (
        (y, wide_x @ wide_a.T @ wide_b.T),
        (b.grad, wide_dy.T @ wide_x @ wide_a.T),
        (x.grad, wide_dy @ (1.0 + wide_b @ wide_a)),
    )
    for made, right in expected:
        assert (made.double() - right).norm() < 0.01 * right.norm()
    assert (y.dtype, x.grad.dtype, b.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("bias", [True, False])
def test_under_autocast_it_is_a_linear_layer_like_others(inside: bool, bias: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    linear = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    a, dy = torch.randn(8, 64, generator=draw), torch.randn(5, 30, 48, generator=draw).bfloat16()
    found = []
    for by_us in (True, False):
        x = torch.randn(5, 30, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
        b = (0.1 * torch.randn(48, 8, generator=torch.Generator().manual_seed(3))).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = adapted(x, linear, a, b, 2.0) if by_us else linear(x) + 2.0 * F.linear(F.linear(x, a), b)
            if inside:
                y.backward(dy)
        if not inside:
            y.backward(dy)
        assert (y.dtype, x.grad.dtype, b.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
        found.append((y.detach().double(), x.grad.double(), b.grad.double()))
    for made, expected in zip(*found, strict=True):
        assert (made - expected).norm() < 0.01 * expected.norm()


def test_autocast_leaves_double_precision_alone() -> None:
    c = case(4)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y = adapted(c.x, c.linear, c.A, c.B, c.scale)
    np.testing.assert_allclose(y.numpy(), by_numpy(c)[0])


def test_form_on_paper() -> None:
    # d k / (d + k) is 48 for 96 x 96
    assert form(95, 96, 96, torch.float32) == "apart"
    assert form(96, 96, 96, torch.float32) == "merged"


@given(st.integers(1, 10**6), *(st.integers(1, 10**4) for _ in "dk"))
def test_more_tokens_never_unmerge(tokens: int, d: int, k: int) -> None:
    now, then = (form(t, d, k, torch.float32) for t in (tokens, 2 * tokens))
    assert (now, then) in {("apart", "apart"), ("apart", "merged"), ("merged", "merged")}
    assert now == form(tokens, k, d, torch.float64)  # both sides count alike
    assert {form(tokens, d, k, dtype) for dtype in (torch.bfloat16, torch.float16)} == {"apart"}


def test_a_second_derivative_is_refused() -> None:
    c = case(2)
    x = c.x.requires_grad_()
    (dx,) = torch.autograd.grad(adapted(x, c.linear, c.A, c.B, c.scale), x, c.dy.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
