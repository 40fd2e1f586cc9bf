"""Collision rate over the number of devices: LoRA at 100 %, ours under the threshold."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from orthomesh.planning.sweep import Row
from orthomesh.reproduction.figure6 import curves, figure6, planned
from orthomesh.reproduction.scales import scale_of


def test_means_and_intervals_on_paper() -> None:
    rows = [
        Row(value=2.0, seed=n, method="LoRA", collision=c, groups=1.0, alone=0.0, sent_bytes=0.0)
        for n, c in enumerate((0.1, 0.3, math.nan))
    ]
    (found,) = curves(rows)
    assert found.spots[0][:2] == (2.0, pytest.approx(20.0))
    assert found.spots[0][2] == pytest.approx(12.7062 * 10, rel=1e-4)


def test_the_papers_scale_has_its_adapters() -> None:
    """Of Qwen2.5-1.5B: all B of rank 32 have 28 * 32 (2 * 1536 + 2 * 256 + 2 * 8960 + 1536) entries."""
    adapter = planned(scale_of("paper"))["adapter"]
    assert adapter["blocks"] * adapter["rank"] * sum(adapter["widths"]) == 28 * 32 * 23040
    assert planned(scale_of("paper"))["radio"]["deadline_s"] == 600.0
    assert planned(scale_of("small")) == planned(scale_of("tiny"))


def test_lora_always_collides_and_ours_keeps_the_threshold(tmp_path: Path) -> None:
    said = figure6(scale_of("tiny"), (4, 8), ["rules.max_collision=0.2"], 2, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    by: dict[str, list[float]] = {}
    for r in rows:
        if r["collision"]:
            by.setdefault(r["method"], []).append(float(r["collision"]))
    assert by["LoRA"] == pytest.approx([1.0] * len(by["LoRA"]))
    assert max(by["orthomesh"] + by["paper"]) <= 0.2
    assert {p.name for p in said if isinstance(p, Path)} >= {"sweep.csv", "fig6.svg", "fig6.png", "fig6.tex"}
    assert (tmp_path / "fig6.tex").read_text().count(r"\\") == 6  # a head and five methods
