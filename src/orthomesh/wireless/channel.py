"""Where devices are and how well they hear each other, III-B: path loss with Rayleigh block fading.

The paper writes h = rho d^-alpha with reference gain 1 at 1 m, about 40 dB more than a real antenna pair at
a few GHz gets; `reference_loss_db` says how much less.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..rng import stream
from ..units import from_db

NEAREST_M = 1.0
"""Distance of the reference loss; the power law says nothing below it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Channel:
    """What lies between the antennas."""

    radius_m: Annotated[float, Field(gt=0)] = 150.0
    """Radius of the disk in which devices lie uniformly, metres. 150: a campus or a street block, where some
    links are good and some are not at handset power. Not used where `positions_m` is given."""

    exponent: Annotated[float, Field(ge=0)] = 3.0
    """Path loss exponent alpha: power falls as distance^-alpha. 2 is free space, 3 a built-up area."""

    reference_loss_db: Annotated[float, Field(ge=0)] = 38.0
    """Loss over the first metre, dB. 38 suits about 2 GHz and isotropic antennas; the paper has 0."""

    fading: Literal["rayleigh", "none"] = "rayleigh"
    """Small-scale fading: one draw per pair and round with mean power 1, or none."""

    positions_m: tuple[tuple[float, float], ...] | None = None
    """(x, y) of every device in metres, in order of id, instead of random ones."""


def positions(channel: Channel, seed: int, num_devices: int) -> Float[np.ndarray, "M 2"]:
    """Where the devices are: uniform in the disk, or as given.

    Each device has its own stream, so that adding one moves none of the others.

    Args:
        channel: radius in m, or explicit positions.
        seed: seed of the run.
        num_devices: M; ids are 0..M-1.

    Returns:
        (x, y) in m, [M 2]; drawn ones lie within `radius_m` of the origin.

    Raises:
        ValueError: no device, or not exactly one given position per device.

    >>> positions(Channel(positions_m=((0.0, 0.0), (3.0, 4.0))), 0, 2)[1].tolist()
    [3.0, 4.0]
    """
    if num_devices < 1:
        raise ValueError(f"positions need at least one device, got {num_devices}")
    if channel.positions_m is not None:
        given = len(channel.positions_m)
        if given != num_devices:
            raise ValueError(f"channel.positions_m has {given} entries for {num_devices} devices; give one each")
        return np.array(channel.positions_m, dtype=np.float64)
    return np.array([_in_disk(channel.radius_m, seed, i) for i in range(num_devices)])


def path_gain(
    distance_m: Float[np.ndarray, "*shape"], exponent: float, reference_loss_db: float
) -> Float[np.ndarray, "*shape"]:
    """Mean power gain over a distance, G0 max(d, 1 m)^-alpha with G0 = 10^(-PL0/10).

    Distances below 1 m count as 1 m: the power law has no meaning in the near field and would otherwise
    promise more power than was sent. This clamp is our choice; the paper has none.

    Args:
        distance_m: m, any shape, >= 0.
        exponent: alpha.
        reference_loss_db: PL0, loss at 1 m in dB.

    Returns:
        Linear power gain in (0, G0], same shape.

    Raises:
        ValueError: a distance that is negative or not a number.

    >>> path_gain(np.array([0.1, 1.0, 10.0]), 2.0, 0.0).tolist()
    [1.0, 1.0, 0.01]
    """
    if not np.all(distance_m >= 0.0):
        raise ValueError("a distance is negative or not a number; distances are metres >= 0")
    return np.asarray(from_db(-reference_loss_db) * np.maximum(distance_m, NEAREST_M) ** -exponent)


def gains(channel: Channel, seed: int, round_index: int, num_devices: int) -> Float[np.ndarray, "M M"]:
    """Power gain of every link in one round, h_ij = rho_ij G0 d_ij^-alpha.

    rho ~ Exp(1) is the squared modulus of a complex normal gain (the paper calls it the Rayleigh fading
    parameter and uses it as a power). It stays the same for the round and both ways (block fading, reciprocal
    as in time-division duplex), keyed by (round, lower id, higher id): who asks first does not matter.

    Args:
        channel: the settings.
        seed: seed of the run.
        round_index: round the fading belongs to.
        num_devices: M; ids are 0..M-1.

    Returns:
        Linear gains, symmetric, [M M], >= 0; the diagonal is 0, a device does not hear itself.
    """
    xy_m = positions(channel, seed, num_devices)
    distance_m = np.hypot(*(xy_m[:, None, :] - xy_m[None, :, :]).transpose(2, 0, 1))
    gain = path_gain(distance_m, channel.exponent, channel.reference_loss_db)
    if channel.fading == "rayleigh":
        for i in range(num_devices):
            for j in range(i + 1, num_devices):
                rho = stream(seed, "fading", round_index, i, j).standard_exponential()
                gain[i, j] *= rho
                gain[j, i] = gain[i, j]
    np.fill_diagonal(gain, 0.0)
    return gain


def _in_disk(radius_m: float, seed: int, device: int) -> tuple[float, float]:
    """A uniform point of the disk: the square root makes rings of equal area equally likely."""
    u, v = stream(seed, "position", device).random(2)
    r_m, angle = radius_m * math.sqrt(u), 2.0 * math.pi * v
    return r_m * math.cos(angle), r_m * math.sin(angle)
