"""Who hears whom in a planned network, and what would bring in those whom nobody hears."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ..units import from_db, to_dbm
from ..wireless.channel import pair_gains
from ..wireless.link import noise_w
from ..wireless.power import required_power_w
from .network import Network
from .problem import Limits, Links, Problem
from .settings import PlanSettings

CHUNK = 2_000_000
"""Pairs looked at in one go."""
MOST_LINKS = 6_000_000
"""Links a plan can hold; 3,500 devices in one place have as many."""


@dataclass(frozen=True, kw_only=True)
class Outsider:
    """A device without a link, and what would give it one to the device it hears best.

    power_dbm: that both ends would need. deadline_s, density: with which their power would do; None where even the
    lowest code does not get through.
    """

    device: int
    nearest: int
    distance_m: float
    power_dbm: float
    deadline_s: float | None
    density: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """Links of a network, and for every device the one it hears best, -1 where there is no other. [M] each"""

    links: Links
    best: Int[np.ndarray, " M"]
    best_gain: Float[np.ndarray, " M"]


def hear(settings: PlanSettings, net: Network) -> Heard:
    """Who hears whom: every pair that both ends can use alone with the whole band within deadline and power limit.

    No cluster holds any other pair. Gains are lowered by the margin for fades.

    Args:
        settings: of the plan.
        net: its devices.

    Returns:
        Links, and the best gain of every device.

    Raises:
        ValueError: more links than a plan can hold.
    """
    m, radio = len(net), settings.radio
    channel = replace(settings.channel, positions_m=tuple((float(x), float(y)) for x, y in net.xy_m))
    unit_w = np.array([required_power_w(int(bits), 1.0, 1, radio) for bits in net.payload_bits])
    least = np.divide(unit_w, net.max_power_w, out=np.full(m, np.inf), where=net.max_power_w > 0.0)
    best, best_gain = np.full(m, -1), np.zeros(m)
    kept, num_links = [(np.zeros((0, 2), dtype=np.int64), np.zeros(0))], 0
    for i, j in _chunks(m):
        h = pair_gains(channel, settings.seed, 0, m, (i, j), 1.0) * from_db(-settings.rules.margin_db)
        for one, other in ((i, j), (j, i)):
            order = np.argsort(h, kind="stable")  # the last written is the best
            top = np.full(m, -1)
            top[one[order]] = order
            won = np.flatnonzero(top >= 0)
            won = won[h[top[won]] > best_gain[won]]
            best[won], best_gain[won] = other[top[won]], h[top[won]]
        ok = h >= np.maximum(least[i], least[j])
        num_links += int(ok.sum())
        if num_links > MOST_LINKS:
            raise ValueError(
                f"{m:,} devices have more than {MOST_LINKS:,} links within reach; a shorter deadline, less power or a "
                "part of the devices would leave fewer"
            )
        kept.append((np.stack([i[ok], j[ok]], axis=1), h[ok]))
    gain = np.concatenate([one[1] for one in kept])
    links = Links(pairs=np.concatenate([one[0] for one in kept]), gains=np.stack([gain, gain], axis=1))
    return Heard(links=links, best=best, best_gain=best_gain)


def _chunks(m: int) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
    """All pairs i < j, some rows at a time, in order."""
    first = 0
    while first < m - 1:
        last = first
        count = 0
        while last < m - 1 and count + m - 1 - last <= max(CHUNK, m):
            count += m - 1 - last
            last += 1
        rows = np.arange(first, last)
        i = np.repeat(rows, m - 1 - rows)
        start = np.repeat(np.cumsum(m - 1 - rows) - (m - 1 - rows), m - 1 - rows)
        yield i, np.arange(len(i)) - start + i + 1
        first = last


def problem_of(settings: PlanSettings, net: Network, heard: Heard) -> Problem:
    """Problem (11) of a network.

    Args:
        settings: of the plan.
        net: its devices.
        heard: their links.
    """
    rules = settings.rules
    return Problem(
        radio=settings.radio,
        limits=Limits(max_collision=rules.max_collision, cast=rules.cast, masks=rules.masks),
        sizes=net.sizes, densities=net.density, payload_bits=net.payload_bits.astype(np.float64),
        links=heard.links, power_limit_w=net.max_power_w, positions_m=net.xy_m,
    )  # fmt: skip


def outsiders(settings: PlanSettings, net: Network, heard: Heard) -> tuple[Outsider, ...]:
    """Devices without a single link, and what would bring each of them in.

    Args:
        settings: of the plan.
        net: its devices.
        heard: their links.

    Returns:
        In order of device; empty where a device is alone in the world.
    """
    linked = np.zeros(len(net), dtype=bool)
    linked[heard.links.pairs.ravel()] = True
    out = [i for i in np.flatnonzero(~linked).tolist() if heard.best[i] >= 0]
    return tuple(_outsider(settings, net, i, int(heard.best[i]), float(heard.best_gain[i])) for i in out)


def _outsider(settings: PlanSettings, net: Network, i: int, j: int, gain: float) -> Outsider:
    radio = settings.radio
    needed_w = max(required_power_w(int(net.payload_bits[k]), gain, 1, radio) for k in (i, j))
    noise = noise_w(radio, radio.bandwidth_hz)
    reached = {k: math.log1p(net.max_power_w[k] * gain / noise) / math.log(2.0) for k in (i, j)}
    hopeless = min(reached.values()) < max(radio.min_efficiency_bps_per_hz, 1e-9)
    deadline_s = None if hopeless else max(net.payload_bits[k] / (radio.bandwidth_hz * reached[k]) for k in (i, j))
    own = float(net.entries[i] / sum(net.sizes))
    return Outsider(
        device=i, nearest=j, distance_m=float(np.hypot(*(net.xy_m[i] - net.xy_m[j]))), power_dbm=to_dbm(needed_w),
        deadline_s=deadline_s, density=None if deadline_s is None else own * radio.deadline_s / float(deadline_s),
    )  # fmt: skip


def twins(net: Network) -> tuple[tuple[int, ...], ...]:
    """Devices that share one point with another, by point."""
    _, place, count = np.unique(net.xy_m, axis=0, return_inverse=True, return_counts=True)
    flat = place.ravel()
    return tuple(tuple(np.flatnonzero(flat == p).tolist()) for p in np.flatnonzero(count > 1))
