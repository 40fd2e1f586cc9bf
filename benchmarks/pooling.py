"""Devices with the same task (R11): what a group that shares projection and mask and averages B gains over each alone.

Two methods on the same devices, data, radio and seeds: experts of their own, and groups found by the likeness of task
codes (`pool`). `alone` is the mean over devices of their own expert on their own task, as it was trained; `group` is
what every device answers with when the groups' experts have reached it.

    python -m benchmarks.pooling [--names zelk,morv,quib] [--examples 30] [--each 3] [--seeds 0 1 2]
    python -m benchmarks.pooling --model DIR --data DIR --names snips,trec,sms_spam --examples 100 --rate 0.005
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.readings import interval
from orthomesh.experiment import Evaluate, Experiment, finish, run
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.models.settings import EMBEDDED, ModelSettings, TrainSettings
from orthomesh.tasks.settings import TaskSettings
from orthomesh.wireless.channel import Channel
from orthomesh.wireless.link import Radio

METHODS = {"alone": SparseOrthogonal(), "group": SparseOrthogonal(pool=4.0)}


def experiment(a: argparse.Namespace, seed: int) -> Experiment:
    """Both methods, one seed."""
    wanted = tuple(a.names.split(","))
    return Experiment(
        name="pooling",
        seed=seed,
        devices=a.each * len(wanted),
        rounds=5,
        workers=a.workers,
        model=ModelSettings(source=a.model),
        tasks=TaskSettings(names=wanted, data=a.data, train_examples=a.examples, test_examples=a.prompts),
        train=TrainSettings() if a.model == EMBEDDED else TrainSettings(steps=30, batch_size=16, learning_rate=a.rate),
        channel=Channel(radius_m=100.0),
        radio=Radio(deadline_s=5.0),
        evaluate=Evaluate(every=0),
        methods=METHODS,
    )


def outcome(x: Experiment) -> dict[str, dict[str, float]]:
    """Accuracy by task, in percent, and kilobytes a device, of both."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in run(x, Path(folder)):
            pass
        rows = {row["label"]: row for row in finish(x, Path(folder), [], 0.0)["rows"]}
    kB = {label: sum(rows[label]["bytes_per_device"].values()) / 1000 for label in METHODS}
    seen = {"alone": rows["oracle"]["accuracy"], "group": rows["group"]["accuracy"]}
    return {k: {**{t: 100 * v for t, v in seen[k].items()}, "kB": kB[k]} for k in METHODS}


def table(runs: Sequence[dict[str, dict[str, float]]]) -> str:
    """Markdown, one line a task and one for the mean, with 95 % t-intervals over seeds."""
    lines = ["| task | alone, % | group, % | paired |", "|---|---|---|---|"]
    tasks = [t for t in runs[0]["alone"] if t != "kB"]
    for name in (*tasks, "mean"):
        both = [
            [float(np.mean([r[k][t] for t in tasks])) if name == "mean" else r[k][name] for r in runs] for k in METHODS
        ]
        paired = [g - o for o, g in zip(*both, strict=True)]
        lines.append(f"| {name} | {interval(both[0])} | {interval(both[1])} | {interval(paired)} |")
    sent = (float(np.mean([r[k]["kB"] for r in runs])) for k in METHODS)
    return "\n".join([*lines, "| sent, kB a device | {:.1f} | {:.1f} | |".format(*sent)])


def main() -> None:
    """Run all seeds and print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=EMBEDDED)
    p.add_argument("--data", default="")
    p.add_argument("--names", default="zelk,morv,quib")
    p.add_argument("--each", type=int, default=3, help="devices with each task")
    p.add_argument("--examples", type=int, default=30, help="training examples a device")
    p.add_argument("--prompts", type=int, default=100, help="test prompts a task")
    p.add_argument("--rate", type=float, default=5e-3, help="learning rate with another model")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    runs = []
    for seed in a.seeds:
        runs.append(outcome(experiment(a, seed)))
        if a.out:
            a.out.write_text(json.dumps(runs, indent=1))
    print(table(runs))


if __name__ == "__main__":
    main()
