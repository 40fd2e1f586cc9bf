"""How often a transmission fails: outage, packet errors, repetition with and without combining, short codewords."""

from __future__ import annotations

import math

import numpy as np

from ..rng import stream


def outage(efficiency_bps_per_hz: float, mean_snr: float, receivers: int = 1) -> float:
    """Probability that Rayleigh fading does not carry a rate chosen without knowing it, 1 - exp(-n (2^R - 1) / g).

    Args:
        efficiency_bps_per_hz: R.
        mean_snr: g, linear, > 0.
        receivers: n, of a broadcast that all are to decode, with independent fading and the same mean.

    Returns:
        In [0, 1].

    Raises:
        ValueError: a mean signal-to-noise ratio that is not positive.

    >>> round(outage(2.0, 10.0), 4)
    0.2592
    """
    _positive(mean_snr)
    return -math.expm1(-receivers * math.expm1(efficiency_bps_per_hz * math.log(2.0)) / mean_snr)


def packet_error(snr: float, threshold: float = 1.0) -> float:
    """Packet error rate of Chen et al., q = 1 - exp(-m / snr).

    Args:
        snr: p h / (I + N), linear, >= 0.
        threshold: waterfall threshold m, linear. The authors' code has 1.08, a port of it 0.023; the table behind both
            seems to be 0.023 dB, which is 1.005.

    Returns:
        In [0, 1]; 1 without signal.

    >>> round(packet_error(10.0, 1.08), 4)
    0.1024
    """
    if not (snr >= 0.0 and threshold >= 0.0):
        raise ValueError(f"packet errors need a ratio and a threshold >= 0, got {snr} and {threshold}")
    return -math.expm1(-threshold / snr) if snr > 0.0 else 1.0


def mean_packet_error(mean_snr: float, threshold: float = 1.0) -> float:
    """Packet error rate averaged over Rayleigh fading, E[q] = 1 - 2 sqrt(m/g) K1(2 sqrt(m/g)).

    Args:
        mean_snr: g, linear, > 0.
        threshold: m, linear, > 0.

    Returns:
        In [0, 1].

    >>> round(mean_packet_error(10.0, 1.08), 5)
    0.24498
    """
    from scipy.special import k1

    _positive(mean_snr)
    _positive(threshold)
    z = 2.0 * math.sqrt(threshold / mean_snr)
    return float(1.0 - z * k1(z))


def residual_loss(packet_loss: float, transmissions: int) -> float:
    """Probability that a packet is still missing after K transmissions with independent losses (ARQ), q^K.

    >>> residual_loss(0.1, 3)
    0.0010000000000000002
    """
    _check_arq(packet_loss, transmissions)
    return packet_loss**transmissions


def mean_transmissions(packet_loss: float, transmissions: int) -> float:
    """How often a packet is sent on average when it is repeated until it arrives, K times at most, (1-q^K)/(1-q).

    >>> mean_transmissions(0.5, 2)
    1.5
    """
    _check_arq(packet_loss, transmissions)
    return (1.0 - packet_loss**transmissions) / (1.0 - packet_loss)


def payload_loss(num_bytes: int, packet_bytes: int, packet_loss: float, transmissions: int) -> float:
    """Probability that at least one packet of a payload is missing in the end, 1 - (1 - q^K)^packets.

    >>> payload_loss(3000, 1500, 0.5, 1)
    0.75
    """
    packets = -(-num_bytes // packet_bytes)
    left = residual_loss(packet_loss, transmissions)
    return -math.expm1(packets * math.log1p(-left))


def chase_outage(efficiency_bps_per_hz: float, mean_snr: float, transmissions: int) -> float:
    """Outage after K repetitions whose powers add up (HARQ with chase combining), independent Rayleigh blocks.

    The regularised lower incomplete gamma function P(K, (2^R - 1)/g).

    Args:
        efficiency_bps_per_hz: R of the first transmission.
        mean_snr: g of each, linear, > 0.
        transmissions: K >= 1.

    Returns:
        In [0, 1]; K = 1 is `outage`.

    >>> round(chase_outage(2.0, 10.0, 1), 4)
    0.2592
    """
    from scipy.special import gammainc

    _positive(mean_snr)
    _check_arq(0.0, transmissions)
    return float(gammainc(transmissions, math.expm1(efficiency_bps_per_hz * math.log(2.0)) / mean_snr))


def incremental_outage(
    efficiency_bps_per_hz: float, mean_snr: float, transmissions: int, seed: int, draws: int = 100_000
) -> float:
    """Outage after K transmissions whose information adds up (HARQ with incremental redundancy), by Monte Carlo.

    P(sum_k log2(1 + g rho_k) < R) over independent Rayleigh blocks; no closed form is used.

    Args:
        efficiency_bps_per_hz: R of the first transmission.
        mean_snr: g, linear, > 0.
        transmissions: K >= 1.
        seed: of the draws.
        draws: how many; the standard error is at most 0.5 / sqrt(draws).

    Returns:
        In [0, 1].
    """
    _positive(mean_snr)
    _check_arq(0.0, transmissions)
    rho = stream(seed, "incremental-redundancy").standard_exponential((draws, transmissions))
    return float(np.mean(np.log2(1.0 + mean_snr * rho).sum(axis=1) < efficiency_bps_per_hz))


def short_codeword_error(bits: int, channel_uses: int, snr: float) -> float:
    """Block error rate of a short codeword, normal approximation for the complex Gaussian channel.

    eps = Q((n C - k + log2(n) / 2) / sqrt(n V)), V = (1 - (1 + snr)^-2) log2(e)^2 (Polyanskiy, Poor, Verdu 2010). For
    control messages; payloads are long, and where they fade outage dominates.

    Args:
        bits: k >= 1.
        channel_uses: n >= 1.
        snr: linear, > 0.

    Returns:
        In [0, 1].

    >>> round(short_codeword_error(418, 500, 1.0), 4)  # 0.836 of the capacity of 1 bit a use
    0.001
    """
    _positive(snr)
    if bits < 1 or channel_uses < 1:
        raise ValueError(f"a codeword has bits and channel uses >= 1, got {bits} and {channel_uses}")
    capacity = math.log2(1.0 + snr)
    dispersion = (1.0 - (1.0 + snr) ** -2) * math.log2(math.e) ** 2
    margin = channel_uses * capacity - bits + 0.5 * math.log2(channel_uses)
    return 0.5 * math.erfc(margin / math.sqrt(2.0 * channel_uses * dispersion))


def _positive(value: float) -> None:
    if not value > 0.0:
        raise ValueError(f"a mean ratio of powers is > 0, got {value}")


def _check_arq(packet_loss: float, transmissions: int) -> None:
    if not (0.0 <= packet_loss < 1.0 and transmissions >= 1):
        raise ValueError(
            f"repetition needs a loss in [0, 1) and at least one transmission, got {packet_loss} and {transmissions}"
        )
