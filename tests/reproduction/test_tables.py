"""Tables of two seeds and two tasks that one can check by hand."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from orthomesh.reproduction.record import Line, against_ours
from orthomesh.reproduction.rows import TABLE_1
from orthomesh.reproduction.scales import scale_of
from orthomesh.reproduction.tables import as_csv, as_latex, as_markdown, cells, head, placed, sizes, terminal


def line(label: str, scores: tuple[tuple[float, ...], ...], trained: float = 0, sent: float = 0) -> Line:
    row = next(r for r in TABLE_1 if r.label == label)
    seeds = tuple(range(len(scores)))
    return Line(row=row, tasks=("a_1", "b"), seeds=seeds, scores=scores, trained=trained, sent=sent, model=1000)


LINES = [
    line("gossip", ((10.0, 30.0), (20.0, 40.0)), 50, 100),
    line("orthomesh", ((60.0, 80.0), (60.0, 80.0)), 10, 5),
    line("base", ((0.0, 1.0), (0.0, 1.0))),
]
TESTS = against_ours(LINES)


def test_averages_and_differences_on_paper() -> None:
    """Seeds average 20 and 30, so 25 +- 12.706 * 5; ours is 70 on both, so 45 ahead, on seeds by 50 and 40."""
    assert LINES[0].average.mean == 25.0
    assert LINES[0].average.half == pytest.approx(12.7062 * 5, rel=1e-4)
    assert LINES[0].column("b").mean == 35.0
    assert TESTS.keys() == {"gossip", "base"}
    assert TESTS["gossip"].difference.mean == 45.0
    assert against_ours(LINES[:1]) == {}


def test_sizes_are_shares_of_the_model_in_16_bit() -> None:
    assert sizes(LINES[0]) == ("100 B (5.00%)", "100 B (5.00%)")
    assert sizes(LINES[2]) == ("-", "-")


def test_csv_has_every_number_of_both_sides() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv("table1", LINES, TESTS))))
    ours = {(r["label"], r["column"]): float(r["value"]) for r in rows if r["source"] == "ours" and r["value"]}
    assert ours["gossip", "Avg."] == 25.0
    assert ours["gossip", "proposed - it"] == 45.0
    assert ours["orthomesh", "# Trans."] == 5.0
    paper = [r for r in rows if r["source"] == "paper, Qwen2.5-7B-Instruct" and r["column"] == "HumanE."]
    assert [float(r["value"]) for r in paper] == [87.57, 82.95, 84.67, 92.13, 88.08, 89.35]


def test_latex_balances_and_marks_the_best() -> None:
    text = as_latex("table1", LINES, "100 % & more")
    assert r"\caption{100 \% \& more}" in text
    assert r"\textbf{70.0 $\pm$ 0.0}" in text
    assert r"\underline{25.0 $\pm$ 63.5}" in text
    assert r"a\_1 / BoolQ" in text
    body = [row for row in text.splitlines() if " & " in row and "caption" not in row]
    assert {row.count(" & ") for row in body} == {11}  # as wide as the paper's eight, though ours has two tasks
    assert rf"\begin{{tabular}}{{l{'r' * 11}}}" in text
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_markdown_and_terminal_show_all_rows() -> None:
    text = as_markdown("table1", LINES, TESTS)
    assert "| LoRA | 45.0 ± 63.5 |" in text
    assert "| Hard-routing MoE | 14.2G (100%)" in text
    console = Console(width=200, record=True, file=io.StringIO())
    for table in terminal("table1", LINES, TESTS):
        console.print(table)
    shown = console.export_text()
    assert shown.count("Proposed Method") == 3
    assert "78.00" in shown
    assert len(cells("table1", LINES)) == 3
    assert head(LINES)[-1] == "Avg."


def test_a_task_of_the_paper_s_stands_in_its_own_column() -> None:
    """arc_easy is the fifth column, boolq the first; what the paper does not have fills the others in order."""
    row = next(r for r in TABLE_1 if r.label == "orthomesh")
    ours = Line(row=row, tasks=("snips", "trec", "arc_easy", "sst2", "agnews", "boolq"), seeds=(0,),
                scores=((1.0, 2.0, 3.0, 4.0, 5.0, 6.0),), trained=1, sent=1, model=9)  # fmt: skip
    names = ["boolq", "snips / Piqa", "trec / SocI.qa", "sst2 / GSM8K", "arc_easy / ARC-E.", "agnews / ARC-C."]
    assert head([ours])[3:] == [*names, "Hella.S.", "HumanE.", "Avg."]
    scores = ["6.0", "1.0", "2.0", "4.0", "3.0", "5.0", "", "", "3.5"]
    (_, mine), (_, theirs), _ = cells("table1", [ours])
    assert mine[0][3:] == scores
    assert theirs[0][3:] == ["79.81", "80.72", "79.16", "77.83", "84.49", "64.20", "87.35", "62.05", "76.95"]
    assert f"| {' | '.join(scores)} |" in as_markdown("table1", [ours], {})
    assert " & ".join(scores[:-1]) in as_latex("table1", [ours], "")
    rows = csv.DictReader(io.StringIO(as_csv("table1", [ours], {})))
    order = ["boolq", "snips", "trec", "sst2", "arc_easy", "agnews", "Avg."]
    assert [r["column"] for r in rows if r["source"] == "ours" and r["unit"] == "%"] == order
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal("table1", [ours], {})[0])
    assert console.export_text().splitlines()[0].split()[-7:] == order


def test_tasks_beyond_the_paper_s_columns_come_after_them() -> None:
    many = ["a", "b", "c", "d", "e", "f", "g", "h", "gsm8k"]
    assert placed(many) == ["a", "b", "c", "gsm8k", "d", "e", "f", "g", "h"]
    assert placed(["gsm8k", "boolq"]) == ["boolq", None, None, "gsm8k", None, None, None, None]


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_tasks_that_are_all_the_paper_s_or_all_ours_keep_their_order(scale: str) -> None:
    tasks = scale_of(scale).experiment().tasks.names
    assert placed(tasks) == list(tasks)
