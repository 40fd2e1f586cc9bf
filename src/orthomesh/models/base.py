"""The frozen base model: one per process, shared by every device it hosts."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.lowrank import Layout, Shape
from .inject import AdaptedLinear, adapt, block_of
from .settings import EMBEDDED, TINY, ModelSettings

FAMILIES: dict[str, tuple[str, ...]] = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
}
"""Linear layers by family; families that name them as llama does are listed in `LIKE_LLAMA`."""
LIKE_LLAMA = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text")

LONGEST = 256
"""Tokens of prompt and answer where the settings name no length."""


@dataclass(frozen=True)
class Base:
    """A frozen causal language model with slots for adapters, and its tokenizer.

    slots: adapted layers by name, in the model's order. source: for every slot, the first one that reads the
    same input (q, k and v share one). keeps_logits: whether forward can skip early logits. stages: where on a GPU
    devices train in turn (`replay.Stage`), one for each kind of training, made by the first device of its kind.
    """

    model: nn.Module
    tokenizer: Any
    slots: dict[str, AdaptedLinear]
    layout: Layout
    source: dict[str, str]
    pad_id: int
    eos_id: int
    max_length: int
    scaling: float
    keeps_logits: bool
    stages: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """For every distinct layer input, the name of the first slot that reads it."""
        return tuple(dict.fromkeys(self.source.values()))

    @property
    def widths(self) -> tuple[int, ...]:
        """k of every distinct layer input, in the order of `inputs`."""
        return tuple(self.slots[name].base.in_features for name in self.inputs)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end what is written: the tokenizer's, and all at which the model's own `generate` ends."""
        named = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        return frozenset((self.eos_id, *([named] if isinstance(named, int) else named or ())))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of what the model computes."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Parameters of the frozen model."""
        return sum(p.numel() for p in self.model.parameters())


@functools.lru_cache(maxsize=2)
def load_base(settings: ModelSettings) -> Base:
    """Load, freeze and adapt the base model; a second call with the same settings returns the same object.

    Args:
        settings: which model, which layers, which rank.

    Returns:
        The model in evaluation mode, no parameter asking for a gradient.

    Raises:
        ValueError: nothing to load at the source, too large for memory, no such linear layers or blocks, rank too
            large, no end token, no such device.
    """
    check_device(settings.device)
    if settings.device != "cpu":
        from .size import check_fits  # late: it reads this file

        there_b = torch.cuda.get_device_properties(settings.device).total_memory
        check_fits(settings.source, settings.dtype, there_b, settings.device)
    model, tokenizer = load_model(settings.source, getattr(torch, settings.dtype))
    model.requires_grad_(False).eval().to(settings.device)
    found = _targets(model, settings)
    slots = adapt(model, found)
    shapes = tuple(Shape(n, s.base.out_features, s.base.in_features) for n, s in slots.items())
    end, pad = _special_tokens(tokenizer, model.get_input_embeddings().num_embeddings, settings.source)
    limit = int(getattr(model.config, "max_position_embeddings", None) or LONGEST)
    if (settings.max_length or 0) > limit:
        raise ValueError(
            f"model.max_length: {settings.max_length} exceeds the context of {settings.source}, {limit} tokens"
        )
    return Base(
        model=model,
        tokenizer=tokenizer,
        slots=slots,
        layout=Layout(shapes, settings.rank),
        source=_source_of_inputs(model, slots),
        pad_id=pad,
        eos_id=end,
        max_length=settings.max_length or min(LONGEST, limit),
        scaling=settings.scaling,
        keeps_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )


def check_device(device: str) -> None:
    """Whether torch can compute there.

    Raises:
        ValueError: no GPU of that number, or a build of torch that knows none.
    """
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        found = (
            f"torch {torch.__version__} finds {count} GPUs here" if count else f"torch {torch.__version__} finds none"
        )
        raise ValueError(f"model.device: there is no {device}, {found}; use cpu")


def load_model(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from a directory, the hub, or `embedded`.

    Raises:
        ValueError: nothing to load there, or more than fits into memory.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = place_of(source)
    if Path(place).is_dir():
        _check_directory(Path(place))
    if source != EMBEDDED:
        from .size import check_fits, memory_b  # late: it reads this file

        check_fits(place, str(dtype).removeprefix("torch."), memory_b())
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype)
    except Exception as error:  # whatever the loader finds wrong, the user needs one sentence
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model.source: {place} does not load as a causal language model: {reason}{how_to_get(place)}"
        ) from None
    return model, tokenizer


def place_of(source: str) -> str:
    """The directory, or name on the hub, that a source stands for.

    Raises:
        ValueError: a directory that is not there.
    """
    place = str(TINY) if source == EMBEDDED else source
    if (Path(place).is_absolute() or "\\" in place or place.count("/") != 1) and not Path(place).is_dir():
        raise ValueError(f"model.source: there is no directory {place}")
    return place


def how_to_get(source: str) -> str:
    """A sentence on how a model is had that is named as on the hub; nothing about a directory.

    >>> how_to_get("owner/name")
    '. Where there is a network: hf download owner/name --local-dir DIR; then --model DIR'
    """
    if Path(source).is_dir() or source.count("/") != 1:
        return ""
    return f". Where there is a network: hf download {source} --local-dir DIR; then --model DIR"


def _special_tokens(tokenizer: Any, num_embeddings: int, source: str) -> tuple[int, int]:
    """Ids of the end token and of the padding token; where the latter is lacking the end token serves, masked."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if end is None:
        raise ValueError(f"model {source}: its tokenizer has no end-of-text token, answers could not end")
    if end >= num_embeddings:  # a token the tokenizer's class brings along and the model never had
        raise ValueError(
            f"model {source}: end token {tokenizer.eos_token!r} is number {end} of {num_embeddings} embeddings"
        )
    return end, end if pad is None or pad >= num_embeddings else pad


def _check_directory(place: Path) -> None:
    if not (place / "config.json").is_file():
        raise ValueError(f"model.source: {place} has no config.json, so it is not a Hugging Face model directory")
    if not any(place.glob("*.safetensors")):
        raise ValueError(f"model.source: {place} holds no weights; a *.safetensors file belongs there")


def _targets(model: Any, settings: ModelSettings) -> tuple[str, ...]:
    """Full names of the linear layers to adapt, in the model's order."""
    family = str(getattr(model.config, "model_type", ""))
    wanted = settings.layers or FAMILIES.get("llama" if family in LIKE_LLAMA else family, ())
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    kinds = sorted({n.rsplit(".", 1)[-1] for n in linear})
    if not wanted:
        raise ValueError(
            f"model.layers: the linear layers of family {family!r} are not known by default; "
            f"name those to adapt, the model has {', '.join(kinds) or 'none'}"
        )
    twice = sorted({n for n in wanted if wanted.count(n) > 1})
    if twice:
        raise ValueError(f"model.layers: {', '.join(twice)} named more than once; a layer has one adapter")
    lacking = sorted(set(wanted) - set(kinds))
    if lacking:
        raise ValueError(
            f"model.layers: {settings.source} has no linear layer {', '.join(lacking)}; "
            f"it has {', '.join(kinds) or 'none'}"
        )
    named = tuple(n for n in linear if n.rsplit(".", 1)[-1] in wanted)
    return named if settings.first_block == 0 else _from_block(named, settings)


def _from_block(names: tuple[str, ...], settings: ModelSettings) -> tuple[str, ...]:
    """Those of the named layers that lie in blocks from `first_block` on."""
    blocks = {n: block_of(n) for n in names}
    outside = [n for n, block in blocks.items() if block is None]
    if outside:
        raise ValueError(
            f"model.first_block: layer {outside[0]} of {settings.source} lies in no numbered block; leave it out of "
            "model.layers, or set model.first_block to 0"
        )
    numbers = {n: int(str(block).rpartition(".")[2]) for n, block in blocks.items()}
    if settings.first_block > max(numbers.values()):
        raise ValueError(
            f"model.first_block: {settings.first_block} leaves no layer to adapt, the blocks of {settings.source} "
            f"are 0 to {max(numbers.values())}"
        )
    return tuple(n for n in names if numbers[n] >= settings.first_block)


def _source_of_inputs(model: Any, slots: dict[str, AdaptedLinear]) -> dict[str, str]:
    """For every slot the first one that reads the same tensor, found by watching one pass."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        slot.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
        for name, slot in slots.items()
    ]
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: next(first for first, other in seen if other is x) for name, x in seen}
