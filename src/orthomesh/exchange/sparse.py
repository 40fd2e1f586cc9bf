"""The largest entries of a vector as they travel: a bitmap of where they are, and their values in 16 bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ..types import Array, Arrays, Column

COLUMN_OF: Mapping[str, Column] = {"mask": "mask", "values": "values", "version": "control"}
"""What its parts are charged to."""
HEAD_BITS = 2048
"""More than all that a frame takes beside the bits of its mask and values."""


def packed(x: Float[np.ndarray, " n"], density: float, sizes: Sequence[int] = ()) -> dict[str, Array]:
    r"""The largest magnitudes of a vector, top-k by |x|, never by x.

    Args:
        x: the vector. [n]
        density: share that is kept, k = round(s n), at least one.
        sizes: of parts of the vector that are ranked each for itself; none: all together.

    Returns:
        mask, one bit an entry, and values, float16, in order. [ceil(n / 8)], [k]

    Raises:
        ValueError: a density outside (0, 1].

    >>> packed(np.array([1.0, -3.0, 2.0, 0.0]), 0.5)["values"].tolist()
    [-3.0, 2.0]
    """
    mask, start = np.zeros(x.size, dtype=bool), 0
    for size in sizes or (x.size,):
        most = kept(size, density)
        mask[start + np.argsort(-np.abs(x[start : start + size]), kind="stable")[:most]] = True
        start += size
    return {"mask": np.packbits(mask), "values": x[mask].astype(np.float16)}


def opened(parts: Arrays, size: int, src: int) -> Float[np.ndarray, " n"]:
    """The vector with zeros where nothing was sent, float32.

    Args:
        parts: mask and values.
        size: n.
        src: who sent it.

    Raises:
        ValueError: a mask of another length, values that do not fit it or are not finite.
    """
    if not parts.keys() >= {"mask", "values"} or parts["mask"].shape != (-(-size // 8),):
        raise ValueError(f"device {src} sent {sorted(parts)} where a mask of {size} bits and values belong")
    mask = np.unpackbits(parts["mask"], count=size).astype(bool)
    if parts["values"].shape != (int(mask.sum()),):
        raise ValueError(f"device {src} sent {parts['values'].size} values that do not fit its mask")
    if not np.isfinite(parts["values"]).all():
        raise ValueError(f"device {src} sent values that are not finite, its training has diverged")
    x = np.zeros(size, dtype=np.float32)
    x[mask] = parts["values"]
    return x


def most_bits(size: int, density: float) -> int:
    """Most bits that such a frame takes.

    >>> most_bits(100, 0.1)
    2324
    """
    return HEAD_BITS + size + 16 * (kept(size, density) + 1)


def kept(size: int, density: float) -> int:
    """How many entries travel, k = round(s n), at least one.

    Raises:
        ValueError: a density outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must lie in (0, 1], the share of entries that travel; got {density}")
    return max(1, round(density * size))
