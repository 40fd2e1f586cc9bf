"""From the oracle down to the answer: stages of a real small run, and who counts as the right expert."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orthomesh.evaluation.record import Journal
from orthomesh.experiment import ORACLE
from orthomesh.reproduction.breakdown import (
    CAUSES,
    HEAD,
    STAGES,
    Breakdown,
    as_markdown,
    as_table,
    losses,
    right_expert,
)
from orthomesh.reproduction.runs import broken_down
from orthomesh.types import Bank, DeviceState, Expert

# example


def test_drops_on_paper() -> None:
    values = (0.9, 0.8, 0.5, 0.5, 0.45)
    found = Breakdown({stage: {"a": v} for stage, v in zip(STAGES, values, strict=True)}).drops("a")
    assert list(found) == list(CAUSES)
    assert list(found.values()) == pytest.approx([0.1, 0.3, 0.0, 0.05])
    assert sum(found.values()) == pytest.approx(0.9 - 0.45)


def test_a_table_of_two_tasks_and_two_seeds_on_paper() -> None:
    seeds = [{"a": (0.9, 0.8, 0.5, 0.5, 0.4), "b": (0.5,) * 5}, {"a": (0.7, 0.6, 0.5, 0.5, 0.4), "b": (0.5,) * 5}]
    each = [Breakdown({s: {t: v[n] for t, v in one.items()} for n, s in enumerate(STAGES)}) for one in seeds]
    a, b, mean = losses("Ours", each, ("a", "b"))
    assert a.stages == pytest.approx((80, 70, 50, 50, 40))
    assert a.drops == pytest.approx((10, 20, 0, 10))
    assert mean.stages == pytest.approx((65, 60, 50, 50, 45))
    assert sum(mean.drops) == pytest.approx(65 - 45)
    assert as_markdown([a, b, mean]).splitlines()[2] == "| Ours | a | 80.0 | 50.0 | 40.0 | 10.0 | 20.0 | 0.0 | 10.0 |"
    table = as_table([a, b, mean])
    assert [column.header for column in table.columns] == [HEAD[0], *HEAD[2:]]
    assert [list(column.cells) for column in table.columns][:4] == [["Ours"], ["65.0"], ["50.0"], ["45.0"]]


def test_the_right_expert_is_an_owners_or_nobodys() -> None:
    none = np.zeros(0)
    held = Bank(experts=tuple(Expert(owner=k, A=none, B=none) for k in (0, 2, 4)), choice="topk")
    device = DeviceState(id=0, own={})
    found = right_expert(device, lambda _: held, (2, 4))
    assert [e.owner for e in found.experts] == [2]
    assert found.choice == "only"
    assert right_expert(device, lambda _: held, (1,)).experts == ()


# reference: what the run itself has on record


def test_ends_are_the_oracle_and_the_result(done: Any) -> None:
    for label in ("orthomesh", "single", "paper"):
        directory, x = next((d, x) for d, x in done.runs.items() if label in x.methods)
        journal = Journal(directory)
        found = broken_down(directory, x, label)
        assert found is not None
        assert tuple(found.stages) == STAGES
        assert found.stages["trained"] == journal.accuracy(ORACLE, 0)
        assert found.stages["given"] == journal.accuracy(label, 2)
        assert broken_down(directory, x, label) == found  # read back


def test_a_union_averages_nothing(done: Any) -> None:
    directory, x = next((d, x) for d, x in done.runs.items() if "single" in x.methods)
    found = broken_down(directory, x, "single")
    assert found is not None
    assert found.stages["joined apart"] == found.stages["joined"]
    assert all(found.drops(task)["averaging"] == 0 for task in ("zelk", "morv"))
