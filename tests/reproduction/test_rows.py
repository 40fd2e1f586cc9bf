"""Which methods stand for which rows."""

from __future__ import annotations

import pytest

from orthomesh.methods import METHODS
from orthomesh.reproduction.rows import COMPARISON, ROWS, TABLE_1, TABLE_2, chosen, methods


def test_the_papers_rows_are_there_in_its_order() -> None:
    paper = ["FPFT", "LoRA", "LoRI", "Hard-routing MoE", "Proposed (Single)", "Proposed Method"]
    assert [r.title for r in TABLE_1 if r.printed] == paper
    assert [r.title for r in TABLE_2 if r.printed] == ["FPFT", "LoRA", "LoRI", "Proposed Method"]


def test_ours_runs_first_so_that_the_oracle_asks_its_experts() -> None:
    assert next(iter(methods(TABLE_1))) == "orthomesh"
    assert set(methods(TABLE_1)) == {r.label for r in TABLE_1} - {"base", "oracle"}


def test_the_comparison_has_every_method_there_is() -> None:
    assert {r.settings.kind for r in COMPARISON if r.settings is not None} == set(METHODS)


def test_some_rows_only_keeps_what_comes_for_nothing() -> None:
    assert [r.label for r in chosen("table1", ["lori"])] == ["lori", "base", "oracle"]


def test_no_row_is_twice() -> None:
    for rows in ROWS.values():
        assert len({r.label for r in rows}) == len({r.title for r in rows}) == len(rows)


def test_an_unknown_row_lists_the_near_ones() -> None:
    with pytest.raises(ValueError, match="Did you mean 'gossip'"):
        chosen("table1", ["gosip"])
