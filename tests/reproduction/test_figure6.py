"""Collision rate over the number of devices: LoRA at 100 %, ours under the threshold."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from orthomesh.planning.sweep import Row
from orthomesh.reproduction.figure6 import curves, figure6


def test_means_and_intervals_on_paper() -> None:
    rows = [
        Row(value=2.0, seed=n, method="LoRA", collision=c, groups=1.0, alone=0.0, sent_bytes=0.0)
        for n, c in enumerate((0.1, 0.3, math.nan))
    ]
    (found,) = curves(rows)
    assert found.spots[0][:2] == (2.0, pytest.approx(20.0))
    assert found.spots[0][2] == pytest.approx(12.7062 * 10, rel=1e-4)


def test_lora_always_collides_and_ours_keeps_the_threshold(tmp_path: Path) -> None:
    said = figure6((4, 8), ["rules.max_collision=0.2"], 2, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    by: dict[str, list[float]] = {}
    for r in rows:
        if r["collision"]:
            by.setdefault(r["method"], []).append(float(r["collision"]))
    assert by["LoRA"] == pytest.approx([1.0] * len(by["LoRA"]))
    assert max(by["orthomesh"] + by["paper"]) <= 0.2
    assert {p.name for p in said if isinstance(p, Path)} >= {"sweep.csv", "fig6.svg", "fig6.png"}
