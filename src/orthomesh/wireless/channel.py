"""Where devices are and how well they hear each other, III-B: path loss, shadowing and block fading.

The paper writes h = rho d^-alpha with reference gain 1 at 1 m, about 40 dB more than a real antenna pair at
a few GHz gets; `reference_loss_db` says how much less. Other models of loss are chosen by `path_loss`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..rng import exponentials, normals, stream, uniforms
from ..units import from_db
from .fading import Blocks, Kind, Law, effective, ergodic, gaussians, powers, time_correlation
from .mobility import Region, walk
from .pathloss import TABLES, PathLoss, blockage_db, sight_probability, table_db
from .shadowing import Pairs, in_sight, shadow

NEAREST_M = 1.0
"""Distance of the reference loss; the power law says nothing below it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Channel:
    """What lies between the antennas."""

    radius_m: Annotated[float, Field(gt=0)] = 150.0
    """Radius of the disk in which devices lie uniformly, metres. 150: a campus or a street block, where some
    links are good and some are not at handset power. Not used where `positions_m` is given and nobody walks."""

    region: Region = "disk"
    """Shape of the area: a disk, or the square around it (its side is twice `radius_m`)."""

    path_loss: PathLoss = "power_law"
    """Loss over distance: power_law (the paper: `exponent`, `reference_loss_db`), free_space, umi, inh_mixed and
    inh_open (3GPP TR 38.901), d2d_outdoor and d2d_indoor (TR 36.843), v2v_urban and v2v_highway (TR 37.885)."""

    exponent: Annotated[float, Field(ge=0)] = 3.0
    """Path loss exponent alpha of the power law: power falls as distance^-alpha. 2 is free space, 3 a built-up
    area."""

    reference_loss_db: Annotated[float, Field(ge=0)] = 38.0
    """Loss over the first metre in the power law, dB. 38 suits about 2 GHz and isotropic antennas; the paper has 0."""

    carrier_ghz: Annotated[float, Field(gt=0)] = 2.0
    """Carrier frequency of the tables, GHz; the power law has it in its reference loss."""

    sight: Literal["drawn", "always", "never"] = "drawn"
    """Whether antennas see each other: drawn for each pair with the probability of the model, always or never.
    The power law and free space know one state only."""

    shadowing_db: Annotated[float, Field(ge=0)] | None = None
    """Standard deviation of log-normal shadowing, dB; none: that of the path loss model, 0 for the power law."""

    shadowing_distance_m: Annotated[float, Field(gt=0)] = 10.0
    """Way after which shadowing is alike to 1/e, both ends together, metres. 10 to 13 are usual outdoors."""

    shadowing_mean_one: bool = False
    """Scale shadowing to mean power 1 instead of median 1; at 8 dB the difference is 7.4 dB."""

    fading: Kind = "rayleigh"
    """Small-scale fading with mean power 1: rayleigh, rician, nakagami or none."""

    rician_k_db: float = 6.0
    """Power of the fixed path over that of all others, dB, in rician fading."""

    nakagami_m: Annotated[float, Field(ge=0.5)] = 2.0
    """Shape of nakagami fading; 1 is Rayleigh, more is less fading."""

    blocks: Annotated[int, Field(ge=1)] | Literal["ergodic"] = 1
    """Independent fading blocks a transfer lasts: 1 is the paper's (one draw a round), ergodic infinitely many."""

    doppler_hz: Annotated[float, Field(ge=0)] | None = None
    """Doppler spread f_D by which fading stays alike from round to round (Clarke, AR(1)); none: rounds are
    independent."""

    speed_mps: Annotated[float, Field(ge=0)] = 0.0
    """How fast devices walk, m/s: a random direction every round, reflected at the edge."""

    round_s: Annotated[float, Field(gt=0)] = 60.0
    """Time from one round to the next, s; for walking, Doppler and traces."""

    draws: Literal["stream", "hash"] = "stream"
    """How places and plain Rayleigh fading are drawn: a generator for each key, or a hash over all at once, which is
    fifty times faster and worth it from some thousand devices on. All else is hashed in any case."""

    positions_m: tuple[tuple[float, float], ...] | None = None
    """(x, y) of every device in metres, in order of id, instead of random ones."""

    trace: str | None = None
    """CSV or parquet file of measured links (time_s, from, to, and gain or rate_bps) instead of any model. A round
    takes the latest sample of each link at or before its time, round index times `round_s`."""

    trace_max_age_s: Annotated[float, Field(gt=0)] | None = None
    """How old a sample may be, s; none: any age. An older one is a gap in the trace, which stops the run."""


def realistic() -> Channel:
    """Devices in a street at 2 GHz: TR 36.843 with its shadowing, Rayleigh fading over eight blocks a transfer."""
    return Channel(path_loss="d2d_outdoor", blocks=8, draws="hash")


def positions(channel: Channel, seed: int, num_devices: int, round_index: int = 0) -> Float[np.ndarray, "M 2"]:
    """Where the devices are in a round: uniform in the region, or as given; the same in all rounds unless they walk.

    Each device has its own stream, so that adding one moves none of the others.

    Args:
        channel: radius in m, or explicit positions; speed.
        seed: seed of the run.
        num_devices: M; ids are 0..M-1.
        round_index: t.

    Returns:
        (x, y) in m, [M 2]; drawn ones lie within the region.

    Raises:
        ValueError: no device, not exactly one given position per device, or a walk that starts outside.

    >>> positions(Channel(positions_m=((0.0, 0.0), (3.0, 4.0))), 0, 2)[1].tolist()
    [3.0, 4.0]
    """
    return _places(channel, seed, num_devices, round_index)[-1].copy()


@lru_cache(maxsize=4)
def _places(channel: Channel, seed: int, num_devices: int, round_index: int) -> tuple[Float[np.ndarray, "M 2"], ...]:
    """Places in rounds 0..t; one entry where nobody walks."""
    if num_devices < 1:
        raise ValueError(f"positions need at least one device, got {num_devices}")
    if channel.positions_m is not None:
        given = len(channel.positions_m)
        if given != num_devices:
            raise ValueError(f"channel.positions_m has {given} entries for {num_devices} devices; give one each")
        start = np.array(channel.positions_m, dtype=np.float64)
        if not np.all(np.isfinite(start)):
            raise ValueError("channel.positions_m: a coordinate is not a number; places are finite metres")
    else:
        start = _start(channel, seed, num_devices)
    if channel.speed_mps == 0.0:
        return (start,)
    step_m = channel.speed_mps * channel.round_s
    return tuple(walk(start, channel.region, channel.radius_m, step_m, seed, round_index))


def _start(channel: Channel, seed: int, num_devices: int) -> Float[np.ndarray, "M 2"]:
    """Uniform places in the region."""
    if channel.draws == "hash":
        ids = np.arange(num_devices)
        u, v = (uniforms(seed, "position", ids, part) for part in (0, 1))
    else:
        u, v = np.array([stream(seed, "position", i).random(2) for i in range(num_devices)]).T
    if channel.region == "square":
        return channel.radius_m * (2.0 * np.stack([u, v], axis=1) - 1.0)
    if channel.draws == "stream":
        return np.array([_in_disk(channel.radius_m, float(a), float(b)) for a, b in zip(u, v, strict=True)])
    r_m = channel.radius_m * np.sqrt(u)
    return np.stack([r_m * np.cos(2.0 * np.pi * v), r_m * np.sin(2.0 * np.pi * v)], axis=1)


def _in_disk(radius_m: float, u: float, v: float) -> tuple[float, float]:
    """A uniform point of the disk: the square root makes rings of equal area equally likely."""
    r_m, angle = radius_m * math.sqrt(u), 2.0 * math.pi * v
    return r_m * math.cos(angle), r_m * math.sin(angle)


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


def mean_gains(
    channel: Channel,
    seed: int,
    round_index: int,
    num_devices: int,
    pairs: Pairs,
) -> Float[np.ndarray, " P"]:
    """Power gain of each pair without small-scale fading: path loss, sight, blockage and shadowing.

    Args:
        channel: the settings.
        seed: seed of the run.
        round_index: t; matters where devices walk.
        num_devices: M.
        pairs: ids of the two ends of each pair, in any order.

    Returns:
        Linear, > 0, symmetric: a pair has the same gain whichever end comes first and whoever else is asked for.

    Raises:
        ValueError: what `positions` raises, an id that does not exist, a model that is not for this carrier.
    """
    if channel.trace is not None:
        raise ValueError("channel.trace: gains of a trace depend on the radio too, see traces.traced_gains")
    low, high = _sorted(pairs, num_devices)
    places = _places(channel, seed, num_devices, round_index)
    distance_m = np.hypot(*(places[-1][low] - places[-1][high]).T)
    model = channel.path_loss
    if model == "power_law":
        gain = path_gain(distance_m, channel.exponent, channel.reference_loss_db)
        sigma_db = np.full(len(low), channel.shadowing_db or 0.0)
    else:
        seen = _seen(channel, seed, (low, high), distance_m)
        d = np.maximum(distance_m, TABLES[model].nearest_m)
        loss_db = np.where(seen, *(table_db(model, d, channel.carrier_ghz, s) for s in (True, False)))
        if model in ("v2v_urban", "v2v_highway"):
            loss_db = loss_db + np.where(seen, 0.0, blockage_db(d, normals(seed, "blockage", low, high)))
        gain = 10.0 ** (-loss_db / 10.0)
        sigma_db = np.where(seen, *TABLES[model].shadow_db)
        sigma_db = sigma_db if channel.shadowing_db is None else np.full(len(low), channel.shadowing_db)
    if not sigma_db.any():
        return np.asarray(gain)
    z = shadow(seed, (low, high), places, channel.shadowing_distance_m)
    factor = 10.0 ** (sigma_db * z / 10.0)
    if channel.shadowing_mean_one:
        factor = factor / np.exp((sigma_db * math.log(10.0) / 10.0) ** 2 / 2.0)
    return np.asarray(gain * factor)


def fading(channel: Channel, seed: int, round_index: int, pairs: Pairs) -> Blocks:
    """Fading of each pair in every block of a round, mean power 1.

    It is the same both ways (reciprocal, as in time-division duplex), keyed by (round, lower id, higher id): who
    asks first does not matter.

    Args:
        channel: law, number of blocks, Doppler spread.
        seed: seed of the run.
        round_index: round the fading belongs to.
        pairs: ids of the two ends of each pair.

    Returns:
        Powers [P N] and weights; infinitely many blocks are a grid that all pairs share, [1 N].
    """
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    shape = {"rician": from_db(channel.rician_k_db), "nakagami": channel.nakagami_m}.get(channel.fading, 1.0)
    law = Law(channel.fading, shape)
    if channel.fading == "none":
        return Blocks(np.ones((len(low), 1)), np.ones(1))
    if channel.blocks == "ergodic":
        return ergodic(law)
    weights = np.full(channel.blocks, 1.0 / channel.blocks)
    if channel.draws == "stream" and channel.fading == "rayleigh" and channel.doppler_hz is None:
        keys = [(round_index, i, j) for i, j in zip(low.tolist(), high.tolist(), strict=True)]
        return Blocks(exponentials(seed, "fading", keys, channel.blocks), weights)
    alike = 0.0 if channel.doppler_hz is None else time_correlation(channel.doppler_hz, channel.round_s)
    return Blocks(powers(law, gaussians(seed, round_index, (low, high), channel.blocks, alike)), weights)


def pair_gains(
    channel: Channel,
    seed: int,
    round_index: int,
    num_devices: int,
    pairs: Pairs,
    efficiency_bps_per_hz: float = 1.0,
) -> Float[np.ndarray, " P"]:
    """Power gain of the given pairs in one round, for networks too large for a matrix.

    Args:
        channel: the settings.
        seed: seed of the run.
        round_index: round the fading belongs to.
        num_devices: M; ids are 0..M-1.
        pairs: ids of the two ends of each pair.
        efficiency_bps_per_hz: what the link is to carry; matters only with several blocks (see `fading.effective`).

    Returns:
        Linear gains, > 0, the same numbers `gains` has for these pairs.
    """
    low, high = _sorted(pairs, num_devices)
    mean = mean_gains(channel, seed, round_index, num_devices, (low, high))
    return np.asarray(mean * effective(fading(channel, seed, round_index, (low, high)), efficiency_bps_per_hz))


def gains(
    channel: Channel, seed: int, round_index: int, num_devices: int, efficiency_bps_per_hz: float = 1.0
) -> Float[np.ndarray, "M M"]:
    """Power gain of every link in one round; with the paper's settings h_ij = rho_ij G0 d_ij^-alpha.

    rho ~ Exp(1) is the squared modulus of a complex normal gain (the paper calls it the Rayleigh fading
    parameter and uses it as a power). It stays the same for the round and both ways.

    Args:
        channel: the settings.
        seed: seed of the run.
        round_index: round the fading belongs to.
        num_devices: M; ids are 0..M-1.
        efficiency_bps_per_hz: what links are to carry; matters only with several blocks.

    Returns:
        Linear gains, symmetric, [M M], >= 0; the diagonal is 0, a device does not hear itself.
    """
    low, high = np.triu_indices(num_devices, 1)
    matrix = np.zeros((num_devices, num_devices))
    matrix[low, high] = pair_gains(channel, seed, round_index, num_devices, (low, high), efficiency_bps_per_hz)
    return matrix + matrix.T


def _seen(channel: Channel, seed: int, pairs: Pairs, distance_m: Float[np.ndarray, " P"]) -> np.ndarray:
    if channel.sight == "drawn":
        return in_sight(seed, pairs, sight_probability(channel.path_loss, distance_m))
    return np.full(len(distance_m), channel.sight == "always" or channel.path_loss == "free_space")


def _sorted(pairs: Pairs, num_devices: int) -> Pairs:
    """Each pair with the lower id first."""
    low, high = np.minimum(*pairs), np.maximum(*pairs)
    if len(low) and not (low.min() >= 0 and high.max() < num_devices):
        raise ValueError(f"a pair names a device that does not exist; ids are 0..{num_devices - 1}")
    return low, high
