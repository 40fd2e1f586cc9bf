"""Problem (11) in numbers: devices, links and limits in; who clusters with whom, at what power and density, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ..adapters.collision_rows import Over
from ..wireless.link import Radio, max_power_w
from ..wireless.power import Cast

Members = tuple[int, ...]
Masks = Literal["negotiated", "independent"]
Solver = Literal["exact", "agnes", "best-fit", "local-search"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a cluster must keep to.

    max_collision: S_max, in [0, 1]. cast: one transmission to the whole cluster, or one to each member (R9).
    masks: agreed on inside a cluster (R3), or independent, so that S follows (19). over: S as the mean over all
    positions, or the rate of the worst group of matrices.
    """

    max_collision: float
    cast: Cast = "broadcast"
    masks: Masks = "negotiated"
    over: Over = "mean"


@dataclass(frozen=True, kw_only=True, eq=False)
class Links:
    """Who hears whom; a pair that is not listed does not.

    pairs: (i, j) with i < j, each once. [E 2]
    gains: linear power gain from i to j, and from j to i. [E 2]
    """

    pairs: Int[np.ndarray, "E 2"]
    gains: Float[np.ndarray, "E 2"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """What densities are chosen from where they are free, (20)-(22).

    importance: H of every device and group of matrices, such as spectral entropies in nats. [M G]
    entries: most entries of B a device may train, of compute (11c) and of what is wanted. [M]
    entry_bits: bits of one entry on the air. overhead_bits: bits of a payload that do not depend on densities.
    temperature: of the softmax in (22), nats; 0 fills the most important groups one after the other.
    price: mu, how much importance a collision costs; 0 is (22).
    """

    importance: Float[np.ndarray, "M G"]
    entries: Float[np.ndarray, " M"]
    entry_bits: float = 16.0
    overhead_bits: float = 0.0
    temperature: float = 1.0
    price: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One instance of (11); devices are 0..M-1.

    sizes: positions of every group of matrices that shares a density, the weights of S. [G]
    densities: share of positions a device holds in each group, or where to start from if there is a demand. [M G]
    payload_bits: what a device sends in a round. [M] With a demand it follows from the densities.
    power_limit_w: p_max of every device; none: the radio's. [M]
    positions_m: for the map only. [M 2]
    """

    radio: Radio
    limits: Limits
    sizes: tuple[int, ...]
    densities: Float[np.ndarray, "M G"]
    payload_bits: Float[np.ndarray, " M"]
    links: Links
    power_limit_w: Float[np.ndarray, " M"] | None = None
    positions_m: Float[np.ndarray, "M 2"] | None = None
    demand: Demand | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """U, P and S of (11), and what they come to.

    clusters: a partition of 0..M-1 by smallest member. rates: S of each. [K]
    pairs: every transfer inside a cluster, (from, to). [T 2] power_w: least power that meets the deadline; in
    broadcast the one transmission of a sender counts for each of its receivers. [T] delay_s: airtime of each. [T]
    densities: S of the problem. [M G]
    sent_w, airtime_s, energy_j, sent_bytes: of every device in one round inside its cluster. [M]
    bound: no partition has fewer clusters than this; bound_by: what says so. Equal to K: proven optimal.
    """

    clusters: tuple[Members, ...]
    rates: Float[np.ndarray, " K"]
    pairs: Int[np.ndarray, "T 2"]
    power_w: Float[np.ndarray, " T"]
    delay_s: Float[np.ndarray, " T"]
    densities: Float[np.ndarray, "M G"]
    sent_w: Float[np.ndarray, " M"]
    airtime_s: Float[np.ndarray, " M"]
    energy_j: Float[np.ndarray, " M"]
    sent_bytes: Float[np.ndarray, " M"]
    bound: int
    bound_by: str

    @property
    def num_clusters(self) -> int:
        """K, what (11) minimises first (R10)."""
        return len(self.clusters)

    @property
    def mean_rate(self) -> float:
        """Collision rate met by a device on average, sum_C n_C S_C / M, what is minimised second."""
        sizes = np.array([len(members) for members in self.clusters], dtype=np.float64)
        return float(sizes @ self.rates / sizes.sum())

    @property
    def largest(self) -> int:
        """Members of the largest cluster."""
        return max(len(members) for members in self.clusters)

    @property
    def gap(self) -> float:
        """How far K is above the bound at most, K / bound - 1."""
        return self.num_clusters / self.bound - 1.0


def power_limits_w(problem: Problem) -> Float[np.ndarray, " M"]:
    """p_max of every device, W."""
    if problem.power_limit_w is not None:
        return problem.power_limit_w
    return np.full(len(problem.densities), max_power_w(problem.radio))


def all_pairs(gains: Float[np.ndarray, "M M"]) -> Links:
    """Links from a full matrix of gains; pairs that hear nothing of each other are left out.

    Args:
        gains: linear power gain from row to column, >= 0; the diagonal is not read. [M M]

    Raises:
        ValueError: a gain that is negative or not a number, by pair.

    >>> all_pairs(np.array([[0.0, 1e-6], [2e-6, 0.0]])).gains.tolist()
    [[1e-06, 2e-06]]
    """
    i, j = np.triu_indices(len(gains), 1)
    both = np.stack([gains[i, j], gains[j, i]], axis=1)
    heard = ~(both == 0.0).all(axis=1)
    links = Links(pairs=np.stack([i, j], axis=1)[heard], gains=both[heard])
    _check_links(links, len(gains))
    return links


def near_pairs(
    positions_m: Float[np.ndarray, "M 2"], within_m: float, most: int = 12_000_000
) -> Int[np.ndarray, "E 2"]:
    """Pairs of devices at most so far apart, by a tree: the candidates for links among many devices.

    Args:
        positions_m: (x, y) of every device, m. [M 2]
        within_m: largest distance, m.
        most: more pairs than this are refused: ten thousand devices in one place have fifty million.

    Returns:
        (i, j) with i < j, in order. [E 2]

    Raises:
        ValueError: a position that is not finite, or too many pairs.

    >>> near_pairs(np.array([[0.0, 0.0], [3.0, 4.0], [50.0, 0.0]]), 5.0).tolist()
    [[0, 1]]
    """
    from scipy.spatial import cKDTree  # late: costs half a second

    bad = np.flatnonzero(~np.isfinite(positions_m).all(axis=1))
    if bad.size:
        raise ValueError(
            f"the position of device {bad[0]} is {positions_m[bad[0]].tolist()}; metres are finite numbers"
        )
    tree = cKDTree(positions_m)
    count = (int(tree.count_neighbors(tree, within_m)) - len(positions_m)) // 2
    if count > most:
        raise ValueError(
            f"{len(positions_m)} devices have {count} pairs within {within_m:g} m, more than {most}; "
            "shorten the distance, or plan for fewer devices at a time"
        )
    pairs = tree.query_pairs(within_m, output_type="ndarray").astype(np.int64)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def check(problem: Problem) -> None:
    """That a problem is one.

    Raises:
        ValueError: what is wrong first, and where.
    """
    M, G = problem.densities.shape
    if M < 1 or G < 1 or len(problem.sizes) != G or min(problem.sizes) < 1:
        raise ValueError(f"a problem needs a device, and one positive size per group; got {M} and {problem.sizes}")
    if not 0.0 <= problem.limits.max_collision <= 1.0:
        raise ValueError(f"S_max is a share of positions in [0, 1], got {problem.limits.max_collision}")
    _first((problem.densities < 0.0) | ~(problem.densities <= 1.0), problem.densities, "a density lies in [0, 1]")
    bits = problem.payload_bits
    _first(~((bits >= 0.0) & np.isfinite(bits)), bits, "a payload has a finite number of bits >= 0")
    limit_w = power_limits_w(problem)
    _first(~((limit_w >= 0.0) & np.isfinite(limit_w)), limit_w, "a power limit is a finite number of W >= 0")
    if not len(bits) == len(limit_w) == M:
        raise ValueError(f"{M} devices need one payload and one power limit each, got {len(bits)} and {len(limit_w)}")
    if problem.positions_m is not None:
        _first(~np.isfinite(problem.positions_m), problem.positions_m, "a position is two finite numbers of metres")
    _check_links(problem.links, M)
    if problem.demand is not None:
        _check_demand(problem.demand, G)


def _check_demand(demand: Demand, num_groups: int) -> None:
    _first(~np.isfinite(demand.importance), demand.importance, "an importance is a finite number of nats")
    if not (demand.temperature >= 0.0 and demand.price >= 0.0):
        raise ValueError(f"temperature and price are >= 0, got {demand.temperature} and {demand.price}")
    if not (demand.entry_bits > 0.0 and demand.overhead_bits >= 0.0):
        raise ValueError(
            f"an entry has bits > 0 and a payload overhead >= 0, got {demand.entry_bits} and {demand.overhead_bits}"
        )
    few = ~(demand.entries >= num_groups)
    if few.any():
        n = int(np.argmax(few))
        raise ValueError(
            f"no density meets the budget of device {n}: {demand.entries[n]:g} entries of B for {num_groups} groups, "
            "and each needs one; a higher cost limit or fewer groups would do"
        )


def _check_links(links: Links, num_devices: int) -> None:
    pairs, gains = links.pairs, links.gains
    wrong = (pairs[:, 0] >= pairs[:, 1]) | (pairs[:, 0] < 0) | (pairs[:, 1] >= num_devices)
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(
            f"link {n} is between {pairs[n].tolist()}; a link is a pair (i, j) with 0 <= i < j < {num_devices}"
        )
    wrong = ~((gains >= 0.0) & np.isfinite(gains)).all(axis=1)
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(
            f"the gains between devices {pairs[n].tolist()} are {gains[n].tolist()}; a gain is finite, >= 0"
        )
    key = np.sort(pairs[:, 0] * num_devices + pairs[:, 1])
    if (twice := key[1:] == key[:-1]).any():
        k = int(key[np.argmax(twice)])
        raise ValueError(f"devices {k // num_devices} and {k % num_devices} have two links; one is enough")


def _first(wrong: np.ndarray, values: np.ndarray, rule: str) -> None:
    if wrong.any():
        place = np.argwhere(wrong)[0]
        raise ValueError(f"{rule}; device {place[0]} has {values[tuple(place)]}")
