"""Accuracy over the number of devices out of summaries that one can add up by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orthomesh.experiment import Experiment
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.reproduction.figure4 import by_count, figure4
from orthomesh.reproduction.rows import chosen

ROWS = chosen("fig4", ["gossip", "orthomesh"])
KINDS = {"gossip": GossipLora(), "orthomesh": SparseOrthogonal()}


@pytest.fixture
def runs(tmp_path: Path) -> dict[Path, Experiment]:
    """Two and four devices, three seeds; ours 0.9, gossip 0.5, 0.6 and 0.7, all a tenth less with four devices."""
    found = {}
    for devices in (2, 4):
        for seed in range(3):
            for label, kind in KINDS.items():
                place = tmp_path / f"devices{devices}" / label / f"seed{seed}"
                place.mkdir(parents=True)
                right = (0.9 if label == "orthomesh" else 0.5 + 0.1 * seed) - (0.1 if devices == 4 else 0.0)
                made = {"accuracy": {"a": right}, "bytes_per_device_round": {}, "trained_parameters": 1}
                summary = {"tasks": ["a"], "model": {"parameters": 9}, "methods": {label: made}}
                (place / "summary.json").write_text(json.dumps(summary))
                (place / "config.yaml").write_text("{}")  # all as by default
                found[place] = Experiment(seed=seed, devices=devices, methods={label: kind})
    return found


def numbers(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(io.StringIO((out / "fig4.csv").read_text()))
    return {(r["label"], r["devices"]): r for r in rows}


# example


def test_means_and_paired_tests_on_paper(runs: dict[Path, Experiment], tmp_path: Path) -> None:
    said = figure4(ROWS, runs, tmp_path / "out")
    found = numbers(tmp_path / "out")
    assert float(found["gossip", "4"]["accuracy_%"]) == pytest.approx(50)
    assert float(found["gossip", "4"]["half_width"]) == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-5)
    assert float(found["gossip", "2"]["ours - it"]) == pytest.approx(30)  # 40, 30 and 20
    assert float(found["gossip", "2"]["p_t"]) == pytest.approx(0.0351, abs=1e-4)  # t = 30 / (10 / 3^0.5)
    assert found["orthomesh", "2"]["p_t"] == ""
    lines = (tmp_path / "out" / "fig4.md").read_text().splitlines()
    assert lines[0] == "| method | 2 devices | 4 devices |"
    assert "| LoRA | 30.0 ± 24.8 (0.035) | 30.0 ± 24.8 (0.035) |" in lines
    assert {p.name for p in said if isinstance(p, Path)} == {
        f"fig4.{end}" for end in ("csv", "tex", "md", "svg", "png")
    }
    assert any("captions the reverse" in one for one in said if isinstance(one, str))
    tex = (tmp_path / "out" / "fig4.tex").read_text()
    assert {row.count("&") for row in tex.splitlines() if "&" in row} == {2}


# edge


def test_what_is_not_there_stands_in_no_other_s_place(runs: dict[Path, Experiment], tmp_path: Path) -> None:
    """Gossip has no run with two devices, and with four seeds 1 and 2 of three."""
    some = {d: x for d, x in runs.items() if "gossip" not in x.methods or (x.devices == 4 and x.seed)}
    assert [sorted(one.lines) for one in by_count(ROWS, some)] == [["orthomesh"], ["gossip", "orthomesh"]]
    said = figure4(ROWS, some, tmp_path / "some")
    assert any("note: seeds 0, 1, 2, but gossip (4 devices) at 1, 2: means" in str(one) for one in said)
    assert any("as few as 2 seeds: intervals and tests need three" in str(one) for one in said)
    found = numbers(tmp_path / "some")
    assert float(found["gossip", "4"]["accuracy_%"]) == pytest.approx(55)
    assert float(found["gossip", "4"]["ours - it"]) == pytest.approx(25)  # 30 and 20
    late = {d: x for d, x in runs.items() if "gossip" not in x.methods or x.devices == 4}
    figure4(ROWS, late, tmp_path / "late")
    assert "| LoRA | - | 50.0 ± 24.8 |" in (tmp_path / "late" / "fig4.md").read_text()


def test_a_real_run_has_its_lines(done: Any, tmp_path: Path) -> None:
    figure4(done.rows, {d: replace(x) for d, x in done.runs.items()}, tmp_path)
    found = numbers(tmp_path)
    assert {devices for _, devices in found} == {"2"}
    assert {label for label, _ in found} >= {"gossip", "orthomesh", "base", "oracle"}
