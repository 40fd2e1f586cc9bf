"""The page a user opens after a run: reads the records of a run, writes one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import charts, costcharts, sections
from .charts import Table
from .devicemap import device_map
from .page import card, chart, document, panels
from .wording import Row, lead_row

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """The records of one run: the summary, and the rows of the three tables beside it."""

    summary: Mapping[str, Any]
    rounds: Table = ()
    accuracy: Table = ()
    links: Table = ()


def write_report(directory: Path) -> Path:
    """Write `report.html` beside the records of a run.

    Args:
        directory: holds `summary.json`, and `rounds.parquet`, `accuracy.parquet`, `links.parquet` where the
            run wrote them; a figure whose table is missing says so.

    Returns:
        Path of the page. It opens without a network: style, script and figures are inside.

    Raises:
        ValueError: there is no summary, or one of another schema.
    """
    page = directory / "report.html"
    page.write_text(render(read_run(directory)), encoding="utf-8")
    return page


def read_run(directory: Path) -> Run:
    """Read what `write_report` shows."""
    path = directory / "summary.json"
    if not path.is_file():
        raise ValueError(f"{directory}: there is no summary.json here; give the directory of a finished run.")
    summary = json.loads(path.read_text(encoding="utf-8"))
    if summary.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {summary.get('schema')!r}, but this version reads schema {SCHEMA}.")
    summary["rows"] = list(summary.pop("methods").values())  # in the order they were run
    tables = {name: _rows(directory / f"{name}.parquet") for name in ("rounds", "accuracy", "links")}
    return Run(summary=summary, **tables)


def _rows(path: Path) -> Table:
    import pyarrow.parquet as parquet  # late: reading settings must not load it

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist() if path.is_file() else []
    return rows


def render(run: Run) -> str:
    """The page as text; the same records give the same text."""
    summary = run.summary
    parts = (
        sections.header(summary),
        _results(run),
        _map(run),
        _cost(run),
        _training(run),
        _collisions(run),
        _foot(run),
    )
    return document(f"{summary['name']} · orthomesh", "\n".join(parts))


def _results(run: Run) -> str:
    """Tables, then accuracy over rounds, against bytes, and per task."""
    summary = run.summary
    tables = card(
        "Results",
        "Means over the devices. Point at a number for its exact value.",
        *("<h3>Right answers, per cent</h3>", sections.accuracy_table(summary)),
        *("<h3>A device's own task before and after aggregation, per cent</h3>", sections.forgetting_table(summary)),
        *("<h3>Sent by one device over the whole run</h3>", sections.bytes_table(summary)),
        *("<h3>Time and energy of one device, and what it learnt</h3>", sections.effort_table(summary)),
        sections.glossary(summary),
    )
    over = chart(charts.accuracy_over_rounds(summary, run.accuracy), "accuracy-rounds",
                 "The accuracy was not recorded round by round.", "Over the rounds")  # fmt: skip
    price = chart(
        charts.accuracy_for_bytes(summary), "accuracy-bytes", "No method sent anything.", "For the bytes sent"
    )
    tasks = chart(charts.accuracy_per_task(summary), "accuracy-tasks", "There are no tasks.", "Per task")
    curves = card(
        "Accuracy",
        "Mean over the tasks, then task by task. Flat lines: the oracle above, the untouched model below.",
        f'<div class="two">{over}{price}</div>',
        tasks,
    )
    return f"{tables}\n{curves}"


def _map(run: Run) -> str:
    """One map per method that formed clusters, else that used links, else of the positions alone."""
    rows = run.summary["rows"]
    linked = {r["method"] for r in run.links}
    chosen = [row for row in rows if row["clusters"]] or [row for row in rows if row["label"] in linked]
    lead = lead_row(run.summary)
    chosen = sorted(chosen, key=lambda row: row is not lead) or ([lead] if lead is not None else [])
    bodies = {str(row["label"]): _one_map(run, row, i) for i, row in enumerate(chosen)}
    return card(
        "Who talks to whom",
        "Devices where they stand, in metres. An area is a cluster, a line a link that was used; "
        "point at a device or a link for its account.",
        panels(bodies) if bodies else chart(None, "", "No method was run."),
    )


def _one_map(run: Run, row: Row, number: int) -> str:
    figure = device_map(run.summary, row, run.rounds, run.links)
    drawn = chart(figure, f"map-{number}", "There are no devices.")
    return f'<div class="map">{drawn}<div>{sections.members(run.summary, row)}</div></div>'


def _cost(run: Run) -> str:
    """Bytes in all and by column, air time, energy."""
    summary, silent = run.summary, "No method sent anything."
    parts = (
        chart(costcharts.cost_dots(summary, "bytes"), "bytes", silent, "Bytes sent per device"),
        chart(costcharts.byte_shares(summary), "byte-shares", silent, "What they are made of"),
        chart(costcharts.cost_dots(summary, "energy_j"), "energy", silent, "Energy radiated per device"),
        chart(costcharts.cost_dots(summary, "airtime_s"), "airtime", silent, "Time on the air per device"),
    )
    return card(
        "What it costs",
        "Means per device over the whole run. The dots stand on logarithmic axes, the bars show shares.",
        f'<div class="two">{"".join(parts)}</div>',
    )


def _training(run: Run) -> str:
    return card(
        "Local fine-tuning",
        "Mean training loss over the devices, at the start and the end of each round. "
        "A step where a round begins is what merging, or just other examples, changed.",
        chart(charts.loss_over_rounds(run.summary, run.rounds), "loss", "No training loss was recorded."),
    )


def _collisions(run: Run) -> str:
    return card(
        "Collision rate",
        "Share of positions that at least two devices of a cluster train, layer by layer. "
        "Ring: as eq. (19) expects it of independent masks. Dot: as the masks really are.",
        chart(
            charts.collision_rates(run.summary),
            "collisions",
            "No method of this run has masks that could collide.",
        ),
    )


def _foot(run: Run) -> str:
    caption = "The settings lie beside this page; the same settings and seed give the same final state."
    return card("To reproduce", caption, sections.foot(run.summary))
