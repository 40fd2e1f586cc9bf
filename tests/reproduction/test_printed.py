"""The paper's numbers: as many as there should be, and the slips that reference/methods.md names."""

from __future__ import annotations

import pytest

from orthomesh.reproduction.printed import COLUMNS, TABLE_1, TABLE_2, TABLES, TASKS, remarks


def test_every_row_has_eight_scores_in_range() -> None:
    assert len(COLUMNS) == len(TASKS) == 8
    for table in TABLES.values():
        for rows in table.values():
            assert all(len(r.scores) == 8 and all(40 < s < 100 for s in r.scores) for r in rows)
    assert [len(rows) for rows in TABLE_1.values()] == [6, 6]
    assert [len(rows) for rows in TABLE_2.values()] == [4, 4]


def test_averages_agree_but_for_the_two_known_slips() -> None:
    wrong = {
        (model, r.method): round(r.recomputed, 2)
        for table in TABLES.values()
        for model, rows in table.items()
        for r in rows
        if abs(r.recomputed - r.average) > 0.015
    }
    name = "Qwen2.5-1.5B-Instruct"
    assert wrong == {(name, "LoRA"): 67.14, (name, "Proposed Method"): 77.94}


def test_hard_routing_is_full_fine_tuning_alone() -> None:
    for model, rows in TABLE_1.items():
        hard = next(r for r in rows if r.method == "Hard-routing MoE")
        alone = next(r for r in TABLE_2[model] if r.method == "FPFT")
        assert hard.scores == alone.scores


@pytest.mark.parametrize(("table", "words"), [("table1", "67.14"), ("table1", "86.6 %"), ("table2", "0.60 %")])
def test_remarks_say_what_is_wrong(table: str, words: str) -> None:
    assert any(words in sentence for sentence in remarks(table))
