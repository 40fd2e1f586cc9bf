"""Aggregation by the air itself: all transmit at once and the receiver hears the sum, an alternative to frames.

It delivers what (24) with `aggregation: mean` needs, the sum over a cluster, and cannot deliver anybody's part. How
strong devices transmit and what error that leaves: `powercontrol`. The common mask of time-correlated sparsification
(Sun et al., arXiv 2202.08420) is `union.support` of the cluster's masks: since masks stay (18), all know it after the
first round and nobody has anything outside it to send beside the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as record
from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..rng import stream
from ..types import Array
from .powercontrol import best_threshold, check_count, received_snr


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OverAir:
    """How devices add up over the air."""

    threshold: Annotated[float, Field(gt=0)] | None = None
    """Fading power below which a device stays silent for a block; none: the one of least error."""
    peak_to_mean: Annotated[float, Field(gt=0)] = 4.0
    """Peak over mean transmit power, linear; 4 is 6 dB."""
    phase_std_rad: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the phase that synchronisation leaves to each device and block, radians."""
    block_symbols: Annotated[int, Field(ge=1)] = 256
    """Symbols of one fading block."""


@record(frozen=True, kw_only=True)
class Superposed:
    """What one over-the-air aggregation gives and takes.

    mean: estimate of the mean over the devices. [D]
    active: devices heard in each block; nobody: the block's estimate is 0. [blocks]
    threshold: in use. symbols: complex symbols of every device. mean_power: transmit power over the mean limit,
    by id, on average over fading and while all entries are as large as the largest root mean square; in (0, 1].
    """

    mean: Array
    active: Array
    threshold: float
    symbols: int
    mean_power: Mapping[int, float]


def superpose(
    values: Mapping[int, Float[np.ndarray, " D"]], snr: Mapping[int, float], c: OverAir, seed: int, *ids: int
) -> Superposed:
    """The mean over devices as it comes out of the air, with truncation, noise and phase errors.

    Devices agree digitally on the largest root mean square of their entries, the unit of amplitude (`control_bytes`),
    so that nobody exceeds its power; zeros take symbols and no power. The receiver knows how many are active.

    Args:
        values: entries by id, all of one length D: two devices at least.
        snr: mean transmit power times mean gain to the receiver over noise, by id, linear.
        c: threshold, peak, phase, blocks.
        seed: of the run.
        ids: round, receiver, ...: what the draws belong to.

    Returns:
        The estimate and what it took.

    Raises:
        ValueError: one device, entries of different lengths or not finite, an SNR that is missing or not positive.
    """
    order = sorted(values)
    check_count(len(order))
    size = len(values[order[0]])
    if any(len(values[k]) != size or not np.isfinite(values[k]).all() for k in order) or size == 0:
        raise ValueError("what adds up over the air has one length above 0 and finite entries on all devices")
    if not snr.keys() >= set(order):
        raise ValueError(f"the SNR of devices {sorted(set(order) - snr.keys())} is missing")
    gamma = [snr[k] for k in order]
    threshold = c.threshold or best_threshold(gamma, c.peak_to_mean, c.phase_std_rad)
    rho = received_snr(threshold, gamma, c.peak_to_mean)
    unit = max(float(np.sqrt(np.mean(np.square(values[k], dtype=np.float64)))) for k in order)
    symbols = -(-size // 2)
    num_blocks = -(-symbols // c.block_symbols)
    block = np.arange(symbols) // c.block_symbols
    heard = np.zeros(symbols, dtype=np.complex128)
    active = np.zeros(num_blocks, dtype=np.int64)
    for k in order:
        rng = stream(seed, "over-air", *ids, k)
        on = rng.standard_exponential(num_blocks) >= threshold
        turn = np.exp(1j * c.phase_std_rad * rng.standard_normal(num_blocks))
        heard += _symbols(values[k], unit or 1.0, symbols) * (on * turn)[block]
        active += on
    noise = stream(seed, "over-air-noise", *ids).standard_normal((2, symbols)) / np.sqrt(2.0 * rho)
    shrink = np.exp(-(c.phase_std_rad**2) / 2.0)
    estimate = (
        np.where(active > 0, 1.0 / np.maximum(active, 1), 0.0)[block] * (heard + noise[0] + 1j * noise[1]) / shrink
    )
    reals = np.sqrt(2.0) * unit * np.stack([estimate.real, estimate.imag], axis=1).ravel()[:size]
    spent = {k: float(rho / received_snr(threshold, [snr[k]], np.inf)) for k in order}
    return Superposed(mean=reals, active=active, threshold=threshold, symbols=symbols, mean_power=spent)


def _symbols(values: Array, unit: float, symbols: int) -> Array:
    """Pairs of entries as complex symbols, of unit mean power where entries have root mean square `unit`."""
    padded = np.zeros(2 * symbols)
    padded[: len(values)] = values
    return np.asarray((padded[::2] + 1j * padded[1::2]) / (np.sqrt(2.0) * unit))


def control_bytes(num_devices: int, num_parts: int) -> int:
    """Bytes told digitally first: one 32-bit root mean square of each separately scaled part from every device.

    >>> control_bytes(5, 28)
    560
    """
    return 4 * num_devices * num_parts


def airtime_s(num_entries: int, bandwidth_hz: float) -> float:
    """Seconds of one over-the-air slot, ceil(D / 2) / W: all devices at once, whatever their number.

    Raises:
        ValueError: a band that is not positive, or a negative count.

    >>> airtime_s(4_000_000, 1e6)
    2.0
    """
    if not (bandwidth_hz > 0.0 and num_entries >= 0):
        raise ValueError(f"a slot has entries >= 0 and a band above 0 Hz, got {num_entries} and {bandwidth_hz}")
    return -(-num_entries // 2) / bandwidth_hz


def break_even_efficiency(density: float, bits: int, support: float = 1.0) -> float:
    """Spectral efficiency below which an over-the-air slot is shorter than a digital broadcast, 2 s b / s_u bit/s/Hz.

    A slot takes s_u D / (2 W) s, the broadcast of one device s D b / (W SE).

    Args:
        density: s, share of entries a device sends digitally.
        bits: b, of one value.
        support: s_u, share of entries that anybody of the cluster holds if all know it, else 1.

    Raises:
        ValueError: shares that are not 0 < s <= s_u <= 1, or no bits.

    >>> break_even_efficiency(0.25, 16), break_even_efficiency(0.25, 4)
    (8.0, 2.0)
    """
    if not (0.0 < density <= support <= 1.0 and bits > 0):
        raise ValueError(f"shares are 0 < s <= s_u <= 1 and bits above 0, got {density}, {support} and {bits}")
    return 2.0 * density * bits / support
