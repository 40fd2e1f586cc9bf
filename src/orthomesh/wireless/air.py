"""Two airs behind one protocol: one that lets everything through, and one that obeys the channel, III-B.

Every sender has a band of its own (the paper's OFDMA), so transfers of different senders go on at the same
time and do not interfere. Messages of one sender follow one another, each with the whole band and the whole
power. Bytes are counted as they were framed, whether or not they arrive; energy and time only where power was
radiated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from ..types import Column, Cost, Facts, Message, Phase, Round, Spend
from .channel import Channel, gains
from .link import LOWEST_EFFICIENCY_BPS_PER_HZ, Radio, airtime_s, delay_s, max_power_w
from .power import Cast, required_power_w, served


@dataclass(frozen=True)
class IdealAir:
    """Everything arrives; bytes are counted, time and energy are not.

    It adds no gains to the facts: where a gain is missing, nothing is known to limit the link.
    """

    def announce(self, facts: Mapping[int, Facts], t: Round) -> tuple[dict[int, Facts], Cost]:
        """The facts as they are, and their bytes.

        Args:
            facts: of the hosted devices, by id.
            t: which round.

        Returns:
            The same facts in order of id, and the cost.
        """
        spent = {i: Spend(bytes_sent=dict(facts[i].columns)) for i in sorted(facts)}
        return {i: facts[i] for i in sorted(facts)}, Cost(spent)

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        """All messages as they are, and their bytes: once per broadcast, once per receiver in unicast.

        Args:
            outbox: messages of the hosted devices.
            phase: what was planned.
            t: which round.

        Returns:
            The same messages, and the cost.

        Raises:
            ValueError: a message along an edge the phase does not have, or whose columns miss its length.
        """
        _check_outbox(outbox, phase)
        return list(outbox), _cost([(m.src, Spend(bytes_sent=_charged(m, phase.cast))) for m in outbox])


@dataclass(frozen=True, kw_only=True)
class SimulatedAir:
    """What the channel lets through, at least power and before the deadline.

    channel: positions and fading. radio: band, noise, limits. seed: of positions and fading.
    num_devices: ids are 0..num_devices-1.
    """

    channel: Channel
    radio: Radio
    seed: int
    num_devices: int

    def announce(self, facts: Mapping[int, Facts], t: Round) -> tuple[dict[int, Facts], Cost]:
        """Facts with the gains to all other devices, told to everybody by one broadcast.

        Nobody's gain is known yet, so it goes out at full power and the lowest code: the radio's own, or
        0.15 bit/s/Hz where the radio has none (0). It is taken to reach everybody and may outlast the
        deadline.

        Args:
            facts: of the hosted devices, by id.
            t: which round.

        Returns:
            The facts in order of id with `gains` filled in, and the cost.

        Raises:
            ValueError: facts of a device that does not exist.
        """
        _check_ids(facts, self.num_devices, "facts")
        h = _gains(self.channel, self.seed, t.index, self.num_devices)
        others = {i: [j for j in range(self.num_devices) if j != i] for i in sorted(facts)}
        heard = {i: replace(facts[i], gains={j: float(h[i, j]) for j in others[i]}) for i in others}
        return heard, _cost([(i, _announcement(facts[i].columns, self.radio)) for i in others])

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        """Each message at the least power that serves whom it can reach; the others lose it.

        A broadcast drops the receivers that even full power does not reach and serves the worst of the rest;
        a unicast splits the band among all it was meant for and serves the strongest while their powers fit.
        Transmitters know their gains, so a hopeless link costs bytes (they were framed for it) but no energy.

        Args:
            outbox: messages of the hosted devices.
            phase: what was planned.
            t: which round.

        Returns:
            The messages in the order given with `dsts` reduced to who gets them (possibly nobody), and the
            cost; elapsed is the longest time a sender of this phase was on.

        Raises:
            ValueError: an id that does not exist, a message along an edge the phase does not have, or one
                whose columns miss its length.
        """
        _check_ids((k for e in phase.edges for k in (e.src, e.dst)), self.num_devices, f"phase {phase.name!r}")
        _check_outbox(outbox, phase)
        h = _gains(self.channel, self.seed, t.index, self.num_devices)
        sent = [_transfer(m, {j: float(h[m.src, j]) for j in m.dsts}, self.radio, phase.cast) for m in outbox]
        return [m for m, _ in sent], _cost([(m.src, spend) for m, spend in sent])


@lru_cache(maxsize=4)
def _gains(channel: Channel, seed: int, round_index: int, num_devices: int) -> Float[np.ndarray, "M M"]:
    """Gains of a round, kept for its phases."""
    h = gains(channel, seed, round_index, num_devices)
    h.flags.writeable = False
    return h


def _announcement(columns: Mapping[Column, int], radio: Radio) -> Spend:
    """One broadcast at full power and the lowest code."""
    code = radio.min_efficiency_bps_per_hz or LOWEST_EFFICIENCY_BPS_PER_HZ
    on_s = delay_s(8 * sum(columns.values()), radio.bandwidth_hz * code)
    power_w = max_power_w(radio) if on_s > 0.0 else 0.0
    return Spend(bytes_sent=dict(columns), airtime_s=on_s, energy_j=power_w * on_s, power_w=power_w)


def _transfer(message: Message, gain: Mapping[int, float], radio: Radio, cast: Cast) -> tuple[Message, Spend]:
    """One message: who gets it, and what its sender spends."""
    bits = 8 * len(message.payload)
    got = served(bits, gain, radio, cast)
    share = len(message.dsts) if cast == "unicast" else 1
    needed_w = [required_power_w(bits, gain[j], share, radio) for j in got]
    power_w = math.fsum(needed_w) if cast == "unicast" else max(needed_w, default=0.0)
    on_s = airtime_s(bits, radio.bandwidth_hz / share, radio) if got else 0.0
    spend = Spend(
        bytes_sent=_charged(message, cast),
        airtime_s=on_s,
        energy_j=power_w * on_s,
        lost=len(message.dsts) - len(got),
        power_w=power_w,
    )
    return replace(message, dsts=tuple(j for j in message.dsts if j in got)), spend


def _charged(message: Message, cast: Cast) -> dict[Column, int]:
    """Bytes by column: once for a broadcast, once for each receiver it was meant for in unicast."""
    times = len(message.dsts) if cast == "unicast" else min(1, len(message.dsts))
    return {column: times * count for column, count in message.columns.items()}


def _cost(spends: Sequence[tuple[int, Spend]]) -> Cost:
    """What each sender spent in all, and how long the longest of them was on."""
    total = sum((Cost({i: spend}) for i, spend in spends), Cost())
    return replace(total, elapsed_s=max((s.airtime_s for s in total.by_device.values()), default=0.0))


def _check_ids(ids: Iterable[int], num_devices: int, where: str) -> None:
    for k in ids:
        if not 0 <= k < num_devices:
            raise ValueError(f"{where}: there is no device {k}; ids are 0..{num_devices - 1}")


def _check_outbox(outbox: Sequence[Message], phase: Phase) -> None:
    edges = {(e.src, e.dst) for e in phase.edges}
    for m in outbox:
        for j in m.dsts:
            if (m.src, j) not in edges:
                raise ValueError(f"phase {phase.name!r} has no edge from device {m.src} to device {j}")
        counted = sum(m.columns.values())
        if counted != len(m.payload):
            raise ValueError(
                f"phase {phase.name!r}: columns of device {m.src}'s message add up to {counted} bytes, "
                f"its payload has {len(m.payload)}"
            )
