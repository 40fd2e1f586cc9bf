"""What aggregation takes from a device's own task, for every method that trains: each task before and after.

Three accuracies of a task in the last round: as trained, by the devices that have it, after their local fine-tuning and
before anything is exchanged; aggregated, by the same devices after the exchange, with all they then hold; answered, by
all devices. As trained less aggregated is forgotten: what averaging, interference and wrong choices cost those who knew
the task. Below zero is a gain. Aggregated less answered is what the others have not learnt from them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from ..evaluation.statistics import Interval, interval
from ..experiment import Experiment
from . import plots, scene
from .record import directories
from .rows import Row
from .tables import number

MEAN = "mean"
MISSING = "not recorded"
"""By a version that did not examine devices before the exchange."""
HEAD = ("method", "task", "as trained", "aggregated", "answered", "forgotten")


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """One task under one method, or the mean over its tasks: %, by seed. Empty where the runs have no record of it."""

    row: Row
    task: str
    trained: tuple[float, ...]
    aggregated: tuple[float, ...]
    answered: tuple[float, ...]

    @property
    def points(self) -> Interval | None:
        """As trained less aggregated over seeds; none where it is not on record."""
        lost = [a - b for a, b in zip(self.trained, self.aggregated, strict=True)]
        return interval(lost) if lost else None


def forgotten(rows: Sequence[Row], runs: Mapping[Path, Experiment]) -> list[Forgotten]:
    """Every task of every method that trains, then their mean.

    Args:
        rows: of the table; those without a run, and what is no method, are left out.
        runs: finished, by directory.
    """
    found = []
    for row in rows:
        where = directories(row, runs) if row.settings is not None else []
        told = [json.loads((d / "summary.json").read_text(encoding="utf-8")) for d in where]
        if not told:
            continue
        made, tasks = [one["methods"][row.label] for one in told], [str(t) for t in told[0]["tasks"]]
        whole = all(set(tasks) <= (m.get(name) or {}).keys() for m in made for name in ("as_trained", "aggregated"))
        names = {"trained": "as_trained", "aggregated": "aggregated", "answered": "accuracy"}
        of = {
            part: [[100 * m[name][t] for t in tasks] for m in made] if whole or part == "answered" else []
            for part, name in names.items()
        }
        for n, task in enumerate(tasks):
            found.append(Forgotten(row=row, task=task, **{p: tuple(s[n] for s in each) for p, each in of.items()}))
        means = {p: tuple(float(np.mean(s)) for s in each) for p, each in of.items()}
        found.append(Forgotten(row=row, task=MEAN, **means))
    return found


def as_csv(found: Sequence[Forgotten]) -> str:
    """Every task of every method on a line of its own; empty where nothing is on record."""
    out = io.StringIO()
    made = csv.writer(out, lineterminator="\n")
    made.writerow(("method", "label", "task", "as_trained_%", "aggregated_%", "answered_%", "forgotten", "+-", "seeds"))
    for one in found:
        parts = (one.trained, one.aggregated, one.answered)
        points = one.points or Interval(math.nan, math.nan)
        values = (*(float(np.mean(p)) if p else math.nan for p in parts), *points)
        told = ("" if math.isnan(v) else f"{v:.6g}" for v in values)
        made.writerow((one.row.title, one.row.label, one.task, *told, len(one.answered)))
    return out.getvalue()


def cells(one: Forgotten) -> list[str]:
    """A line of the table, under `HEAD`."""
    parts = (one.trained, one.aggregated, one.answered)
    told = [f"{np.mean(p):.1f}" if p else MISSING for p in parts]
    return [one.row.title, one.task, *told, MISSING if one.points is None else number(one.points)]


def as_markdown(found: Sequence[Forgotten]) -> str:
    """All tasks of all methods."""
    lines = [HEAD, ["---"] * 2 + ["---:"] * 4, *(cells(one) for one in found)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def figure(found: Sequence[Forgotten]) -> dict[str, scene.Scene]:
    """Mean over tasks, a ring as trained and a dot after aggregation, of the methods that have both on record."""
    measures = [
        plots.Measure(one.row.title, *interval(one.aggregated), (float(np.mean(one.trained)),))
        for one in found
        if one.task == MEAN and one.trained
    ]
    words = "a device's own task, mean over tasks; rings: as trained, dots: aggregated, with 95 % intervals"
    return {"forgetting": plots.dots("Before and after aggregation", words, measures, "as trained")} if measures else {}


def as_table(found: Sequence[Forgotten]) -> Table:
    """Means over tasks, for a terminal."""
    table = Table(title="each device's own task before and after aggregation, %, mean over tasks and seeds", box=None)
    for n, name in enumerate(HEAD):
        if n != 1:
            table.add_column(name, justify="right" if n else "left", no_wrap=True)
    for one in found:
        if one.task == MEAN:
            first, _, *rest = cells(one)
            table.add_row(first, *rest)
    return table
