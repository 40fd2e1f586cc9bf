"""Topologies by name, as weights over devices for one round: what gossip methods average by.

An overlay says who averages with whom; what it costs over the radio is `paths`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..rng import stream
from .cliques import joined, label_cliques
from .directed import Weights, epidemic, exponential, one_peer
from .finite import base
from .graphs import complete, hypercube, random_neighbours, random_regular, ring, star, torus
from .mixing import Pair, metropolis

Topology = Literal[
    "random", "matching", "radio", "ring", "torus", "complete", "star", "hypercube", "regular", "exponential",
    "one_peer", "base", "el_local", "el_oracle", "d_cliques",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a topology may depend on.

    ids: devices. usable: pairs (i, j), i < j, whose radio link carries the payload both ways. degree: neighbours,
    peers or members asked for. labels: of every device's data, by id. seed, round_index: of the draws.
    """

    ids: tuple[int, ...]
    usable: frozenset[Pair]
    degree: int
    labels: Mapping[int, str]
    seed: int
    round_index: int


def overlay(topology: Topology, scene: Scene) -> Weights:
    """Mixing weights of one round, by (receiver, sender).

    Args:
        topology: which.
        scene: devices, links, degree, round.

    Returns:
        Rows sum to 1; columns too except for `el_local`. `random`, `matching` and `radio` keep to usable links;
        the others know no radio.

    Raises:
        ValueError: a number of devices or a degree the topology does not have.

    >>> scene = Scene(ids=(0, 1), usable=frozenset(), degree=1, labels={}, seed=0, round_index=0)
    >>> overlay("ring", scene)
    {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.5}
    """
    return TOPOLOGIES[topology](scene)


def _random(s: Scene) -> Weights:
    rng = stream(s.seed, "neighbours", s.round_index)
    return metropolis(random_neighbours(s.ids, s.usable, s.degree or len(s.ids), rng), s.ids)


def _matching(s: Scene) -> Weights:
    return metropolis(random_neighbours(s.ids, s.usable, 1, stream(s.seed, "matching", s.round_index)), s.ids)


def _base(s: Scene) -> Weights:
    rounds = base(s.ids, s.degree)
    return rounds[s.round_index % len(rounds)]


def _regular(s: Scene) -> Weights:
    return metropolis(random_regular(s.ids, s.degree, stream(s.seed, "regular")), s.ids)


def _el_oracle(s: Scene) -> Weights:
    return metropolis(random_regular(s.ids, s.degree, stream(s.seed, "el-oracle", s.round_index)), s.ids)


def _d_cliques(s: Scene) -> Weights:
    """Cliques of `degree` + 1, found once a run by as many swaps as make no more difference at this size."""
    names = sorted(set(s.labels.values()))
    counts = {i: np.array([float(s.labels[i] == name) for name in names]) for i in s.ids}
    cliques = label_cliques(counts, s.degree + 1, 20 * len(s.ids), stream(s.seed, "d-cliques"))
    return metropolis(joined(cliques), s.ids)


TOPOLOGIES: Mapping[Topology, Callable[[Scene], Weights]] = {
    "random": _random,
    "matching": _matching,
    "radio": lambda s: metropolis(s.usable, s.ids),
    "ring": lambda s: metropolis(ring(s.ids), s.ids),
    "torus": lambda s: metropolis(torus(s.ids), s.ids),
    "complete": lambda s: metropolis(complete(s.ids), s.ids),
    "star": lambda s: metropolis(star(s.ids), s.ids),
    "hypercube": lambda s: metropolis(hypercube(s.ids), s.ids),
    "regular": _regular,
    "exponential": lambda s: exponential(s.ids),
    "one_peer": lambda s: one_peer(s.ids, s.round_index),
    "base": _base,
    "el_local": lambda s: epidemic(s.ids, s.degree, stream(s.seed, "el-local", s.round_index)),
    "el_oracle": _el_oracle,
    "d_cliques": _d_cliques,
}
"""Function of every topology."""
