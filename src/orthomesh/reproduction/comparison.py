"""Every method beside every other: accuracy, what it cost, and how far it came with no more bytes than ours."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from ..evaluation.record import Journal
from ..evaluation.statistics import Interval, Paired, interval
from ..evaluation.wording import quantity
from ..experiment import Experiment
from . import forgetting, plots
from .outcome import Said, draw, few, frontiers, put, seeds_of, uneven, verdicts, write_forgetting
from .record import Line, against_ours, directories, frontier, lines, points
from .rows import OURS, Row
from .runs import computed_on
from .tables import FIELDS, latex, number, p_value

NEAR = 0.99
"""Share of a method's final accuracy that counts as having reached it."""
LORA = "gossip"
"""Label of the method whose 16-bit factors are what bytes are measured by."""
HEAD = (
    "method",
    "accuracy, %",
    "ours - it",
    "p, t",
    "p, Wilcoxon",
    "sent",
    "of LoRA's",
    "at our bytes, %",
    "to 99 %",
    "on the air",
    "airtime",
    "energy",
)
MEASURES = {"sent": "B", "to 99 %": "B", "on the air": "s", "airtime": "s", "energy": "J"}
"""What a row cost over the whole run: sent, sent until `NEAR` was reached, how long the air was held, and of a device
its transmitter's seconds and energy; all per device but the third."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One method over the seeds it has, with what it cost.

    line: its accuracy. costs: of every seed, by the names of `MEASURES`. equal: accuracy of the last examined round at
    which it had sent no more than ours did in the whole run, %, by seed that ours has too; empty where it had sent more
    after its first.
    """

    line: Line
    costs: Mapping[str, tuple[float, ...]]
    equal: tuple[float, ...]

    def cost(self, name: str) -> float:
        """Mean over seeds."""
        return float(np.mean(self.costs[name]))


def compared(rows: Sequence[Row], runs: Mapping[Path, Experiment]) -> list[Compared]:
    """What finished runs of one method and seed each came to, in the order of the rows.

    Args:
        rows: of the table; those without a run are left out.
        runs: finished, by directory.
    """
    budget = {x.seed: _sent(d, OURS) for d, x in runs.items() if OURS in x.methods}
    found = []
    for row in rows:
        where = directories(row, runs)
        line = next(iter(lines([row], runs)), None)
        if line is None:
            continue
        after = [points(Journal(d), row.label) for d in where]
        equal = [_within(p, budget[s]) for s, p in zip(line.seeds, after, strict=True) if s in budget]
        told = [_costs(Journal(d), row.label, p) for d, p in zip(where, after, strict=True)]
        found.append(
            Compared(
                line=line,
                costs={name: tuple(one[name] for one in told) for name in MEASURES},
                equal=tuple(e for e in equal if e is not None) if None not in equal else (),
            )
        )
    return found


def _sent(directory: Path, label: str) -> float:
    return max(p[0] for p in points(Journal(directory), label).values())


def _within(after: Mapping[int, tuple[float, float, float]], most: float) -> float | None:
    """Accuracy of the last examined round with no more bytes sent."""
    ended = [r for r, (sent, _, _) in after.items() if sent <= most]
    return after[max(ended)][2] if ended else None


def _costs(journal: Journal, label: str, after: Mapping[int, tuple[float, float, float]]) -> dict[str, float]:
    """What one run of a method cost, by the names of `MEASURES`."""
    last = after[max(after)]
    near = min(r for r, p in after.items() if p[2] >= NEAR * last[2])
    told: list[Mapping[str, Any]] = [d for one in journal.rounds(label) for d in one["devices"]]
    devices = len({d["device"] for d in told}) or 1
    each = {name: sum(d[name] for d in told) / devices for name in ("airtime_s", "energy_j")}
    return {
        "sent": last[0],
        "to 99 %": after[near][0],
        "on the air": last[1],
        "airtime": each["airtime_s"],
        "energy": each["energy_j"],
    }


def over_budget(found: Sequence[Compared]) -> list[str]:
    """Titles of those that sent more than ours, by more than half a percent."""
    budget = next((c.cost("sent") for c in found if c.line.row.label == OURS), math.inf)
    return [c.line.row.title for c in found if c.cost("sent") > 1.005 * budget]


def cells(found: Sequence[Compared], tests: Mapping[str, Paired]) -> list[list[str]]:
    """The rows as one reads them, under `HEAD`."""
    lora = next((c.cost("sent") for c in found if c.line.row.label == LORA), 0.0)
    return [[one.line.row.title, *_cells(one, tests.get(one.line.row.label), lora)] for one in found]


def _cells(one: Compared, test: Paired | None, lora: float) -> list[str]:
    told = ["-"] * 3 if test is None else [number(test.difference), p_value(test.t_p), p_value(test.wilcoxon_p)]
    sent = one.cost("sent")
    return [
        number(one.line.average),
        *told,
        quantity(sent, "B") if sent else "-",
        f"1/{lora / sent:.1f}" if sent and lora else "-",
        number(interval(one.equal)) if one.equal else "-",
        *(quantity(one.cost(n), unit) if one.cost(n) else "-" for n, unit in list(MEASURES.items())[1:]),
    ]


def as_csv(found: Sequence[Compared], tests: Mapping[str, Paired]) -> str:
    """Every number on a line of its own."""
    out = io.StringIO()
    made = csv.writer(out, lineterminator="\n")
    made.writerow(FIELDS)
    for one in found:
        line, seeds = one.line, len(one.line.seeds)
        who = ("ours", line.row.title, line.row.label)
        accuracy = {**{task: line.column(task) for task in line.tasks}, "Avg.": line.average}
        told: list[tuple[str, Interval, int, str]] = [(name, value, seeds, "%") for name, value in accuracy.items()]
        told += [("at our bytes", interval(one.equal), len(one.equal), "%")] if one.equal else []
        told += [(name, interval(one.costs[name]), seeds, unit) for name, unit in MEASURES.items()]
        if (test := tests.get(line.row.label)) is not None:
            told += [("ours - it", test.difference, test.seeds, "points")]
            told += [
                (name, Interval(p, math.nan), test.seeds, "")
                for name, p in (("p, t over seeds", test.t_p), ("p, Wilcoxon", test.wilcoxon_p))
            ]
        for name, value, n, unit in told:
            made.writerow([*who, name, *("" if math.isnan(v) else f"{v:.6g}" for v in value), n, unit])
    return out.getvalue()


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """One table."""
    parts = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join([*parts, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def terminal(rows: Sequence[Sequence[str]], found: Sequence[Compared]) -> Table:
    """One table; what is no contender is dim."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for n, name in enumerate(HEAD):
        table.add_column(Text(name), justify="right" if n else "left", no_wrap=True)
    for row, one in zip(rows, found, strict=True):
        table.add_row(*map(Text, row), style="dim" if one.line.row.settings is None else "")
    return table


def write(
    rows: Sequence[Row], runs: Mapping[Path, Experiment], out: Path, equal: str = "equal rank and rounds"
) -> Said:
    """Write the comparison: CSV, LaTeX, Markdown, averages, and accuracy over bytes and over seconds.

    Args:
        rows: of the table.
        runs: finished, of one method and seed each; a note says which methods have other seeds than most.
        out: where to.
        equal: what is the same for all.

    Returns:
        Tables, sentences and paths, in the order to show them.
    """
    found = compared(rows, runs)
    flat = [one.line for one in found]
    tests, seeds = against_ours(flat), seeds_of(flat)
    told = cells(found, tests)
    caption = f"All methods at {equal}, {seeds} with 95 % t-intervals; cost of a device over the run"
    files = {
        "csv": as_csv(found, tests),
        "md": as_markdown(told),
        "tex": latex("methods", HEAD, [("", told)], caption, best=1),
    }
    paths = [put(out / f"methods.{end}", text) for end, text in files.items()]
    words = f"mean accuracy over tasks, {seeds} with 95 % intervals"
    measures = [plots.Measure(line.row.title, *line.average, ()) for line in flat]
    sending = [one.line.row for one in found if one.cost("sent")]
    curves = {row: frontier(row.label, directories(row, runs)) for row in sending}
    drawn = {"methods": plots.dots(f"All methods at {equal}", words, measures), **frontiers(curves, out, paths)}
    kept = forgetting.forgotten(rows, runs)
    drawn |= forgetting.figure(kept)
    before = write_forgetting(kept, out, paths)
    notes = draw(drawn, out, paths)
    notes += [*uneven({line.row.label: line.seeds for line in flat}), *computed_on(runs)]
    note = (
        "at our bytes: the last examined round with no more sent than ours in the whole run; on the way few are asked"
    )
    expected = verdicts(flat) if equal == "equal rank and rounds" else []
    if equal == "our bytes" and (over := over_budget(found)):
        expected = [f"sent more than ours all the same: {', '.join(over)}"]
    return [
        terminal(told, found),
        before,
        *(f"note: {n}" for n in (note, *expected, *few(flat, tests.values()), *notes)),
        *paths,
    ]
