"""What is read of a prompt: which points, that a short pass sees what a full one does, and padding on either side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.inject import Adapter, holding
from orthomesh.models.reading import (
    block_number,
    columns_that_count,
    read_prompts,
    reading_points,
    token_shares,
    widths,
)
from orthomesh.models.settings import TINY, ModelSettings

FAMILY_NAMES = [*LIKE_LLAMA, *sorted(FAMILIES.keys() - {"llama"})]
PROMPTS = ((5, 60, 17, 200, 33), (9, 250), (71,), (8, 8, 30, 41))
FIRST = "model.layers.0."
PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def padded(prompts: Sequence[Sequence[int]], left: bool, more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of prompts made equally long."""
    width = max(len(p) for p in prompts) + more
    ids, mask = torch.zeros(len(prompts), width, dtype=torch.long), torch.zeros(len(prompts), width, dtype=torch.long)
    for n, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(0, len(prompt))
        ids[n, place], mask[n, place] = torch.tensor(list(prompt)), 1
    return ids, mask


def means_of_full_pass(model: nn.Module, points: Sequence[str], prompt: Sequence[int]) -> np.ndarray:
    """Mean input of some layers over a prompt's tokens, read alone and to the end."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_submodule(n).register_forward_pre_hook(lambda _, args, n=n: seen.update({n: args[0]})) for n in points
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([list(prompt)]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return np.concatenate([seen[name][0].mean(0).numpy() for name in points])


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """The embedded model as anybody loads it."""
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(TINY)
    return model


# example


def test_points_of_the_embedded_model(plain: nn.Module) -> None:
    assert reading_points(plain, 0) == (f"{FIRST}self_attn.q_proj",)
    one = tuple(FIRST + part for part in PARTS)  # q, k and v read one input, gate and up another
    assert reading_points(plain, 1) == one
    assert reading_points(plain, 2) == (*one, *(f"model.layers.1.{part}" for part in PARTS))
    sizes = [plain.get_submodule(name).weight.shape[1] for name in one]
    assert widths(plain, one) == tuple(sizes) == (96, 96, 96, 256)


def test_numbers_of_blocks() -> None:
    names = ("layers.3.q", "model.layers.12", "transformer.h.0.mlp.2", "0.a", "l3.q", "head")
    assert [block_number(n) for n in names] == [3, 12, 0, 0, None, None]


def test_shares_on_paper() -> None:
    ids = torch.zeros(2, 4, dtype=torch.long)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert token_shares(ids, mask)[..., 0].tolist() == [[0, 0, 0.5, 0.5], [0.25] * 4]
    assert token_shares(ids, None)[..., 0].tolist() == [[0.25] * 4] * 2


def test_columns_that_count_on_paper() -> None:
    ids, flat = torch.zeros(2, 3, dtype=torch.long), torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert columns_that_count(None, ids) is None
    assert columns_that_count(flat, ids) is flat
    # made ready for a cache of five: a token sees itself and those before it that count; padding sees nothing
    sees = torch.zeros(2, 1, 3, 5, dtype=torch.bool)
    sees[0, 0, 1, 1] = sees[0, 0, 2, 1] = sees[0, 0, 2, 2] = True
    sees[1, 0, :, :3] = torch.ones(3, 3, dtype=torch.bool).tril()
    added = torch.where(sees, 0.0, -3e38)
    for mask in (sees, added, {"full_attention": sees}, {"sliding_attention": added}):
        columns = columns_that_count(mask, ids)
        assert columns is not None
        assert columns.tolist() == flat.bool().tolist()
    assert columns_that_count({"full_attention": None}, ids) is None
    assert columns_that_count({}, ids) is None
    for_all = columns_that_count(sees[1:], ids)  # one for all rows
    assert for_all is not None
    assert for_all.tolist() == [[True] * 3] * 2


# reference


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("left", [True, False])
def test_means_are_those_of_full_passes(plain: nn.Module, blocks: int, left: bool) -> None:
    points = reading_points(plain, blocks)
    ids, mask = padded(PROMPTS, left, more=2)
    means = read_prompts(plain, points, ids, mask)
    assert means.shape == (4, sum(widths(plain, points)))
    assert means.dtype == np.float32
    for mean, prompt in zip(means, PROMPTS, strict=True):
        np.testing.assert_allclose(mean, means_of_full_pass(plain, points, prompt), atol=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_is_read(family: str, save_model: Callable[[str], Path]) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    for blocks in (0, 1, 2):
        points = reading_points(base.model, blocks)
        first = [name for name in base.inputs if (block_number(name) or 0) < max(blocks, 1)]  # known by their slots
        assert points == (tuple(first) if blocks else tuple(first[:1]))
        ids, mask = padded(PROMPTS, left=True)
        means = read_prompts(base.model, points, ids, mask)
        for mean, prompt in zip(means, PROMPTS, strict=True):
            np.testing.assert_allclose(mean, means_of_full_pass(base.model, points, prompt), atol=1e-5)


def test_an_adapted_model_is_read_as_the_base(plain: nn.Module, embedded: Base) -> None:
    ids, mask = padded(PROMPTS, left=True)
    points = reading_points(embedded.model, 1)
    assert points == reading_points(plain, 1)
    assert widths(embedded.model, points) == widths(plain, points)
    expected = read_prompts(plain, points, ids, mask)
    np.testing.assert_array_equal(read_prompts(embedded.model, points, ids, mask), expected)
    slot = embedded.slots[f"{FIRST}self_attn.v_proj"]
    held = Adapter(torch.ones(1, slot.base.in_features), torch.ones(slot.base.out_features, 1))
    with holding(embedded.slots, {f"{FIRST}self_attn.v_proj": held}):  # who holds an adapter is not the base
        assert not np.allclose(read_prompts(embedded.model, points, ids, mask), expected)


def test_without_padding_no_mask_is_needed(plain: nn.Module) -> None:
    points, ids = reading_points(plain, 1), torch.tensor([PROMPTS[0]])
    expected = read_prompts(plain, points, ids, torch.ones_like(ids))
    np.testing.assert_allclose(read_prompts(plain, points, ids, None), expected, atol=1e-6)
    told = read_prompts(plain, points, ids, None, torch.arange(5)[None])
    np.testing.assert_allclose(told, expected, atol=1e-6)
    # places of tokens count: the second block's inputs come from an attention that knows distances
    other = read_prompts(plain, points, ids, None, 7 * torch.arange(5)[None])
    assert not np.allclose(other, expected, atol=1e-3)


def test_the_pass_ends_at_the_last_point(plain: nn.Module) -> None:
    reached: list[str] = []
    names = ["model.layers.0.mlp.down_proj", "model.layers.1", "model.layers.2", "lm_head"]
    hooks = [plain.get_submodule(n).register_forward_hook(lambda *_, n=n: reached.append(n)) for n in names]
    ids, mask = padded(PROMPTS, left=True)
    for blocks, expected in ((0, []), (1, []), (2, names[:1])):
        reached.clear()
        points = reading_points(plain, blocks)
        assert reached == (["model.layers.0.mlp.down_proj", "model.layers.1", "model.layers.2"])  # to find the points
        reached.clear()
        read_prompts(plain, points, ids, mask)
        assert reached == expected  # a layer whose input is enough does not run
    for hook in hooks:
        hook.remove()


# law


prompts = st.lists(st.lists(st.integers(0, 257), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=15)
@given(prompts, st.integers(0, 3), st.booleans())
def test_company_and_padding_do_not_matter(
    plain: nn.Module, given_prompts: list[list[int]], more: int, left: bool
) -> None:
    points = reading_points(plain, 1)
    ids, mask = padded(given_prompts, left, more)
    together = read_prompts(plain, points, ids, mask)
    for mean, prompt in zip(together, given_prompts, strict=True):
        alone = read_prompts(plain, points, torch.tensor([prompt]), None)
        np.testing.assert_allclose(mean, alone[0], atol=1e-5)


# edge


def test_nothing_is_left_behind(plain: nn.Module) -> None:
    ids, mask = padded(PROMPTS, left=True)
    with torch.no_grad():
        before = plain(input_ids=ids, attention_mask=mask).logits
        hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in plain.modules()]
        means = read_prompts(plain, reading_points(plain, 1), ids, mask)
        assert [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in plain.modules()] == hooks
        assert torch.equal(plain(input_ids=ids, attention_mask=mask).logits, before)
    np.testing.assert_array_equal(read_prompts(plain, reading_points(plain, 1), ids, mask), means)


@pytest.mark.parametrize("blocks", [-1, 4, 99])
def test_blocks_the_model_does_not_have(plain: nn.Module, blocks: int) -> None:
    with pytest.raises(ValueError, match=f"cannot read {blocks} blocks of a model that has 3"):
        reading_points(plain, blocks)


def test_a_model_without_linear_layers_in_blocks() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="cannot read 1 blocks of a model that has 0"):
        reading_points(model, 1)


def test_prompts_without_a_token(plain: nn.Module) -> None:
    points = reading_points(plain, 0)
    ids, mask = padded(PROMPTS, left=True)
    mask[2] = 0
    with pytest.raises(ValueError, match="a prompt without a token has nothing to choose an expert by"):
        read_prompts(plain, points, ids, mask)
    with pytest.raises(ValueError, match="a prompt without a token"):
        read_prompts(plain, points, ids[:, :0], None)


def test_masks_of_another_form() -> None:
    ids = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"prompts of shape \(2, 3\) has their shape, this is one of shape \(2, 4\)"):
        columns_that_count(torch.ones(2, 4), ids)
    with pytest.raises(ValueError, match="this is a str"):
        columns_that_count("causal", ids)
