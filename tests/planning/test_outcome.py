"""What a partition costs, by hand and against single links."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orthomesh.planning.outcome import losses, outcome, transfers
from orthomesh.planning.problem import Limits, Problem, all_pairs
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import unicast_powers_w

RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)  # 1e-9 W in 1 MHz, 1 mW, 1 s


def problem() -> Problem:
    gains = np.full((4, 4), 1e-5)
    gains[0, 2] = 1e-6
    return Problem(
        radio=RADIO,
        limits=Limits(max_collision=0.3, masks="independent"),
        sizes=(100, 300),
        densities=np.array([[0.5, 0.0]] * 4),
        payload_bits=np.full(4, 1e6),
        links=all_pairs(gains),
    )


def test_a_broadcast_costs_what_its_worst_receiver_needs() -> None:
    """1 Mbit in 1 MHz and 1 s: 1e-9 W over the gain. Densities of one half in a quarter of all positions."""
    found = outcome(problem(), [(2, 0, 1), (3,)], problem().densities, 1, "one")
    assert found.clusters == ((0, 1, 2), (3,))
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert found.power_w == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4])
    assert found.sent_w == pytest.approx([1e-3, 1e-4, 1e-4, 0.0])
    assert found.airtime_s.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert found.energy_j == pytest.approx([1e-3, 1e-4, 1e-4, 0.0])
    assert found.sent_bytes.tolist() == [125000.0, 125000.0, 125000.0, 0.0]
    assert found.rates == pytest.approx([0.5 / 4, 0.0])  # three halves: one minus 1/8 minus 3/8
    assert found.mean_rate == pytest.approx(3 * 0.125 / 4)
    assert (found.num_clusters, found.largest, found.gap) == (2, 3, 1.0)


def test_unicast_costs_what_single_links_do() -> None:
    asked = replace(problem(), limits=Limits(max_collision=0.3, cast="unicast"))
    found = outcome(asked, [(0, 1, 2), (3,)], asked.densities, 1, "one")
    assert found.power_w[:2] == pytest.approx(unicast_powers_w(1e6, [1e-5, 1e-6], RADIO))
    assert found.sent_w[0] == pytest.approx(sum(unicast_powers_w(1e6, [1e-5, 1e-6], RADIO)))
    assert found.sent_bytes.tolist() == [250000.0] * 3 + [0.0]


def test_who_does_not_hear_whom_has_no_end_of_loss() -> None:
    asked = replace(problem(), links=all_pairs(np.diag([1.0] * 3, k=1)))
    assert losses(asked, np.array([[0, 1], [1, 0], [0, 3]])).tolist() == [1.0, np.inf, np.inf]
    assert transfers([]).shape == (0, 2)
