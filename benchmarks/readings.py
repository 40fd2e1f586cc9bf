"""What each reading of the paper changes: one switch at a time, several seeds, 95 % intervals.

Every line is the default method with the setting named, on the same devices, tasks, radio and seeds; `paired` is the
difference to the first line on the same seeds. Accuracy is the mean over tasks when every device answers every task;
`own task` is what each device's own expert does on its own task, as it was trained.

    python -m benchmarks.readings [--tasks 6] [--seeds 0 1 2] [--workers 2] [--only R2 R4] [--out FILE]
    python -m benchmarks.readings --model DIR --data DIR --names snips,trec,sms_spam ... --rate 0.005
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

from orthomesh.experiment import Evaluate, Experiment, finish, run
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.models.settings import EMBEDDED, ModelSettings, TrainSettings
from orthomesh.tasks.embedded import TASKS
from orthomesh.tasks.settings import TaskSettings
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "R1 projection: gaussian": {"projection": "gaussian"},
    "R1 projection: unit (rate / 16)": {"projection": "unit", "learning_rate": 6e-3 / 16},
    "R1 projection: sparse": {"projection": "sparse"},
    "R2 score: gradient": {"score": "gradient"},
    "R2 score: random": {"score": "random"},
    "R2 score: signed": {"score": "signed"},
    "R2 level: layer": {"level": "layer"},
    "R2 level: global": {"level": "global"},
    "R2 warm-up of 1 step": {"warmup_steps": 1},
    "R3 masks: independent, all in one cluster": {"masks": "independent", "max_collision": 1.0},
    "R4 allocation: entropy": {"allocation": "entropy"},
    "R4 allocation: softmax": {"allocation": "softmax"},
    "R4 density 0.05": {"density": 0.05},
    "R4 density 0.05, entropy": {"density": 0.05, "allocation": "entropy"},
    "R4 density 0.05, softmax": {"density": 0.05, "allocation": "softmax"},
    "R5 aggregation: mean": {"aggregation": "mean"},
    "R5 mean, one projection (FFA with masks)": {"aggregation": "mean", "seeds": "common"},
    "R5 independent, stack": {"masks": "independent", "max_collision": 1.0, "aggregation": "stack"},
    "R5 one projection for all": {"seeds": "common"},
    "R6 refinement: elementwise": {"refinement": "elementwise"},
    "R6 refinement: outer": {"refinement": "outer"},
    "R7 choice: nearest code": {"choice": "nearest"},
    "R7 soft": {"soft": True},
    "R7 choice: top-k": {"choice": "topk"},
    "R7 choice: top-k, gated (R6)": {"choice": "topk", "gated": True},
    "R12 exchange: every round": {"exchange": "every"},
}


def settings(label: str) -> SparseOrthogonal:
    """The method of one line."""
    return paper_reading() if label == "paper_reading()" else SparseOrthogonal(**VARIANTS[label])


def experiment(a: argparse.Namespace, seed: int, label: str) -> Experiment:
    """One line, one seed."""
    embedded = a.model == EMBEDDED
    chosen = settings(label)
    if not embedded and chosen.learning_rate is not None:
        chosen = replace(chosen, learning_rate=a.rate / 16)
    return Experiment(
        name="readings",
        seed=seed,
        rounds=5,
        workers=a.workers,
        model=ModelSettings(source=a.model),
        tasks=TaskSettings(
            names=tuple(a.names.split(",")) if a.names else tuple(TASKS)[: a.tasks], data=a.data,
            train_examples=600, test_examples=a.prompts,
        ),
        train=TrainSettings() if embedded else TrainSettings(steps=30, batch_size=16, learning_rate=a.rate),
        channel=Channel(radius_m=150.0),
        radio=Radio(deadline_s=5.0),
        evaluate=Evaluate(every=0),
        methods={"ours": chosen},
    )  # fmt: skip


def outcome(x: Experiment) -> dict[str, float]:
    """Run it, and keep what the table shows."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in run(x, Path(folder)):
            pass
        rows = {row["label"]: row for row in finish(x, Path(folder), [], 0.0)["rows"]}
    ours = rows["ours"]
    collision = ours["collision"] or {}
    return {
        "accuracy": 100 * float(np.mean(list(ours["accuracy"].values()))),
        "own": 100 * float(np.mean(list(rows["oracle"]["accuracy"].values()))),
        "kB": sum(ours["bytes_per_device"].values()) / 1000,
        "expected": 100 * float(np.mean(collision.get("expected", [0.0]))),
        "empirical": 100 * float(np.mean(collision.get("empirical", [0.0]))),
    }


def interval(values: Sequence[float]) -> str:
    """Mean and half-width of a 95 % t-interval."""
    from scipy.stats import t

    v = np.array(values)
    if len(v) < 2:
        return f"{v.mean():.1f}"
    return f"{v.mean():.1f} ± {t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5:.1f}"


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown, one line a switch."""
    lines = [
        "| setting | accuracy, % | paired | own task, % | sent, kB | S expected / found, % |",
        "|---|---|---|---|---|---|",
    ]
    first = next(iter(found.values()))
    for label, runs in found.items():
        paired = [r["accuracy"] - f["accuracy"] for r, f in zip(runs, first, strict=False)]
        mean = {name: float(np.mean([r[name] for r in runs])) for name in runs[0]}
        difference = "" if runs is first else interval(paired)
        rates = f"{mean['expected']:.1f} / {mean['empirical']:.1f}"
        accuracy, own = (interval([r[name] for r in runs]) for name in ("accuracy", "own"))
        lines.append(f"| {label} | {accuracy} | {difference} | {own} | {mean['kB']:.1f} | {rates} |")
    return "\n".join(lines)


def main() -> None:
    """Run all lines and print the table as it grows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=EMBEDDED)
    p.add_argument("--data", default="")
    p.add_argument("--names", default="")
    p.add_argument("--tasks", type=int, default=6, help="embedded tasks, one a device")
    p.add_argument("--prompts", type=int, default=100, help="test prompts a task")
    p.add_argument("--rate", type=float, default=5e-3, help="learning rate with another model")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--only", nargs="*", default=[], help="lines whose names start so; the default always runs")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    labels = [n for n in (*VARIANTS, "paper_reading()") if n == "default" or not a.only or n.startswith(tuple(a.only))]
    found: dict[str, list[dict[str, float]]] = {}
    for label in labels:
        found[label] = [outcome(experiment(a, seed, label)) for seed in a.seeds]
        print(table(found).splitlines()[-1], flush=True)
        if a.out:
            a.out.write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
