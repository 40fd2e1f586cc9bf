"""What a plan says of each device, cluster and link."""

from __future__ import annotations

from dataclasses import dataclass

from .binding import Limit


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """One device in one round inside its cluster. Power is None where it has nobody to send to.

    cluster: index, None if alone. margin_db: power limit over power, beyond the margin for fades. worst: the member it
    reaches hardest. battery_rounds: rounds a battery lasts, sending only. capped: computing (11c) took density away.
    """

    index: int
    name: str
    x_m: float
    y_m: float
    cluster: int | None
    links: int
    density: float
    capped: bool
    payload_bytes: int
    sent_bytes: int
    power_dbm: float | None
    margin_db: float | None
    worst: int | None
    airtime_s: float
    energy_j: float
    relay_bytes: int
    relay_energy_j: float
    battery_rounds: float | None


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """One cluster of two or more. worst: the link with the least margin. limit: what keeps it from
    merging with another. room: devices of others it could take. record_bytes: what it has to tell others."""

    index: int
    members: tuple[int, ...]
    collision: float
    worst: tuple[int, int]
    distance_m: float
    margin_db: float
    delay_s: float
    energy_j: float
    sent_bytes: int
    record_bytes: int
    limit: Limit
    room: int


@dataclass(frozen=True, kw_only=True)
class LinkPlan:
    """A link inside a cluster, or between gateways of two: its ends, length, and what its worse way has to spare."""

    ends: tuple[int, int]
    distance_m: float
    margin_db: float


@dataclass(frozen=True, kw_only=True)
class Relay(LinkPlan):
    """A gateway link and what crosses it both ways when every cluster's record goes everywhere once."""

    bytes: int
    airtime_s: float
    energy_j: float
