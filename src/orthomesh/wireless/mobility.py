"""Devices that walk: a random direction every round, reflected at the edge, so that places stay uniform.

A random waypoint would gather devices in the middle and slow down with time; a walk that is reflected like light
keeps the uniform distribution it starts from (the billiard map preserves area times angle).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from ..rng import uniforms

Region = Literal["disk", "square"]


def walk(
    start_m: Float[np.ndarray, "M 2"], region: Region, radius_m: float, step_m: float, seed: int, rounds: int
) -> list[Float[np.ndarray, "M 2"]]:
    """Where everybody is in rounds 0..rounds; round 0 is the start.

    Keyed by (seed, round, device): where a device is in a round depends on nothing else.

    Args:
        start_m: places in round 0, inside the region, m.
        region: a disk around the origin, or the square that touches it from outside.
        radius_m: of the disk; half the side of the square.
        step_m: way walked between two rounds, m.
        seed: seed of the run.
        rounds: how far to go, >= 0.

    Returns:
        rounds + 1 arrays [M 2], all inside the region.

    Raises:
        ValueError: a start outside the region, or a negative step.

    >>> places = walk(np.zeros((2, 2)), "disk", 10.0, 3.0, 0, 1)
    >>> np.hypot(*places[1].T).round(9).tolist()
    [3.0, 3.0]
    """
    if not step_m >= 0.0:
        raise ValueError(f"a step is a way in metres >= 0, got {step_m}")
    reach_m = np.hypot(*start_m.T) if region == "disk" else np.abs(start_m).max(axis=1)
    outside = np.flatnonzero(~(reach_m <= radius_m * (1 + 1e-9)))
    if outside.size:
        k = int(outside[0])
        raise ValueError(f"device {k} at {start_m[k].tolist()} m lies outside the {region} of {radius_m} m it walks in")
    places, ids = [start_m], np.arange(len(start_m))
    for index in range(1, rounds + 1):
        angle = 2.0 * np.pi * uniforms(seed, "walk", index, ids)
        way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        step = _billiard if region == "disk" else _fold
        places.append(step(places[-1], way, radius_m, step_m))
    return places


def _fold(at: Float[np.ndarray, "M 2"], way: Float[np.ndarray, "M 2"], half_m: float, step_m: float) -> np.ndarray:
    """Reflection at the sides of a square: coordinates unfold to a line and fold back."""
    y = np.mod(at + step_m * way + half_m, 4.0 * half_m)
    return np.minimum(y, 4.0 * half_m - y) - half_m


def _billiard(
    at: Float[np.ndarray, "M 2"], way: Float[np.ndarray, "M 2"], radius_m: float, step_m: float
) -> np.ndarray:
    """Reflection at a circle. All chords of one path are equally long and turn by the same angle, so that any number
    of reflections is one rotation."""
    along = np.sum(at * way, axis=1)
    room = np.maximum(0.0, radius_m**2 - np.sum(at * at, axis=1))
    to_edge = np.sqrt(along**2 + room) - along
    hit = at + to_edge[:, None] * way
    outward = hit / np.maximum(np.hypot(*hit.T), 1e-300)[:, None]
    across = np.sum(way * outward, axis=1)  # cosine of the angle of incidence
    back = way - 2.0 * across[:, None] * outward
    chord = np.maximum(2.0 * radius_m * across, 1e-9 * radius_m)
    left = np.maximum(0.0, step_m - to_edge)
    whole = np.floor(left / chord)
    turn = np.pi - 2.0 * np.arccos(np.clip(across, 0.0, 1.0))
    turn = whole * turn * np.where(outward[:, 0] * back[:, 1] >= outward[:, 1] * back[:, 0], 1.0, -1.0)
    inside = hit + (left - whole * chord)[:, None] * back
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.stack([cos * inside[:, 0] - sin * inside[:, 1], sin * inside[:, 0] + cos * inside[:, 1]], axis=1)
    ended = np.where((step_m > to_edge)[:, None], turned, at + step_m * way)
    far = np.hypot(*ended.T)
    kept = np.minimum(1.0, radius_m / np.maximum(far, 1e-300))  # rounding must not leave the disk
    return np.asarray(ended * kept[:, None])
