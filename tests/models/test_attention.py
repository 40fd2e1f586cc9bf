"""Attention computed another way for a while, with the same outcome, and as before afterwards."""

from __future__ import annotations

import pytest
import torch

from orthomesh.models.attention import attending, sound
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gradients_under_padding_are_finite_on_a_gpu(small: Base) -> None:
    model = small.model.to("cuda", torch.bfloat16)
    ids = torch.randint(1, 50, (8, 64), device="cuda")
    mask = (torch.arange(64, device="cuda") >= torch.arange(0, 64, 8, device="cuda")[:, None]).long()
    with attending(model, sound(model.device)):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        out = model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits[:, -1]
        out.float().logsumexp(-1).sum().backward()
    assert embedded.grad is not None
    assert torch.isfinite(embedded.grad).all()
    model.to("cpu", torch.float32)
