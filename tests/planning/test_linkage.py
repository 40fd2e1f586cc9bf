"""What the solvers are told is what the problem says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.planning.linkage import instance
from orthomesh.planning.outcome import cluster_rate, outcome
from orthomesh.planning.problem import Limits, Masks, Problem, all_pairs
from orthomesh.topology.clustering_instance import GRID, set_rate
from orthomesh.wireless.link import Radio
from orthomesh.wireless.power import Cast

RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)  # 1e-9 W in 1 MHz, 1 mW, 1 s


def drawn(cast: Cast, masks: Masks, seed: int, bits: float = 1e6) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem(
        radio=RADIO,
        limits=Limits(max_collision=0.3, cast=cast, masks=masks),
        sizes=(100, 300),
        densities=rng.uniform(0.05, 0.5, (6, 2)),
        payload_bits=rng.uniform(0.1, 1.0, 6) * bits,
        links=all_pairs(10.0 ** rng.uniform(-7, -4, (6, 6))),
    )


@settings(max_examples=8)
@given(st.sampled_from(["broadcast", "unicast"]), st.sampled_from(["negotiated", "independent"]), st.integers(0, 999))
def test_what_is_allowed_has_the_power_for_it(cast: Cast, masks: Masks, seed: int) -> None:
    problem = drawn(cast, masks, seed)
    asked = instance(problem, problem.densities)
    pairs = set(map(tuple, asked.pairs.tolist()))
    for n in (2, 4):
        for members in combinations(range(6), n):
            found = outcome(problem, [members, *((i,) for i in range(6) if i not in members)], problem.densities, 1, "")
            needs = bool((found.sent_w <= 1e-3 * (1 + 1e-12)).all())
            clique = all(p in pairs for p in combinations(members, 2))
            if cast == "broadcast":
                assert clique == needs
            elif clique and asked.further is not None:
                power = asked.further(members)
                assert power is None or needs
                assert power is None or power >= found.sent_w.max() * (1 - 1e-12)
                if problem.payload_bits.min() > 0.15e6:  # no lowest code in play: just as much
                    assert (power is not None) == needs
            assert set_rate(asked, members) / GRID == pytest.approx(
                cluster_rate(problem, problem.densities, members), abs=1e-11
            )


def test_no_link_no_pair_and_unicast_of_a_crowd_is_refused() -> None:
    """1 Mbit each to n receivers at a gain of 1e-5: n 1e-9 / n (2^n - 1) / 1e-5 W within 1 mW up to n = 3."""
    gains = np.full((6, 6), 1e-5)
    gains[0, 1] = gains[1, 0] = 0.0
    problem = replace(drawn("unicast", "negotiated", 0), links=all_pairs(gains), payload_bits=np.full(6, 1e6))
    asked = instance(problem, problem.densities)
    assert [0, 1] not in asked.pairs.tolist()
    assert asked.further is not None
    assert asked.further((0, 1)) is None
    assert asked.further((1, 2, 3, 4)) == pytest.approx(7e-4)
    assert asked.further((1, 2, 3, 4, 5)) is None
