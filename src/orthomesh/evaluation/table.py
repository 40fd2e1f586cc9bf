"""The result of a run as tables for a terminal, one line per row, readable in a log file too."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .wording import Row, Summary, column, lead_row, total_bytes

NONE = "-"
LONGEST = 18  # cells of a name


def result_table(summary: Summary, width: int = 100) -> Table:
    """What every method reached and what it cost.

    One line per method where accuracy per task and costs fit side by side. Else two tables under each other:
    accuracy with one line per task, then the costs with one line per method.

    Args:
        summary: the run, as in `summary.json`.
        width: columns of the terminal; no line of the table is longer as long as it is at least 80.

    Returns:
        A table for `rich.console.Console.print`.
    """
    tasks = [str(t) for t in summary["tasks"]]
    mean, costs = _means(summary), _costs(summary)
    accuracy = [(t, [_percent(row["accuracy"][t]) for row in summary["rows"]]) for t in tasks]
    whole = _by_method(summary, [mean, *accuracy, *costs], "method")
    if _width(whole) <= width:
        return whole
    stack = Table.grid()
    for part in _by_task(summary, tasks, width):
        stack.add_row(part)
        stack.add_row("")
    stack.add_row(_by_method(summary, [mean, *costs], "per device"))
    return stack


def _means(summary: Summary) -> tuple[str, list[str]]:
    return "mean, %", [_percent(row["mean"]) for row in summary["rows"]]


def _costs(summary: Summary) -> list[tuple[str, list[str]]]:
    """Bytes, time and energy per device over the whole run, what was lost, and the choice of experts."""
    rows = summary["rows"]
    sent, bytes_unit = column([total_bytes(row) for row in rows], "B")
    air, air_unit = column([float(row["airtime_s"]) for row in rows], "s")
    energy, energy_unit = column([float(row["energy_j"]) for row in rows], "J")
    right = [NONE if row["route_right"] is None else _percent(row["route_right"]) for row in rows]
    return [
        (f"sent, {bytes_unit}", sent),
        (f"air time, {air_unit}", air),
        (f"energy, {energy_unit}", energy),
        ("lost", [f"{row['lost']:,}" for row in rows]),
        ("right expert, %", right),
    ]


def _by_method(summary: Summary, columns: Sequence[tuple[str, list[str]]], first: str) -> Table:
    """One line per method; the one the report speaks of is bold."""
    table = _empty(first, [name for name, _ in columns])
    lead = lead_row(summary)
    for i, row in enumerate(summary["rows"]):
        cells = [Text(values[i]) for _, values in columns]
        table.add_row(_name(row["label"]), *cells, style="bold" if row is lead else "")
    return table


def _by_task(summary: Summary, tasks: Sequence[str], width: int) -> list[Table]:
    """One line per task, one column per method; as many tables as the width asks for."""
    rest, tables = list(summary["rows"]), []
    while rest:
        take = len(rest)
        while take > 1 and _width(_accuracy(rest[:take], tasks)) > width:
            take -= 1
        tables.append(_accuracy(rest[:take], tasks))
        rest = rest[take:]
    return tables


def _accuracy(rows: Sequence[Row], tasks: Sequence[str]) -> Table:
    table = _empty("right answers, %", [str(row["label"]) for row in rows])
    for task in tasks:
        table.add_row(_name(task), *(Text(_percent(row["accuracy"][task])) for row in rows))
    table.add_section()
    table.add_row("mean", *(Text(_percent(row["mean"])) for row in rows), style="bold")
    return table


def _empty(first: str, names: Sequence[str]) -> Table:
    """Names to the left, numbers to the right, nothing folded over two lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for name in names:
        table.add_column(_name(name), justify="right", no_wrap=True)
    return table


def _name(name: object) -> Text:
    """A name as it is, without markup or control characters, cut where it is too long."""
    text = "".join(c if c.isprintable() else "?" for c in str(name))
    return Text(text if cell_len(text) <= LONGEST else set_cell_size(text, LONGEST - 1) + "…")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _width(table: Table) -> int:
    """Columns a table takes where it is not squeezed."""
    return Console(width=100_000).measure(table).maximum
