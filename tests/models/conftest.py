"""Small models for all tests of the border with transformers: random ones of every family, and the embedded one."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attached import STRANGER, TASKS, Model, bank_of

from orthomesh.models.bank_io import Portable
from orthomesh.models.base import Base, load_base
from orthomesh.models.settings import TINY, ModelSettings
from orthomesh.tasks.embedded import examples

SaveModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """A directory with a random model of a family and the embedded tokenizer; the same one for the same family."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    @functools.cache
    def save(family: str) -> Path:
        sides = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        tokens = {"vocab_size": 258, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
        config = AutoConfig.for_model(family, **sides, **tokens, max_position_embeddings=64, initializer_range=0.2)
        if family != "gpt_neox":
            config.num_key_value_heads = 2
        if family.startswith("gemma") or family == "qwen3":
            config.head_dim = 8
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for weights in model.parameters():  # norms and biases too, as in a model that was trained
                weights.data += 0.1 * torch.randn_like(weights)
        place = tmp_path_factory.mktemp(family)
        model.save_pretrained(place)
        for file in TINY.glob("tokenizer*"):
            shutil.copy(file, place)
        return place

    return save


@pytest.fixture(scope="session")
def small(save_model: SaveModel) -> Base:
    """A random Qwen2 of two layers with hidden states of 32, and adapters of rank 4."""
    return load_base(ModelSettings(source=str(save_model("qwen2")), rank=4))


@pytest.fixture(scope="session")
def embedded() -> Base:
    """The pre-trained model in the package, as a run loads it by default."""
    return load_base(ModelSettings())


@pytest.fixture(scope="session")
def told(embedded: Base) -> Portable:
    """Four experts, chosen by what the first block sees."""
    return bank_of(embedded)


@pytest.fixture(scope="session")
def upper() -> Base:
    """The embedded model with adapters from the second block on."""
    return load_base(ModelSettings(first_block=1))


@pytest.fixture(scope="session")
def plain() -> Model:
    """The embedded model as anybody loads it, a new one each time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY)
    return lambda: copy.deepcopy(model)


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """A prompt of each task, and one of none, of different lengths."""
    asked = [examples(task, "test", 6, np.random.default_rng(3))[n].prompt for n, task in enumerate(TASKS)]
    return [*asked, STRANGER]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY, padding_side="left")
