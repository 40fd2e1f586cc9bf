"""What is read of finished runs: accuracy by method, seed and task, what it cost, and how it went round by round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.record import Journal
from ..evaluation.statistics import Interval, Paired, interval, paired
from ..experiment import BASE, ORACLE, Experiment
from .rows import OURS, Row


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method over the seeds it has.

    seeds: of its runs. [n] scores: accuracy by seed and task, %. [n, tasks] trained: entries trained on a device.
    sent: bytes framed by a device in a round, mean. model: parameters of the base.
    """

    row: Row
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    trained: float
    sent: float
    model: int

    @property
    def average(self) -> Interval:
        """Over tasks, then over seeds."""
        return interval([float(np.mean(one)) for one in self.scores])

    def column(self, task: str) -> Interval:
        """One task over seeds."""
        n = self.tasks.index(task)
        return interval([one[n] for one in self.scores])

    def at(self, seeds: Sequence[int]) -> Line:
        """The same over some of its seeds."""
        by_seed = dict(zip(self.seeds, self.scores, strict=True))
        return replace(self, seeds=tuple(seeds), scores=tuple(by_seed[s] for s in seeds))


def directories(row: Row, runs: Mapping[Path, Experiment]) -> list[Path]:
    """Where a row's runs are, a directory a seed; the oracle's are ours, the untouched model is in all of them."""
    if row.label == BASE:
        first: dict[int, Path] = {}
        for directory, x in runs.items():
            first.setdefault(x.seed, directory)
        return list(first.values())
    return [d for d, x in runs.items() if (OURS if row.label == ORACLE else row.label) in x.methods]


def lines(rows: Sequence[Row], runs: Mapping[Path, Experiment]) -> list[Line]:
    """What finished runs came to over seeds, in the order of the rows; a row that no run has is left out.

    Args:
        rows: of the table.
        runs: finished, by directory.
    """
    found = []
    for row in rows:
        where = directories(row, runs)
        summaries = [json.loads((d / "summary.json").read_text(encoding="utf-8")) for d in where]
        made = [s["methods"][row.label] for s in summaries if row.label in s["methods"]]
        if made and len(made) == len(where):
            tasks = tuple(summaries[0]["tasks"])
            scores = tuple(tuple(100 * m["accuracy"][t] for t in tasks) for m in made)
            sent = [sum(m["bytes_per_device_round"].values()) for m in made]
            trained = float(np.mean([m["trained_parameters"] for m in made]))
            found.append(
                Line(
                    row=row,
                    tasks=tasks,
                    seeds=tuple(runs[d].seed for d in where),
                    scores=scores,
                    trained=trained,
                    sent=float(np.mean(sent)),
                    model=int(summaries[0]["model"]["parameters"]),
                )
            )
    return found


def against_ours(found: Sequence[Line]) -> dict[str, Paired]:
    """The proposed method minus every other, paired over seeds (t) and seeds x tasks (Wilcoxon); by label.

    Seeds that only one of the two has are no pair; without a common one there is no test.
    """
    ours = next((line for line in found if line.row.label == OURS), None)
    if ours is None:
        return {}
    both = {line.row.label: shared(ours, line) for line in found if line is not ours}
    return {label: paired(a.scores, b.scores) for label, (a, b) in both.items() if a.seeds}


def shared(one: Line, other: Line) -> tuple[Line, Line]:
    """Two methods over the seeds that both have, in the order of the first."""
    both = [seed for seed in one.seeds if seed in other.seeds]
    return one.at(both), other.at(both)


def unread(rows: Sequence[Row], directories: Sequence[Path]) -> list[str]:
    """Answers in which there was nothing to score, a sentence a task that has some: they count as wrong.

    Args:
        rows: of the table.
        directories: finished runs, one for each seed.
    """
    summaries = [json.loads((d / "summary.json").read_text(encoding="utf-8")) for d in directories]
    found: dict[str, list[str]] = {}
    for row in rows:
        made = [s["methods"][row.label].get("unread", {}) for s in summaries if row.label in s["methods"]]
        for task in made[0] if made else ():
            share = float(np.mean([m[task] for m in made]))
            if share > 0:
                found.setdefault(task, []).append(f"{row.title} {100 * share:.1f} %")
    return [
        f"answers to {task} in which there was nothing to score, counted as wrong: {', '.join(told)}"
        for task, told in found.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Point:
    """After a round: what a device has sent so far, what the air has taken so far, and how many answers are right."""

    round: int
    sent: float
    seconds: float
    accuracy: float


def frontier(label: str, directories: Sequence[Path]) -> list[Point]:
    """Mean over seeds after every round that was examined; what was sent is the mean over devices, bytes.

    Rounds on the way are examined on few prompts (`evaluate.prompts`), the last on all.
    """
    by_seed = [points(Journal(d), label) for d in directories]
    rounds = sorted(set.intersection(*(set(p) for p in by_seed))) if by_seed else []
    means = {r: np.mean([p[r] for p in by_seed], axis=0).tolist() for r in rounds}
    return [Point(round=r, sent=m[0], seconds=m[1], accuracy=m[2]) for r, m in means.items()]


def points(journal: Journal, label: str) -> dict[int, tuple[float, float, float]]:
    """Bytes sent by a device so far, seconds on the air so far and accuracy, %, after every round that was examined."""
    sent = seconds = 0.0
    after: dict[int, tuple[float, float]] = {0: (0.0, 0.0)}
    for n, one in enumerate(journal.rounds(label), 1):
        devices: Sequence[Mapping[str, Any]] = one["devices"]
        sent += sum(v for d in devices for k, v in d.items() if k.startswith("bytes_")) / len(devices)
        seconds += one["elapsed_s"]
        after[n] = (sent, seconds)
    exams = {e["round"]: 100 * float(np.mean(list(e["accuracy"].values()))) for e in journal.exams(label)}
    return {r: (*after[r], a) for r, a in exams.items() if r in after}
