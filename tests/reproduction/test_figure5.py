"""Entropy and density over the layers, on the embedded model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from orthomesh.evaluation.densities import Sharing, layer_densities, measure
from orthomesh.models.base import load_base
from orthomesh.models.settings import ModelSettings
from orthomesh.reproduction.figure5 import figure5, price
from orthomesh.reproduction.scales import scale_of
from orthomesh.tasks.settings import TaskSettings

FEW = {"tasks.train_examples": 8}


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_two_tasks_over_every_layer(tmp_path: Path) -> None:
    said = figure5(scale_of("tiny"), FEW, [], 1, tmp_path)
    rows = read(tmp_path / "densities.csv")
    layers = load_base(ModelSettings()).layout.names
    assert len(rows) == 2 * len(layers)
    names = {p.name for p in said if isinstance(p, Path)}
    lines = (tmp_path / "fig5.tex").read_text().splitlines()
    assert {line.count("&") for line in lines if "&" in line} == {4}
    assert sum("&" in line for line in lines) == 1 + len(layers)
    assert names >= {f"fig5-{what}.{end}" for what in ("entropy", "density") for end in ("svg", "png")}
    assert all(row["active"].isdecimal() for row in rows)
    assert {row["density_half_width"] for row in read(tmp_path / "fig5.csv")} == {""}
    assert "±" not in (tmp_path / "fig5.tex").read_text()
    assert not [one for one in said if isinstance(one, str) and "95 %" in one]


def test_two_draws_of_prompts_have_means_and_intervals(tmp_path: Path) -> None:
    """Of two values the mean and half their distance by 12.706, the t quantile of one degree of freedom."""
    said = figure5(scale_of("tiny"), {**FEW, "tasks.names": ["zelk"]}, ["seed=4"], 2, tmp_path)
    each = []
    for seed in (4, 5):
        layout, measured = measure(ModelSettings(), TaskSettings(names=("zelk",), train_examples=8), seed)
        each.append(layer_densities(layout, measured, Sharing())["zelk"])
    expected = np.array([[(row.entropy, 100 * row.density) for row in rows] for rows in each])
    assert (expected[0] != expected[1]).any()  # a seed draws other prompts
    rows = read(tmp_path / "fig5.csv")
    found = np.array([[float(row["entropy_nats"]), float(row["density_%"])] for row in rows])
    halves = np.array([[float(row["entropy_half_width"]), float(row["density_half_width"])] for row in rows])
    assert found == pytest.approx(expected.mean(0), rel=1e-5)
    assert halves == pytest.approx(12.7062 * abs(expected[0] - expected[1]) / 2, rel=1e-4)
    assert {row["seeds"] for row in rows} == {"2"}
    means = read(tmp_path / "densities.csv")
    assert [float(row["density"]) for row in means] == pytest.approx(expected.mean(0)[:, 1] / 100)
    assert sum(float(row["active"]) for row in means) == pytest.approx(sum(row.active for row in each[0]))
    assert (tmp_path / "fig5.tex").read_text().count(r"$\pm$") == 2 * len(rows)
    for what in ("entropy", "density"):
        assert "2 seeds, 95 % intervals" in (drawn := (tmp_path / f"fig5-{what}.svg").read_text())
        assert 'opacity="0.13"' in drawn  # the band
    widest = f"+- {halves[:, 0].max():.2f} nats and +- {halves[:, 1].max():.2f} points"
    assert any(widest in one for one in said if isinstance(one, str))


def test_every_seed_costs_its_prompts() -> None:
    assert "puts 32 prompts of each task through the model and trains" in price(scale_of("tiny"), {}, [], 1)
    assert "puts 24 prompts of each task through the model, 8 for each of 3" in price(scale_of("tiny"), FEW, [], 3)
