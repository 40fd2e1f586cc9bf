"""What may be set, and what is said when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.config import parse
from orthomesh.models.settings import EMBEDDED, TINY, ModelSettings, TrainSettings


def test_default_model_is_in_the_package() -> None:
    assert ModelSettings().source == EMBEDDED
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in TINY.iterdir()}


@given(st.integers(1, 512), st.floats(1e-3, 1e3), st.lists(st.text(max_size=5), max_size=3))
def test_plain_values_become_settings(rank: int, scaling: float, layers: list[str]) -> None:
    plain = {"source": "here", "layers": layers, "rank": rank, "scaling": scaling, "max_length": 8}
    made = parse(ModelSettings, plain, "model")
    assert made == ModelSettings(source="here", layers=tuple(layers), rank=rank, scaling=scaling, max_length=8)
    assert hash(made) == hash(parse(ModelSettings, plain, "model"))  # the base model is cached by its settings


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rank": 0}, r"model\.rank: .*greater than or equal to 1, got 0"),
        ({"rank": 2.5}, r"model\.rank: .*integer.* got 2\.5"),
        ({"scaling": 0.0}, r"model\.scaling: .*greater than 0"),
        ({"scaling": float("inf")}, r"model\.scaling: .*finite"),
        ({"max_length": 7}, r"model\.max_length: .*greater than or equal to 8"),
        ({"dtype": "float16"}, r"model\.dtype: .*'float32' or 'bfloat16', got 'float16'"),
        ({"first_block": -1}, r"model\.first_block: .*greater than or equal to 0"),
        ({"rnak": 4}, "no such setting. Did you mean 'rank'"),
    ],
)
def test_model_settings_out_of_range_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(ModelSettings, values, "model")


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "clip_norm", "accumulate"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_training_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name}: "):
        parse(TrainSettings, {name: value}, "train")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"schedule": "linear"}, r"train\.schedule: .*'constant' or 'cosine', got 'linear'"),
        ({"checkpointing": 2}, r"train\.checkpointing: .*boolean"),
        ({"batch_size": 4, "accumulate": 5}, r"train: accumulate 5 exceeds batch_size 4"),
    ],
)
def test_training_settings_that_do_not_go_together_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(TrainSettings, values, "train")
    assert parse(TrainSettings, {"batch_size": 4, "accumulate": 4}, "train").accumulate == 4


def test_settings_are_read_without_torch() -> None:
    code = "import sys, orthomesh.models.settings; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
