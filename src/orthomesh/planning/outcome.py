"""What a choice of clusters and densities comes to: powers by Lemma 1, delays, energy, bytes, collision rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..adapters.collision import collision_rate, mean_rate, negotiated_rate
from .problem import Members, Problem, Solution
from .reach import power_per_loss_w


def cluster_rate(problem: Problem, densities: Float[np.ndarray, "M G"], members: Members) -> float:
    """Collision rate of one cluster: (19), or what negotiation leaves (R3); mean or worst group. In [0, 1]."""
    rates = negotiated_rate if problem.limits.masks == "negotiated" else collision_rate
    found = rates(densities[list(members)])
    return float(found.max()) if problem.limits.over == "max" else mean_rate(found, problem.sizes)


def transfers(clusters: Sequence[Members]) -> Int[np.ndarray, "T 2"]:
    """Every ordered pair of members of one cluster, (from, to), in order. [T 2]

    >>> transfers([(0, 2), (1,)]).tolist()
    [[0, 2], [2, 0]]
    """
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for members in clusters:
        n, m = len(members), np.array(members, dtype=np.int64)
        both = np.stack([np.repeat(m, n), np.tile(m, n)], axis=1)
        pairs.append(both[both[:, 0] != both[:, 1]])
    together = np.concatenate(pairs)
    return np.asarray(together[np.lexsort((together[:, 1], together[:, 0]))])


def losses(problem: Problem, pairs: Int[np.ndarray, "T 2"]) -> Float[np.ndarray, " T"]:
    """1/h from the first to the second of each pair; infinite where there is no link. [T]"""
    links, M = problem.links, len(problem.densities)
    where = np.concatenate([links.pairs @ [M, 1], links.pairs @ [1, M]])
    gains = np.concatenate([links.gains[:, 0], links.gains[:, 1]])
    order = np.argsort(where)
    asked = pairs @ np.array([M, 1])
    at = order[np.minimum(np.searchsorted(where[order], asked), len(order) - 1)] if len(order) else np.zeros(0, int)
    found = where[at] == asked if len(order) else np.zeros(len(asked), dtype=bool)
    gain = np.zeros(len(asked))
    gain[found] = gains[at[found]]
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / gain)


def outcome(
    problem: Problem, clusters: Sequence[Members], densities: Float[np.ndarray, "M G"], bound: int, bound_by: str
) -> Solution:
    """The solution that a partition is, each member at the least power that meets the deadline, (25).

    Args:
        problem: payloads as they are at these densities.
        clusters: a partition of the devices.
        densities: of every device. [M G]
        bound: no partition has fewer clusters. bound_by: why.

    Returns:
        Powers are infinite where members do not hear each other: look at `violations`.
    """
    M, radio = len(problem.densities), problem.radio
    clusters = tuple(sorted(tuple(sorted(members)) for members in clusters))
    others = np.zeros(M, dtype=np.int64)
    for members in clusters:
        others[list(members)] = len(members) - 1
    pairs = transfers(clusters)
    source, broadcast = pairs[:, 0], problem.limits.cast == "broadcast"
    factor = power_per_loss_w(problem, np.arange(M), np.maximum(others, 1))
    loss = losses(problem, pairs)
    if broadcast:
        worst = np.zeros(M)
        np.maximum.at(worst, source, loss)
        loss = worst[source]
    power_w = np.where(factor[source] == 0.0, 0.0, factor[source] * loss)
    share = np.where(broadcast, 1, np.maximum(others, 1))
    band_hz = radio.bandwidth_hz / share
    efficiency = np.maximum(problem.payload_bits / (band_hz * radio.deadline_s), radio.min_efficiency_bps_per_hz)
    airtime_s = np.where(problem.payload_bits > 0.0, problem.payload_bits, 0.0)
    airtime_s = np.divide(airtime_s, band_hz * efficiency, out=np.zeros(M), where=(airtime_s > 0.0) & (others > 0))
    sent_w = np.zeros(M)
    if broadcast:
        sent_w[source] = power_w
    else:
        np.add.at(sent_w, source, power_w)
    return Solution(
        clusters=clusters,
        rates=np.array([cluster_rate(problem, densities, members) for members in clusters]),
        pairs=pairs,
        power_w=power_w,
        delay_s=airtime_s[source],
        densities=densities,
        sent_w=sent_w,
        airtime_s=airtime_s,
        energy_j=np.where(airtime_s > 0.0, sent_w * airtime_s, 0.0),
        sent_bytes=np.ceil(problem.payload_bits / 8.0) * (np.minimum(others, 1) if broadcast else others),
        bound=bound,
        bound_by=bound_by,
    )
