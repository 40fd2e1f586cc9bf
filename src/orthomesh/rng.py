"""Keyed random streams: a draw depends on (seed, purpose, ids) and never on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def key(seed: int, purpose: str, *ids: int) -> int:
    """A 64-bit number that stands for (seed, purpose, ids).

    The first eight bytes of SHA-256 over the key written out, so that it is the same on every machine and
    under every hash seed.

    Args:
        seed: seed of the run.
        purpose: what the draw is for, e.g. "fading".
        ids: rounds, devices, layers the draw belongs to.

    Returns:
        An integer in [0, 2^64).

    Raises:
        ValueError: a purpose with a slash.

    >>> key(0, "fading", 1, 2) == key(0, "fading", 1, 2) != key(0, "fading", 2, 1)
    True
    """
    if "/" in purpose:
        raise ValueError(f"a purpose must not contain '/', or keys could collide: {purpose!r}")
    text = f"{seed}/{purpose}/" + "/".join(str(i) for i in ids)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stream(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A generator of its own for (seed, purpose, ids): counter-based Philox under `key`.

    >>> float(stream(1, "test").random()) == float(stream(1, "test").random())
    True
    """
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *ids)))
