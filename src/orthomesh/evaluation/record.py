"""What a run leaves behind while it goes: one small file per method and round, tables in Parquet at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import write_whole
from ..types import COLUMNS, DeviceState, RoundInfo, Spend
from .accuracy import Score, mean_accuracy, routed_share
from .examine import Result


class Journal:
    """Records of a run directory: `round-0003.json`, `exam-0003.json` and `trained-0003.json` in `records/LABEL/`.

    Each is written whole or not at all, and written again when a round is run again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, label: str, kind: str, number: int) -> Path:
        return self.directory / "records" / label / f"{kind}-{number:04d}.json"

    def has(self, label: str, round_: int) -> bool:
        """Whether the examination after so many rounds is on record."""
        return self._path(label, "exam", round_).is_file()

    def accuracy(self, label: str, round_: int) -> dict[str, float]:
        """Accuracy by task of an examination on record."""
        exam = json.loads(self._path(label, "exam", round_).read_text())
        return dict(exam["accuracy"])

    def write_exam(self, label: str, round_: int, result: Result) -> None:
        """Put an examination on record."""
        scores, weights, held, own = result
        exam = {
            "method": label,
            "round": round_,
            "accuracy": mean_accuracy(scores, weights),
            "prompts": {task: s.asked for task, s in scores[0].items()},
            "cut": {task: s.cut for task, s in scores[0].items()},
            "unread": {task: _share(scores, weights, task) for task in scores[0]},
            "route_right": routed_share(scores, weights),
            "held": {str(k): n for k, n in held.items()},
            "own": {task: s.right / s.asked for task, s in own.items()},
        }
        write_whole(self._path(label, "exam", round_), json.dumps(exam).encode())

    def write_trained(self, label: str, round_: int, result: Result) -> None:
        """Put on record how devices answer their own tasks once they have trained and before they exchange."""
        record = {
            "method": label,
            "round": round_,
            "accuracy": {task: s.right / s.asked for task, s in result.own.items()},
            "prompts": {task: s.asked for task, s in result.own.items()},
        }
        write_whole(self._path(label, "trained", round_), json.dumps(record).encode())

    def write_round(self, label: str, info: RoundInfo, devices: Mapping[int, DeviceState], seconds: float) -> None:
        """Put a round on record: what each device learnt and spent, and what became of every transfer."""
        rows = [_device_row(label, info, k) for k in sorted(devices)]
        record = {
            "devices": rows,
            "links": [{"method": label, "round": info.index + 1, **link._asdict()} for link in info.links],
            "clusters": info.plan.clusters,
            "elapsed_s": info.cost.elapsed_s,
            "wall_s": seconds,
        }
        write_whole(self._path(label, "round", info.index + 1), json.dumps(record).encode())

    def put(
        self, label: str, kind: Literal["round", "exam", "trained"], number: int, record: Mapping[str, Any]
    ) -> None:
        """Put a record as it is, e.g. one joined from those of several peers."""
        write_whole(self._path(label, kind, number), json.dumps(record).encode())

    def rounds(self, label: str) -> list[dict[str, Any]]:
        """Round records of a method, in order."""
        return self._all(label, "round")

    def exams(self, label: str) -> list[dict[str, Any]]:
        """Examinations of a method, in order."""
        return self._all(label, "exam")

    def trained(self, label: str) -> list[dict[str, Any]]:
        """How devices answered their own tasks before an exchange, in order; empty in older directories."""
        return self._all(label, "trained")

    def _all(self, label: str, kind: str) -> list[dict[str, Any]]:
        found = self._path(label, kind, 0).parent.glob(f"{kind}-*.json")
        ordered = sorted(found, key=lambda p: (len(p.name), p.name))  # five digits come after four
        return [json.loads(p.read_text()) for p in ordered]


def _share(scores: Sequence[Mapping[str, Score]], weights: Sequence[int], task: str) -> float:
    """Of all answers to a task, those that are none."""
    told = [(w, s[task]) for s, w in zip(scores, weights, strict=True)]
    return sum(w * score.unread for w, score in told) / sum(w * score.asked for w, score in told)


def _device_row(label: str, info: RoundInfo, device: int) -> dict[str, Any]:
    learnt, spent = info.learnt[device], info.cost.by_device.get(device, Spend())
    return {
        "method": label,
        "round": info.index + 1,
        "device": device,
        "loss_first": learnt.first_loss,
        "loss_last": learnt.last_loss,
        "steps": learnt.steps,
        "trained": learnt.trained,
        **{f"bytes_{c}": spent.bytes_sent.get(c, 0) for c in COLUMNS},
        "framing_bytes": info.framing.get(device, 0),
        "airtime_s": spent.airtime_s,
        "energy_j": spent.energy_j,
        "power_w": spent.power_w,
        "lost": spent.lost,
    }


def write_tables(journal: Journal, labels: Sequence[str]) -> None:
    """Write `rounds.parquet`, `accuracy.parquet` and `links.parquet` from the records of the given rows."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rounds = [r for label in labels for r in journal.rounds(label)]
    exams = [e for label in labels for e in journal.exams(label)]
    held = {e["method"]: e["held"] for e in exams}  # of the last examination
    tables = {
        "rounds": [
            {**row, "experts_held": held[row["method"]].get(str(row["device"]))} for r in rounds for row in r["devices"]
        ],
        "links": [row for r in rounds for row in r["links"]],
        "accuracy": [
            {
                "method": e["method"],
                "round": e["round"],
                "task": task,
                "accuracy": value,
                "prompts": e["prompts"][task],
            }
            for e in exams
            for task, value in e["accuracy"].items()
        ],
    }
    for name, rows in tables.items():
        if rows:
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.Table.from_pylist(rows), sink)
            write_whole(journal.directory / f"{name}.parquet", sink.getvalue().to_pybytes())
