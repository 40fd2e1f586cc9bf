"""Topologies by name."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.topology.mixing import matrix, metropolis
from orthomesh.topology.overlay import TOPOLOGIES, Scene, Topology, overlay

NAMES: tuple[Topology, ...] = get_args(Topology)


def scene(
    n: int, degree: int = 2, seed: int = 0, round_index: int = 0, usable: frozenset[tuple[int, int]] | None = None
) -> Scene:
    everybody = frozenset(combinations(range(n), 2))
    return Scene(
        ids=tuple(range(n)),
        usable=everybody if usable is None else usable,
        degree=degree,
        labels={i: "ab"[i % 2] for i in range(n)},
        seed=seed,
        round_index=round_index,
    )


def test_every_name_has_its_function() -> None:
    assert set(TOPOLOGIES) == set(NAMES)


def test_radio_is_the_radio_graph_and_d_cliques_mix_labels() -> None:
    usable = frozenset({(0, 1), (2, 3)})
    assert overlay("radio", scene(4, usable=usable)) == metropolis(usable, range(4))
    w = overlay("d_cliques", scene(8, degree=1))
    inside = {(i, j) for i, j in w if i < j and (i + j) % 2}  # of another label
    assert len({k for pair in inside for k in pair}) == 8


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6, deadline=None)
@given(k=st.integers(1, 4), seed=st.integers(0, 9), t=st.integers(0, 9))
def test_weights_are_those_the_page_promises(name: Topology, k: int, seed: int, t: int) -> None:
    n = 2**k
    w = matrix(overlay(name, scene(n, degree=1, seed=seed, round_index=t)), range(n))
    assert w.min() >= 0.0
    np.testing.assert_allclose(w.sum(axis=1), 1.0)
    if name != "el_local":
        np.testing.assert_allclose(w.sum(axis=0), 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_only_those_that_say_so_change_from_round_to_round(name: Topology) -> None:
    rounds = [overlay(name, scene(8, round_index=t)) for t in range(4)]
    changes = any(w != rounds[0] for w in rounds)
    assert changes == (name in {"random", "matching", "one_peer", "base", "el_local", "el_oracle"})


@pytest.mark.parametrize("name", ["random", "matching", "radio"])
def test_those_of_the_radio_keep_to_usable_links(name: Topology) -> None:
    usable = frozenset({(0, 3), (1, 3), (2, 4)})
    assert {(i, j) for i, j in overlay(name, scene(5, usable=usable)) if i < j} <= usable


def test_matching_is_maximal_and_gives_everybody_one_partner_at_most() -> None:
    usable = frozenset({(0, 1), (1, 2), (2, 3), (0, 4)})
    for t in range(20):
        pairs = [(i, j) for i, j in overlay("matching", scene(5, usable=usable, round_index=t)) if i < j]
        met = [k for pair in pairs for k in pair]
        assert len(met) == len(set(met))
        assert all(i in met or j in met for i, j in usable)
