"""How large a model is, known before its weights are loaded."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

from .base import FAMILIES, LIKE_LLAMA, how_to_get, place_of
from .settings import ModelSettings


class Size(NamedTuple):
    """parameters: of the frozen model. adapted: those of the matrices that get adapters. layers, width: transformer
    blocks and hidden width. context: its own, tokens. expansion, projection: entries of all B and of all A."""

    parameters: int
    adapted: int
    layers: int
    width: int
    context: int
    expansion: int
    projection: int


@functools.lru_cache(maxsize=8)
def size_of(settings: ModelSettings) -> Size:
    """Size of a model from its configuration alone; no weight is read or made.

    Args:
        settings: which model, which layers, which rank.

    Raises:
        ValueError: no configuration at the source.
    """
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    source = place_of(settings.source)
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # whatever the loader finds wrong, the user needs one sentence
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(
            f"model.source: {settings.source} has no configuration here or on the hub: {reason}{how_to_get(source)}"
        ) from None
    with torch.device("meta"):
        make: Any = AutoModelForCausalLM.from_config
        model = make(config)
    family = str(getattr(config, "model_type", ""))
    wanted = settings.layers or FAMILIES.get("llama" if family in LIKE_LLAMA else family, FAMILIES["llama"])
    linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in wanted]
    unique = {id(p): p.numel() for p in model.parameters()}  # tied embeddings count once
    return Size(
        parameters=sum(unique.values()),
        layers=int(getattr(config, "num_hidden_layers", 1)),
        width=int(getattr(config, "hidden_size", 1)),
        context=int(getattr(config, "max_position_embeddings", 256)),
        adapted=sum(m.out_features * m.in_features for m in linear),
        expansion=settings.rank * sum(m.out_features for m in linear),
        projection=settings.rank * sum(m.in_features for m in linear),
    )


def memory_b() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_fits(source: str, dtype: str, there_b: int, place: str = "this machine") -> None:
    """Whether a model's weights alone fit into a memory, before one of them is read.

    Args:
        source: directory or name on the hub. Without a configuration nothing is said here: loading does.
        dtype: that it would be loaded in.
        there_b: bytes at hand.
        place: whose they are.

    Raises:
        ValueError: they do not fit, with the estimate.
    """
    try:
        count = size_of(ModelSettings(source=source)).parameters
    except ValueError:
        return
    needed = count * (2 if dtype == "bfloat16" else 4)
    if needed > there_b:
        less = "a smaller model" if dtype == "bfloat16" else "-s model.dtype=bfloat16, or a smaller model"
        raise ValueError(
            f"model.source: {source} has {count:,} parameters, {needed / 2**30:.1f} GiB in {dtype} before anything is "
            f"trained; {place} has {there_b / 2**30:.1f} GiB of memory. It takes less with: {less}"
        )
