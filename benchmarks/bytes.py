"""Bytes at the limit: coarse values, masks at their entropy, small sketches, against fp16 gossip of both factors.

Every line is the default experiment with one method, on the same devices, tasks, radio and seeds. `to 99 %`: bytes a
device had sent when the mean accuracy first reached 99 % of the final one (on the way: 25 prompts a task, two devices).
`paired` is the difference to ours as it is (`--against` another line), same seeds and rank; lines of one seed may come
from several files, so that they can run side by side. `shapes` needs no training: it frames random arrays of the
shapes of Qwen2.5-1.5B at rank 32 and counts what was framed. `changes` trains three devices and tells their values
after the second round and at the end, or after every round, whole and as changes.

    python -m benchmarks.bytes run [--seeds 0 1 2] [--only gossip ours] [--rank 32] --out FILE
    python -m benchmarks.bytes table FILE... [--against ours16]
    python -m benchmarks.bytes shapes [--rounds 5] [--sends 2]
    python -m benchmarks.bytes changes            # of three devices alone: what is missed of values and of changes
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orthomesh.adapters.mask import magnitude_mask
from orthomesh.exchange.payload import Section, encode
from orthomesh.exchange.quantise import Precision, tell, tell_change
from orthomesh.experiment import finish, run
from orthomesh.experts.sketch import sketch_size
from orthomesh.methods import MethodSettings
from orthomesh.methods.coding import code_sketch
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.parts import by_run, every_run, unpack
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.methods.telling import describe, send
from orthomesh.presets import default
from orthomesh.types import COLUMNS, DeviceState, Edge, Phase, Round

LIMIT = SparseOrthogonal(
    values="int4", mask_code="entropy", sketch_bits=8, sketch=16, run=16, density=0.1, exchange="last"
)
LEAN = replace(LIMIT, detour=True, overhear=True)
FEW = replace(LEAN, run=1, bid_levels=1, values="int3", density=1 / 16)
LINES: Mapping[str, MethodSettings] = {
    "gossip": GossipLora(),
    "ours": SparseOrthogonal(),
    "ours16": SparseOrthogonal(density=1 / 16),
    "ours20": SparseOrthogonal(density=1 / 20),
    "overheard": SparseOrthogonal(overhear=True),
    "int8": SparseOrthogonal(values="int8", mask_code="entropy", sketch_bits=8),
    "deltas": SparseOrthogonal(values="int8", deltas="int4", mask_code="entropy", sketch_bits=8),
    "int4": SparseOrthogonal(values="int4", mask_code="entropy", sketch_bits=8, sketch=16, run=4),
    "limit": LIMIT,
    "detour": replace(LIMIT, detour=True),
    "lean": LEAN,
    "lean8": replace(LEAN, run=8),
    "few10": replace(FEW, density=1 / 10),
    "few16": FEW,
    "few20": replace(FEW, density=1 / 20),
    "few16-int4": replace(FEW, values="int4"),
}
RANK, BLOCKS, HIDDEN, KEYS, WIDE = 32, 28, 1536, 256, 8960
OUT = (HIDDEN, KEYS, KEYS, HIDDEN, WIDE, WIDE, HIDDEN)
IN = (HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, WIDE)
DEVICES = 10


def outcomes(seed: int, labels: Sequence[str], rank: int) -> dict[str, dict[str, Any]]:
    """Run the lines on one seed with adapters of one rank, and keep what the table shows."""
    import pyarrow.parquet as parquet

    x = replace(default(), name="bytes", seed=seed, workers=1, methods={k: LINES[k] for k in labels})
    x = replace(x, model=replace(x.model, rank=rank))
    with tempfile.TemporaryDirectory() as folder:
        for _ in run(x, Path(folder)):
            pass
        rows = {row["label"]: row for row in finish(x, Path(folder), [], 0.0)["rows"]}
        sent = parquet.read_table(Path(folder) / "rounds.parquet").to_pylist()
        exams = parquet.read_table(Path(folder) / "accuracy.parquet").to_pylist()
    found = {}
    for label in labels:
        final = float(np.mean(list(rows[label]["accuracy"].values())))
        curve = []
        for t in range(1, x.rounds + 1):
            seen = [e["accuracy"] for e in exams if e["method"] == label and e["round"] == t]
            spent = [r[f"bytes_{c}"] for r in sent if r["method"] == label and r["round"] <= t for c in COLUMNS]
            curve.append((float(np.mean(seen)) if seen else 0.0, sum(spent) / DEVICES))
        curve[-1] = (final, curve[-1][1])
        found[label] = {
            "seed": seed,
            "rank": rank,
            "accuracy": 100 * final,
            "columns": rows[label]["bytes_per_device"],
            "curve": curve,
            "near": next(spent for right, spent in curve if right >= 0.99 * final),
            "right": rows[label]["route_right"],
            "lost": rows[label]["lost"],
            "clusters": rows[label]["clusters"],
        }
    return found


def interval(values: Sequence[float], digits: int = 1) -> str:
    """Mean and half-width of a 95 % t-interval; nothing where there is nothing."""
    from scipy.stats import t

    v = np.array(values)
    if not len(v):
        return ""
    if len(v) < 2:
        return f"{v.mean():.{digits}f}"
    half = t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5
    return f"{v.mean():.{digits}f} ± {half:.{digits}f}"


def together(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[int, list[dict[str, Mapping[str, Any]]]]:
    """Lines that ran apart, by rank and within it by seed."""
    found: dict[tuple[int, int], dict[str, Mapping[str, Any]]] = {}
    for run_ in runs:
        for label, line in run_.items():
            found.setdefault((line["rank"], line["seed"]), {})[label] = line
    return {r: [found[key] for key in sorted(found) if key[0] == r] for r in sorted({rank for rank, _ in found})}


def table(runs: Sequence[Mapping[str, Mapping[str, Any]]], against: str) -> str:
    """Markdown, one line a method, of the seeds that ran it."""
    lines = [
        f"| method | accuracy, % | paired | {' | '.join(COLUMNS)} | sent, kB | fewer than gossip, % | to 99 %, kB |",
        "|" + "---|" * (6 + len(COLUMNS)),
    ]
    for label in (k for k in LINES if any(k in r for r in runs)):
        mine = [r[label] for r in runs if label in r]
        columns = [np.mean([m["columns"].get(c, 0) for m in mine]) / 1000 for c in COLUMNS]
        sent = [sum(m["columns"].values()) / 1000 for m in mine]
        both = [r for r in runs if label in r and against in r]
        paired = interval([r[label]["accuracy"] - r[against]["accuracy"] for r in both]) if label != against else ""
        saved = [
            100 * (1 - sum(r[label]["columns"].values()) / sum(r["gossip"]["columns"].values()))
            for r in runs
            if label in r and "gossip" in r
        ]
        cells = [label, interval([m["accuracy"] for m in mine]), paired, *(f"{c:.2f}" for c in columns)]
        cells += [interval(sent), interval(saved, 2), interval([m["near"] / 1000 for m in mine])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def own_parts(c: SparseOrthogonal, rng: np.random.Generator) -> dict[str, Any]:
    """A device after its training, in the shapes of Qwen2.5-1.5B: random B, what it sent of it."""
    sizes = np.array(OUT * BLOCKS) * RANK
    B = (1e-2 * rng.standard_normal(int(sizes.sum()), dtype=np.float32)).astype(np.float32)
    quota = np.maximum(1, np.round(c.density * sizes)).astype(np.int64)
    mask = np.repeat(magnitude_mask(by_run(np.abs(B), c.run), *every_run(tuple(sizes.tolist()), quota, c.run)), c.run)
    sketch = rng.random(sketch_size(c.sketch)).astype(np.float16)
    return {
        "seed": np.array(rng.integers(1 << 63), dtype=np.uint64),
        "code": np.zeros(0, dtype=np.float16),
        "sketch": code_sketch(sketch, c.sketch) if c.sketch_bits == 8 else sketch,
        "B": B,
        "quota": quota.astype(np.uint32),
        "sizes": sizes.astype(np.uint32),
        "spans": np.ones(sizes.size, dtype=np.uint32),
        "mask": np.packbits(mask),
        "masked": np.array(0, dtype=np.uint32),
        "cluster": np.array([0], dtype=np.uint32),
        "sent": B[mask].astype(np.float16 if c.values == "float16" else np.float32),
        "version": np.array(1, dtype=np.uint32),
        "moment/step": np.array(1),
    }


def framed(c: SparseOrthogonal) -> dict[str, int]:
    """Bytes of every kind of message of one device."""
    own = own_parts(c, np.random.default_rng(0))
    device, t = DeviceState(id=0, own=own), Round(0, 1, 5)
    new = replace(device, own={k: v for k, v in own.items() if k not in ("mask", "cluster", "sent", "version")})

    def length(who: DeviceState, name: str, fresh: bool) -> int:
        phase = Phase(name=name, edges=(Edge(0, 1, carries=(0,), fresh=fresh),))
        return sum(len(m.payload) for m in send(who, phase, t, c))

    return {
        "facts": sum(describe(device, t, c).columns.values()),
        "bid": length(new, "masks", False),
        "first": length(device, "intra", True),
        "again": length(device, "intra", False),
        "record, first": length(device, "inter", True),
        "record, again": length(device, "inter", False),
    }


def shapes(rounds: int, sends: int) -> str:
    """Markdown: megabytes a device sends in a run, in one cluster, and in two that relay every record twice."""
    rng = np.random.default_rng(1)
    names = {"A": sum(IN) * BLOCKS * RANK, "B": sum(OUT) * BLOCKS * RANK}
    arrays = {n: (1e-2 * rng.standard_normal(size, dtype=np.float32)).astype(np.float16) for n, size in names.items()}
    gossip = rounds * len(encode([Section("values", n, a) for n, a in arrays.items()]).payload)
    lines = [
        "| method | bid | first | again | one cluster, MB | fewer, % | two clusters, MB | fewer, % |",
        "|---|---|---|---|---|---|---|---|",
        f"| gossip | | | | {gossip / 1e6:.2f} | | {gossip / 1e6:.2f} | |",
    ]
    for label, c in LINES.items():
        if not isinstance(c, SparseOrthogonal):
            continue
        size = framed(c)
        n = 1 if c.exchange == "last" else sends
        one = rounds * size["facts"] + size["bid"] + size["first"] + (n - 1) * size["again"]
        two = one + 2 * (size["record, first"] + (n - 1) * size["record, again"])
        cells = [f"{size[k] / 1e6:.2f}" for k in ("bid", "first", "again")]
        for total in (one, two):
            cells += [f"{total / 1e6:.2f}", f"{100 * (1 - total / gossip):.2f}"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def changes() -> str:
    """Markdown: relative error at the end and bytes of the last telling, or of all after the first."""
    x = default()
    method = SparseOrthogonal(masks="independent").build(x.setup())
    lines = [
        "| device | first, then | whole: error, B | change since round 2 | each round, whole: B | changes: error, B |",
        "|---|---|---|---|---|---|",
    ]
    for k in range(3):
        device, told = method.init(k), []
        for index in range(x.rounds):
            device, _ = method.fit(device, Round(x.seed, index, x.rounds))
            told.append(device.own["B"][unpack(device.own["mask"], device.own["B"].size)])
        pairs: tuple[tuple[Precision, Precision], ...] = (("int8", "int8"), ("int8", "int4"), ("int4", "int4"))
        for first, then in pairs:
            at_once = tell(told[-1], None, then)
            later = tell_change(told[-1], tell(told[1], None, first).sent, then)
            known, spent = tell(told[0], None, first).sent, 0
            for now in told[1:]:
                step = tell_change(now, known, then)
                known, spent = step.sent, spent + _framed(step.code)
            whole = sum(_framed(tell(now, None, then).code) for now in told[1:])
            cells = [f"{k}", f"{first}, {then}"]
            cells += [f"{_missed(s.sent, told[-1]):.4f}, {_framed(s.code)}" for s in (at_once, later)]
            cells += [f"{whole}", f"{_missed(known, told[-1]):.4f}, {spent}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _framed(code: Any) -> int:
    return len(encode([Section("values", "values", code)]).payload)


def _missed(sent: Any, now: Any) -> float:
    return float(np.linalg.norm(sent - now) / np.linalg.norm(now))


def main() -> None:
    """Run, or print tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("run", "table", "shapes", "changes"))
    p.add_argument("files", type=Path, nargs="*")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--only", nargs="*", default=list(LINES), choices=list(LINES))
    p.add_argument("--rank", type=int, default=default().model.rank, help="of all methods of the run")
    p.add_argument("--against", default="ours", choices=list(LINES), help="line that `paired` is the difference to")
    p.add_argument("--out", type=Path)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--sends", type=int, default=2, help="times values travel; with exchange: last it is once")
    a = p.parse_args()
    if a.what == "shapes":
        print(shapes(a.rounds, a.sends))
        return
    if a.what == "changes":
        print(changes())
        return
    runs: list[dict[str, Any]] = [r for file in a.files for r in json.loads(file.read_text())]
    for seed in a.seeds if a.what == "run" else ():
        runs.append(outcomes(seed, a.only, a.rank))
        print(table(runs[-1:], a.against), flush=True)
        if a.out:
            a.out.write_text(json.dumps(runs, indent=1))
    for rank, those in together(runs).items():
        print(f"rank {rank}, {len(those)} seeds\n\n{table(those, a.against)}\n")


if __name__ == "__main__":
    main()
