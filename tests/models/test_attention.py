"""Attention computed another way for a while, with the same outcome, and as before afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.models.attention import attending, seen, sound, windowed
from orthomesh.models.base import Base
from orthomesh.models.tokens import collate, logits_before_targets

PADDED = [((5, 6, 7, 8), (9, 10)), ((5,), (9, 10))]


@torch.no_grad()
def test_plain_attention_reads_what_fused_attention_reads(small: Base) -> None:
    batch = collate(small, PADDED)
    fused = logits_before_targets(small, batch)
    with attending(small.model, "eager"):
        assert small.model.config._attn_implementation == "eager"
        plain = logits_before_targets(small, batch)
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-4)


def test_the_model_is_as_before_even_after_a_failure(small: Base) -> None:
    before = small.model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), attending(small.model, "eager"):
        raise ZeroDivisionError
    assert small.model.config._attn_implementation == before != "eager"
    with attending(small.model, None):
        assert small.model.config._attn_implementation == before


@torch.no_grad()
def test_the_mended_mask_changes_nothing_that_is_read(small: Base) -> None:
    batch = collate(small, PADDED)
    assert batch.mask is not None
    plain = logits_before_targets(small, batch)
    mended = logits_before_targets(small, batch._replace(mask=seen(batch.mask, small.dtype)))
    torch.testing.assert_close(mended, plain, atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_every_token_sees_itself_and_nothing_that_is_padding_or_comes_later(pads: list[int]) -> None:
    mask = (torch.arange(6) >= torch.tensor(pads)[:, None]).long()
    sees = seen(mask, torch.bfloat16).squeeze(1) == 0
    for n, pad in enumerate(pads):
        for i in range(6):
            wanted = [j == i or (pad <= j < i) for j in range(6)]
            assert sees[n, i].tolist() == wanted


def test_layers_with_windows_keep_their_own_masks() -> None:
    whole, mixed = (
        SimpleNamespace(layer_types=["full_attention"] * 2),
        SimpleNamespace(layer_types=["sliding_attention"]),
    )
    old, off = SimpleNamespace(sliding_window=64), SimpleNamespace(sliding_window=64, use_sliding_window=False)
    assert [windowed(c) for c in (whole, mixed, old, off, SimpleNamespace())] == [False, True, True, False, False]
    model = SimpleNamespace(config=mixed)
    assert sound(model, torch.device("cuda")) == "eager"
    assert sound(model, torch.device("cpu")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gradients_under_padding_are_finite_on_a_gpu(small: Base) -> None:
    model = small.model.to("cuda", torch.bfloat16)
    ids = torch.randint(1, 50, (8, 64), device="cuda")
    mask = (torch.arange(64, device="cuda") >= torch.arange(0, 64, 8, device="cuda")[:, None]).long()
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    out = model(inputs_embeds=embedded, attention_mask=seen(mask, torch.bfloat16), use_cache=False).logits[:, -1]
    out.float().logsumexp(-1).sum().backward()
    assert embedded.grad is not None
    assert torch.isfinite(embedded.grad).all()
    model.to("cpu", torch.float32)
