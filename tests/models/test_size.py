"""Sizes from a configuration alone are those of the model once it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.models.size import check_fits, size_of

QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
    "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip


def test_the_embedded_model_is_as_large_as_said() -> None:
    settings = ModelSettings()
    base, size = load_base(settings), size_of(settings)
    assert size.parameters == base.num_parameters
    assert size.expansion == base.layout.num_expansion
    assert size.adapted == sum(s.out_features * s.in_features for s in base.layout.shapes)
    assert size.context >= base.max_length


def test_qwen_on_paper(tmp_path: Path) -> None:
    """Its card says 1.54 B; B of all seven projections has r (2 * 1536 + 2 * 256 + 2 * 8960 + 1536) a block."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    size = size_of(ModelSettings(source=str(tmp_path), rank=32))
    assert size.parameters == 1_543_714_304
    assert size.expansion == 28 * 32 * (1536 + 2 * 256 + 1536 + 2 * 8960 + 1536)
    assert size.adapted == 28 * 1536 * (2 * 1536 + 2 * 256 + 3 * 8960)


def test_weights_that_do_not_fit_are_refused_with_the_estimate(tmp_path: Path) -> None:
    """1,543,714,304 weights are 5.75 GiB in 32 bit and 2.88 in 16."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    source = str(tmp_path)
    check_fits(source, "bfloat16", 2 * 1_543_714_304)
    with pytest.raises(ValueError, match=r"1,543,714,304 parameters, 2\.9 GiB in bfloat16 .* with: a smaller model$"):
        check_fits(source, "bfloat16", 2 * 1_543_714_304 - 1)
    with pytest.raises(ValueError, match=r"5\.8 GiB in float32 .*; cuda:1 has 1\.0 GiB of .*model\.dtype=bfloat16"):
        check_fits(source, "float32", 2**30, "cuda:1")
    check_fits(str(tmp_path / "none"), "float32", 0)  # loading says what is wrong there


def test_no_weight_is_read_of_a_model_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    (tmp_path / "model.safetensors").write_bytes(b"nothing that could be read")
    monkeypatch.setattr("orthomesh.models.size.memory_b", lambda: 2**30)
    with pytest.raises(ValueError, match=r"this machine has 1\.0 GiB of memory"):
        load_base(ModelSettings(source=str(tmp_path)))


def test_no_configuration_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no directory .*none"):
        size_of(ModelSettings(source=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="has no configuration here or on the hub"):
        size_of(ModelSettings(source=str(tmp_path)))
    with pytest.raises(ValueError, match="hf download nobody/nothing --local-dir DIR; then --model DIR"):
        size_of(ModelSettings(source="nobody/nothing"))
