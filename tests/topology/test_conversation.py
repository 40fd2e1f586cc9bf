"""The protocol in turns: greedy clusters from the leaves alone, and an end that all see at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.methods.clusters import Limits, arrange, talk
from orthomesh.topology.conversation import begin, converse, hear, is_over, most_turns, mutual, outcome
from orthomesh.topology.messages import Cluster, Kind, Leaf, encode
from orthomesh.types import Facts
from orthomesh.wireless.link import Radio

# noise 1e-9 W in 1 MHz, at most 1 mW, 1 s: 1 Mbit takes 1e-9 / gain W, so a gain of 1e-6
RADIO = Radio(noise_dbm_per_hz=-120.0, noise_figure_db=0.0, max_power_dbm=0.0)
LIMITS = Limits(
    max_collision=0.0, negotiated=True, cast="broadcast", radio=RADIO, sizes=(100, 300), solver="agnes"
)  # fmt: skip


def told(densities: list[float], gains: Mapping[tuple[int, int], float] | None = None) -> dict[int, Facts]:
    """Devices of these densities; gains not given are 1e-5."""
    num = len(densities)
    return {
        i: Facts(
            id=i, public={"density": np.full(2, d, dtype=np.float32)}, columns={}, payload_bits=10**6,
            gains={j: (gains or {}).get((i, j), 1e-5) for j in range(num) if j != i},
        )
        for i, d in enumerate(densities)
    }  # fmt: skip


# example


def test_two_merge_in_five_turns_on_paper() -> None:
    """PROPOSE both; MERGE_REQ; MERGE_ACK and SUMMARY; ACK; then two turns in which nobody has anything to say."""
    forming = talk(told([0.5, 0.5]), LIMITS)
    ended = converse(forming.leaves, forming.price, 0)
    assert ended.clusters == ((0, 1),)
    one, two = 26 + 4, 22 + 8  # of a message about a cluster of one, with a version; of two, without
    assert dict(ended.told) == {0: one + one + 20 + two, 1: one + two + two + two}
    assert ended.turns == 5


def test_one_alone_and_devices_out_of_reach_say_nothing_but_where_they_are() -> None:
    for gains in ({}, {(0, 1): 0.0, (1, 0): 0.0}):
        facts = told([0.5, 0.5] if gains else [0.5], gains)
        forming = talk(facts, LIMITS)
        ended = converse(forming.leaves, forming.price, 3)
        assert ended.clusters == tuple((k,) for k in facts)
        assert set(ended.told.values()) == {26}


def test_a_link_that_nothing_limits_costs_nothing() -> None:
    facts = {k: replace(f, gains={}) for k, f in told([0.5] * 3).items()}
    forming = talk(facts, LIMITS)
    assert forming.price((forming.leaves[0], forming.leaves[2])) == (0.0, 0.0)
    assert converse(forming.leaves, forming.price, 0).clusters == arrange(facts, [(k,) for k in facts], LIMITS)


# reference: the plan made by somebody who knows all facts


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6), m=st.integers(1, 9), cast=st.sampled_from(["broadcast", "unicast"]),
    negotiated=st.booleans(), max_collision=st.sampled_from([0.0, 0.05, 0.25]),
)  # fmt: skip
def test_turns_end_with_the_clusters_of_the_greedy_plan(
    seed: int, m: int, cast: str, negotiated: bool, max_collision: float
) -> None:
    rng = np.random.default_rng(seed)
    gains = 10 ** rng.uniform(-6.5, -4, (m, m)) * (rng.random((m, m)) < 0.9)
    densities = rng.choice([0.0625, 0.125, 0.25], m) if seed % 3 else rng.uniform(0, 0.4, m)  # ties, or none
    facts = told(densities.tolist(), {(i, j): float(gains[i, j]) for i in range(m) for j in range(m)})
    limits = replace(LIMITS, cast=cast, negotiated=negotiated, max_collision=max_collision)
    forming = talk(facts, limits)
    ended = converse(forming.leaves, forming.price, 0)
    assert ended.clusters == arrange(facts, [(k,) for k in facts], limits)
    assert ended.turns < most_turns(m)


# laws


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), m=st.integers(2, 6))
def test_whoever_falls_silent_for_whomever_the_others_end_and_belong_together_by_their_own_words(
    seed: int, m: int
) -> None:
    """Each link fails for good at a random turn, in one direction; the other end notices a turn later."""
    rng = np.random.default_rng(seed)
    forming = talk(told(rng.choice([0.125, 0.25], m).tolist()), replace(LIMITS, negotiated=False, max_collision=0.1))
    dies = {(j, k): int(rng.integers(0, 12)) for j in range(m) for k in range(m) if rng.random() < 0.3}
    talks = {k: begin(k, forming.leaves, forming.price, 0) for k in range(m)}
    others = {k: set(range(m)) - {k} for k in range(m)}
    for turn in range(most_turns(m) + 2):
        after = {}
        for k, mine in talks.items():
            silent = {j for j in others[k] if turn >= dies.get((j, k), 99) or k not in others[j]}
            others[k] = others[k] - silent
            said = [x for j in sorted(others[k]) for x in talks[j].says if x.to in (None, k)]
            after[k] = hear(mine, said, silent, [talks[j].quiet for j in others[k]])
        talks = after
    assert all(is_over(mine, 1, m) for mine in talks.values())
    stated = {k: mine.state.cluster for k, mine in talks.items()}
    parts = mutual(stated)
    assert sorted(k for part in parts for k in part) == list(range(m))
    for part in parts:
        assert all(set(part) <= set(stated[k].members) for k in part) or len(part) == 1
        assert forming.price(tuple(forming.leaves[k] for k in part)) is not None


# edges


def test_who_says_a_cluster_it_is_not_in_is_alone() -> None:
    pair = Cluster(3, (0, 1))
    assert mutual({0: pair, 1: pair, 2: pair}) == ((0, 1), (2,))
    assert mutual({0: pair, 1: Cluster(4, (1, 2)), 2: Cluster(4, (1, 2))}) == ((0,), (1, 2))


def test_a_link_to_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing is known of its neighbours \[7\]"):
        begin(0, {0: Leaf(0, (0.5,), 1.0, ((7, 1.0),))}, lambda leaves: (0.0, 0.0), 0)


def test_what_a_device_tells_in_the_end_is_its_cluster() -> None:
    mine = begin(0, {0: Leaf(0, (0.5,), 1.0, ())}, lambda leaves: (0.0, 0.0), 5)
    said = outcome(mine)
    assert (said.kind, said.epoch, said.sender, said.to, said.cluster) == (Kind.SUMMARY, 5, 0, None, Cluster(0, (0,)))
    assert len(encode(said)) == 26
