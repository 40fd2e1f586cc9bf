"""Frontiers out of records that one can add up by hand; lines are checked in test_tables.py."""

from __future__ import annotations

import json
from pathlib import Path

from orthomesh.experiment import Experiment
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.reproduction.record import Point, frontier, lines, unread
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
    found = lines(TABLE_1, {tmp_path: Experiment(methods={"gossip": GossipLora()})})
    assert [(line.row.title, line.scores, line.sent, line.trained) for line in found] == [
        ("LoRA", ((25.0,),), 8.0, 3.0)
    ]


def test_answers_that_are_none_are_told_by_task(tmp_path: Path) -> None:
    for seed, share in enumerate((0.25, 0.75)):
        (tmp_path / str(seed)).mkdir()
        methods = {"gossip": {"unread": {"a": 0.0, "gsm8k": share}}, "lori": {"unread": {"a": 0.0, "gsm8k": 0.0}}}
        (tmp_path / str(seed) / "summary.json").write_text(json.dumps({"methods": methods}))
    assert unread(TABLE_1, [tmp_path / "0", tmp_path / "1"]) == [
        "answers to gsm8k in which there was nothing to score, counted as wrong: LoRA 50.0 %"
    ]
    assert unread(TABLE_1, []) == []
