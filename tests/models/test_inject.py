"""Slots in a model, and what they add; PEFT is the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from orthomesh.experts.mixture import Mixture, mix
from orthomesh.models.base import Base
from orthomesh.models.finetune import adapters
from orthomesh.models.inject import AdaptedLinear, Adapter, adapt, block_of, checkpointed, holding, watching

IDS = torch.tensor([[5, 60, 17, 200, 33], [9, 9, 250, 4, 71]])


def logits(model: nn.Module) -> torch.Tensor:
    out: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return out


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))


def test_output_on_paper() -> None:
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.eye(2), torch.tensor([0.5, 0.0])
    slot, x = AdaptedLinear(linear), torch.tensor([[1.0, 2.0]])
    assert slot(x).tolist() == [[1.5, 2.0]]
    slot.held = Adapter(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [10.0]]))  # A x = 3
    assert slot(x).tolist() == [[4.5, 32.0]]
    slot.held = Adapter(slot.held.A, slot.held.B, scale=2.0)
    assert slot(x).tolist() == [[7.5, 62.0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.5, 2.0]))
def test_an_adapter_is_an_update_of_the_weight(seed: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    d, k, r = (int(n) for n in torch.randint(1, 6, (3,), generator=draw))
    linear = nn.Linear(k, d)
    x, a, b = (torch.randn(sides, generator=draw) for sides in ((2, 3, k), (r, k), (d, r)))
    slot = AdaptedLinear(linear)
    slot.held = Adapter(a, b, scale)
    torch.testing.assert_close(slot(x), F.linear(x, linear.weight + scale * b @ a, linear.bias), atol=1e-5, rtol=1e-5)


def test_a_mixture_adds_its_output() -> None:
    linear = nn.Linear(3, 2)
    mixture = Mixture(A=torch.randn(4, 3), B=torch.randn(2, 4), code=None, top_k=1)
    slot, x = AdaptedLinear(linear), torch.randn(5, 3)
    slot.held = mixture
    assert torch.equal(slot(x), linear(x) + mix(x, mixture))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers the old way
def test_same_logits_and_gradients_as_peft(small: Base, save_model: Callable[[str], Path]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(save_model("qwen2"), dtype=torch.float32)
    kinds = sorted({name.rsplit(".", 1)[-1] for name in small.slots})
    config = LoraConfig(r=4, lora_alpha=8, target_modules=kinds, lora_dropout=0.0, init_lora_weights=False)
    theirs = get_peft_model(plain, config).eval()
    layers = [theirs.base_model.model.get_submodule(name) for name in small.slots]
    a = [layer.lora_A["default"].weight for layer in layers]
    b = [layer.lora_B["default"].weight for layer in layers]
    flat_a, flat_b = (torch.cat([p.detach().flatten() for p in matrices]).numpy() for matrices in (a, b))
    assert small.scaling == 8 / 4

    with holding(small.slots, adapters(small, flat_a, flat_b)):
        ours = logits(small.model)
    expected = logits(theirs)
    assert (expected - logits(small.model)).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)

    F.cross_entropy(expected[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    for frozen in (False, True):
        leaves = {
            name: Adapter(x.detach().clone().requires_grad_(not frozen), y.detach().clone().requires_grad_(), 2.0)
            for name, x, y in zip(small.slots, a, b, strict=True)
        }
        with holding(small.slots, leaves):
            F.cross_entropy(logits(small.model)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
        for leaf, x, y in zip(leaves.values(), a, b, strict=True):
            torch.testing.assert_close(leaf.B.grad, y.grad, atol=1e-6, rtol=1e-4)
            if frozen:
                assert leaf.A.grad is None
            else:
                torch.testing.assert_close(leaf.A.grad, x.grad, atol=1e-6, rtol=1e-4)


def test_adapters_of_two_devices_read_half_of_the_batch_each(small: Base) -> None:
    draw = torch.Generator().manual_seed(0)
    held = {
        name: Adapter(
            *(torch.randn(2, *sides, generator=draw) for sides in ((4, s.base.in_features), (s.base.out_features, 4)))
        )
        for name, s in small.slots.items()
    }
    with torch.no_grad():
        with holding(small.slots, held):
            both = logits(small.model)
        for n in range(2):
            with holding(small.slots, {name: Adapter(one.A[n], one.B[n]) for name, one in held.items()}):
                torch.testing.assert_close(both[n], logits(small.model)[n], atol=1e-4, rtol=1e-4)
    assert (both - logits(small.model)).abs().amax((1, 2)).min() > 0.1


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.0.self_attn.q_proj", "model.layers.0"),
        ("gpt_neox.layers.11.mlp.dense", "gpt_neox.layers.11"),
        ("a.3.b.4.c", "a.3"),
        ("7", "7"),
        ("model.embed2.proj", None),
        ("lm_head", None),
    ],
)
def test_block_of_a_layer_on_paper(name: str, block: str | None) -> None:
    assert block_of(name) == block


def test_a_checkpointed_block_runs_again_backward() -> None:
    model = nn.Sequential(two_layers())
    model[0][0].weight.requires_grad_()
    passes: list[int] = []
    hook = model[0][0].register_forward_hook(lambda *_: passes.append(1))
    x = torch.randn(5, 3)
    plain = torch.autograd.grad(model(x).sum(), model[0][0].weight)
    assert len(passes) == 1
    with checkpointed(model, ("0.0", "0.2")):
        again = torch.autograd.grad(model(x).sum(), model[0][0].weight)
    assert len(passes) == 3
    torch.autograd.grad(model(x).sum(), model[0][0].weight)
    assert len(passes) == 4  # as before
    hook.remove()
    assert torch.equal(plain[0], again[0])
    with pytest.raises(RuntimeError, match="stop"), checkpointed(model, ("0.0",)):
        raise RuntimeError("stop")
    assert "forward" not in vars(model[0])
    with pytest.raises(ValueError, match=r"train\.checkpointing: no adapted layer"), checkpointed(model, ("lm_head",)):
        pass


def test_empty_slots_are_the_base_bit_for_bit(small: Base, save_model: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(save_model("qwen2"), dtype=torch.float32)
    expected = logits(plain)
    assert torch.equal(logits(small.model), expected)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(n, dtype=np.float32) for n in (small.layout.num_projection, small.layout.num_expansion))
    with holding(small.slots, adapters(small, a, b)):
        assert not torch.allclose(logits(small.model), expected)
    assert torch.equal(logits(small.model), expected)
    with holding(small.slots, adapters(small, a, 0 * b)):
        assert torch.equal(logits(small.model), expected)
    for name, slot in small.slots.items():
        assert torch.equal(slot.base.weight, plain.get_submodule(name).weight)


def test_adapting_keeps_the_weights_themselves() -> None:
    model = two_layers()
    first, last = model[0], model[2]
    slots = adapt(model, ("2",))
    assert list(slots) == ["2"]
    assert model[0] is first
    assert model[2] is slots["2"]
    assert slots["2"].base is last


def test_slots_are_emptied_whatever_happens() -> None:
    model = two_layers()
    slots = adapt(model, ("0", "2"))
    held = {"2": Adapter(torch.ones(1, 4), torch.ones(2, 1))}
    with holding(slots, held):
        assert slots["0"].held is None
        assert slots["2"].held is held["2"]
    assert slots["2"].held is None
    with holding(slots, held), holding(slots, {}):
        assert slots["2"].held is None
    with pytest.raises(RuntimeError, match="stop"), holding(slots, held):
        raise RuntimeError("stop")
    assert slots["2"].held is None


def test_watching_sees_what_layers_read() -> None:
    model = two_layers()
    slots = adapt(model, ("0", "2"))
    x = torch.randn(2, 5, 3)
    with watching(slots, ("2", "0")) as seen:
        model(torch.zeros(1, 1, 3))
        model(x)
    assert torch.equal(seen["0"], x)
    assert torch.equal(seen["2"], slots["0"].base(x).relu())
    model(torch.zeros(1, 1, 3))
    assert torch.equal(seen["0"], x)  # nobody is watched any more
    with watching(slots, ("2",)) as seen:
        model(x)
    assert seen.keys() == {"2"}


def test_only_linear_layers_can_be_adapted() -> None:
    with pytest.raises(ValueError, match="layer 1 is a ReLU"):
        adapt(two_layers(), ("0", "1"))
