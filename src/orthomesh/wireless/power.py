"""Least power that meets the deadline, Lemma 1 with units, for one receiver, many, or all at once.

Reading R9: one broadcast at the worst member's rate uses the whole band once; the paper's unicast splits it
into equal parts, and the exponent grows with the number of receivers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Real

from ..units import from_db
from .bandwidth import optimal_split
from .link import LARGEST_EFFICIENCY_BPS_PER_HZ as LARGEST_EFFICIENCY_BPS_PER_HZ
from .link import Radio, bits_on_air, efficiency, highest_efficiency, max_power_w, noise_w

Cast = Literal["broadcast", "unicast"]


def required_power_w(bits: int | float, gain: float, share: int, radio: Radio) -> float:
    r"""Least power that carries a payload within the deadline over a share of the band, eq. (25) with units.

    .. math::  p^* = G \frac{\sigma_n^2}{h} \left( 2^{\max(b n / (W \Gamma),\ \eta_{\min})} - 1 \right)

    Args:
        bits: size b of the payload, >= 0.
        gain: linear power gain h of the link, >= 0.
        share: n, how many links split the band: the number of receivers in unicast, 1 in broadcast.
        radio: W, Gamma, noise, lowest code.

    Returns:
        W, >= 0; infinite where no power is enough (gain 0, or beyond the fastest code); 0 for no bits.

    Raises:
        ValueError: a negative size or gain, or a share below 1.

    Readings: the gap G of real codes is 1 in the paper, and b counts bits on the air. The paper's exponent has W_T
    and parameters where we have W Gamma and bits (R8). With a lowest code the transfer may end before the deadline;
    `min_efficiency_bps_per_hz=0` is Lemma 1 itself.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0)  # 1e-6 W in 1 MHz
    >>> round(required_power_w(2e6, 1e-5, 1, radio), 9)
    0.3
    """
    if share < 1:
        raise ValueError(f"a band is shared by at least one link, got {share}")
    if not gain >= 0.0:
        raise ValueError(f"a power gain is >= 0, got {gain}")
    band_hz = radio.bandwidth_hz / share
    snr = _snr(bits, band_hz, radio)
    if gain == 0.0 or snr in (0.0, math.inf):
        return math.inf if snr > 0.0 else 0.0
    return from_db(radio.gap_db) * noise_w(radio, band_hz) / gain * snr


def _snr(bits: int | float, band_hz: float, radio: Radio) -> float:
    """Power over noise and gap at which a payload gets through, 2^eta - 1; infinite beyond the fastest code."""
    exponent = efficiency(bits, band_hz, radio)
    if bits == 0:
        return 0.0
    return math.inf if exponent > highest_efficiency(radio) else math.expm1(exponent * math.log(2.0))


def pair_powers_w(
    bits: Sequence[int | float], gains: Float[np.ndarray, "M R"], radio: Radio
) -> Float[np.ndarray, "M R"]:
    """`required_power_w` over the whole band from each sender to each receiver, the same to the last bit.

    Args:
        bits: payload of each sender, >= 0. [M]
        gains: linear power gain from each to each receiver, >= 0. [M R]
        radio: the settings.

    Returns:
        W, [M R]; infinite where no power is enough, 0 for no bits.

    Raises:
        ValueError: a negative size or gain.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0)
    >>> pair_powers_w([2e6], np.array([[1e-5, 0.0]]), radio).round(9).tolist()
    [[0.3, inf]]
    """
    if not np.all(gains >= 0.0):
        raise ValueError("a power gain is negative or not a number; gains are >= 0")
    snr = np.array([_snr(b, radio.bandwidth_hz, radio) for b in bits]).reshape(-1, 1)
    heard_w = from_db(radio.gap_db) * noise_w(radio, radio.bandwidth_hz)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        needed = heard_w / gains * snr
    return np.where(snr == 0.0, 0.0, np.where((snr == math.inf) | (gains == 0.0), math.inf, needed))


def broadcast_power_w(bits: int | float, gains: Sequence[float], radio: Radio) -> float:
    """Least power of one transmission that all receivers decode: what the worst of them needs, reading R9.

    Args:
        bits: size of the payload.
        gains: linear power gains to the receivers.
        radio: the settings.

    Returns:
        W, >= 0; 0 without receivers.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0)
    >>> round(broadcast_power_w(1e6, [1e-5, 1e-4], radio), 9)
    0.1
    """
    return required_power_w(bits, min(gains), 1, radio) if gains else 0.0


def unicast_powers_w(bits: int | float, gains: Sequence[float], radio: Radio) -> tuple[float, ...]:
    """Least power to each receiver when they split the band, equally as in the paper or as `radio.split` says.

    Args:
        bits: size of the payload, sent to each.
        gains: linear power gains to the receivers.
        radio: the settings.

    Returns:
        W, one per receiver in the order given.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0)
    >>> [round(p, 9) for p in unicast_powers_w(1e6, [1e-5, 1e-4], radio)]
    [0.15, 0.015]
    """
    if radio.split == "optimal" and bits > 0 and gains:
        if not min(gains) > 0.0:
            return tuple(math.inf for _ in gains)
        return tuple(optimal_split(bits, gains, radio)[1].tolist())
    return tuple(required_power_w(bits, gain, len(gains), radio) for gain in gains)


def payload_limit_bits(gains: Sequence[float], radio: Radio, cast: Cast) -> float:
    """Largest payload that the deadline and the power limit let through, the inverse of Lemma 1.

    Unicast to n receivers: (W Gamma / n) log2(1 + p_max / (sigma_n^2 sum_j 1/h_j)); broadcast:
    W Gamma log2(1 + p_max min_j h_j / sigma^2).

    Args:
        gains: linear power gains to the receivers.
        radio: the settings.
        cast: one transmission for all, or one each.

    Returns:
        Bits, >= 0; 0 where even the lowest code does not get through; infinite without receivers.

    Raises:
        ValueError: a negative gain.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0, max_power_dbm=30.0)
    >>> round(payload_limit_bits([7e-6, 1e-3], radio, "broadcast"), 3)
    3000000.0
    """
    if not gains:
        return math.inf
    if not all(gain >= 0.0 for gain in gains):
        raise ValueError(f"power gains are >= 0, got {list(gains)}")
    losses = [1.0 / gain if gain > 0.0 else math.inf for gain in gains]
    share, loss = (1, max(losses)) if cast == "broadcast" else (len(gains), math.fsum(losses))
    band_hz = radio.bandwidth_hz / share
    heard_w = from_db(radio.gap_db) * noise_w(radio, band_hz)
    reached = min(math.log1p(max_power_w(radio) / (heard_w * loss)) / math.log(2.0), highest_efficiency(radio))
    if reached < radio.min_efficiency_bps_per_hz:
        return 0.0
    limit = band_hz * radio.deadline_s * reached / bits_on_air(1, radio)
    return limit if share == 1 or radio.split == "equal" else _optimal_limit_bits(gains, radio, limit)


def _optimal_limit_bits(gains: Sequence[float], radio: Radio, equal: float) -> float:
    """Largest payload with the best split, by bisection from what equal parts take to what the worst alone could."""
    low, high = equal, payload_limit_bits(gains, radio, "broadcast")
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if is_feasible(middle, gains, radio, "unicast") else (low, middle)
    return low


def is_feasible(bits: int | float, gains: Sequence[float], radio: Radio, cast: Cast) -> bool:
    """Whether all receivers can be served within deadline and power limit, eq. (11b).

    Args:
        bits: size of the payload.
        gains: linear power gains to the receivers.
        radio: the settings.
        cast: broadcast: the one transmission stays within p_max; unicast: the sum of the powers does.

    Returns:
        True also where there is nobody to serve.

    >>> is_feasible(1e5, [1e-9, 1e-8], Radio(), "unicast")
    True
    """
    powers_w = (broadcast_power_w(bits, gains, radio),) if cast == "broadcast" else unicast_powers_w(bits, gains, radio)
    return math.fsum(powers_w) <= max_power_w(radio)


def served(bits: int | float, gains: Mapping[int, float], radio: Radio, cast: Cast) -> tuple[int, ...]:
    """Which receivers to serve when not all can be: all within reach (broadcast), the strongest (unicast).

    In unicast an equally split band stays split by everybody asked for, and powers add up: the strongest first, as
    many as fit the limit, which is the most that any choice could serve. The optimal split is made again for those
    that are served.

    Args:
        bits: size of the payload.
        gains: linear power gain by receiver.
        radio: the settings.
        cast: broadcast or unicast.

    Returns:
        Ids, ascending.

    >>> served(1e5, {1: 1e-9, 2: 1e-20}, Radio(), "broadcast")
    (1,)
    """
    limit_w = max_power_w(radio)
    if cast == "broadcast":
        return tuple(j for j in sorted(gains) if required_power_w(bits, gains[j], 1, radio) <= limit_w)
    ranked = sorted(gains, key=lambda j: (-gains[j], j))
    if radio.split == "optimal":
        count = len(ranked)
        while count and not is_feasible(bits, [gains[j] for j in ranked[:count]], radio, "unicast"):
            count -= 1
        return tuple(sorted(ranked[:count]))
    powers_w = unicast_powers_w(bits, [gains[j] for j in ranked], radio)
    count = 0
    while count < len(ranked) and math.fsum(powers_w[: count + 1]) <= limit_w:
        count += 1
    return tuple(sorted(ranked[:count]))


def required_powers_w(
    bits: Real[np.ndarray, " P"] | int | float,
    gains: Float[np.ndarray, " P"],
    radio: Radio,
    share: Int[np.ndarray, " P"] | int = 1,
) -> Float[np.ndarray, " P"]:
    """Lemma 1 for many links at once, eq. (25): `required_power_w` element by element.

    Args:
        bits: payload of each link, or one for all; >= 0.
        gains: linear power gain of each link, >= 0.
        radio: the settings.
        share: how many links split the band of each sender, or one number for all.

    Returns:
        W, [P]; infinite where no power is enough, 0 for no bits. A link is usable where it is at most `max_power_w`.

    Raises:
        ValueError: a negative size or gain, one that is not a number, or a share below 1.

    >>> radio = Radio(noise_dbm_per_hz=-90.0, noise_figure_db=0.0)
    >>> required_powers_w(2e6, np.array([1e-5, 0.0]), radio).round(9).tolist()
    [0.3, inf]
    """
    size, part = np.broadcast_arrays(np.asarray(bits, dtype=np.float64), np.asarray(share), gains)[:2]
    if not np.all(part >= 1):
        raise ValueError("a band is shared by at least one link; a share is below 1")
    if not np.all(gains >= 0.0):
        raise ValueError("a power gain is negative or not a number; gains are >= 0")
    if not np.all(size >= 0.0):
        raise ValueError("a payload is negative or not a number; sizes are bits >= 0")
    band_hz = radio.bandwidth_hz / part
    noise = from_db(radio.gap_db) * noise_w(radio, radio.bandwidth_hz) / (part if radio.noise == "per_band" else 1)
    on_air = size * bits_on_air(1, radio)
    exponent = np.maximum(on_air / (band_hz * radio.deadline_s), radio.min_efficiency_bps_per_hz)
    hopeless = (gains == 0.0) | (exponent > highest_efficiency(radio))
    reached = np.expm1(np.where(hopeless, 0.0, exponent) * math.log(2.0))
    needed = noise / np.where(hopeless, 1.0, gains) * reached
    return np.where(size == 0.0, 0.0, np.where(hopeless, math.inf, needed))
