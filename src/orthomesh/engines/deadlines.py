"""How long a device waits for another before it goes on without: never for ever, and by what it has seen of it.

The deadline of the configuration (Gamma) belongs to the simulated air. Here a wait for facts follows how long the
others took so far, as they also train; a wait for a message follows its size and the rate of the link as measured, in
each direction by itself. What was too slow for its deadline cannot be measured, so a deadline that was missed by a
device that is there doubles; one that stays silent for the longest of all waits is then given the shortest only.
"""

from __future__ import annotations

import threading
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT

RECENT = 5
"""Waits of a device that are remembered."""
SMALLEST_PROBE = 4096
"""Bytes below which the time of a transfer says nothing of the rate."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Patience:
    """How long a device waits."""

    meet_s: Annotated[float, Field(gt=0)] = 300.0
    """At the start, for the others to appear; who has not come by then is gone on without."""
    first_s: Annotated[float, Field(gt=0)] = 600.0
    """For the first facts of a device, of which nothing is known yet; no wait for facts grows beyond it by misses."""
    least_s: Annotated[float, Field(gt=0)] = 20.0
    """At least, for anything from a device that is connected."""
    gone_s: Annotated[float, Field(ge=0)] = 3.0
    """For a device whose connection is lost to come back."""
    linger_s: Annotated[float, Field(ge=0)] = 30.0
    """After the last round, for devices that missed it to return and fetch what they lack; nobody stays for nobody."""
    factor: Annotated[float, Field(ge=1)] = 4.0
    """Times what was observed."""
    slowest_bps: Annotated[float, Field(gt=0)] = 50_000.0
    """Rate a link is taken to have before it was measured; misses lower none below it, bit/s."""


class Pace:
    """What was observed of every neighbour, and the deadlines that follow."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._waits: dict[int, list[float]] = {}
        self._rates_bps: dict[int, float] = {}
        self._inward_bps: dict[int, float] = {}
        self._missed_s: dict[int, float] = {}

    def facts_s(self, src: int, own_s: float) -> float:
        """How long to wait for a device's facts.

        Args:
            src: whose.
            own_s: seconds this device itself was busy since it last waited: the others are likely to need as long.
        """
        with self._lock:
            waits, missed_s = self._waits.get(src), self._missed_s.get(src, 0.0)
        if missed_s >= self.patience.first_s:
            return self.patience.least_s
        if not waits:
            return self.patience.first_s
        usual_s = max(self.patience.least_s, self.patience.factor * (max(waits) + own_s))
        return max(usual_s, min(2 * missed_s, self.patience.first_s))

    def transfer_s(self, device: int, num_bytes: float) -> float:
        """How long a message of so many bytes may take to a device.

        .. math::  t = t_{least} + f \\, 8 n / R
        """
        with self._lock:
            rate_bps = self._rates_bps.get(device, self.patience.slowest_bps)
        return self.patience.least_s + self.patience.factor * 8 * num_bytes / rate_bps

    def arrival_s(self, src: int, num_bytes: float) -> float:
        """The same from a device; until something has come, its direction is taken to be like the other."""
        with self._lock:
            outward_bps = self._rates_bps.get(src, self.patience.slowest_bps)
            rate_bps = self._inward_bps.get(src, outward_bps)
        return self.patience.least_s + self.patience.factor * 8 * num_bytes / rate_bps

    def saw_wait(self, src: int, seconds: float) -> None:
        """A device's facts came after so long."""
        with self._lock:
            self._waits[src] = [*self._waits.get(src, []), seconds][-RECENT:]
            self._missed_s.pop(src, None)

    def missed_facts(self, src: int, limit_s: float) -> None:
        """A device that is there has not told its facts in so long."""
        with self._lock:
            self._missed_s[src] = max(limit_s, self._missed_s.get(src, 0.0))

    def saw_transfer(self, device: int, num_bytes: int, seconds: float) -> None:
        """So many bytes were acknowledged after so long; the mean forgets by half."""
        if num_bytes >= SMALLEST_PROBE:
            rate_bps = 8 * num_bytes / max(seconds, 1e-6)
            with self._lock:
                self._rates_bps[device] = (self._rates_bps.get(device, rate_bps) + rate_bps) / 2

    def missed_transfer(self, device: int) -> None:
        """What was sent was not acknowledged by its deadline: the link is slower than thought."""
        with self._lock:
            self._rates_bps[device] = self._halved(self._rates_bps.get(device, self.patience.slowest_bps))

    def saw_arrival(self, src: int, num_bytes: int, seconds: float) -> None:
        """So many bytes had come after so long, which is no less than they took."""
        if num_bytes >= SMALLEST_PROBE and seconds > 0:
            rate_bps = 8 * num_bytes / seconds
            with self._lock:
                self._inward_bps[src] = (self._inward_bps.get(src, rate_bps) + rate_bps) / 2

    def missed_arrival(self, src: int) -> None:
        """What a device that is there was to send has not come by its deadline."""
        with self._lock:
            outward_bps = self._rates_bps.get(src, self.patience.slowest_bps)
            self._inward_bps[src] = self._halved(self._inward_bps.get(src, outward_bps))

    def _halved(self, rate_bps: float) -> float:
        return max(rate_bps / 2, min(rate_bps, self.patience.slowest_bps))

    def rates_bps(self) -> dict[int, float]:
        """Measured rates to devices, bit/s."""
        with self._lock:
            return dict(sorted(self._rates_bps.items()))
