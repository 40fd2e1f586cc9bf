"""A small run with numbers one can check by hand, as a run directory and as its summary alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

COLUMNS = ("values", "mask", "codes", "control", "one_off")
TASKS = ["alpha", "<b>beta</b> & co", "gamma"]
PLACES = [(0.0, 0.0), (60.0, 0.0), (0.0, 80.0)]


def row(label: str, accuracies: list[float], sent: int = 0, **more: Any) -> dict[str, Any]:
    """One row of the summary; `sent` bytes are split 4 : 2 : 1 : 1 : 0 over the columns, over two rounds."""
    parts = dict(zip(COLUMNS, (sent // 2, sent // 4, sent // 8, sent // 8, 0), strict=True))
    made = {
        "label": label,
        "kind": label,
        "accuracy": dict(zip(TASKS, accuracies, strict=True)),
        "mean": sum(accuracies) / len(accuracies),
        "bytes_per_device": parts,
        "bytes_per_device_round": {name: v / 2 for name, v in parts.items()},
        "airtime_s": sent * 1.25e-6,
        "energy_j": sent * 2.5e-7,
        "elapsed_s": sent * 3.5e-6,
        "lost": 0,
        "trained_parameters": 4321,
        "experts_held": 1.0,
        "route_right": None,
        "clusters": [],
        "collision": None,
    }
    return {**made, **more}


def full_summary() -> dict[str, Any]:
    """Five methods, one of them with clusters and masks."""
    collision = {"layers": ["0.q_proj", "0.v_proj"], "expected": [0.25, 0.125], "empirical": [0.0, 0.0625]}
    ours = {"clusters": [[0, 1], [2]], "collision": collision, "route_right": 0.987, "experts_held": 3.0}
    return {
        "schema": 1,
        "name": "a <i>run</i>",
        "seed": 7,
        "final_sha256": "ab" * 32,
        "rounds": 2,
        "devices": [{"id": i, "task": TASKS[i], "x_m": x, "y_m": y} for i, (x, y) in enumerate(PLACES)],
        "tasks": TASKS,
        "model": {"name": "embedded", "parameters": 860_160, "layers": 28},
        "radio": {"bandwidth_hz": 2e7, "deadline_s": 5.0, "max_power_dbm": 20.0, "radius_m": 150.0},
        "versions": {"orthomesh": "0.1.0", "numpy": "2.4.0"},
        "wall_s": 75.0,
        "notes": ["12 prompts of <script>alert(1)</script> were cut"],
        "rows": [
            row("base", [0.01, 0.02, 0.03]),
            row("local", [0.31, 0.32, 0.33]),
            row("gossip", [0.1, 0.2, 0.15], sent=800_000, lost=3),
            row("orthomesh", [0.9, 0.8, 0.85], sent=8_000, **ours),
            row("oracle", [0.92, 0.84, 0.88], route_right=1.0),
        ],
    }


def tables(summary: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rounds, accuracies and links of those that learn: loss halves in a round, accuracy grows evenly."""
    rounds, accuracy, links = [], [], []
    for made in summary["rows"]:
        if made["label"] in ("base", "oracle"):
            continue
        for t in range(1, summary["rounds"] + 1):
            for device in summary["devices"]:
                sent = {f"bytes_{name}": v // 2 for name, v in made["bytes_per_device"].items()}
                first = 4.0 / t + device["id"]
                facts = {"method": made["label"], "round": t, "device": device["id"], **sent}
                facts |= {"loss_first": first, "loss_last": first / 2, "steps": 30, "lost": 0, "power_w": 0.1}
                facts |= {"airtime_s": made["airtime_s"] / 2, "energy_j": made["energy_j"] / 2}
                rounds.append({**facts, "experts_held": made["experts_held"]})
        for t in range(summary["rounds"] + 1):
            for task, value in made["accuracy"].items():
                reached = value * t / summary["rounds"]
                facts = {"method": made["label"], "round": t, "task": task}
                accuracy.append({**facts, "accuracy": reached, "prompts": 50})
        for k, members in enumerate(made["clusters"]):
            others = [i for c in made["clusters"][k + 1 :] for i in c]
            pairs = [("intra", i, j) for i in members for j in members if i != j]
            for phase, i, j in [*pairs, *(("inter", members[0], j) for j in others)]:
                facts = {"method": made["label"], "round": 1, "phase": phase, "src": i, "dst": j}
                links.append({**facts, "arrived": phase == "intra"})
    return {"rounds": rounds, "accuracy": accuracy, "links": links}


@pytest.fixture
def summary() -> dict[str, Any]:
    return full_summary()


@pytest.fixture
def records(summary: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return tables(summary)


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return row


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a summary, and the tables that go with it, the way a run does."""

    def write(summary: dict[str, Any]) -> Path:
        stored = {k: v for k, v in summary.items() if k != "rows"}
        stored["methods"] = {made["label"]: made for made in summary["rows"]}
        (tmp_path / "summary.json").write_text(json.dumps(stored), encoding="utf-8")
        for name, rows in tables(summary).items():
            if rows:
                parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        return tmp_path

    return write
