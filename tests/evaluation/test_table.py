from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orthomesh.evaluation.table import result_table


def printed(summary: dict[str, Any], width: int = 100) -> list[str]:
    """Lines as they land in a file."""
    file = io.StringIO()
    Console(file=file, width=width).print(result_table(summary, width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def with_tasks(summary: dict[str, Any], tasks: list[str]) -> dict[str, Any]:
    rows = [{**row, "accuracy": {t: 0.25 for t in tasks}} for row in summary["rows"]]
    return {**summary, "tasks": tasks, "rows": rows}


def test_what_fits_is_one_line_per_method(summary: dict[str, Any]) -> None:
    lines = printed(summary, 130)
    assert len(lines) == 2 + len(summary["rows"])
    ours = next(line for line in lines if line.startswith("orthomesh"))
    assert ours.split() == ["orthomesh", "85.0", "90.0", "80.0", "85.0", "8.00", "10.0", "2.00", "0", "98.7"]
    assert next(line for line in lines if line.startswith("base")).split()[-1] == "-"


def test_what_does_not_fit_becomes_accuracy_and_costs(summary: dict[str, Any]) -> None:
    lines = printed(with_tasks(summary, [f"task{i}" for i in range(12)]))
    assert lines[0].split() == ["right", "answers,", "%", *(row["label"] for row in summary["rows"])]
    assert next(line for line in lines if line.startswith("task7")).split()[1:] == ["25.0"] * 5
    costs = lines[lines.index("") :]
    assert any(line.startswith("per device") for line in costs)
    assert sum(line.startswith("gossip") for line in lines) == 1


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40), min_size=1, max_size=30),
    st.integers(80, 160),
)
def test_no_line_is_wider_than_the_terminal(names: list[str], width: int) -> None:
    summary = {"tasks": list(dict.fromkeys(names)), "rows": []}
    for label in ("base", "a method with a very long name", "orthomesh", "paper", "[bold]x"):
        accuracy = dict.fromkeys(summary["tasks"], 1.0)
        row = {"label": label, "kind": label, "accuracy": accuracy, "mean": 1.0, "lost": 12_345}
        row |= {
            "bytes_per_device": {"values": 9_876_543_210},
            "airtime_s": 1e-4,
            "energy_j": 5e3,
            "route_right": 1.0,
        }
        summary["rows"].append(row)
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(result_table(summary, width))
    text = file.getvalue()
    assert "\x1b" not in text
    assert "[bold]x" in text
    assert all(console.measure(line).maximum <= width for line in text.splitlines() if line.strip())


def test_many_methods_become_several_tables(summary: dict[str, Any], make_row: Callable[..., Any]) -> None:
    summary["rows"] = [make_row(f"density-{i}", [0.5, 0.5, 0.5]) for i in range(30)]
    lines = printed(summary)
    assert max(map(len, lines)) <= 100
    heads = " ".join(line for line in lines if line.startswith("right answers")).split()
    assert [h for h in heads if h.startswith("density")] == [f"density-{i}" for i in range(30)]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_run_with_hardly_anything(summary: dict[str, Any], rows: int) -> None:
    lines = printed({**summary, "rows": summary["rows"][:rows]})
    assert sum(line.startswith("base") for line in lines) == rows
