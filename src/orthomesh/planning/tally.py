"""What a solution of (11) comes to, device by device, cluster by cluster and link by link."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..units import to_db, to_dbm
from .backbone import Backbone
from .binding import bindings
from .network import Network
from .outcome import losses
from .problem import Problem, Solution, power_limits_w
from .reach import pair_powers_w
from .records import ClusterPlan, DevicePlan, LinkPlan, Relay
from .settings import PlanSettings


class Relayed(NamedTuple):
    """What devices send for other clusters, bytes and J. [M] each"""

    bytes: Float[np.ndarray, " M"]
    energy_j: Float[np.ndarray, " M"]


def record_bits(net: Network, groups: Sequence[Sequence[int]], settings: PlanSettings) -> Float[np.ndarray, " K"]:
    """What a cluster has to tell others: the union of its members' entries, once per position.

    Negotiated masks hold different positions as long as there are any; independent ones meet by chance.

    Args:
        net: the devices.
        groups: a partition.
        settings: how masks come about, bits of an entry.

    Returns:
        Bits of every cluster. [K]
    """
    sizes, found = np.array(net.sizes), []
    for members in groups:
        s = net.density[list(members)]
        held = (
            np.minimum(s.sum(axis=0), 1.0) if settings.rules.masks == "negotiated" else 1.0 - np.prod(1.0 - s, axis=0)
        )
        found.append(8 * math.ceil(float(held @ sizes) * settings.adapter.bits_per_entry / 8 - 1e-6))
    return np.array(found, dtype=np.float64)


def devices_of(
    net: Network, problem: Problem, solution: Solution, home: Int[np.ndarray, " M"], relay: Relayed
) -> tuple[DevicePlan, ...]:
    """Every device with its power, time, energy and bytes of one round.

    Args:
        net: the devices.
        problem: what was solved.
        solution: clusters and powers.
        home: group of every device. [M]
        relay: what it sends for other clusters.

    Returns:
        In order of index.
    """
    alone = np.array([len(members) == 1 for members in solution.clusters])
    number = np.cumsum(~alone) - 1
    worst = _worst(problem, solution)
    degree = np.bincount(problem.links.pairs.ravel(), minlength=len(net))
    limits_w, found = power_limits_w(problem).tolist(), list[DevicePlan]()
    for i, (x, y) in enumerate(net.xy_m.tolist()):
        power_w, joules = float(solution.sent_w[i]), float(solution.energy_j[i])
        sends = not alone[home[i]]
        spent_j = joules + float(relay.energy_j[i])
        battery = float(net.battery_j[i])
        found.append(
            DevicePlan(
                index=i, name=net.names[i], x_m=x, y_m=y, cluster=int(number[home[i]]) if sends else None,
                links=int(degree[i]), density=float(net.entries[i] / sum(net.sizes)),
                capped=bool(net.entries[i] < math.floor(net.wanted[i] * sum(net.sizes) + 1e-6)),
                payload_bytes=int(net.payload_bits[i]) // 8, sent_bytes=int(solution.sent_bytes[i]),
                power_dbm=to_dbm(power_w) if sends else None, margin_db=to_db(limits_w[i] / power_w) if sends else None,
                worst=worst[i] if sends else None, airtime_s=float(solution.airtime_s[i]), energy_j=joules,
                relay_bytes=round(float(relay.bytes[i])), relay_energy_j=float(relay.energy_j[i]),
                battery_rounds=None if math.isnan(battery) or spent_j == 0.0 else battery / spent_j,
            )
        )  # fmt: skip
    return tuple(found)


def _worst(problem: Problem, solution: Solution) -> dict[int, int]:
    """The member that every device reaches hardest."""
    found: dict[int, int] = {}
    loss = losses(problem, solution.pairs)
    for n in np.argsort(loss, kind="stable").tolist():
        i, j = solution.pairs[n].tolist()
        found[i] = j
    return found


def clusters_of(
    net: Network, problem: Problem, solution: Solution, devices: Sequence[DevicePlan], records: Float[np.ndarray, " K"]
) -> tuple[ClusterPlan, ...]:
    """Every cluster of two or more.

    Args:
        net: the devices.
        problem: what was solved.
        solution: clusters and powers.
        devices: from `devices_of`.
        records: bits each cluster has to tell others. [K]

    Returns:
        By smallest member.
    """
    found: list[ClusterPlan] = []
    bound_by = bindings(problem, solution.clusters)
    for k, members in enumerate(solution.clusters):
        if len(members) == 1:
            continue
        own = [devices[i] for i in members]
        weakest = min(own, key=lambda d: (d.margin_db, d.index))
        ends = (weakest.index, int(weakest.worst if weakest.worst is not None else weakest.index))
        found.append(
            ClusterPlan(
                index=len(found), members=members, collision=float(solution.rates[k]), worst=ends,
                distance_m=float(np.hypot(*(net.xy_m[ends[0]] - net.xy_m[ends[1]]))),
                margin_db=float(weakest.margin_db or 0.0), delay_s=max(d.airtime_s for d in own),
                energy_j=math.fsum(d.energy_j for d in own), sent_bytes=sum(d.sent_bytes for d in own),
                record_bytes=int(records[k]) // 8, limit=bound_by[k].limit, room=bound_by[k].room,
            )
        )  # fmt: skip
    return tuple(found)


def relayed(problem: Problem, solution: Solution, spine: Backbone) -> Relayed:
    """What each device sends for other clusters when every record goes everywhere once.

    A gateway forwards over its links with one receiver and the whole band, then tells its cluster what it got as it
    tells its own payload.

    Args:
        problem: powers and rates.
        solution: clusters, what a member spends on its own payload.
        spine: gateway links and loads.

    Returns:
        Bytes and J of every device.
    """
    M = len(problem.densities)
    bits, joules, got = np.zeros(M), np.zeros(M), np.zeros(M)
    at = _places(problem, spine)
    power_w, speed = pair_powers_w(problem)[at], _speeds_bps(problem)
    for way in (0, 1):
        source, target = spine.links[:, way], spine.links[:, 1 - way]
        np.add.at(bits, source, spine.load_bits[:, way])
        np.add.at(joules, source, spine.load_bits[:, way] / speed[source] * power_w[:, way])
        np.add.at(got, target, spine.load_bits[:, way])
    times = got / np.maximum(problem.payload_bits, 1.0)
    return Relayed(bits / 8 + times * solution.sent_bytes, joules + times * solution.energy_j)


def _places(problem: Problem, spine: Backbone) -> Int[np.ndarray, " N"]:
    """Where the gateway links are among all links."""
    M = len(problem.densities)
    keys = problem.links.pairs @ np.array([M, 1])
    order = np.argsort(keys)
    return np.asarray(order[np.searchsorted(keys[order], spine.links @ np.array([M, 1]))], dtype=np.int64)


def _margins_db(problem: Problem) -> Float[np.ndarray, " E"]:
    """What the worse way of every link has to spare with the whole band, dB."""
    with np.errstate(divide="ignore"):
        spare = power_limits_w(problem)[problem.links.pairs] / pair_powers_w(problem)
    return np.asarray(10.0 * np.log10(spare.min(axis=1)))


def _lengths_m(net: Network, pairs: Int[np.ndarray, "E 2"]) -> Float[np.ndarray, " E"]:
    between = net.xy_m[pairs[:, 0]] - net.xy_m[pairs[:, 1]]
    return np.asarray(np.hypot(between[:, 0], between[:, 1]))


def links_of(net: Network, problem: Problem, home: Int[np.ndarray, " M"]) -> tuple[LinkPlan, ...]:
    """Links inside clusters, with length and margin of each."""
    pairs = problem.links.pairs
    inside = home[pairs[:, 0]] == home[pairs[:, 1]]
    cells = zip(
        pairs[inside].tolist(),
        _lengths_m(net, pairs)[inside].tolist(),
        _margins_db(problem)[inside].tolist(),
        strict=True,
    )
    return tuple(LinkPlan(ends=(i, j), distance_m=d, margin_db=m) for (i, j), d, m in cells)


def relays_of(net: Network, problem: Problem, spine: Backbone) -> tuple[Relay, ...]:
    """Gateway links; records go at the rate of the gateway's own payload, in as many transfers as it takes."""
    if not len(spine.links):
        return ()
    at = _places(problem, spine)
    seconds = spine.load_bits / _speeds_bps(problem)[spine.links]
    joules = (seconds * pair_powers_w(problem)[at]).sum(axis=1)
    columns = (
        spine.links.tolist(), _lengths_m(net, spine.links).tolist(), _margins_db(problem)[at].tolist(),
        (spine.load_bits.sum(axis=1) / 8).tolist(), seconds.max(axis=1).tolist(), joules.tolist(),
    )  # fmt: skip
    return tuple(
        Relay(ends=(i, j), distance_m=d, margin_db=m, bytes=round(b), airtime_s=t, energy_j=e)
        for (i, j), d, m, b, t, e in zip(*columns, strict=True)
    )


def _speeds_bps(problem: Problem) -> Float[np.ndarray, " M"]:
    """Rate of every device's ordinary transfer with the whole band."""
    radio = problem.radio
    band = radio.bandwidth_hz
    return np.asarray(np.maximum(problem.payload_bits / radio.deadline_s, radio.min_efficiency_bps_per_hz * band))
