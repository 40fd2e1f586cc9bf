"""What a simulated round costs over the bare loop that does the same optimiser steps and nothing else.

N devices of gossip LoRA on a complete graph: rank 8 on q and v of a random 0.94 M-parameter Qwen2 (hidden 128,
4 layers), 10 AdamW steps a round on 8 x 64 tokens each, 3 rounds, uniform averaging in 16 bit. `ours` runs the
package: rounds, plans, framed payloads, an air that delivers everything. `bare` loads the same model with plain torch
and loops. Both take the same batches; their losses must agree. Each run is a process of its own with one torch
thread, in turn, several times.

    python -m benchmarks.overhead [--repeats 3] [--devices 10 50]

Published peers on this kind of work, CPU over a bare loop: pfl 1.25-1.4, Flower 1.4-2.2 with 1.7 GB at N=50.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS, STEPS, BATCH, RANK, SCALING, RATE = 3, 10, 8, 8, 2.0, 1e-3
CPU_TARGET, MEMORY_TARGET_GB = 1.10, 0.45


def prepare(folder: Path, num_devices: int) -> None:
    """Save the random model with the embedded tokenizer, and motif data of 64 tokens for every device."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    from orthomesh.models.settings import TINY

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=128, num_hidden_layers=4, intermediate_size=352, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder / "model")
    for k in range(num_devices):
        rng = np.random.default_rng(k)
        motif = "".join(chr(97 + n) for n in rng.integers(0, 26, 15))
        for split in ("train", "test"):
            path = folder / "data" / f"d{k}" / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            starts = rng.integers(0, 15, 60)
            rows = [{"instruction": (motif * 6)[s : s + 32], "output": (motif * 6)[s + 32 : s + 62]} for s in starts]
            path.write_text("\n".join(json.dumps(r) for r in rows))


def setup_of(folder: Path, num_devices: int) -> Any:
    """The run's settings, the same for both sides."""
    from orthomesh.methods.setup import Setup
    from orthomesh.models.settings import ModelSettings, TrainSettings
    from orthomesh.tasks.settings import TaskSettings
    from orthomesh.wireless.link import Radio

    names = tuple(f"d{k}" for k in range(num_devices))
    return Setup(
        seed=0,
        assignment=names,
        model=ModelSettings(
            source=str(folder / "model"), layers=("q_proj", "v_proj"), rank=RANK, scaling=SCALING, max_length=128
        ),
        train=TrainSettings(steps=STEPS, batch_size=BATCH, learning_rate=RATE, clip_norm=1e9),
        tasks=TaskSettings(names=names, data=str(folder / "data"), train_examples=50, test_examples=1),
        radio=Radio(),
    )


def ours(folder: Path, num_devices: int) -> list[float]:
    """Mean loss of each round, by the package."""
    from orthomesh.engines.inprocess import InProcess, pin_threads
    from orthomesh.methods.gossip_lora import GossipLora
    from orthomesh.round import run_round
    from orthomesh.types import Round
    from orthomesh.wireless.air import IdealAir

    pin_threads(1)
    method, engine, air = (
        GossipLora(num_neighbours=0).build(setup_of(folder, num_devices)),
        InProcess(num_devices),
        IdealAir(),
    )
    devices = {k: method.init(k) for k in engine.hosted}
    losses = []
    for index in range(ROUNDS):
        devices, info = run_round(Round(0, index, ROUNDS), devices, method, air, engine)
        losses.append(statistics.mean(one.last_loss for one in info.learnt.values()))
    return losses


def bare(folder: Path, num_devices: int) -> list[float]:
    """Mean loss of each round, by a plain torch loop: no rounds, no messages, no engine."""
    import torch
    import torch.nn.functional as F
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from orthomesh.adapters.lowrank import Layout, Shape
    from orthomesh.adapters.projection import projection
    from orthomesh.methods.setup import device_examples
    from orthomesh.rng import key, stream

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    class LoRA(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.A = nn.Parameter(torch.zeros(RANK, base.in_features))
            self.B = nn.Parameter(torch.zeros(base.out_features, RANK))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + F.linear(F.linear(x, self.A) * SCALING, self.B)

    names = [n for n, m in model.named_modules() if n.endswith(("q_proj", "v_proj"))]
    for name in names:
        parent, leaf = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(parent, leaf, LoRA(getattr(parent, leaf)))
    adapters = [model.get_submodule(n) for n in names]
    layout = Layout(tuple(Shape(n, *a.base.weight.shape) for n, a in zip(names, adapters, strict=True)), RANK)
    params = [a.A for a in adapters] + [a.B for a in adapters]
    start = torch.from_numpy(projection(key(0, "common-start"), layout))
    common = torch.cat([start, torch.zeros(layout.num_expansion)])
    state = [common.clone() for _ in range(num_devices)]
    setup = setup_of(folder, num_devices)
    data = []
    for k in range(num_devices):
        rows = device_examples(setup, k)
        ids = [tokenizer(e.prompt)["input_ids"] + tokenizer(e.target)["input_ids"] + [1] for e in rows]
        data.append((torch.tensor(ids), len(tokenizer(rows[0].prompt)["input_ids"])))
    losses = []
    for index in range(ROUNDS):
        ends = []
        for k in range(num_devices):
            with torch.no_grad():
                nn.utils.vector_to_parameters(state[k], params)
            optimiser, order = torch.optim.AdamW(params, lr=RATE, weight_decay=0.0), stream(0, "batches", index, k)
            ids, prompt = data[k]
            for _ in range(STEPS):
                batch = ids[torch.from_numpy(order.integers(len(ids), size=BATCH))]
                logits = model(input_ids=batch, use_cache=False, logits_to_keep=batch.shape[1] - prompt + 1).logits
                loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, prompt:].flatten())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            ends.append(float(loss))
            state[k] = nn.utils.parameters_to_vector(params).detach().clone()
        mean = sum(s.half().float() for s in state) / num_devices
        state = [mean + (s - s.half().float()) / num_devices for s in state]  # its own share is not rounded
        losses.append(statistics.mean(ends))
    return losses


def measure(side: str, folder: Path, num_devices: int) -> dict[str, Any]:
    """One side in a process of its own."""
    import time

    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.overhead", "--side", side, "--folder", str(folder), "--devices"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, str(num_devices)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": time.monotonic() - started}


def one_side(side: str, folder: Path, num_devices: int) -> None:
    """Run one side here and print what it took."""
    losses = {"ours": ours, "bare": bare}[side](folder, num_devices)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"losses": losses, "cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 2**20}))


def compare(num_devices: int, repeats: int) -> bool:
    """Both sides in turn; prints medians and their ratios, and says whether the targets are met."""
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), num_devices)
        for _ in range(repeats):
            for side in found:
                found[side].append(measure(side, Path(name), num_devices))
    gap = max(abs(a - b) for a, b in zip(found["bare"][0]["losses"], found["ours"][0]["losses"], strict=True))
    if gap > 1e-3:
        raise SystemExit(f"the two sides do not do the same work: losses differ by {gap}")
    print(f"N={num_devices}: {ROUNDS} rounds x {STEPS} steps, {repeats} runs of each; losses agree within {gap:.1e}")
    medians = {
        s: {k: statistics.median(r[k] for r in runs) for k in ("cpu_s", "wall_s", "peak_gb")}
        for s, runs in found.items()
    }
    for side, values in medians.items():
        print(
            f"  {side}: CPU {values['cpu_s']:7.1f} s   wall {values['wall_s']:7.1f} s   peak {values['peak_gb']:.3f} GB"
        )
    ratio = medians["ours"]["cpu_s"] / medians["bare"]["cpu_s"]
    ok = ratio <= CPU_TARGET and medians["ours"]["peak_gb"] <= MEMORY_TARGET_GB
    verdict = "met" if ok else "missed"
    print(f"  CPU ratio of medians {ratio:.3f}; targets {CPU_TARGET} and {MEMORY_TARGET_GB} GB: {verdict}")
    return ok


def main() -> None:
    """Parse and compare; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--side", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        one_side(given.side, given.folder, given.devices[0])
        return
    missed = [n for n in given.devices if not compare(n, given.repeats)]
    print("published peers, CPU over a bare loop: pfl 1.25-1.4, Flower 1.4-2.2 with 1.7 GB")
    if missed:
        raise SystemExit(f"target missed at N={missed}")


if __name__ == "__main__":
    main()
