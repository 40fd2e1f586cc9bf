"""The parts of a report that are words and tables: its header, the results and what they cost, the foot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..types import COLUMNS
from ..units import from_dbm
from .devicemap import cluster_colour
from .page import Cell, escape, table, tiles
from .wording import (
    Row,
    Summary,
    colours,
    column,
    count,
    duration,
    find,
    headline,
    lead_row,
    meaning,
    percent,
    quantity,
    setting,
    size,
    total_bytes,
)

TASKS_ACROSS = 12  # above this, tasks go down the page and methods across
TALL = 22  # lines above which a table scrolls in place
NONE = "\u2013"  # where a method has no such number
QUANTITIES = (("air time", "airtime_s", "s"), ("energy", "energy_j", "J"), ("elapsed", "elapsed_s", "s"))


def header(summary: Summary) -> str:
    """What was run, what came out, and the numbers to remember."""
    sentence = re.sub(r"(\d[\d.,]*\u00a0(?:%|[kMGT]?B))", r"<b>\1</b>", _glued(escape(headline(summary))))
    return (
        f'<header>\n<p class="kicker">orthomesh · report of a run</p>\n<h1>{escape(summary["name"])}</h1>\n'
        f'<p class="headline">{sentence}</p>\n<p class="what">{escape(_glued(what_was_run(summary)))}</p>\n'
        f"{tiles([(a, _glued(b), _glued(c)) for a, b, c in _numbers(summary)])}\n</header>"
    )


def _glued(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(\d) (%|[kMGT]?B|[nµm]?[sWJ]|m|dBm|[kMG]?Hz)\b|(\d) %", _glue, text)


def _glue(match: re.Match[str]) -> str:
    return match.group().replace(" ", "\u00a0")


def what_was_run(summary: Summary) -> str:
    """One paragraph of plain words: model, tasks, radio, seed, and how long the simulation took."""
    model, radio = summary["model"], summary.get("radio") or {}
    tasks, devices = len(summary["tasks"]), len(summary["devices"])
    text = (
        f"One model ({model['name']}, {model['parameters']:,} parameters, {count(model['layers'], 'layer')}) "
        f"is fine-tuned for {count(tasks, 'task')} on {count(devices, 'device')} in "
        f"{count(summary['rounds'], 'round')}, with no server."
    )
    if radio:
        power_dbm = float(radio["max_power_dbm"])
        text += (
            f" Radio: {setting(float(radio['bandwidth_hz']), 'Hz')} of bandwidth, a deadline of "
            f"{setting(float(radio['deadline_s']), 's')}, at most {setting(from_dbm(power_dbm), 'W')} "
            f"({power_dbm:g} dBm), within {radio['radius_m']:g} m."
        )
    text += " Bytes are what was framed and sent; time and energy are the channel's, not this machine's."
    return text + f" Seed {summary['seed']}; the run took {duration(float(summary['wall_s']))}."


def _numbers(summary: Summary) -> list[tuple[str, str, str]]:
    """The four numbers to remember about the row the report speaks about."""
    lead = lead_row(summary)
    if lead is None:
        return []
    oracle, gossip = find(summary, "oracle"), find(summary, "gossip")
    against = f"oracle: {percent(oracle['mean'])}" if oracle else "no oracle in this run"
    paid = total_bytes(lead)
    rival = "over the whole run"
    if gossip is not None and gossip is not lead and total_bytes(gossip):
        rival = f"gossip: {size(total_bytes(gossip))}"
    held = f"{lead['experts_held']:g} of {count(len(summary['devices']), 'expert')} held per device"
    right = percent(lead["route_right"]) if lead["route_right"] is not None else NONE
    return [
        (f"Mean accuracy, {lead['label']}", percent(lead["mean"]), against),
        ("Sent per device", size(paid), rival),
        (
            "On the air per device",
            quantity(float(lead["airtime_s"]), "s"),
            f"radiating {quantity(float(lead['energy_j']), 'J')}",
        ),
        ("Prompts sent to the right expert", right, held),
    ]


def accuracy_table(summary: Summary) -> str:
    """Accuracy per task and mean, in per cent; tasks go down the page where there are many."""
    rows, shown, tasks = summary["rows"], colours(summary), list(summary["tasks"])
    lead = lead_row(summary)
    if len(tasks) <= TASKS_ACROSS:
        values = [[row["mean"], *(row["accuracy"][t] for t in tasks)] for row in rows]
        lines = [[_method(row, shown), *map(_accuracy, v)] for row, v in zip(rows, values, strict=True)]
        marked = next((i for i, row in enumerate(rows) if row is lead), None)
        return table(["method", "mean", *tasks], lines, marked)
    lines = [[Cell(text="mean", head=True), *(_accuracy(row["mean"]) for row in rows)]]
    lines += [[Cell(text=t, head=True), *(_accuracy(row["accuracy"][t]) for row in rows)] for t in tasks]
    return table(["method", *(row["label"] for row in rows)], lines, tall=len(lines) > TALL)


def _method(row: Row, shown: dict[str, str]) -> Cell:
    return Cell(text=row["label"], tip=meaning(row), head=True, colour=shown[row["label"]])


def _accuracy(fraction: float) -> Cell:
    return Cell(text=f"{100 * fraction:.1f}", tip=f"{fraction:.4f}", shade=fraction)


def bytes_table(summary: Summary) -> str:
    """Bytes one device sent: in all, per round, by column, and how many transfers were lost."""
    return _by_method(summary, [*_bytes_columns(summary["rows"]), ("lost transfers", _counts(summary, "lost"))])


def effort_table(summary: Summary) -> str:
    """Rounds, time and energy, what was trained, and whether prompts found the right expert."""
    columns = [("rounds", [Cell(text=str(summary["rounds"])) for _ in summary["rows"]])]
    columns += [_quantities(summary, *what) for what in QUANTITIES]
    columns.append(("trained parameters", _counts(summary, "trained_parameters")))
    columns.append(("experts held", [Cell(text=f"{row['experts_held']:g}") for row in summary["rows"]]))
    right = [row["route_right"] for row in summary["rows"]]
    columns.append(("right expert, %", [Cell(text=NONE if r is None else f"{100 * r:.1f}") for r in right]))
    return _by_method(summary, columns)


def forgetting_table(summary: Summary) -> str:
    """Of every method that trains: a device's own task before and after aggregation, mean over tasks."""
    told = [(row, row.get("as_trained") or {}, row.get("aggregated") or {}) for row in summary["rows"]]
    kept = [(row, [(before[t], after[t], row["accuracy"][t]) for t in before if t in after and t in row["accuracy"]])
            for row, before, after in told]  # fmt: skip
    if not any(values for _, values in kept):
        return '<p class="missing">How devices answered before aggregation was not recorded.</p>'
    lines, shown = [], colours(summary)
    for row, values in kept:
        if values:
            before, after, all_ = (sum(column_) / len(values) for column_ in zip(*values, strict=True))
            lost = Cell(text=f"{100 * (before - after):.1f}", tip=f"{before - after:.4f}")
            lines.append([_method(row, shown), *map(_accuracy, (before, after, all_)), lost])
    return table(["method", "as trained", "aggregated", "answered", "forgotten, points"], lines, None)


def _by_method(summary: Summary, columns: Sequence[tuple[str, list[Cell]]]) -> str:
    """A table with one line per method, put together from its columns."""
    rows, shown, lead = summary["rows"], colours(summary), lead_row(summary)
    cells = [[_method(row, shown), *(made[i] for _, made in columns)] for i, row in enumerate(rows)]
    marked = next((i for i, row in enumerate(rows) if row is lead), None)
    return table(["method", *(name for name, _ in columns)], cells, marked)


def _bytes_columns(rows: Sequence[Row]) -> list[tuple[str, list[Cell]]]:
    """Sent in all, per round and by column, all in one unit; exact bytes when pointed at."""
    exact = [[total_bytes(row) for row in rows], [total_bytes(row, "bytes_per_device_round") for row in rows]]
    exact += [[float(row["bytes_per_device"][c]) for row in rows] for c in COLUMNS]
    cells, unit = column([v for values in exact for v in values], "B")
    tips = [f"{_exact(v)} bytes" for values in exact for v in values]
    each = [float(row["bytes_per_device_round"][c]) for c in COLUMNS for row in rows]
    for i, v in enumerate(each, start=2 * len(rows)):
        tips[i] += f", {_exact(v)} per round"
    names = [f"{name.replace('_', '-')}, {unit}" for name in ("sent", "per round", *COLUMNS)]
    made = [Cell(text=text, tip=tip) for text, tip in zip(cells, tips, strict=True)]
    return [(name, made[i * len(rows) : (i + 1) * len(rows)]) for i, name in enumerate(names)]


def _exact(num_bytes: float) -> str:
    """Bytes to the byte; means over devices or rounds to a hundredth of one."""
    return f"{num_bytes:,.2f}".removesuffix(".00")


def _quantities(summary: Summary, name: str, field: str, unit: str) -> tuple[str, list[Cell]]:
    """One column of times or energies."""
    values = [float(row[field]) for row in summary["rows"]]
    cells, scaled = column(values, unit)
    made = [Cell(text=c, tip=f"{v:g} {unit}") for c, v in zip(cells, values, strict=True)]
    return f"{name}, {scaled}", made


def _counts(summary: Summary, field: str) -> list[Cell]:
    return [Cell(text=f"{row[field]:,}") for row in summary["rows"]]


def members(summary: Summary, row: Row) -> str:
    """The clusters of one method as a list: who is in, and with which task."""
    tasks = {int(d["id"]): d["task"] for d in summary["devices"]}
    if not row["clusters"]:
        return '<p class="missing">This method does not form clusters.</p>'
    items = []
    for k, ids in enumerate(row["clusters"]):
        dot = f'<i class="dot" style="background:{cluster_colour(row, ids[0])}"></i>' if ids else ""
        who = ", ".join(f"{i} {escape(tasks[i])}" for i in ids)
        items.append(f"<li><b>{dot}cluster {k + 1}</b><span>{who}</span></li>")
    return f'<ul class="members">{"".join(items)}</ul>'


def glossary(summary: Summary) -> str:
    """What the names of the methods stand for."""
    shown = colours(summary)
    items = [
        f'<dt><i class="dot" style="background:{shown[row["label"]]}"></i>{escape(row["label"])}</dt>'
        f"<dd>{escape(meaning(row))}</dd>"
        for row in summary["rows"]
    ]
    return f"<dl>{''.join(items)}</dl>" if items else ""


def foot(summary: Summary) -> str:
    """How to get the same numbers again, what to compare them by, and what to know about them."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(summary["versions"].items()))
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"]) or "<li>none</li>"
    return (
        "<dl><dt>Again</dt><dd><code>orthomesh run --config config.yaml</code></dd>"
        f"<dt>Final state</dt><dd><code>{escape(summary['final_sha256'])}</code></dd>"
        f"<dt>Versions</dt><dd>{escape(versions)}</dd>"
        f'<dt>Notes</dt><dd><ul class="notes">{notes}</ul></dd></dl>'
    )
