"""Problem (11) for the protocol without a server: what a union costs, and what a device tells of itself."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from functools import partial

import numpy as np

from ..adapters.collision import collision_rate, mean_rate, negotiated_rate
from ..topology.clustering_instance import GRID
from ..topology.clusterstate import Price
from ..topology.messages import Leaf
from ..types import Facts
from ..wireless.link import Radio, max_power_w
from ..wireless.power import broadcast_power_w, required_power_w, unicast_powers_w
from .problem import Limits

UNLIMITED = sys.float_info.max
"""Gain of a link that nothing is known to limit; what is told is finite."""


def price(limits: Limits, sizes: tuple[int, ...], radio: Radio) -> Price:
    """The key of greedy clustering (R10) as the protocol's heads compute it: collision rate, then Lemma-1 power.

    Monotone in both, so that what is mutually best may merge at any time (the triple of (19) and the power of (25)
    only grow with a cluster; with a lowest code only once the undivided band counts too). A union is priced from
    leaves in order of id and on the grid of 2^-40: the same on every device, and as in `clustering_merge`.

    Args:
        limits: S_max, broadcast or unicast, masks negotiated or independent.
        sizes: positions of every group of matrices, the weights of S.
        radio: W, Gamma, noise, p_max.

    Returns:
        A function of the leaves of a union: (rate, W of its worst placed member), or none where a limit is broken.
    """
    return partial(_price, limits, sizes, radio)


def _price(
    limits: Limits, sizes: tuple[int, ...], radio: Radio, leaves: tuple[Leaf, ...]
) -> tuple[float, float] | None:
    densities = np.array([leaf.densities for leaf in leaves], dtype=np.float64)
    rates = negotiated_rate(densities) if limits.masks == "negotiated" else collision_rate(densities)
    rate = _on_grid(mean_rate(rates, sizes))
    power_w = max(_needed_w(leaf, leaves, limits, radio) for leaf in leaves)
    return (rate, power_w) if rate <= _on_grid(limits.max_collision) and power_w <= max_power_w(radio) else None


def _needed_w(leaf: Leaf, leaves: tuple[Leaf, ...], limits: Limits, radio: Radio) -> float:
    told = [leaf.links[bisect_left(leaf.links, (other.id,))][1] for other in leaves if other.id != leaf.id]
    gains = [math.inf if gain == UNLIMITED else gain for gain in told]
    if limits.cast == "broadcast":
        return broadcast_power_w(leaf.payload_bits, gains, radio)
    undivided_w = math.fsum(required_power_w(leaf.payload_bits, gain, 1, radio) for gain in gains)
    return max(sum(unicast_powers_w(leaf.payload_bits, gains, radio)), undivided_w)


def _on_grid(rate: float) -> float:
    return round(rate * GRID) / GRID


def leaf_of(facts: Facts, radio: Radio) -> Leaf:
    """A device as the protocol tells of it: densities, payload, and whom it reaches alone within p_max, eq. (11b).

    Args:
        facts: `density`, payload and gains.
        radio: W, Gamma, noise, p_max.

    Returns:
        Its leaf; links by neighbour.
    """
    bits, limit_w = facts.payload_bits, max_power_w(radio)
    links = tuple((j, h) for j, h in sorted(facts.gains.items()) if required_power_w(bits, h, 1, radio) <= limit_w)
    densities = np.asarray(facts.public["density"], dtype=np.float64).tolist()
    return Leaf(facts.id, tuple(densities), float(bits), links)
