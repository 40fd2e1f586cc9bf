"""What one link carries, III-B: noise, rate, delay, spectral efficiency.

Reading R8: bits are what is framed, the logarithm is to base 2, and noise grows with the band it is heard in
(`noise="per_band"`); the paper keeps it constant while the band is split (`"fixed"`).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..units import from_db, from_dbm
from .errors import mean_transmissions

LOWEST_EFFICIENCY_BPS_PER_HZ = 0.15
"""Lowest-rate code of LTE and 5G New Radio (QPSK at rate 78/1024, 0.1523), rounded down."""

LARGEST_EFFICIENCY_BPS_PER_HZ = 1000.0
"""Beyond it 2^x leaves the range of a float; no radio comes near."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Radio:
    """What one device transmits and receives with."""

    bandwidth_hz: Annotated[float, Field(gt=0)] = 1e6
    """Band W of one device, Hz; neighbours share it in unicast. 1 MHz suits experts of a few hundred kbit;
    16 MB of a 1.5B model want W times deadline near 1e8."""

    noise_dbm_per_hz: float = -174.0
    """Noise density N0, dBm/Hz. -174 is thermal noise at 290 K."""

    noise_figure_db: Annotated[float, Field(ge=0)] = 9.0
    """Noise the receiver adds, dB. 9 is a usual handset."""

    max_power_dbm: float = 23.0
    """Transmit power limit p_max over the whole band, dBm. 23 (0.2 W) is the handset limit."""

    deadline_s: Annotated[float, Field(gt=0)] = 1.0
    """Longest transfer Gamma, s."""

    min_efficiency_bps_per_hz: Annotated[float, Field(ge=0)] = LOWEST_EFFICIENCY_BPS_PER_HZ
    """Lowest spectral efficiency the radio has a code for, bit/s/Hz; smaller payloads finish early instead of
    whispering. 0 is the paper's: always as slow as the deadline allows."""

    noise: Literal["per_band", "fixed"] = "per_band"
    """Noise of the band a link uses (R8), or of the whole band W whatever the split (the paper)."""

    gap_db: Annotated[float, Field(ge=0)] = 0.0
    """What codes need above Shannon's bound, dB. 0 is the paper's; real codes need 1 to 3."""

    max_efficiency_bps_per_hz: Annotated[float, Field(gt=0)] | None = None
    """Highest spectral efficiency the radio has a code for, bit/s/Hz; none: no limit (the paper). 256-QAM ends near
    7.4."""

    useful_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the airtime that carries payload; pilots, headers and gaps take the rest. 1 is the paper's, 0.8
    usual."""

    packet_loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a packet is not decoded although the power is right; 0.1 is a usual operating point."""

    packet_bytes: Annotated[int, Field(ge=1)] = 1500
    """Size of a packet; a payload is lost where one of its packets is."""

    transmissions: Annotated[int, Field(ge=1)] = 1
    """How often a packet is sent at most (ARQ). The rate leaves room for the mean number."""

    split: Literal["equal", "optimal"] = "equal"
    """How unicast splits the band among receivers: equally (the paper), or so that the sum of powers is least."""

    access: Literal["dedicated", "tdma", "reuse"] = "dedicated"
    """Who owns the band: every sender one of its own (the paper); those that hear each other take turns on one; or
    turns for those that would disturb each other, while the others share a turn and its interference."""

    protection_db: Annotated[float, Field(ge=0)] = 10.0
    """With reuse: senders share a turn only where every receiver hears its own sender this much better, dB."""


def highest_efficiency(radio: Radio) -> float:
    """Most bit/s/Hz a link can carry: the radio's fastest code, or what a float can hold."""
    cap = radio.max_efficiency_bps_per_hz
    return LARGEST_EFFICIENCY_BPS_PER_HZ if cap is None else min(cap, LARGEST_EFFICIENCY_BPS_PER_HZ)


def max_power_w(radio: Radio) -> float:
    """The power limit p_max in W.

    >>> max_power_w(Radio(max_power_dbm=30.0))
    1.0
    """
    return from_dbm(radio.max_power_dbm)


def noise_w(radio: Radio, bandwidth_hz: float) -> float:
    """Noise power sigma^2 = N0 F B a receiver hears on a link, reading R8.

    Args:
        radio: noise density, noise figure, and whose band B is.
        bandwidth_hz: band of the link.

    Returns:
        W, > 0.

    Raises:
        ValueError: a band that is not positive.

    >>> round(noise_w(Radio(), 1e6) * 1e14, 4)  # -174 + 9 + 60 = -105 dBm
    3.1623
    """
    if not bandwidth_hz > 0.0:
        raise ValueError(f"a link needs a positive band in Hz, got {bandwidth_hz}")
    band_hz = bandwidth_hz if radio.noise == "per_band" else radio.bandwidth_hz
    return from_dbm(radio.noise_dbm_per_hz) * from_db(radio.noise_figure_db) * band_hz


def rate_bps(power_w: float, gain: float, bandwidth_hz: float, noise_w: float) -> float:
    """Bits per second over a link, B log2(1 + p h / sigma^2).

    Args:
        power_w: transmit power p, W.
        gain: linear power gain h.
        bandwidth_hz: band B of the link.
        noise_w: noise power sigma^2 in that band, W.

    Returns:
        bit/s, >= 0.

    Raises:
        ValueError: negative power or gain, or noise that is not positive.

    >>> round(rate_bps(3.0, 0.5, 1000.0, 0.5), 6)
    2000.0
    """
    if not (power_w >= 0.0 and gain >= 0.0 and noise_w > 0.0):
        raise ValueError(f"a rate needs power >= 0, gain >= 0 and noise > 0, got {power_w} W, {gain} and {noise_w} W")
    return bandwidth_hz * math.log1p(power_w * gain / noise_w) / math.log(2.0)


def link_rate_bps(power_w: float, gain: float, bandwidth_hz: float, radio: Radio, interference_w: float = 0.0) -> float:
    """Payload bits per second over a real link, eta B min(log2(1 + p h / (G (sigma^2 + I))), cap).

    Args:
        power_w: transmit power p, W.
        gain: linear power gain h.
        bandwidth_hz: band B of the link.
        radio: noise, gap G, cap, useful share eta.
        interference_w: power I of others in the same band at the receiver, W.

    Returns:
        bit/s, >= 0; with the paper's settings `rate_bps`.

    Raises:
        ValueError: negative power, gain or interference, or a band that is not positive.

    >>> link_rate_bps(1.0, 1.0, 1e6, Radio(max_efficiency_bps_per_hz=6.0, useful_share=0.5))
    3000000.0
    """
    if not interference_w >= 0.0:
        raise ValueError(f"interference is a power in W >= 0, got {interference_w}")
    heard_w = from_db(radio.gap_db) * (noise_w(radio, bandwidth_hz) + interference_w)
    rate = rate_bps(power_w, gain, bandwidth_hz, heard_w)
    cap = radio.max_efficiency_bps_per_hz
    return radio.useful_share * (rate if cap is None else min(rate, cap * bandwidth_hz))


def bits_on_air(bits: int | float, radio: Radio) -> float:
    """Coded bits a payload takes with overhead and, on average, repetitions of lost packets.

    >>> bits_on_air(900, Radio(useful_share=0.9)), bits_on_air(800, Radio(packet_loss=0.5, transmissions=2))
    (1000.0, 1200.0)
    """
    return bits * mean_transmissions(radio.packet_loss, radio.transmissions) / radio.useful_share


def delay_s(bits: int | float, rate_bps: float) -> float:
    """Seconds a transfer takes, bits / rate, eq. (8) with units.

    Reading R8: the paper divides the number of parameters by a rate; we count bits.

    Args:
        bits: size of the payload, >= 0.
        rate_bps: bit/s, >= 0.

    Returns:
        s, >= 0; infinite over a link of rate 0, and 0 where there is nothing to send.

    Raises:
        ValueError: a negative size or rate.

    >>> delay_s(100, 50.0), delay_s(100, 0.0)
    (2.0, inf)
    """
    if not (bits >= 0 and rate_bps >= 0.0):
        raise ValueError(f"a transfer has bits >= 0 and a rate >= 0, got {bits} and {rate_bps}")
    if bits == 0:
        return 0.0
    return bits / rate_bps if rate_bps > 0.0 else math.inf


def efficiency(bits: int | float, bandwidth_hz: float, radio: Radio) -> float:
    """Spectral efficiency a transfer is sent at, max(bits / (B Gamma), lowest code), bits counted on the air.

    The slowest code that keeps the deadline is also the one of least energy, because p / log2(1 + p g) grows
    with p.

    Args:
        bits: size of the payload, >= 0.
        bandwidth_hz: band B of the link.
        radio: deadline and lowest code.

    Returns:
        bit/s/Hz, >= 0.

    Raises:
        ValueError: a negative size, or a band that is not positive.

    >>> efficiency(2e6, 1e6, Radio(deadline_s=0.5))
    4.0
    """
    if not (bits >= 0 and bandwidth_hz > 0.0):
        raise ValueError(f"a transfer has bits >= 0 over a positive band, got {bits} over {bandwidth_hz} Hz")
    on_air = bits_on_air(bits, radio)
    return max(on_air / (bandwidth_hz * radio.deadline_s), radio.min_efficiency_bps_per_hz)


def airtime_s(bits: int | float, bandwidth_hz: float, radio: Radio) -> float:
    """Seconds a transfer lasts at the efficiency it is sent at: the deadline, or less with the lowest code.

    Args:
        bits: size of the payload, >= 0.
        bandwidth_hz: band of the link.
        radio: deadline and lowest code.

    Returns:
        s, in [0, deadline].

    >>> airtime_s(75e3, 1e6, Radio(min_efficiency_bps_per_hz=0.15))
    0.5
    """
    return delay_s(bits_on_air(bits, radio), bandwidth_hz * efficiency(bits, bandwidth_hz, radio))
