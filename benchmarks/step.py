"""What one optimiser step costs: peft's LoRA, ours with A frozen and B masked, and the least it could be.

All sides train the same random rows on the same weights, at equal rank on all linear layers, with the same code from
rows to loss, in turn in one process:

  peft         get_peft_model, dropout 0, torch's AdamW on all factors, norm clipped at 1: what a user writes
  ours, 1/8    finetune.fit under a random mask of density 1/8, setting up and taking down included; on a GPU with
               recorded passes, what recording them costs included in the first turn, which is not timed
  ours, plain  on a GPU only: the same without recorded passes
  ours, dense  the same as the first without a mask
  bound        forward pass, loss, and the gradients of all activations back to the outputs of the first adapted layers,
               on the frozen base with empty slots: no adapter, no gradient of a weight, no optimiser; rows that are
               uneven enough without padding, as ours
  recorded     on a GPU only: the bound as a recorded pass over one batch, what the GPU itself needs

Steps: medians over the repeats and ratios of medians, of CPU time on a CPU, of wall time on a GPU. Memory: bytes of all
tensors alive between backward pass and optimiser step that a side brought with it: factors (A too, though a seed could
make it again), gradients, moments, indices. What fit was given to start from, and leaves alone, belongs to the caller.
Activations: bytes autograd keeps for the backward pass, frozen weights aside.

    python -m benchmarks.step [--shape embedded nano qwen0.5b] [--model DIR] [--repeats 7]
    python -m benchmarks.step --shape 0.5b 1.5b --device cuda --dtype bfloat16 [--turn-s 3] [--batch 64]    # on a GPU
    python -m benchmarks.step --uneven 0.3    # rows of all lengths from that share of the longest on, on a CPU
    python -m benchmarks.step --stacked 2 5 10 [--batch 24]    # devices in one forward pass against one after the other
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orthomesh.adapters.projection import projection
from orthomesh.models.attention import attending
from orthomesh.models.base import Base, load_base
from orthomesh.models.finetune import Factors, Job, fit
from orthomesh.models.inject import Adapter
from orthomesh.models.packing import ROWS, logits_where_scored, pack, packs
from orthomesh.models.settings import TINY, ModelSettings, TrainSettings
from orthomesh.models.stacked import fit_stacked
from orthomesh.models.tokens import Row, collate, logits_before_targets

RANK, RATE = 16, 1e-3
STEP_TARGET, MEMORY_TARGET = 0.95, 0.6
SMALL = ("embedded", "nano", "qwen0.5b")
"""Shapes that are compared where none is named."""
SHAPES: Mapping[str, Mapping[str, int]] = {
    "nano": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4},
    "qwen0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 2, "num_attention_heads": 14},
    "0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "vocab_size": 151936,
    },
    "1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "vocab_size": 151936,
    },
}  # fmt: skip
"""Random Qwen2 models with two key-value heads and 4096 tokens, the second Qwen2.5-0.5B cut to two blocks; the last
two are Qwen2.5-0.5B and 1.5B whole."""

BATCHES: Mapping[str, tuple[int, int, int]] = {"embedded": (24, 20, 7)}
"""Rows, their tokens, and the last ones of these that are scored; 8 rows of 128 tokens elsewhere."""

Turn = Callable[[int], list[float]]
"""Does some steps of one side; returns losses, the first step's first and the last step's last."""


def prepare(shape: str, folder: Path, device: str, dtype: torch.dtype) -> str:
    """Where the model of a shape lies: the package's, a directory given, or a random one saved in `folder`."""
    if shape not in SHAPES:
        return str(TINY) if shape == "embedded" else shape
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    tokens = {"vocab_size": 4096, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    tied = SHAPES[shape].get("vocab_size", 0) > 4096
    settings = {**tokens, **SHAPES[shape], "num_key_value_heads": 2, "max_position_embeddings": 512}
    config = Qwen2Config(**settings, tie_word_embeddings=tied)
    with torch.device(device):  # billions of random numbers are slow to draw on a CPU
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder / shape)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder / shape)
    return str(folder / shape)


def random_rows(base: Base, length: int, scored: int, shortest: float = 1.0) -> list[Row]:
    """Rows from a share of a length on, all as long unless told otherwise; their last tokens are the target."""
    draw = np.random.default_rng(0)
    ids = draw.integers(2, base.model.get_input_embeddings().num_embeddings, size=(64, length)).tolist()
    lengths = draw.integers(max(scored + 1, round(shortest * length)), length + 1, size=64)
    return [Row(tuple(row[-n:-scored]), tuple(row[-scored:]), (), False) for row, n in zip(ids, lengths, strict=True)]


def loss_of(base: Base, rows: list[Row], apart: bool = False) -> Tensor:
    """Mean over the targets' tokens, as every loop has it; `apart`: without padding where that is cheaper."""
    pairs = [(row.prompt, row.target) for row in rows]
    if apart and packs(base, pairs):
        with attending(base.model, ROWS):
            packed = pack(base, pairs)
            return F.cross_entropy(logits_where_scored(base, packed).float(), packed.targets)
    batch = collate(base, pairs)
    batch = batch._replace(**{name: getattr(batch, name).to(base.device) for name in ("ids", "positions", "targets")})
    logits = logits_before_targets(base, batch)
    return F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())


def drawn(rows: list[Row], size: int, order: np.random.Generator) -> list[Row]:
    return [rows[int(n)] for n in order.integers(len(rows), size=size)]


def peft_side(base: Base, source: str, rows: list[Row], size: int) -> Turn:
    """LoRA of peft on a model of its own."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(source, dtype=base.dtype).to(base.device)
    kinds = sorted({name.rsplit(".", 1)[-1] for name in base.slots})
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=kinds)
    theirs = replace(base, model=get_peft_model(plain, config))
    trained = [p for p in theirs.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    order = np.random.default_rng(1)

    def turn(steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            optimiser.zero_grad()
            loss = loss_of(theirs, drawn(rows, size, order))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            losses.append(loss.item())
        return losses

    return turn


def our_side(base: Base, rows: list[Row], size: int, density: float, replay: bool = True) -> Turn:
    """finetune.fit, going on from where the last turn ended."""
    num = base.layout.num_expansion
    active = None if density == 1.0 else np.random.default_rng(2).random(num) < density
    now = Factors(A=projection(0, base.layout), B=np.zeros(num, dtype=np.float32), active=active)
    order = np.random.default_rng(1)

    def turn(steps: int) -> list[float]:
        nonlocal now
        train = TrainSettings(steps=steps, batch_size=size, learning_rate=RATE, replay=replay)
        now, learnt = fit(base, rows, now, train, order)
        return [learnt.first_loss, learnt.last_loss]

    return turn


def bound_side(base: Base, rows: list[Row], size: int) -> Turn:
    """The frozen base alone; its first adapted layers' outputs ask for a gradient."""
    order = np.random.default_rng(1)

    def turn(steps: int) -> list[float]:
        hooks = [slot.register_forward_hook(lambda *seen: seen[-1].requires_grad_()) for slot in base.slots.values()]
        losses = []
        for _ in range(steps):
            loss = loss_of(base, drawn(rows, size, order), apart=True)
            loss.backward()
            losses.append(loss.item())
        for hook in hooks:
            hook.remove()
        return losses

    return turn


def recorded_bound(base: Base, rows: list[Row], size: int) -> Turn:
    """The bound's pass over one batch as a CUDA graph."""
    batch = collate(base, [(row.prompt, row.target) for row in drawn(rows, size, np.random.default_rng(1))])
    hooks = [slot.register_forward_hook(lambda *seen: seen[-1].requires_grad_()) for slot in base.slots.values()]

    def once() -> Tensor:
        logits = logits_before_targets(base, batch)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
        loss.backward()
        return loss.detach()

    once()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = once()
    for hook in hooks:
        hook.remove()

    def turn(steps: int, _kept: Any = batch) -> list[float]:  # the graph reads the batch where it lies
        losses = []
        for _ in range(steps):
            graph.replay()
            losses.append(loss.item())
        return losses

    return turn


def storages(kinds: tuple[type, ...] = (Tensor, nn.Parameter), frozen: bool = False) -> dict[int, int]:
    """Bytes of all tensors alive, gradients among them, by address; or of frozen parameters only."""
    found = [x for x in gc.get_objects() if type(x) in kinds and not (frozen and x.requires_grad)]
    found += [x.grad for x in found if x.is_leaf and x.grad is not None]
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in found}


def held_by(build: Callable[[], Turn]) -> tuple[Turn, int, float]:
    """A side, the bytes it brought with it, as they are in its second step before the optimiser's, its first loss."""
    gc.collect()
    before, seen = storages(), [0]
    turn = build()
    clip = torch.nn.utils.clip_grad_norm_

    def count(*args: Any, **kwargs: Any) -> Tensor:
        known = before | storages((nn.Parameter,), frozen=True)
        seen[0] = sum(size for place, size in storages().items() if place not in known)
        return clip(*args, **kwargs)

    with mock.patch.object(torch.nn.utils, "clip_grad_norm_", count):
        losses = turn(2)
    return turn, seen[0], losses[0]


def kept_by(base: Base, turn: Turn) -> int:
    """Bytes autograd keeps between a forward and a backward pass, weights and factors aside."""
    weights, kept = storages((nn.Parameter,)), {}

    def pack(x: Tensor) -> Tensor:
        factors = [f for slot in base.slots.values() if isinstance(slot.held, Adapter) for f in slot.held[:2]]
        place = x.untyped_storage().data_ptr()
        if place not in weights and place not in {f.untyped_storage().data_ptr() for f in factors}:
            kept[place] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        turn(1)
    return sum(kept.values())


def timed(device: torch.device, run: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU and wall seconds of a call, and what it returned."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.process_time(), time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.process_time() - started[0], time.perf_counter() - started[1], result


def in_turn(
    device: torch.device, turns: Mapping[str, Turn], repeats: int, turn_s: float
) -> dict[str, list[tuple[float, float, Any]]]:
    """Seconds a step of every side, side after side, again and again; who begins changes."""
    steps = max(1, round(turn_s / max(timed(device, lambda t=t: t(1))[1] for t in turns.values())))
    found: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in turns}
    names = list(turns)
    for index in range(repeats):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            cpu, wall, losses = timed(device, lambda name=name: turns[name](steps))
            found[name].append((cpu / steps, wall / steps, losses))
    return found


def compare(base: Base, source: str, size: int, rows: list[Row], repeats: int, turn_s: float) -> bool:
    """All sides on one shape; prints what they cost and says whether the targets are met."""
    gpu = base.device.type == "cuda"
    builds: dict[str, Callable[[], Turn]] = {
        "ours, plain": lambda: our_side(base, rows, size, 0.125, replay=False),
        "ours, dense": lambda: our_side(base, rows, size, 1.0, replay=False),
        "bound": lambda: bound_side(base, rows, size),
        "peft": lambda: peft_side(base, source, rows, size),
    }
    turns, held, kept, first = {}, {}, {}, {}
    for name, build in builds.items():
        turns[name], held[name], first[name] = held_by(build)
        kept[name] = kept_by(base, turns[name])
    if gpu:  # what lies on the GPU is the same, and autograd keeps it unseen
        turns["ours, 1/8"], turns["ours, dense"] = (our_side(base, rows, size, density) for density in (0.125, 1.0))
        turns["recorded"] = recorded_bound(base, rows, size)
        held |= {"ours, 1/8": held["ours, plain"], "recorded": 0}
        kept |= {"ours, 1/8": kept["ours, plain"], "recorded": kept["bound"]}
        first["ours, 1/8"] = turns["ours, 1/8"](2)[0]
        turns["ours, dense"](2)
    else:
        turns["ours, 1/8"], held["ours, 1/8"], kept["ours, 1/8"] = (
            side.pop("ours, plain") for side in (turns, held, kept)
        )
    gap = (max(first.values()) - min(first.values())) / first["bound"]
    if gap > (1e-4 if base.dtype == torch.float32 else 2e-2):
        raise SystemExit(f"the sides do not do the same work: first losses differ by {gap:.1e}")
    found = in_turn(base.device, turns, repeats, turn_s)
    clock = 1 if base.device.type == "cuda" else 0
    cost = {name: [statistics.median(one[c] for one in runs) for c in (0, 1)] for name, runs in found.items()}
    print(f"  first losses {first['bound']:.4f}, apart by {gap:.0e} of it")
    print("               CPU, ms  wall, ms  of peft  of bound  factors+optimiser, MB  of peft  activations, MB   loss")
    for name, (cpu, wall) in cost.items():
        of_peft, of_bound = (cost[name][clock] / cost[other][clock] for other in ("peft", "bound"))
        print(
            f"  {name:11s} {1e3 * cpu:9.1f} {1e3 * wall:9.1f} {of_peft:8.3f} {of_bound:9.3f} {held[name] / 1e6:22.3f} "
            f"{held[name] / held['peft']:8.3f} {kept[name] / 1e6:16.1f} {found[name][-1][2][-1]:6.3f}"
        )
    step, memory = cost["ours, 1/8"][clock] / cost["peft"][clock], held["ours, 1/8"] / held["peft"]
    ok = step <= STEP_TARGET and memory <= MEMORY_TARGET
    if gpu:
        torch.cuda.empty_cache()
        idle = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        print(f"  recorded passes, the bound's too, hold {idle / 1e6:.0f} MB of the GPU's memory between steps")
    print(f"  targets {STEP_TARGET} of peft's step and {MEMORY_TARGET} of its memory: {'met' if ok else 'missed'}")
    return ok


def stacked(base: Base, size: int, rows: list[Row], count: int, repeats: int, turn_s: float) -> None:
    """Devices in one forward pass against one after the other; prints the ratio of medians."""
    num = base.layout.num_expansion
    starts = [
        Factors(
            A=projection(k, base.layout),
            B=np.zeros(num, dtype=np.float32),
            active=np.random.default_rng(k).random(num) < 0.125,
        )
        for k in range(count)
    ]

    def jobs(steps: int) -> list[Job]:
        train = TrainSettings(steps=steps, batch_size=size, learning_rate=RATE)
        return [Job(rows, start, train, np.random.default_rng(k)) for k, start in enumerate(starts)]

    turns: dict[str, Turn] = {
        "stacked": lambda steps: [learnt.last_loss for _, learnt in fit_stacked(base, jobs(steps))],
        "loop": lambda steps: [fit(base, j.rows, j.start, j.settings, j.order)[1].last_loss for j in jobs(steps)],
    }
    found = in_turn(base.device, turns, repeats, turn_s)
    gap = max(abs(a - b) for a, b in zip(found["stacked"][0][2], found["loop"][0][2], strict=True))
    cpu, wall = ([statistics.median(one[c] for one in found[name]) for name in turns] for c in (0, 1))
    print(
        f"  {count:2d} devices: stacked {1e3 * cpu[0]:.1f} ms, loop {1e3 * cpu[1]:.1f} ms CPU for a step of all, "
        f"ratio {cpu[0] / cpu[1]:.3f} (wall {wall[0] / wall[1]:.3f}); losses agree within {gap:.0e}"
    )


def main() -> None:
    """Parse, and compare shape by shape; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=("embedded", *SHAPES), default=SMALL)
    parser.add_argument("--model", help="a directory with a model, instead of the shapes")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--turn-s", type=float, default=0.5, help="seconds a side trains before the next one does")
    parser.add_argument("--batch", type=int, help="rows a step, instead of the shape's")
    parser.add_argument("--uneven", type=float, default=1.0, metavar="S", help="the shortest row, of the longest")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--stacked", type=int, nargs="+", metavar="D", help="compare stacked devices with a loop instead"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in [given.model] if given.model else given.shape:
            source = prepare(shape, Path(folder), given.device, getattr(torch, given.dtype))
            base = load_base(ModelSettings(source=source, rank=RANK, dtype=given.dtype))
            base.model.to(given.device)
            size, length, scored = BATCHES.get(shape, (8, 128, 16))
            size, rows = given.batch or size, random_rows(base, length, scored, given.uneven)
            each = statistics.mean(len(row.prompt) + scored for row in rows)
            work = f"{size} rows of {each:.0f} tokens, {length} at most, {len(base.slots)} layers"
            print(f"{shape}: {work}, r={RANK}, {base.dtype}")
            if given.stacked:
                for count in given.stacked:
                    stacked(base, size, rows, count, given.repeats, given.turn_s)
            elif not compare(base, source, size, rows, given.repeats, given.turn_s):
                missed.append(shape)
    if missed:
        raise SystemExit(f"target missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
