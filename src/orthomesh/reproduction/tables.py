"""A reproduced table beside the printed one: for a terminal, as CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ..evaluation.statistics import Interval, Paired
from ..evaluation.wording import quantity
from .printed import COLUMNS, TABLES, TASKS, Printed
from .record import Line

Tests = Mapping[str, Paired]
FIELDS = ("source", "method", "label", "column", "value", "half_width", "seeds", "unit")
"""Columns of the CSV: one line for every number, ours and the paper's."""


def printed_of(table: str, title: str) -> dict[str, Printed]:
    """The paper's row of this name by model; empty where it has none."""
    found = {model: [r for r in rows if r.method == title] for model, rows in TABLES[table].items()}
    return {model: rows[0] for model, rows in found.items() if rows}


def placed(tasks: Sequence[str]) -> list[str | None]:
    """Our tasks under the paper's columns: each in its own, the others in those left over in order, and beyond them.

    None where the paper has a column and we have no task.

    >>> placed(["snips", "piqa"])[:3]
    ['snips', 'piqa', None]
    """
    others = iter([task for task in tasks if task not in TASKS])
    return [*(name if name in tasks else next(others, None) for name in TASKS), *others]


def share(part: float, whole: float) -> str:
    """Bytes or entries as the paper writes them: a size and a percentage.

    >>> share(540.0, 100_000.0)
    '540 B (0.54%)'
    """
    return f"{quantity(part, 'B')} ({100 * part / whole:.2f}%)"


def sizes(line: Line) -> tuple[str, str]:
    """# Params and # Trans. in bytes and as shares of the model in 16 bit: what a device trains, and sends in a round.

    The paper's columns read as bytes too (3.2G is 1.54e9 parameters in 16 bit).
    """
    if line.row.settings is None:
        return "-", "-"
    return share(2 * line.trained, 2 * line.model), share(line.sent, 2 * line.model)


def number(value: Interval) -> str:
    """Mean and half-width, one decimal.

    >>> number(Interval(12.34, 0.56))
    '12.3 ± 0.6'
    """
    return f"{value.mean:.1f}" if math.isnan(value.half) else f"{value.mean:.1f} ± {value.half:.1f}"


def p_value(p: float) -> str:
    """A p-value as one reads it.

    >>> p_value(0.0004), p_value(0.034), p_value(float("nan"))
    ('<0.001', '0.034', '-')
    """
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def terminal(table: str, lines: Sequence[Line], tests: Tests) -> list[Table]:
    """Accuracy task by task; what is trained and sent; averages beside the paper's, with the paired tests."""
    tasks = [task for task in placed(lines[0].tasks) if task is not None]
    first = _empty("right answers, %", [*tasks, "Avg."])
    for line in lines:
        cells = [f"{line.column(task).mean:.1f}" for task in tasks]
        first.add_row(line.row.title, *map(Text, cells), Text(number(line.average)), style=_style(line))
    second = _empty("per device", ["trained", "sent a round"])
    for line in lines:
        second.add_row(line.row.title, *map(Text, sizes(line)), style=_style(line))
    models = list(TABLES[table])
    names = ["Avg.", *(_short(m) for m in models), "ours - it", "p, t", "p, Wilcoxon"]
    third = _empty("beside the paper", names)
    for line in lines:
        known = printed_of(table, line.row.title)
        theirs = [f"{known[m].average:.2f}" if m in known else "-" for m in models]
        told = (number(line.average), *theirs, *_tested(line, tests))
        third.add_row(line.row.title, *map(Text, told), style=_style(line))
    return [first, second, third]


def _short(model: str) -> str:
    return "paper, " + model.removeprefix("Qwen2.5-").removesuffix("-Instruct")


def _style(line: Line) -> str:
    return "" if line.row.printed else "dim"


def _tested(line: Line, tests: Tests) -> tuple[str, str, str]:
    found = tests.get(line.row.label)
    if found is None:
        return "", "", ""
    return number(found.difference), p_value(found.t_p), p_value(found.wilcoxon_p)


def _empty(first: str, names: Sequence[str]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    made.add_column(first, no_wrap=True)
    for name in names:
        made.add_column(Text(name), justify="right", no_wrap=True)
    return made


def as_csv(table: str, lines: Sequence[Line], tests: Tests) -> str:
    """Every number on a line of its own, ours and the paper's."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(FIELDS)
    for line in lines:
        who = ("ours", line.row.title, line.row.label)
        tasks = [task for task in placed(line.tasks) if task is not None]
        found = {**{task: line.column(task) for task in tasks}, "Avg.": line.average}
        for column, value in found.items():
            rows.writerow([*who, column, f"{value.mean:.4f}", _csv(value.half), len(line.scores), "%"])
        if line.row.settings is not None:
            rows.writerow([*who, "# Params", f"{line.trained:.0f}", "", len(line.scores), "entries"])
            rows.writerow([*who, "# Trans.", f"{line.sent:.1f}", "", len(line.scores), "bytes a round"])
        if (test := tests.get(line.row.label)) is not None:
            d = test.difference
            rows.writerow([*who, "proposed - it", f"{d.mean:.4f}", _csv(d.half), test.seeds, "points"])
            rows.writerow([*who, "p, t over seeds", _csv(test.t_p), "", test.seeds, ""])
            rows.writerow([*who, "p, Wilcoxon", _csv(test.wilcoxon_p), "", test.pairs, ""])
    for model, printed in TABLES[table].items():
        for one in printed:
            who = (f"paper, {model}", one.method, "")
            for column, score in zip((*COLUMNS, "Avg."), (*one.scores, one.average), strict=True):
                rows.writerow([*who, column, score, "", "", "%"])
            rows.writerow([*who, "Avg. of the eight", f"{one.recomputed:.4f}", "", "", "%"])
            rows.writerow([*who, "# Params", one.trained, "", "", ""])
            rows.writerow([*who, "# Trans.", one.sent, "", "", ""])
    return out.getvalue()


def _csv(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def cells(table: str, lines: Sequence[Line]) -> list[tuple[str, list[list[str]]]]:
    """Blocks of the table as the paper has it: ours first, then what it prints for each model."""
    blocks = [("ours", [[line.row.title, *sizes(line), *_scores(line), number(line.average)] for line in lines])]
    for model, rows in TABLES[table].items():
        theirs = [
            [r.method, r.trained, r.sent or "-", *(f"{s:.2f}" for s in r.scores), f"{r.average:.2f}"] for r in rows
        ]
        blocks.append((f"printed, {model}", theirs))
    return blocks


def _scores(line: Line) -> list[str]:
    return ["" if task is None else number(line.column(task)) for task in placed(line.tasks)]


def head(lines: Sequence[Line]) -> list[str]:
    """Column names: our tasks as `placed`, over the paper's where they are others; the paper's alone where it has
    more."""
    tasks = placed(lines[0].tasks)
    both = [_column(task, printed) for task, printed in zip(tasks, COLUMNS, strict=False)]
    rest = [str(task) for task in tasks[len(both) :]]
    return ["Method", "# Params (%)", "# Trans. (%)", *both, *rest, "Avg."]


def _column(task: str | None, printed: str) -> str:
    if task is None:
        return printed
    return task if task == printed.lower() else f"{task} / {printed}"


def as_markdown(table: str, lines: Sequence[Line], tests: Tests) -> str:
    """The blocks one under the other, then the paired tests."""
    names = head(lines)
    parts = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for block, rows in cells(table, lines):
        parts.append("| **" + block + "** |" + " |" * (len(names) - 1))
        parts += ["| " + " | ".join([*row[:-1], *[""] * (len(names) - len(row)), row[-1]]) + " |" for row in rows]
    parts += [
        "",
        "| proposed minus | points | p, t over seeds | p, Wilcoxon over seeds and tasks |",
        "|---|---|---|---|",
    ]
    for line in lines:
        if line.row.label in tests:
            parts.append(f"| {line.row.title} | " + " | ".join(_tested(line, tests)) + " |")
    return "\n".join(parts) + "\n"


def as_latex(table: str, lines: Sequence[Line], caption: str) -> str:
    """The blocks as the paper has them; of each the best average is bold, the second underlined."""
    names = head(lines)
    blocks = [
        (block, [[*row[:-1], *[""] * (len(names) - len(row)), row[-1]] for row in rows])
        for block, rows in cells(table, lines)
    ]
    return latex(table, names, blocks, caption, best=len(names) - 1)


def latex(
    label: str,
    names: Sequence[str],
    blocks: Sequence[tuple[str, list[list[str]]]],
    caption: str,
    best: int | None = None,
) -> str:
    """A `tabular` in a `table*`; in every block the highest number of column `best`, if there is one, is bold, the
    second underlined."""
    parts = [
        r"\begin{table*}", r"\centering", rf"\caption{{{_tex(caption)}}}", rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}", r"\hline", " & ".join(map(_tex, names)) + r" \\", r"\hline",
    ]  # fmt: skip
    for block, rows in blocks:
        parts += [rf"\multicolumn{{{len(names)}}}{{c}}{{{_tex(block)}}} \\"] if block else []
        order = [] if best is None else sorted({float(row[best].split(" ")[0]) for row in rows}, reverse=True)
        for row in rows:
            said = [_tex(cell) for cell in row]
            if best is not None and (rank := order.index(float(row[best].split(" ")[0]))) < 2:
                said[best] = rf"\{('textbf', 'underline')[rank]}{{{said[best]}}}"
            parts.append(" & ".join(said) + r" \\")
        parts.append(r"\hline")
    return "\n".join([*parts, r"\end{tabular}", r"\end{table*}", ""])


def _tex(text: str) -> str:
    """Text as LaTeX prints it.

    >>> _tex("1 ± 2 %")
    '1 $\\\\pm$ 2 \\\\%'
    >>> _tex("-1.5"), _tex("<0.001")  # a plain one prints a hyphen, the other a question mark upside down
    ('$-$1.5', '$<$0.001')
    """
    for plain, said in (
        ("\\", r"\textbackslash{}"),
        ("%", r"\%"),
        ("#", r"\#"),
        ("_", r"\_"),
        ("&", r"\&"),
        ("±", r"$\pm$"),
        ("<", "$<$"),
        ("µ", r"$\mu$"),
    ):
        text = text.replace(plain, said)
    return re.sub(r"^-(?=\d)", "$-$", text)
