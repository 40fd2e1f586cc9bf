"""What a solution comes to: records of clusters, batteries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orthomesh.planning.network import network
from orthomesh.planning.plan import plan
from orthomesh.planning.settings import Adapter, PlanSettings, Rules
from orthomesh.planning.tally import record_bits

SMALL = Adapter(blocks=2, widths=(25,), rank=4, density=0.5, density_spread=1, entropy_spread=0)


def test_record_of_a_cluster_on_paper() -> None:
    """Two halves of 200 entries: together all of them if negotiated, three quarters if independent; 16 bits each."""
    s = PlanSettings(devices=3, adapter=SMALL)
    net = network(s)
    assert record_bits(net, [(0, 1), (2,)], s).tolist() == [200 * 16, 100 * 16]
    independent = replace(s, rules=Rules(masks="independent"))
    assert record_bits(net, [(0, 1), (2,)], independent).tolist() == [150 * 16, 100 * 16]


def test_record_is_what_masks_drawn_at_random_hold_together() -> None:
    s = PlanSettings(devices=4, adapter=replace(SMALL, widths=(25_000,)), rules=Rules(masks="independent"))
    rng = np.random.default_rng(0)
    held = (rng.random((4, 200_000)) < 0.5).any(axis=0).mean()
    (bits,) = record_bits(network(s), [(0, 1, 2, 3)], s)
    assert bits / 16 / 200_000 == pytest.approx(held, abs=5 * np.sqrt(held * (1 - held) / 200_000))


def test_a_battery_lasts_its_energy_over_that_of_a_round(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("id,x_m,y_m,battery_j\na,0,0,50\nb,50,0,\nc,9000,0,7\n")
    a, b, c = plan(PlanSettings(positions=str(path))).devices
    assert a.battery_rounds == pytest.approx(50.0 / a.energy_j)
    assert b.battery_rounds is None  # none given
    assert c.battery_rounds is None  # nothing sent
