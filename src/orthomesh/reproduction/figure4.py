"""Mean accuracy over the number of devices: the text's Figure 4 (its caption says 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ..evaluation.statistics import Interval, Paired
from ..experiment import Experiment
from . import plots, tables
from .outcome import Said, draw, few, put, seeds_of, uneven, write_csv
from .record import Line, against_ours, lines
from .rows import Row
from .runs import computed_on

FIELDS = ("method", "label", "devices", "accuracy_%", "half_width", "seeds", "ours - it", "+-", "p_t", "p_wilcoxon")


@dataclass(frozen=True, kw_only=True)
class Count:
    """One number of devices. lines: methods, by label. tests: ours minus each, by label."""

    devices: int
    lines: Mapping[str, Line]
    tests: Mapping[str, Paired]


def by_count(rows: Sequence[Row], runs: Mapping[Path, Experiment]) -> list[Count]:
    """What finished runs came to at every number of devices, ascending.

    Args:
        rows: of the figure.
        runs: finished, by directory.
    """
    found = []
    for m in sorted({x.setup().num_devices for x in runs.values()}):
        made = lines(rows, {d: x for d, x in runs.items() if x.setup().num_devices == m})
        found.append(Count(devices=m, lines={n.row.label: n for n in made}, tests=against_ours(made)))
    return found


def figure4(rows: Sequence[Row], runs: Mapping[Path, Experiment], out: Path) -> Said:
    """Write the figure, its numbers and paired tests: CSV, LaTeX, Markdown, SVG and PNG.

    Args:
        rows: of the figure.
        runs: finished, by directory.
        out: where to.

    Returns:
        A table, sentences and paths, in the order to show them.
    """
    found = by_count(rows, runs)
    whole = [line for one in found for line in one.lines.values()]
    seeds = seeds_of(whole)
    shown = [row for row in rows if any(row.label in one.lines for one in found)]
    curves = [plots.Curve(row.title, _spots(row, found)) for row in shown]
    words = f"mean accuracy over the tasks that some device has, {seeds}, 95 % intervals"
    names = ["method", *(f"{one.devices} devices" for one in found)]
    averages = [[row.title, *(_average(one, row) for one in found)] for row in shown]
    tests = [[row.title, *(_tested(one, row) for one in found)] for row in shown]
    flat = [_numbers(one, row) for row in shown for one in found if row.label in one.lines]
    caption = f"Accuracy over the number of devices, %: {seeds} with 95 % t-intervals"
    paths = [
        write_csv(out / "fig4.csv", FIELDS, flat),
        put(out / "fig4.tex", tables.latex("fig4", names, [("", averages)], caption)),
        put(out / "fig4.md", f"{_markdown(names, averages)}\n{_markdown(['ours minus it (p, t)', *names[1:]], tests)}"),
    ]
    axes = plots.Axes("Accuracy over the number of devices", words, "devices")
    notes = [
        "the paper's text has accuracy in Figure 4 and the collision rate in Figure 6, its captions the reverse; this "
        "is the text's Figure 4",
        *few(whole, [test for one in found for test in one.tests.values()]),
        *uneven({f"{k} ({one.devices} devices)": n.seeds for one in found for k, n in one.lines.items()}),
        *computed_on(runs),
        *draw({"fig4": plots.curves(axes, curves)}, out, paths),
    ]
    return [_table("accuracy, %", names, averages), *(f"note: {n}" for n in notes), *paths]


def _spots(row: Row, found: Sequence[Count]) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(n.devices), *n.lines[row.label].average) for n in found if row.label in n.lines)


def _average(one: Count, row: Row) -> str:
    return tables.number(one.lines[row.label].average) if row.label in one.lines else "-"


def _tested(one: Count, row: Row) -> str:
    test = one.tests.get(row.label)
    return "-" if test is None else f"{tables.number(test.difference)} ({tables.p_value(test.t_p)})"


def _numbers(one: Count, row: Row) -> tuple[object, ...]:
    line, test = one.lines[row.label], one.tests.get(row.label)
    nothing = Paired(Interval(math.nan, math.nan), math.nan, math.nan, 0, 0)
    difference, t_p, wilcoxon_p, *_ = test or nothing
    told = (*line.average, len(line.seeds), *difference, t_p, wilcoxon_p)
    return (row.title, row.label, one.devices, *("" if math.isnan(v) else f"{v:.6g}" for v in told))


def _markdown(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines_ = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines_)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=None)
    for n, name in enumerate(names):
        table.add_column(name, justify="right" if n else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
