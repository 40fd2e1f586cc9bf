"""How the sparse expansions of a cluster join, eqs. (9)(10) and (24) (reading R5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ..types import Array

Rule = Literal["union", "mean", "stack"]


def join(parts: Mapping[int, Array], masks: Mapping[int, Array], rule: Rule = "union") -> Float[np.ndarray, "rows n"]:
    r"""One expansion for a cluster from the sparse ones of its members, the inner sum of (24).

    .. math::  \bar B_{xy} = \sum_j [M_j \odot B_j]_{xy} / c_{xy}

    `union`: c counts the members that hold the entry, so that an entry held by one device keeps its value and
    the others are averaged. `mean`, the paper to the letter: c is the number of members, which shrinks every
    entry that is not held by all. `stack`: nothing is joined, every member keeps a row of its own. Reading R5.

    Args:
        parts: expansion of every member, flat. {id: [sum d r]}
        masks: support of every member. {id: [sum d r]}
        rule: what to divide by, or to keep members apart.

    Returns:
        The joined expansion as one row, or under `stack` one row per member in order of id; float32, zero where no
        member, or not this one, is active. [1 or m, sum d r]

    Raises:
        ValueError: parts and masks of different devices, or none.
    """
    if not parts or parts.keys() != masks.keys():
        raise ValueError(f"expansions of {sorted(parts)} cannot be joined under masks of {sorted(masks)}")
    return join_active({k: part[masks[k]] for k, part in parts.items()}, masks, rule)


def join_active(
    values: Mapping[int, Array], masks: Mapping[int, Array], rule: Rule = "union"
) -> Float[np.ndarray, "rows n"]:
    """`join` of expansions of which only the active entries are at hand.

    Args:
        values: active entries of every member, in order. {id: [n active]}
        masks: as there. rule: as there.

    Returns:
        As there.
    """
    ids = sorted(values)
    size = masks[ids[0]].size
    joined = np.zeros((len(ids) if rule == "stack" else 1, size), dtype=np.float32)
    once, several = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for row, k in enumerate(ids):  # in order of id: float sums must not depend on who came first
        places = np.flatnonzero(masks[k])
        joined[row if rule == "stack" else 0, places] += values[k].astype(np.float32)
        several |= once & masks[k]
        once |= masks[k]
    if rule == "mean":
        joined /= np.float32(len(ids))
    elif rule == "union" and (shared := np.flatnonzero(several)).size:  # the others are divided by one
        joined[0, shared] /= sum(masks[k][shared].astype(np.float32) for k in ids)
    return joined


def support(masks: Mapping[int, Array]) -> Bool[np.ndarray, " n"]:
    """Positions held by at least one member."""
    return np.asarray(np.logical_or.reduce([masks[k] for k in sorted(masks)]))
