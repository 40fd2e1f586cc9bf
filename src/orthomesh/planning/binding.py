"""What keeps a cluster from growing: the collision rate, the reach of its members, or the power of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from .outcome import cluster_rate, losses, transfers
from .problem import Members, Problem, power_limits_w
from .reach import power_per_loss_w, usable

Limit = Literal["collision", "reach", "power", "nothing"]
RANK: tuple[Limit, ...] = ("reach", "power", "collision", "nothing")
"""From the first to be met to the last."""


class Binding(NamedTuple):
    """limit: what the most hopeful merger of a cluster with another breaks. room: devices of others it could take."""

    limit: Limit
    room: int


def bindings(problem: Problem, clusters: Sequence[Members]) -> list[Binding]:
    """Which limit of (11) keeps each cluster from merging with another, and how many single devices would still fit.

    `reach`: no other cluster is heard by and hears all its members within deadline and power limit, (11a)(11b).
    `power`: one is, but splitting the band further breaks (11b); in unicast only. `collision`: those that pass
    would bring S above S_max. `nothing`: a merger is allowed, and the solver has missed it.

    Args:
        problem: devices, links, limits.
        clusters: a partition.

    Returns:
        One per cluster.
    """
    home = np.empty(len(problem.densities), dtype=np.int64)
    for c, members in enumerate(clusters):
        home[list(members)] = c
    pairs = problem.links.pairs[usable(problem)]
    both = np.concatenate([pairs, pairs[:, ::-1]])
    sizes = np.array([len(members) for members in clusters])
    limits, rooms = [RANK[0]] * len(clusters), [0] * len(clusters)
    for a, b in _complete(home[both[:, 0]], home[both[:, 1]], sizes, sizes):
        if a < b:
            met = _met(problem, clusters[a] + clusters[b])
            limits[a], limits[b] = (max(limits[k], met, key=RANK.index) for k in (a, b))
    ones = np.ones(len(home), dtype=np.int64)
    for v, c in _complete(both[:, 0], home[both[:, 1]], ones, sizes):
        if home[v] != c:
            rooms[c] += _met(problem, (v, *clusters[c])) == "nothing"
    return [Binding(limit, room) for limit, room in zip(limits, rooms, strict=True)]


def _complete(
    a: Int[np.ndarray, " E"], b: Int[np.ndarray, " E"], size_a: Int[np.ndarray, " A"], size_b: Int[np.ndarray, " B"]
) -> Iterator[tuple[int, int]]:
    """Pairs of groups of which every two members have a link, given the groups at both ends of every link."""
    keys, count = np.unique(a * len(size_b) + b, return_counts=True)
    first, second = keys // len(size_b), keys % len(size_b)
    whole = count == size_a[first] * size_b[second]
    return zip(first[whole].tolist(), second[whole].tolist(), strict=True)


def _met(problem: Problem, members: Members) -> Limit:
    """The limit that a cluster of devices with links to each other breaks."""
    union = tuple(sorted(members))
    if problem.limits.cast == "unicast":
        one, pairs = np.array(union), transfers([union])
        loss = losses(problem, pairs).reshape(len(one), -1).sum(axis=1)
        power_w = power_per_loss_w(problem, one, np.full(len(one), len(one) - 1)) * loss
        if (power_w > power_limits_w(problem)[one]).any():
            return "power"
    return "collision" if cluster_rate(problem, problem.densities, union) > problem.limits.max_collision else "nothing"
