"""Loading base models of every family known, and saying what is wrong with those that do not load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.models.base import FAMILIES, LIKE_LLAMA, Base, load_base
from orthomesh.models.inject import watching
from orthomesh.models.settings import TINY, ModelSettings

SaveModel = Callable[[str], Path]
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
LLAMA = (*ATTENTION, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NEOX = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
PHI = (*ATTENTION, "self_attn.dense", "mlp.fc1", "mlp.fc2")
EXPECTED = {
    **dict.fromkeys(LIKE_LLAMA, (LLAMA, ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"))),
    "gpt_neox": (NEOX, NEOX),
    "phi": (PHI, ("self_attn.q_proj", "self_attn.dense", "mlp.fc2")),  # fc1 reads what attention reads
}
"""By family, the adapted layers of a block and those among them that read something new."""


@pytest.fixture
def spoilt(save_model: SaveModel, tmp_path: Path) -> Path:
    """A copy of a sound model, for the test to break; its family brings no tokenizer class with tokens of its own."""
    return Path(shutil.copytree(save_model("mistral"), tmp_path / "model"))


def refuses(source: str | Path, reason: str, **settings: object) -> None:
    with pytest.raises(ValueError, match=reason):
        load_base(ModelSettings(source=str(source), **{"rank": 4, **settings}))


def rewrite(file: Path, **changes: object) -> None:
    """Change entries of a JSON file; None takes one out."""
    entries = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in entries.items() if value is not None}))


def test_embedded_model_on_paper(embedded: Base) -> None:
    # q and o are 96 x 96, k and v 48 x 96, three matrices of 96 x 256; q, k, v have biases; two norms a block
    block = 2 * 96 * 96 + 2 * 48 * 96 + 3 * 96 * 256 + (96 + 48 + 48) + 2 * 96
    assert embedded.num_parameters == 258 * 96 + 3 * block + 96
    assert len(embedded.slots) == 3 * 7
    assert embedded.layout.num_expansion == 16 * 3 * (96 + 48 + 48 + 96 + 256 + 256 + 96)
    assert embedded.layout.num_projection == 16 * 3 * (6 * 96 + 256)
    assert embedded.widths == 3 * (96, 96, 96, 256)
    assert (embedded.pad_id, embedded.eos_id, embedded.scaling) == (0, 1, 2.0)
    assert embedded.max_length == 64  # the model's own limit
    assert not any(p.requires_grad for p in embedded.model.parameters())
    assert {p.dtype for p in embedded.model.parameters()} == {torch.float32}
    assert not embedded.model.training


def test_same_settings_give_the_same_object(embedded: Base) -> None:
    first = load_base(ModelSettings(rank=2))
    assert load_base(ModelSettings(rank=2)) is first
    assert first is not embedded
    assert first.layout.rank == 2


def test_every_family_is_expected_here() -> None:
    assert EXPECTED.keys() == {*FAMILIES, *LIKE_LLAMA}


@pytest.mark.parametrize("family", EXPECTED)
def test_layers_and_inputs_of_every_family(family: str, save_model: SaveModel) -> None:
    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    layers, fresh = EXPECTED[family]
    inner = "gpt_neox" if family == "gpt_neox" else "model"
    names = [f"{inner}.layers.{n}.{layer}" for n in range(2) for layer in layers]
    assert list(base.slots) == names
    assert list(base.inputs) == [f"{inner}.layers.{n}.{layer}" for n in range(2) for layer in fresh]
    sides = [base.model.get_submodule(name).base.weight.shape for name in names]
    assert base.layout == Layout(tuple(Shape(n, d, k) for n, (d, k) in zip(names, sides, strict=True)), 4)
    # the tensors themselves: each slot reads what its source reads, and sources differ
    with torch.no_grad(), watching(base.slots, tuple(names)) as seen:
        base.model(input_ids=torch.tensor([[7, 90, 33]]), use_cache=False)
    assert list(base.source) == names
    assert all(torch.equal(seen[name], seen[source]) for name, source in base.source.items())
    assert base.widths == tuple(seen[name].shape[-1] for name in base.inputs)
    for n, name in enumerate(base.inputs):
        assert base.source[name] == name
        assert not any(torch.equal(seen[name], seen[other]) for other in base.inputs[:n])


@pytest.mark.parametrize("family", EXPECTED)
def test_empty_slots_change_nothing(family: str, save_model: SaveModel) -> None:
    from transformers import AutoModelForCausalLM

    base = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    plain = AutoModelForCausalLM.from_pretrained(save_model(family), dtype=torch.float32)
    ids = torch.tensor([[7, 90, 33, 250]])
    with torch.no_grad():
        assert torch.equal(base.model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_layers_can_be_chosen(small: Base) -> None:
    chosen = load_base(
        ModelSettings(source=str(Path(small.model.config.name_or_path)), rank=4, layers=("v_proj", "q_proj"))
    )
    assert list(chosen.slots) == [f"model.layers.{n}.self_attn.{kind}_proj" for n in range(2) for kind in "qv"]
    assert len(chosen.inputs) == 2


@pytest.mark.parametrize("family", EXPECTED)
def test_adapters_from_a_block_on(family: str, save_model: SaveModel) -> None:
    whole = load_base(ModelSettings(source=str(save_model(family)), rank=4))
    upper = load_base(ModelSettings(source=str(save_model(family)), rank=4, first_block=1))
    inner = "gpt_neox" if family == "gpt_neox" else "model"
    assert list(upper.slots) == [f"{inner}.layers.1.{layer}" for layer in EXPECTED[family][0]]
    assert upper.layout.shapes == whole.layout.shapes[len(upper.slots) :]
    assert not any(name.startswith(f"{inner}.layers.0.") for name in upper.inputs)


def test_blocks_that_are_not_there_are_refused(save_model: SaveModel) -> None:
    source = str(save_model("qwen2"))
    reason = r"model\.first_block: 2 leaves no layer to adapt, the blocks of .* are 0 to 1"
    refuses(source, reason, first_block=2)
    reason = r"model\.first_block: layer lm_head of .* lies in no numbered block"
    refuses(source, reason, first_block=1, layers=("q_proj", "lm_head"))
    assert "lm_head" in load_base(ModelSettings(source=source, rank=4, layers=("q_proj", "lm_head"))).slots


def test_weights_in_sixteen_bit(small: Base) -> None:
    source = str(Path(small.model.config.name_or_path))
    base = load_base(ModelSettings(source=source, rank=4, dtype="bfloat16"))
    assert {p.dtype for p in base.model.parameters()} == {base.dtype} == {torch.bfloat16}
    assert small.dtype == torch.float32
    assert base.layout == small.layout
    ids = torch.tensor([[7, 90, 33, 250]])
    with torch.no_grad():
        narrow, wide = (one.model(input_ids=ids).logits.float() for one in (base, small))
    assert 0 < (narrow - wide).norm() < 0.05 * wide.norm()  # 8 bits of mantissa, two blocks


def test_a_shorter_context_can_be_asked_for_a_longer_one_not(save_model: SaveModel) -> None:
    assert load_base(ModelSettings(source=str(save_model("qwen2")), rank=1, max_length=20)).max_length == 20
    with pytest.raises(ValueError, match=r"model\.max_length: 200 exceeds the context of .*, 64 tokens"):
        load_base(ModelSettings(source=str(save_model("qwen2")), rank=1, max_length=200))


def test_without_a_padding_token_the_end_token_serves(spoilt: Path) -> None:
    rewrite(spoilt / "tokenizer_config.json", pad_token=None)
    base = load_base(ModelSettings(source=str(spoilt), rank=4))
    assert base.tokenizer.pad_token_id is None
    assert (base.pad_id, base.eos_id) == (1, 1)


def test_a_tokenizer_without_an_end_is_refused(spoilt: Path) -> None:
    rewrite(spoilt / "tokenizer_config.json", eos_token=None)
    refuses(spoilt, "its tokenizer has no end-of-text token")


def test_an_end_token_the_model_does_not_have_is_refused(spoilt: Path) -> None:
    rewrite(spoilt / "tokenizer_config.json", eos_token="<never seen>")
    refuses(spoilt, "end token '<never seen>' is number 258 of 258 embeddings")


def test_directories_that_hold_no_model_are_refused(spoilt: Path, tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", r"model\.source: there is no directory .*nowhere")
    refuses("nowhere", "there is no directory nowhere")
    (spoilt / "model.safetensors").rename(spoilt / "weights.bin")
    refuses(spoilt, "holds no weights")
    (spoilt / "config.json").unlink()
    refuses(spoilt, r"has no config\.json")


def test_damaged_files_are_refused_in_a_sentence(spoilt: Path) -> None:
    weights = spoilt / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refuses(spoilt, "does not load as a causal language model")
    weights.write_bytes(whole)
    (spoilt / "config.json").write_text("{")
    refuses(spoilt, "does not load as a causal language model")


def test_a_name_the_hub_does_not_give_is_refused() -> None:
    refuses("nobody/nothing", "nobody/nothing does not load as a causal language model")


def test_layers_that_are_not_there_are_refused(spoilt: Path, save_model: SaveModel) -> None:
    refuses(spoilt, r"no linear layer w_proj; it has .*q_proj", layers=("q_proj", "w_proj"))
    refuses(spoilt, r"model\.layers: q_proj named more than once", layers=("q_proj", "k_proj", "q_proj"))
    refuses(save_model("mpt"), r"linear layers of family 'mpt' are not known by default; .*Wqkv")


def test_a_rank_above_a_layer_is_refused() -> None:
    refuses(TINY, r"rank 49 exceeds layer model\.layers\.0\.self_attn\.k_proj of 48 x 96; at most 48", rank=49)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(device: str) -> None:
    refuses(TINY, f"model.device: there is no {device}, torch .* finds none; use cpu", device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_beyond_those_there_are_is_refused() -> None:
    refuses(TINY, "model.device: there is no cuda:99, torch .* finds", device="cuda:99")


def test_a_device_torch_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        ModelSettings(device="gpu")
