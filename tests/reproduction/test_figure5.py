"""Entropy and density over the layers, on the embedded model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.reproduction.figure5 import figure5
from orthomesh.reproduction.scales import scale_of


def test_two_tasks_over_every_layer(tmp_path: Path) -> None:
    said = figure5(scale_of("tiny"), {"tasks.train_examples": 8}, [], tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "densities.csv").read_text())))
    layers = load_base(ModelSettings()).layout.names
    assert len(rows) == 2 * len(layers)
    names = {p.name for p in said if isinstance(p, Path)}
    lines = (tmp_path / "fig5.tex").read_text().splitlines()
    assert {line.count("&") for line in lines if "&" in line} == {4}
    assert sum("&" in line for line in lines) == 1 + len(layers)
    assert names >= {f"fig5-{what}.{end}" for what in ("entropy", "density") for end in ("svg", "png")}
