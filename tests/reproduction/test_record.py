"""Frontiers out of records that one can add up by hand; lines are checked in test_tables.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orthomesh.experiment import Experiment
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.reproduction.record import Line, Point, against_ours, directories, frontier, lines, unread
from orthomesh.reproduction.rows import TABLE_1


def records(place: Path, accuracy: float) -> Path:
    """Two rounds of two devices: 10 and 30 bytes of values and 2 of mask each, 4 seconds; an exam after each."""
    folder = place / "records" / "gossip"
    folder.mkdir(parents=True)
    for n in (1, 2):
        devices = [{"bytes_values": v, "bytes_mask": 2, "airtime_s": 1.0} for v in (10, 30)]
        (folder / f"round-000{n}.json").write_text(json.dumps({"devices": devices, "elapsed_s": 4.0}))
        exam = {"method": "gossip", "round": n, "accuracy": {"a": accuracy, "b": accuracy * n}}
        (folder / f"exam-000{n}.json").write_text(json.dumps(exam))
    return place


def test_bytes_and_seconds_add_up_round_by_round(tmp_path: Path) -> None:
    seeds = [records(tmp_path / "0", 0.2), records(tmp_path / "1", 0.4)]
    first, second = frontier("gossip", seeds)
    assert first == Point(round=1, sent=22.0, seconds=4.0, accuracy=first.accuracy)
    assert (second.sent, second.seconds) == (44.0, 8.0)
    assert round(first.accuracy, 6) == 30.0
    assert round(second.accuracy, 6) == 45.0


def test_no_run_has_no_frontier() -> None:
    assert frontier("gossip", []) == []


def test_a_row_that_no_run_has_is_left_out(tmp_path: Path) -> None:
    method = {
        "accuracy": {"a": 0.25}, "bytes_per_device_round": {"values": 7, "mask": 1}, "trained_parameters": 3,
    }  # fmt: skip
    summary = {"tasks": ["a"], "model": {"parameters": 100}, "methods": {"gossip": method}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    found = lines(TABLE_1, {tmp_path: Experiment(seed=4, methods={"gossip": GossipLora()})})
    assert [(line.row.title, line.seeds, line.scores, line.sent, line.trained) for line in found] == [
        ("LoRA", (4,), ((25.0,),), 8.0, 3.0)
    ]


def over(label: str, scores: dict[int, float]) -> Line:
    """One task of one method, by seed."""
    row = next(r for r in TABLE_1 if r.label == label)
    by_seed = tuple((score,) for score in scores.values())
    return Line(row=row, tasks=("a",), seeds=tuple(scores), scores=by_seed, trained=1, sent=1, model=9)


def test_only_seeds_that_both_have_are_pairs() -> None:
    """By position it would be 60 - 10, 70 - 20 and 80 - 30."""
    ours = over("orthomesh", {0: 60.0, 1: 70.0, 2: 80.0})
    found = [ours, over("gossip", {3: 10.0, 2: 20.0, 1: 30.0}), over("lori", {4: 1.0, 5: 2.0, 6: 3.0})]
    tests = against_ours(found)
    assert tests.keys() == {"gossip"}  # LoRI has no seed of ours
    assert tests["gossip"].difference.mean == pytest.approx((70 - 30 + 80 - 20) / 2)
    assert (tests["gossip"].seeds, tests["gossip"].pairs) == (2, 2)


def test_the_untouched_model_has_the_seeds_of_all_methods() -> None:
    runs = {
        Path(f"{label}{seed}"): replace(Experiment(methods={label: GossipLora()}), seed=seed)
        for label, seed in (("a", 0), ("b", 0), ("b", 1), ("a", 2))
    }
    base = next(r for r in TABLE_1 if r.label == "base")
    assert directories(base, runs) == [Path("a0"), Path("b1"), Path("a2")]


def test_answers_that_are_none_are_told_by_task(tmp_path: Path) -> None:
    for seed, share in enumerate((0.25, 0.75)):
        (tmp_path / str(seed)).mkdir()
        methods = {"gossip": {"unread": {"a": 0.0, "gsm8k": share}}, "lori": {"unread": {"a": 0.0, "gsm8k": 0.0}}}
        (tmp_path / str(seed) / "summary.json").write_text(json.dumps({"methods": methods}))
    assert unread(TABLE_1, [tmp_path / "0", tmp_path / "1"]) == [
        "answers to gsm8k in which there was nothing to score, counted as wrong: LoRA 50.0 %"
    ]
    assert unread(TABLE_1, []) == []
