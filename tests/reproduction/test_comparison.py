"""The comparison of all methods out of records that one can add up by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from orthomesh.experiment import Experiment
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.local import Local
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.reproduction.comparison import Compared, cells, compared, write
from orthomesh.reproduction.record import against_ours, directories
from orthomesh.reproduction.rows import chosen

X = Experiment(rounds=3, methods={"gossip": GossipLora()})
KINDS = {"gossip": GossipLora(), "orthomesh": SparseOrthogonal(), "local": Local()}
SENT = {"gossip": (40, 40, 40), "orthomesh": (10, 0, 45), "local": (0, 0, 0)}
RIGHT = {"gossip": (0.5, 0.25, 0.75), "orthomesh": (0.25, 0.25, 0.9), "local": (0.1, 0.2, 0.25)}


def record(place: Path, label: str, shift: float) -> None:
    """Three rounds of two devices that send alike, 2 seconds and 3 joules each; an exam after every round."""
    folder = place / "records" / label
    folder.mkdir(parents=True)
    for n, (sent, right) in enumerate(zip(SENT[label], RIGHT[label], strict=True), 1):
        each = [{"device": k, "bytes_values": sent, "airtime_s": 2.0, "energy_j": 3.0} for k in (0, 1)]
        (folder / f"round-000{n}.json").write_text(json.dumps({"devices": each, "elapsed_s": 5.0}))
        exam = {"method": label, "round": n, "accuracy": {"a": right + shift, "b": right - shift}}
        (folder / f"exam-000{n}.json").write_text(json.dumps(exam))
    method = {
        "accuracy": {"a": RIGHT[label][2] + shift, "b": RIGHT[label][2] - shift},
        "bytes_per_device_round": {"values": sum(SENT[label]) / 3},
        "trained_parameters": 1,
    }
    summary = {"tasks": ["a", "b"], "model": {"parameters": 100}, "methods": {label: method}}
    (place / "summary.json").write_text(json.dumps(summary))
    (place / "config.yaml").write_text("{}")  # all as by default


@pytest.fixture
def runs(tmp_path: Path) -> dict[Path, Experiment]:
    found = {}
    for seed in (0, 1):
        for label, kind in KINDS.items():
            place = tmp_path / label / f"seed{seed}"
            record(place, label, 0.05)
            found[place] = replace(X, seed=seed, methods={label: kind})
    return found


ROWS = chosen("methods", list(KINDS))


def by_label(runs: dict[Path, Experiment]) -> dict[str, Compared]:
    return {c.line.row.label: c for c in compared(ROWS, runs)}


# example


def test_costs_and_accuracy_at_our_bytes_on_paper(runs: dict[Path, Experiment]) -> None:
    """Ours sends 55 bytes in all: of three rounds of 40, gossip has one within them."""
    found = by_label(runs)
    assert found["gossip"].equal == (50.0, 50.0)
    assert found["local"].equal == (25.0, 25.0)
    assert found["orthomesh"].equal == (90.0, 90.0)
    told = {n: found["gossip"].cost(n) for n in found["gossip"].costs}
    assert told == {"sent": 120.0, "to 99 %": 120.0, "on the air": 15.0, "airtime": 6.0, "energy": 9.0}


def test_cells_measure_bytes_by_lora(runs: dict[Path, Experiment]) -> None:
    found = compared(ROWS, runs)
    rows = {row[0]: row for row in cells(found, against_ours([c.line for c in found]))}
    assert rows["Ours"][1] == "90.0 ± 0.0"
    assert rows["Ours"][5:8] == ["55 B", "1/2.2", "90.0 ± 0.0"]
    assert rows["LoRA, gossip"][2] == "15.0 ± 0.0"
    assert rows["Local only"][5:7] == ["-", "-"]


# edge


def test_more_than_ours_in_the_first_round_leaves_nothing_to_compare(runs: dict[Path, Experiment]) -> None:
    for place in runs:
        if place.parent.name == "gossip":
            for path in place.glob("records/gossip/round-*.json"):
                path.write_text(path.read_text().replace("40", "60"))
    assert by_label(runs)["gossip"].equal == ()


def test_without_ours_there_is_no_budget(runs: dict[Path, Experiment]) -> None:
    others = {d: x for d, x in runs.items() if "orthomesh" not in x.methods}
    assert by_label(others)["gossip"].equal == ()
    oracle = next(r for r in ROWS if r.label == "oracle")
    assert directories(oracle, others) == []
    assert [d.parent.name for d in directories(oracle, runs)] == ["orthomesh"] * 2


def test_a_method_with_fewer_seeds_is_shown_over_those_and_named(runs: dict[Path, Experiment], tmp_path: Path) -> None:
    some = {d: x for d, x in runs.items() if "local" not in x.methods or x.seed == 0}
    said = write(ROWS, some, tmp_path / "out")
    assert any("note: seeds 0, 1, but local at 0: means are over a method's own seeds" in str(one) for one in said)
    assert any("as few as 1 seed: intervals and tests need three" in str(one) for one in said)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "methods.csv").read_text())))
    assert {r["label"] for r in rows} == {"gossip", "orthomesh", "local"}
    assert {r["seeds"] for r in rows if r["label"] == "local"} == {"1"}
    assert "1 to 2 seeds with 95" in (tmp_path / "out" / "methods.tex").read_text()
    value = {(r["label"], r["column"]): float(r["value"]) for r in rows if r["value"]}
    assert value["local", "a"] == pytest.approx(30.0)
    assert value["gossip", "at our bytes"] == 50.0
    assert value["gossip", "a"] == pytest.approx(80.0)
    assert (tmp_path / "out" / "methods.tex").read_text().count(r"\\") == 4
    assert {p.name for p in said if isinstance(p, Path)} >= {"frontier.csv", "frontier-bytes.svg", "methods.md"}
    assert (tmp_path / "out" / "forgetting.md").read_text().count("not recorded") == 3 * 3 * 3  # as older runs


def test_methods_at_other_seeds_are_tested_on_those_they_share(tmp_path: Path) -> None:
    """Ours is right by 10 points more at seed 1 than at seed 0; gossip has seeds 1 and 2, and is alike at both."""
    some = {}
    for label, seed, right in (("orthomesh", 0, 0.8), ("orthomesh", 1, 0.9), ("gossip", 1, 0.75), ("gossip", 2, 0.75)):
        place = tmp_path / label / f"seed{seed}"
        record(place, label, 0.0)
        summary = json.loads((place / "summary.json").read_text())
        summary["methods"][label]["accuracy"] = {"a": right, "b": right}
        (place / "summary.json").write_text(json.dumps(summary))
        some[place] = replace(X, seed=seed, methods={label: KINDS[label]})
    said = [str(one) for one in write(ROWS, some, tmp_path / "out")]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "methods.csv").read_text())))
    found = {(r["label"], r["column"]): (float(r["value"]), r["seeds"]) for r in rows if r["value"]}
    assert found["gossip", "ours - it"] == (pytest.approx(15.0), "1")
    assert found["orthomesh", "Avg."] == (pytest.approx(85.0), "2")
    assert found["gossip", "at our bytes"] == (50.0, "1")
    assert "note: +15.0 points on gossip LoRA; at least 5 were expected: holds" in said
    assert "note: as few as 1 seed: intervals and tests need three at least" in said
    assert any(one.startswith("note: seeds 1, 2, but orthomesh at 0, 1: means") for one in said)
