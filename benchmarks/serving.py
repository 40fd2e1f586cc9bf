"""What choosing and applying one of ten experts costs, against the base model alone: prefill and each generated token.

Three banks on a random-weight Qwen2 shape: adapters on all blocks, the choice reading the first block in a short pass
of its own; adapters on all blocks, the choice made from embeddings inside the same pass; adapters from the second
block on, the choice made after the first inside the same pass. The first and the last also folded: an expert that
answers is worked into a copy of the weights; either it was there before the prompt, or it comes after the fourth token
of the answer, whose cost it is part of. In turn in one process, one thread, medians.

    python -m benchmarks.serving [--shape small|0.5b-cut|0.5b|1.5b] [--tokens 256] [--repeats 15]
    python -m benchmarks.serving --shape 0.5b --device cuda --dtype bfloat16

CPU time on a CPU, wall time between synchronisations on a GPU; ratios are of medians. Targets: prefill 1.10, generated
token 1.05 of the base alone. Bound: 1 + 2 r (1/d + 1/k) of the layers' own products.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from orthomesh.adapters.lowrank import Layout, Shape
from orthomesh.experts.sketch import task_sketch
from orthomesh.models.attach import attach, fingerprint
from orthomesh.models.bank_io import Portable
from orthomesh.models.cache import cache_of, cached
from orthomesh.models.reading import block_number
from orthomesh.types import Bank, Expert

RANK, EXPERTS, DENSITY, SKETCH = 16, 10, 0.125, 64
SHAPES = {
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4},
    "0.5b-cut": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 6, "num_attention_heads": 14},
    "0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "vocab_size": 151936,
    },
    "1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "vocab_size": 151936,
    },
}  # fmt: skip
"""Qwen2 with two key-value heads and 4096 tokens where no number is named; the last two are Qwen2.5-0.5B and 1.5B."""


def model_of(shape: str, device: str, dtype: str) -> Any:
    """A Qwen2 of the shape with random weights, the same ones each time."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    settings = {"vocab_size": 4096, "num_key_value_heads": 2, "tie_word_embeddings": True, **SHAPES[shape]}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(Qwen2Config(**settings), dtype=getattr(torch, dtype)).eval()


@functools.cache
def bank_of(model: Any, first_block: int, blocks: int) -> Portable:
    """Ten experts with sketches of made-up tasks; their A is drawn at once, which costs less than orthonormal rows."""
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and block_number(n) is not None}
    shapes = [
        Shape(n, m.out_features, m.in_features) for n, m in linear.items() if (block_number(n) or 0) >= first_block
    ]
    layout, experts = Layout(tuple(shapes), RANK), []
    for owner in range(EXPERTS):
        rng = np.random.default_rng(owner)
        B = rng.standard_normal(layout.num_expansion, dtype=np.float32)
        B *= np.float32(0.01) * (rng.random(layout.num_expansion, dtype=np.float32) < DENSITY)
        told = task_sketch(owner + rng.standard_normal((256, SKETCH)))
        experts.append(
            Expert(
                owner=owner,
                A=rng.standard_normal(layout.num_projection, dtype=np.float32) / np.float32(layout.rank),
                B=B,
                sketch=told,
            )
        )
    return Portable(
        bank=Bank(experts=tuple(experts), choice="discriminant", blocks=blocks),
        labels=tuple(str(n) for n in range(EXPERTS)),
        layout=layout,
        scaling=2.0,
        base_model="random",
        fingerprint=fingerprint(model),
    )


def timed(step: Callable[[], Any], device: str) -> float:
    """Seconds of the process's own time, or until a GPU is done."""
    if device == "cpu":
        started = time.process_time()
        step()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def rounds(
    models: dict[str, Any], tokens: int, new: int, repeats: int, device: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of a prefill, and of a generated token after it, of every model in turn."""
    ids = torch.randint(0, 4096, (1, tokens), generator=torch.Generator().manual_seed(1)).to(device)
    spent: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in models}

    def prefill(model: Any) -> Any:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    with torch.no_grad():
        for turn in range(repeats + 1):
            for label, model in models.items():
                if label.endswith("folded on the way"):
                    model.orthomesh.fold = None  # as if another expert had answered before
                first = timed(lambda model=model: prefill(model), device)
                cache = cache_of(prefill(model))

                def grow(model: Any = model, cache: Any = cache) -> None:
                    for n in range(new):
                        at = torch.tensor([[tokens + n]], device=device)
                        model(input_ids=ids[:, :1], position_ids=at, use_cache=True, **cached(model, cache))

                each = timed(grow, device) / new
                if turn:  # the first turn warms up
                    spent[label][0].append(first)
                    spent[label][1].append(each)
    return spent


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", choices=tuple(SHAPES), default="small")
    p.add_argument("--tokens", type=int, default=256)
    p.add_argument("--new", type=int, default=16)
    p.add_argument("--repeats", type=int, default=15)
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    a = p.parse_args()
    torch.set_num_threads(1)
    models: dict[str, Any] = {"base alone": model_of(a.shape, a.device, a.dtype)}
    for label, first_block, blocks, how in (
        ("all blocks adapted, first block read before", 0, 1, ("", ", folded", ", folded on the way")),
        ("all blocks adapted, embeddings read on the way", 0, 0, ("",)),
        ("adapted from block 1, first block read on the way", 1, 1, ("", ", folded")),
    ):
        for more in how:
            fresh = model_of(a.shape, a.device, a.dtype)
            models[label + more] = attach(bank_of(models["base alone"], first_block, blocks), fresh, folded=bool(more))
    spent = rounds(models, a.tokens, a.new, a.repeats, a.device)
    clock = "CPU time, one thread" if a.device == "cpu" else f"wall time on {torch.cuda.get_device_name()}"
    base = [statistics.median(s) for s in spent["base alone"]]
    print(f"{a.shape}, prompt of {a.tokens} tokens, {EXPERTS} experts of rank {RANK}, {a.dtype}, {clock}")
    for label, (first, each) in spent.items():
        now = statistics.median(first), statistics.median(each)
        print(
            f"{label:66s} prefill {1e3 * now[0]:8.1f} ms, {now[0] / base[0]:.3f} of base; "
            f"token {1e3 * now[1]:7.2f} ms, {now[1] / base[1]:.3f}"
        )


if __name__ == "__main__":
    main()
