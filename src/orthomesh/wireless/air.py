"""Two airs behind one protocol: one that lets everything through, and one that obeys the channel, III-B.

With dedicated access every sender has a band of its own (the paper's OFDMA), so transfers of different senders go
on at the same time and do not interfere; otherwise they take turns (`access.py`). Messages of one sender follow one
another, each with the whole band and the whole power. Bytes are counted as they were framed, whether or not they
arrive; energy and time only where power was radiated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..rng import stream
from ..types import Column, Cost, Facts, Message, Phase, Round, Spend
from .access import Turn, schedule, turn_radio
from .channel import Channel, fading, mean_gains
from .errors import payload_loss
from .fading import Blocks, effective
from .link import LOWEST_EFFICIENCY_BPS_PER_HZ, Radio, airtime_s, bits_on_air, delay_s, efficiency, max_power_w
from .power import Cast, required_power_w, served, unicast_powers_w
from .traces import traced_gains


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
        deadline. Gains over several fading blocks are those of a link that carries the device's own payload.

        Args:
            facts: of the hosted devices, by id.
            t: which round.

        Returns:
            The facts in order of id with `gains` filled in, and the cost.

        Raises:
            ValueError: facts of a device that does not exist.
        """
        _check_ids(facts, self.num_devices, "facts")
        fades = _fades(self.channel, self.radio, self.seed, t.index, self.num_devices)
        heard = {}
        for i in sorted(facts):
            others = [j for j in range(self.num_devices) if j != i]
            x = efficiency(facts[i].payload_bits, self.radio.bandwidth_hz, self.radio)
            heard[i] = replace(facts[i], gains=dict(zip(others, fades.gains(i, others, x), strict=True)))
        return heard, _cost([(i, _announcement(facts[i].columns, self.radio)) for i in heard])

    def transmit(self, outbox: Sequence[Message], phase: Phase, t: Round) -> tuple[list[Message], Cost]:
        """Each message at the least power that serves whom it can reach; the others lose it.

        A broadcast drops the receivers that even full power does not reach and serves the worst of the rest;
        a unicast splits the band among all it was meant for and serves the strongest while their powers fit.
        Transmitters know their gains, so a hopeless link costs bytes (they were framed for it) but no energy.
        Where packets are lost, a payload that misses one in the end is lost whole, its energy spent.

        Args:
            outbox: messages of the hosted devices.
            phase: what was planned.
            t: which round.

        Returns:
            The messages in the order given with `dsts` reduced to who gets them (possibly nobody), and the
            cost; elapsed is how long the band was held: the longest time a sender of this phase was on, with
            turns the sum over turns of the longest in each.

        Raises:
            ValueError: an id that does not exist, a message along an edge the phase does not have, or one
                whose columns miss its length.
        """
        _check_ids((k for e in phase.edges for k in (e.src, e.dst)), self.num_devices, f"phase {phase.name!r}")
        _check_outbox(outbox, phase)
        fades = _fades(self.channel, self.radio, self.seed, t.index, self.num_devices)
        turn, counts, part = _schedule(phase, fades, self.radio)
        sent = []
        for m in outbox:
            radio = turn_radio(self.radio, counts[turn[m.src][0]]) if m.dsts else self.radio
            share = max(1, len(m.dsts)) if phase.cast == "unicast" else 1
            x = efficiency(8 * len(m.payload), radio.bandwidth_hz / share, radio)
            heard = zip(m.dsts, fades.gains(m.src, m.dsts, x), strict=True)
            message, spend = _transfer(m, {j: h * float(part[m.src, j]) for j, h in heard}, radio, phase.cast)
            sent.append((message, spend))
        sent = _erased(sent, self, phase, t)
        spends = [(m.src, spend) for m, spend in sent]
        return [m for m, _ in sent], replace(_cost(spends), elapsed_s=_elapsed_s(spends, turn))


class _Fades(NamedTuple):
    """Gains of a round before they are put together: without fading, and the powers of each block."""

    mean: Float[np.ndarray, "M M"]
    powers: Float[np.ndarray, "M M N"]
    weights: Float[np.ndarray, " N"]

    def gains(self, sender: int, receivers: Sequence[int], efficiency_bps_per_hz: float) -> list[float]:
        """What a link of that efficiency makes of its blocks."""
        js = list(receivers)
        blocks = Blocks(self.powers[sender, js], self.weights)
        found: list[float] = (self.mean[sender, js] * effective(blocks, efficiency_bps_per_hz)).tolist()
        return found


@lru_cache(maxsize=4)
def _fades(channel: Channel, radio: Radio, seed: int, round_index: int, num_devices: int) -> _Fades:
    """Gains of a round, kept for its phases."""
    if channel.trace is not None:
        mean = traced_gains(channel, radio, round_index, num_devices)
        return _Fades(mean, np.ones((num_devices, num_devices, 1)), np.ones(1))
    low, high = np.triu_indices(num_devices, 1)
    mean = np.zeros((num_devices, num_devices))
    mean[low, high] = mean_gains(channel, seed, round_index, num_devices, (low, high))
    drawn = fading(channel, seed, round_index, (low, high))
    powers = np.zeros((num_devices, num_devices, len(drawn.weights)))
    powers[low, high] = powers[high, low] = drawn.powers
    return _Fades(mean + mean.T, powers, drawn.weights)


def _schedule(
    phase: Phase, fades: _Fades, radio: Radio
) -> tuple[dict[int, Turn], dict[int, int], Float[np.ndarray, "M M"]]:
    """Turns of a phase's senders, how many there are in each group, and what interference leaves of each gain."""
    ids = range(len(fades.mean))
    h = fades.mean if radio.access != "reuse" else np.array([fades.gains(i, ids, 1.0) for i in ids])
    return schedule(phase.edges, h, radio)


def _erased(
    sent: Sequence[tuple[Message, Spend]], air: SimulatedAir, phase: Phase, t: Round
) -> list[tuple[Message, Spend]]:
    """Transfers that miss a packet in the end are taken out; keyed by phase, sender, receiver and how many before."""
    radio = air.radio
    if radio.packet_loss == 0.0:
        return list(sent)
    before: dict[tuple[int, int], int] = {}
    found = []
    for m, spend in sent:
        chance = payload_loss(len(m.payload), radio.packet_bytes, radio.packet_loss, radio.transmissions)
        kept = []
        for j in m.dsts:
            n = before[m.src, j] = before.get((m.src, j), -1) + 1
            if stream(air.seed, f"packets-{phase.name}", t.index, m.src, j, n).random() >= chance:
                kept.append(j)
        missing = len(m.dsts) - len(kept)
        found.append((replace(m, dsts=tuple(kept)), replace(spend, lost=spend.lost + missing)))
    return found


def _elapsed_s(spends: Sequence[tuple[int, Spend]], turn: Mapping[int, Turn]) -> float:
    """How long a phase holds the band: groups side by side, turns one after the other, senders of a turn together."""
    on_s: dict[int, float] = {}
    for i, spend in spends:
        on_s[i] = on_s.get(i, 0.0) + spend.airtime_s
    longest: dict[Turn, float] = {}
    for i in sorted(on_s):
        if i in turn:
            longest[turn[i]] = max(longest.get(turn[i], 0.0), on_s[i])
    whole: dict[int, float] = {}
    for (group, _), lasts_s in longest.items():
        whole[group] = whole.get(group, 0.0) + lasts_s
    return max(whole.values(), default=0.0)


def _announcement(columns: Mapping[Column, int], radio: Radio) -> Spend:
    """One broadcast at full power and the lowest code."""
    code = radio.min_efficiency_bps_per_hz or LOWEST_EFFICIENCY_BPS_PER_HZ
    on_s = delay_s(bits_on_air(8 * sum(columns.values()), radio), radio.bandwidth_hz * code)
    power_w = max_power_w(radio) if on_s > 0.0 else 0.0
    return Spend(bytes_sent=dict(columns), airtime_s=on_s, energy_j=power_w * on_s, power_w=power_w)


def _transfer(message: Message, gain: Mapping[int, float], radio: Radio, cast: Cast) -> tuple[Message, Spend]:
    """One message: who gets it, and what its sender spends."""
    bits = 8 * len(message.payload)
    got = served(bits, gain, radio, cast)
    share = len(message.dsts) if cast == "unicast" else 1
    if cast == "unicast" and radio.split == "optimal":
        needed_w = list(unicast_powers_w(bits, [gain[j] for j in got], radio))
        on_s = radio.deadline_s if got else 0.0
    else:
        needed_w = [required_power_w(bits, gain[j], share, radio) for j in got]
        on_s = airtime_s(bits, radio.bandwidth_hz / share, radio) if got else 0.0
    power_w = math.fsum(needed_w) if cast == "unicast" else max(needed_w, default=0.0)
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
    total: dict[int, Spend] = {}
    for i, spend in spends:
        total[i] = total.get(i, Spend()) + spend
    elapsed_s = max((s.airtime_s for s in total.values()), default=0.0)
    return Cost({i: total[i] for i in sorted(total)}, elapsed_s)


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
