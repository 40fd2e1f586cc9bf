"""Loss over distance: free space and the tables of 3GPP TR 38.901, 36.843 and 37.885, as pure functions in dB.

Distances are metres between antennas on the ground plane, carriers GHz. Every model says how near its measurements
went (`nearest_m`); nearer pairs, two devices in one place included, count as that far. The clamp is our choice: the
tables say nothing there. UMi and InH are models of a base station and a handset; between devices prefer 36.843 or
37.885. Where a figure is from memory of a document that could not be opened, its line says so.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPEED_OF_LIGHT_M_PER_S = 299792458.0
Metres = NDArray[np.float64]
PathLoss = Literal[
    "power_law", "free_space", "umi", "inh_mixed", "inh_open", "d2d_outdoor", "d2d_indoor", "v2v_urban", "v2v_highway"
]


class Table(NamedTuple):
    """What a model says beside its formulas. Shadowing deviations in dB with and without sight."""

    nearest_m: float
    shadow_db: tuple[float, float]


TABLES = {
    "power_law": Table(1.0, (0.0, 0.0)),
    "free_space": Table(1.0, (0.0, 0.0)),
    "umi": Table(10.0, (4.0, 7.82)),
    "inh_mixed": Table(1.0, (3.0, 8.03)),
    "inh_open": Table(1.0, (3.0, 8.03)),
    "d2d_outdoor": Table(3.0, (7.0, 7.0)),  # 7 dB from memory
    "d2d_indoor": Table(3.0, (3.0, 4.0)),  # 3 and 4 dB of the hotzone in TR 36.814, from memory
    "v2v_urban": Table(1.0, (3.0, 3.0)),  # without sight another vehicle is in the way (NLOSv), not a building
    "v2v_highway": Table(1.0, (3.0, 3.0)),
}


def free_space_db(distance_m: Metres, carrier_ghz: float) -> Metres:
    """Free space loss, 20 log10 d + 46.6 + 20 log10(f / 5 GHz).

    >>> round(float(free_space_db(np.array([100.0]), 2.0)[0]), 2)
    78.64
    """
    return np.asarray(20 * np.log10(distance_m) + 46.6 + 20 * math.log10(carrier_ghz / 5))


def umi_db(distance_m: Metres, carrier_ghz: float, sight: bool, base_m: float = 10.0, user_m: float = 1.5) -> Metres:
    """Street canyon, TR 38.901 table 7.4.1-1.

    Args:
        distance_m: on the ground, 10 m to 5 km.
        carrier_ghz: carrier.
        sight: whether antennas see each other.
        base_m: height of the one antenna.
        user_m: height of the other, 1.5 to 22.5.

    Returns:
        dB.

    >>> round(float(umi_db(np.array([100.0]), 2.0, True)[0]), 2)
    80.45
    """
    far_m = np.hypot(distance_m, base_m - user_m)
    break_m = 4 * (base_m - 1) * (user_m - 1) * carrier_ghz * 1e9 / SPEED_OF_LIGHT_M_PER_S
    near = 32.4 + 21 * np.log10(far_m) + 20 * math.log10(carrier_ghz)
    beyond = 32.4 + 40 * np.log10(far_m) + 20 * math.log10(carrier_ghz)
    beyond = beyond - 9.5 * math.log10(break_m**2 + (base_m - user_m) ** 2)
    seen = np.where(distance_m <= break_m, near, beyond)
    if sight:
        return seen
    hidden = 22.4 + 35.3 * np.log10(far_m) + 21.3 * math.log10(carrier_ghz) - 0.3 * (user_m - 1.5)
    return np.maximum(seen, hidden)


def indoor_office_db(distance_m: Metres, carrier_ghz: float, sight: bool) -> Metres:
    """Indoor hotspot (InH), TR 38.901 table 7.4.1-1, 1 to 150 m.

    >>> [round(float(indoor_office_db(np.array([10.0]), 2.0, s)[0]), 2) for s in (True, False)]
    [55.72, 63.1]
    """
    seen = 32.4 + 17.3 * np.log10(distance_m) + 20 * math.log10(carrier_ghz)
    if sight:
        return np.asarray(seen)
    return np.maximum(seen, 17.3 + 38.3 * np.log10(distance_m) + 24.9 * math.log10(carrier_ghz))


def d2d_outdoor_db(distance_m: Metres, carrier_ghz: float, sight: bool, antenna_m: float = 1.5) -> Metres:
    """Device to device outdoors, TR 36.843 A.2.1.2 (WINNER+ B1, never below free space), for 2 GHz.

    The ground seems 0.7 m higher than it is, so antennas at 1.5 m act as if at 0.8 m.

    Args:
        distance_m: at least 3 m.
        carrier_ghz: 2; the table has another set of constants for 700 MHz that we could not check.
        sight: whether antennas see each other.
        antenna_m: height of both antennas.

    Returns:
        dB.

    Raises:
        ValueError: another carrier.

    >>> [round(float(d2d_outdoor_db(np.array([100.0]), 2.0, s)[0]), 2) for s in (True, False)]
    [91.73, 108.83]
    """
    if carrier_ghz != 2.0:
        raise ValueError(f"channel.carrier_ghz: the outdoor model of TR 36.843 is for 2 GHz, got {carrier_ghz}")
    low_m = antenna_m - 0.7
    break_m = 4 * low_m**2 * carrier_ghz * 1e9 / SPEED_OF_LIGHT_M_PER_S
    if sight:
        near = 22.7 * np.log10(distance_m) + 27.0 + 20 * math.log10(carrier_ghz)
        beyond = 40 * np.log10(distance_m) + 7.56 - 34.6 * math.log10(low_m) + 2.7 * math.log10(carrier_ghz)
        street = np.where(distance_m <= break_m, near, beyond)
    else:
        street = (44.9 - 6.55 * math.log10(antenna_m)) * np.log10(distance_m) + 5.83 * math.log10(antenna_m)
        street = street + 14.78 + 34.97 * math.log10(carrier_ghz) - 5
    return np.maximum(free_space_db(distance_m, carrier_ghz), street)


def d2d_indoor_db(distance_m: Metres, sight: bool) -> Metres:
    """Device to device indoors, TR 36.843: 89.5 + 16.9 log10(km) in sight, else 147.4 + 43.3 log10(km).

    One implementation has 147.5 in one of its branches; we take 147.4, as TR 36.814 has it.

    >>> [round(float(d2d_indoor_db(np.array([10.0]), s)[0]), 1) for s in (True, False)]
    [55.7, 60.8]
    """
    km = np.log10(distance_m / 1000)
    return np.asarray(89.5 + 16.9 * km if sight else 147.4 + 43.3 * km)


def vehicles_db(distance_m: Metres, carrier_ghz: float, place: Literal["urban", "highway", "corner"]) -> Metres:
    """Vehicle to vehicle, TR 37.885 table 6.2.1-1, in sight in a street or on a highway, or around a corner (NLOS).

    Args:
        distance_m: > 0.
        carrier_ghz: carrier.
        place: street or highway in sight; `corner`: another street, hidden by buildings.

    Returns:
        dB; where a vehicle is in the way (NLOSv), `blockage_db` comes on top.

    >>> [round(float(vehicles_db(np.array([100.0]), 5.9, p)[0]), 2) for p in ("urban", "highway", "corner")]
    [86.2, 87.82, 111.42]
    """
    start, slope, carrier = {
        "urban": (38.77, 16.7, 18.2),
        "highway": (32.4, 20.0, 20.0),
        "corner": (36.85, 30.0, 18.9),
    }[place]
    return np.asarray(start + slope * np.log10(distance_m) + carrier * math.log10(carrier_ghz))


def blockage_db(distance_m: Metres, normal: Metres, both_below: bool = False) -> Metres:
    """What a vehicle between two vehicles takes (NLOSv), TR 37.885: normal in dB, floored at 0.

    Args:
        distance_m: > 0.
        normal: standard normal numbers, one a pair.
        both_below: both antennas lower than the vehicle between: mean 9 and deviation 4.5 dB instead of 5 and 4.

    Returns:
        dB, >= 0.
    """
    mean, deviation = (9.0, 4.5) if both_below else (5.0, 4.0)
    return np.asarray(np.maximum(0.0, mean + np.maximum(0.0, 15 * np.log10(distance_m) - 41) + deviation * normal))


def sight_probability(model: PathLoss, distance_m: Metres) -> Metres:
    """How likely two antennas see each other at a distance; 1 for models that know only one state.

    Args:
        model: UMi, InH mixed or open, 36.843 outdoors or indoors as in the tables; 37.885 from memory of TR 37.885.
        distance_m: >= 0.

    Returns:
        In [0, 1].

    >>> [round(float(p), 3) for p in sight_probability("umi", np.array([10.0, 18.0, 100.0]))]
    [1.0, 1.0, 0.231]
    """
    d = np.maximum(distance_m, 1e-9)
    if model == "umi":
        return np.where(d <= 18, 1.0, 18 / d + np.exp(-d / 36) * (1 - 18 / d))
    if model == "inh_mixed":
        return np.where(d <= 1.2, 1.0, np.where(d < 6.5, np.exp(-(d - 1.2) / 4.7), 0.32 * np.exp(-(d - 6.5) / 32.6)))
    if model == "inh_open":
        return np.where(d <= 5, 1.0, np.where(d <= 49, np.exp(-(d - 5) / 70.8), 0.54 * np.exp(-(d - 49) / 211.7)))
    if model == "d2d_outdoor":
        return np.asarray(np.minimum(18 / d, 1) * (1 - np.exp(-d / 36)) + np.exp(-d / 36))
    if model == "d2d_indoor":
        return np.where(d <= 18, 1.0, np.where(d < 37, np.exp(-(d - 18) / 27), 0.5))
    if model == "v2v_urban":
        return np.asarray(np.minimum(1.0, 1.05 * np.exp(-0.0114 * d)))
    if model == "v2v_highway":
        near = np.minimum(1.0, 2.1013e-6 * d**2 - 0.002 * d + 1.0193)
        return np.where(d <= 475, near, np.maximum(0.0, 0.54 - 0.001 * (d - 475)))
    return np.ones_like(d)


def table_db(model: PathLoss, distance_m: Metres, carrier_ghz: float, sight: bool) -> Metres:
    """Mean loss of one of the models with fixed constants; blockage between vehicles comes on top.

    Args:
        model: any but the power law, which is `channel.path_gain`.
        distance_m: >= 0; nearer than `TABLES[model].nearest_m` counts as that.
        carrier_ghz: carrier.
        sight: whether antennas see each other.

    Returns:
        dB, same shape.

    Raises:
        ValueError: the power law, or a carrier the model is not for.
    """
    d = np.maximum(distance_m, TABLES[model].nearest_m)
    if model == "free_space":
        return free_space_db(d, carrier_ghz)
    if model == "umi":
        return umi_db(d, carrier_ghz, sight)
    if model in ("inh_mixed", "inh_open"):
        return indoor_office_db(d, carrier_ghz, sight)
    if model == "d2d_outdoor":
        return d2d_outdoor_db(d, carrier_ghz, sight)
    if model == "d2d_indoor":
        return d2d_indoor_db(d, sight)
    if model in ("v2v_urban", "v2v_highway"):
        return vehicles_db(d, carrier_ghz, "urban" if model == "v2v_urban" else "highway")
    raise ValueError(f"the loss of {model!r} has constants of its own, see channel.path_gain")
