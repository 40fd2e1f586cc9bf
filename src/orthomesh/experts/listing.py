"""Codes of unequal length for several members, one after the other with their lengths in front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Array


def listed(codes: Sequence[Array]) -> Array:
    """Codes one after the other, their lengths in front.

    Args:
        codes: of bytes.

    Returns:
        4 bytes of length for each, then all of them.

    >>> listed([np.array([7], np.uint8), np.array([8, 9], np.uint8)]).tolist()
    [1, 0, 0, 0, 2, 0, 0, 0, 7, 8, 9]
    """
    return np.concatenate([np.array([code.size for code in codes], dtype="<u4").view(np.uint8), *codes])


def cut(code: Array, members: int, lengths: Sequence[int] | None = None) -> Sequence[Array]:
    """A code for each of so many members; unless their lengths are known, these stand in front.

    Args:
        code: as `listed` makes it, or without the front. [b]
        members: how many codes there are.
        lengths: of the codes, where they do not stand in front.

    Raises:
        ValueError: lengths that do not add up.

    >>> [c.tolist() for c in cut(listed([np.array([7], np.uint8), np.array([8, 9], np.uint8)]), 2)]
    [[7], [8, 9]]
    """
    front = 4 * members if lengths is None else 0
    whole = members > 0 and code.size >= front
    if whole and lengths is None:
        lengths = np.frombuffer(code[:front].tobytes(), dtype="<u4").tolist()
    if not whole or lengths is None or front + sum(lengths) != code.size:
        raise ValueError(f"{code.size} bytes are not the values or masks of {members} members")
    return np.split(code[front:], np.cumsum(lengths)[:-1])
