"""The method's plan is the protocol's outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orthomesh.methods.clusters import Limits as Arranged
from orthomesh.methods.clusters import arrange
from orthomesh.planning.problem import Limits
from orthomesh.planning.serverless import leaf_of, price
from orthomesh.topology.clusterstate import Rules
from orthomesh.topology.lossy import Weather, chances, simulate
from orthomesh.topology.messages import Leaf
from orthomesh.types import Facts
from orthomesh.wireless.link import Radio

# noise 1e-9 W in 1 MHz, at most 1 mW, 1 s: 1 Mbit takes 1e-9 / gain W, so a gain of 1e-6
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
SIZES = (100, 300)


def facts(gains: np.ndarray, densities: np.ndarray, bits: np.ndarray) -> dict[int, Facts]:
    n = len(gains)
    return {
        i: Facts(
            id=i, public={"density": densities[i].astype(np.float32)}, columns={}, payload_bits=int(bits[i]),
            gains={j: float(gains[i, j]) for j in range(n) if j != i},
        )
        for i in range(n)
    }  # fmt: skip


def arranged(max_collision: float, masks: str, cast: Literal["broadcast", "unicast"]) -> Arranged:
    """Limits of the method with the paper's greedy solver, which is what the protocol distributes."""
    limits = Arranged(
        max_collision=max_collision, negotiated=masks == "negotiated", cast=cast, radio=RADIO, sizes=SIZES
    )
    return replace(limits, solver="agnes") if hasattr(limits, "solver") else limits


# example


def test_a_price_on_paper() -> None:
    """Two quarters: 1/16 independent, 0 negotiated. 1 Mbit at 1e-6: 1 mW; to two by unicast 2 x 3 x 0.5e-9 / gain."""
    pair = tuple(Leaf(i, (0.25, 0.25), 1e6, tuple((j, 1e-5) for j in range(3) if j != i)) for i in range(3))
    independent = price(Limits(max_collision=1.0, masks="independent"), SIZES, RADIO)
    assert independent(pair[:2]) == pytest.approx((1 / 16, 1e-4))
    negotiated = price(Limits(max_collision=0.0, cast="unicast"), SIZES, RADIO)
    assert negotiated(pair) == pytest.approx((0.0, 3e-4))
    assert price(Limits(max_collision=0.01, masks="independent"), SIZES, RADIO)(pair[:2]) is None


def test_links_are_those_within_reach_alone() -> None:
    gains = np.array([[0, 1.1e-6, 0.9e-6], [1, 0, 1], [1, 1, 0]])
    told = facts(gains, np.full((3, 2), 0.25), np.full(3, 10**6))
    assert leaf_of(told[0], RADIO) == Leaf(0, (0.25, 0.25), 1e6, ((1, 1.1e-6),))


# reference: the plan made by somebody who knows all facts


@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))  # shrinking would take minutes
@given(
    seed=st.integers(0, 10**6), m=st.integers(1, 9), loss=st.sampled_from([0.0, 0.3]),
    cast=st.sampled_from(["broadcast", "unicast"]), masks=st.sampled_from(["negotiated", "independent"]),
    max_collision=st.sampled_from([0.0, 0.05, 0.25]),
)  # fmt: skip
def test_the_protocol_ends_with_the_clusters_that_the_method_plans(
    seed: int,
    m: int,
    loss: float,
    cast: Literal["broadcast", "unicast"],
    masks: Literal["negotiated", "independent"],
    max_collision: float,
) -> None:
    rng = np.random.default_rng(seed)
    gains = 10 ** rng.uniform(-6.5, -4, (m, m))
    gains = gains if seed % 2 else (gains + gains.T) / 2
    densities = rng.choice([0.0625, 0.125, 0.25], (m, 2)) if seed % 3 else rng.uniform(0, 0.4, (m, 2))  # ties, or none
    told = facts(gains, densities, rng.integers(5 * 10**5, 2 * 10**6, m))
    planned = arrange(
        told,
        [(k,) for k in told],
        arranged(max_collision, masks, cast),
    )
    limits = Limits(max_collision=max_collision, cast=cast, masks=masks)
    rules = Rules(price=price(limits, SIZES, RADIO))
    outcome = simulate([leaf_of(f, RADIO) for f in told.values()], rules, Weather(loss=loss), chances(seed))
    assert outcome.clusters == planned
