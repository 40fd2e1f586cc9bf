"""Decibels to linear and back: the only file that converts. Inside the package everything is linear SI."""

from __future__ import annotations

import math


def from_db(value_db: float) -> float:
    """Ratio of powers for decibels, 10^(x/10).

    >>> from_db(20.0)
    100.0
    """
    return float(10.0 ** (value_db / 10.0))


def to_db(ratio: float) -> float:
    """Decibels for a ratio of powers, 10 log10(x); -inf for 0.

    >>> to_db(1000.0)
    30.0
    """
    if not ratio >= 0:
        raise ValueError(f"a ratio of powers cannot be negative, got {ratio}")
    return 10.0 * math.log10(ratio) if ratio > 0 else -math.inf


def from_dbm(value_dbm: float) -> float:
    """Watts for dBm, 10^((x-30)/10).

    >>> from_dbm(30.0)
    1.0
    """
    return from_db(value_dbm - 30.0)


def to_dbm(power_w: float) -> float:
    """dBm for watts.

    >>> to_dbm(0.001)
    0.0
    """
    return to_db(power_w) + 30.0
