"""What is on record: a file per round and examination, written whole, and the tables made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.evaluation.accuracy import Score
from orthomesh.evaluation.examine import Result
from orthomesh.evaluation.record import Journal, write_tables
from orthomesh.types import COLUMNS, Cost, DeviceState, Learnt, Link, Plan, RoundInfo, Spend

SUMMARY = Path(__file__).parents[2] / "docs" / "summary.md"
DEVICES = {k: DeviceState(id=k, own={}) for k in (0, 1)}
EXAM = Result(
    scores=[{"a": Score(4, 1, 2, 0), "b": Score(10, 5, 10, 3)}, {"a": Score(4, 3, 4, 0), "b": Score(10, 0, 5, 3)}],
    weights=[1, 1],
    held={0: 2, 1: 1},
    own={"a": Score(4, 3, 4, 0)},
)


def told(index: int) -> RoundInfo:
    """A round in which device 0 sent 70 bytes and device 1 nothing."""
    spend = Spend(bytes_sent={"values": 64, "control": 6}, airtime_s=0.5, energy_j=0.1, lost=1, power_w=0.2)
    return RoundInfo(
        index=index,
        plan=Plan(phases=(), clusters=((0,), (1,))),
        learnt={k: Learnt(first_loss=3.0 - k, last_loss=0.25, steps=24, trained=100 + k) for k in DEVICES},
        cost=Cost({0: spend}, elapsed_s=0.75),
        links=(Link("intra", 0, 1, False), Link("intra", 1, 0, True)),
        framing={0: 7},
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "run")


def tables(journal: Journal) -> dict[str, list[dict[str, Any]]]:
    return {p.stem: parquet.read_table(p).to_pylist() for p in sorted(journal.directory.glob("*.parquet"))}


# example


def test_a_round_on_paper(journal: Journal) -> None:
    journal.write_round("ours", told(0), DEVICES, seconds=1.5)
    (record,) = journal.rounds("ours")
    learnt = {"loss_first": 3.0, "loss_last": 0.25, "steps": 24, "trained": 100}
    sent = {"bytes_values": 64, "bytes_mask": 0, "bytes_codes": 0, "bytes_control": 6, "bytes_one_off": 0}
    air = {"framing_bytes": 7, "airtime_s": 0.5, "energy_j": 0.1, "power_w": 0.2, "lost": 1}
    assert record["devices"][0] == {"method": "ours", "round": 1, "device": 0, **learnt, **sent, **air}
    silent = {**dict.fromkeys(sent, 0), **dict.fromkeys(air, 0)}
    assert record["devices"][1] == {**record["devices"][0], **silent, "device": 1, "loss_first": 2.0, "trained": 101}
    link = {"method": "ours", "round": 1, "phase": "intra"}
    assert record["links"] == [
        {**link, "src": 0, "dst": 1, "arrived": False},
        {**link, "src": 1, "dst": 0, "arrived": True},
    ]
    assert (record["clusters"], record["elapsed_s"], record["wall_s"]) == ([[0], [1]], 0.75, 1.5)


def test_an_examination_on_paper(journal: Journal) -> None:
    assert not journal.has("ours", 2)
    journal.write_exam("ours", 2, EXAM)
    assert journal.has("ours", 2)
    assert journal.accuracy("ours", 2) == {"a": 0.5, "b": 0.25}
    (record,) = journal.exams("ours")
    assert record == {
        "method": "ours",
        "round": 2,
        "accuracy": {"a": 0.5, "b": 0.25},
        "prompts": {"a": 4, "b": 10},
        "cut": {"a": 0, "b": 3},
        "unread": {"a": 0, "b": 0},
        "route_right": 21 / 28,
        "held": {"0": 2, "1": 1},
        "own": {"a": 0.75},
    }


def test_own_tasks_before_an_exchange_on_paper(journal: Journal) -> None:
    assert journal.trained("ours") == []
    journal.write_trained("ours", 2, EXAM)
    assert journal.trained("ours") == [{"method": "ours", "round": 2, "accuracy": {"a": 0.75}, "prompts": {"a": 4}}]
    assert journal.exams("ours") == []


def test_records_lie_where_the_method_says(journal: Journal) -> None:
    journal.write_round("ours", told(2), DEVICES, seconds=0.0)
    journal.write_exam("ours", 3, EXAM)
    found = sorted(str(p.relative_to(journal.directory)) for p in journal.directory.rglob("*.*"))
    assert found == ["records/ours/exam-0003.json", "records/ours/round-0003.json"]


# reference


def documented() -> dict[str, str]:
    """What docs/summary.md says is in each table, in its words."""
    text = " ".join(SUMMARY.read_text(encoding="utf-8").split())
    return dict(re.findall(r"`(\w+)\.parquet` \(([^)]*)\)", text))


def test_tables_have_the_documented_columns(journal: Journal) -> None:
    for label in ("ours", "theirs"):
        journal.write_round(label, told(0), DEVICES, seconds=0.0)
        journal.write_exam(label, 1, EXAM)
    journal.write_exam("base", 0, Result([{"a": Score(4, 0, -1, 0)}], [1], {0: 0}))
    write_tables(journal, ["base", "ours", "theirs"])
    made = tables(journal)
    assert made.keys() == documented().keys() == {"rounds", "accuracy", "links"}
    for name in ("accuracy", "links"):
        assert list(made[name][0]) == documented()[name].split(", ")
    assert (
        "losses, steps, bytes by column, framing, airtime, energy, power, lost, experts held" in documented()["rounds"]
    )
    spent = [f"bytes_{c}" for c in COLUMNS] + [
        "framing_bytes",
        "airtime_s",
        "energy_j",
        "power_w",
        "lost",
        "experts_held",
    ]
    learnt = ["loss_first", "loss_last", "steps", "trained"]
    assert set(made["rounds"][0]) == {"method", "round", "device", *learnt, *spent}
    keys = [(r["method"], r["round"], r["device"], r["experts_held"]) for r in made["rounds"]]
    assert keys == [("ours", 1, 0, 2), ("ours", 1, 1, 1), ("theirs", 1, 0, 2), ("theirs", 1, 1, 1)]
    assert [(r["method"], r["task"], r["accuracy"]) for r in made["accuracy"]][:3] == [
        ("base", "a", 0.0),
        ("ours", "a", 0.5),
        ("ours", "b", 0.25),
    ]
    assert [r["arrived"] for r in made["links"]] == [False, True] * 2


# law


@given(order=st.permutations(range(5)), again=st.integers(0, 4))
def test_a_round_run_again_replaces_its_record(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], again: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("run"))
    for index in order:
        journal.write_round("ours", told(index), DEVICES, seconds=0.0)
    assert [r["devices"][0]["round"] for r in journal.rounds("ours")] == [1, 2, 3, 4, 5]
    journal.write_round("ours", replace(told(again), links=()), DEVICES, seconds=9.0)
    assert [(r["wall_s"], len(r["links"])) for r in journal.rounds("ours")] == [
        (9.0, 0) if index == again else (0.0, 2) for index in range(5)
    ]


# edge


def test_the_last_examination_says_what_is_held(journal: Journal) -> None:
    journal.write_round("ours", told(0), DEVICES, seconds=0.0)
    journal.write_exam("ours", 1, Result(EXAM.scores[:1], [1], {0: 1}))  # on the way not all are examined
    write_tables(journal, ["ours"])
    assert [r["experts_held"] for r in tables(journal)["rounds"]] == [1, None]
    journal.write_exam("ours", 2, EXAM)
    write_tables(journal, ["ours"])
    assert [r["experts_held"] for r in tables(journal)["rounds"]] == [2, 1]


def test_a_method_that_never_talks_has_no_links(journal: Journal) -> None:
    journal.write_round("local", replace(told(0), links=(), cost=Cost()), DEVICES, seconds=0.0)
    journal.write_exam("local", 1, EXAM)
    write_tables(journal, ["local"])
    assert tables(journal).keys() == {"rounds", "accuracy"}
    assert {r[f"bytes_{c}"] for r in tables(journal)["rounds"] for c in COLUMNS} == {0}


def test_a_label_is_not_taken_for_another(journal: Journal) -> None:
    journal.write_round("ours", told(0), DEVICES, seconds=0.0)
    journal.write_exam("ours", 1, EXAM)
    assert journal.rounds("our") == journal.exams("our") == []
    assert not journal.has("our", 1)
    assert not journal.has("ours", 0)


def test_where_nothing_was_chosen_nothing_is_routed(journal: Journal) -> None:
    untouched: list[dict[str, Score]] = [{"a": Score(4, 0, -1, 0)}]
    journal.write_exam("base", 0, Result(untouched, [1], {0: 0}))
    assert journal.exams("base")[0]["route_right"] is None


def test_rounds_stay_in_order_however_many(journal: Journal) -> None:
    for number in (10_000, 9_999, 100, 10):
        journal.write_round("ours", told(number - 1), DEVICES, seconds=0.0)
        journal.write_exam("ours", number, EXAM)
    assert [r["devices"][0]["round"] for r in journal.rounds("ours")] == [10, 100, 9_999, 10_000]
    assert [e["round"] for e in journal.exams("ours")] == [10, 100, 9_999, 10_000]


def test_a_device_without_a_loss_is_an_accident(journal: Journal) -> None:
    strange: Mapping[int, DeviceState] = {**DEVICES, 7: DeviceState(id=7, own={})}
    with pytest.raises(KeyError, match="7"):
        journal.write_round("ours", told(0), strange, seconds=0.0)
    assert journal.rounds("ours") == []
