"""The shape of a low-rank adapter, eqs. (2)-(4): which matrices it touches and where each lies in flat arrays.

A device's adapter is two flat vectors over a `Layout`: the projection A, [sum r k], and the expansion B,
[sum d r], each matrix row by row. Flat vectors are what is masked, sent, joined and saved; only the model sees
matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..types import Array


class Shape(NamedTuple):
    """One adapted linear layer W0 of the base model, [d, k]."""

    name: str
    out_features: int
    in_features: int


@dataclass(frozen=True)
class Layout:
    """The adapted layers l = 1..L in the model's order, and the rank r they share."""

    shapes: tuple[Shape, ...]
    rank: int

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ValueError("an adapter needs at least one linear layer to sit on, the layout names none")
        for shape in self.shapes:
            if self.rank > min(shape.out_features, shape.in_features):
                raise ValueError(
                    f"rank {self.rank} exceeds layer {shape.name} of {shape.out_features} x {shape.in_features}; "
                    f"at most {min(shape.out_features, shape.in_features)} there"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapted layers."""
        return tuple(s.name for s in self.shapes)

    @property
    def expansion_sizes(self) -> tuple[int, ...]:
        """d_l r of every layer, the number of entries of its B."""
        return tuple(s.out_features * self.rank for s in self.shapes)

    @property
    def projection_sizes(self) -> tuple[int, ...]:
        """r k_l of every layer, the number of entries of its A."""
        return tuple(s.in_features * self.rank for s in self.shapes)

    @property
    def num_expansion(self) -> int:
        """Entries of all B together, sum d_l r."""
        return sum(self.expansion_sizes)

    @property
    def num_projection(self) -> int:
        """Entries of all A together, sum r k_l."""
        return sum(self.projection_sizes)


def slices(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Where each layer lies in a flat vector of the given sizes.

    >>> slices((2, 3))
    (slice(0, 2, None), slice(2, 5, None))
    """
    ends = np.cumsum(sizes).tolist()
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))


def matrices_a(flat: Float[np.ndarray, " rk"], layout: Layout) -> list[Array]:
    """The projections A_l, [r, k_l], as views into the flat vector."""
    cuts = slices(layout.projection_sizes)
    return [flat[c].reshape(layout.rank, s.in_features) for c, s in zip(cuts, layout.shapes, strict=True)]


def matrices_b(flat: Float[np.ndarray, " dr"], layout: Layout) -> list[Array]:
    """The expansions B_l, [d_l, r], as views into the flat vector."""
    cuts = slices(layout.expansion_sizes)
    return [flat[c].reshape(s.out_features, layout.rank) for c, s in zip(cuts, layout.shapes, strict=True)]


def matrices_w(flat: Float[np.ndarray, " dk"], layout: Layout) -> list[Array]:
    """Whole matrices of the size of W0, [d_l, k_l], as views into a flat vector."""
    cuts = slices([s.out_features * s.in_features for s in layout.shapes])
    return [flat[c].reshape(s.out_features, s.in_features) for c, s in zip(cuts, layout.shapes, strict=True)]


def density(mask: Array, layout: Layout) -> Float[np.ndarray, " L"]:
    r"""Share of active entries of every B, eq. (4) (the paper calls it the sparsity rate).

    .. math::  s_l = \lVert M_l \rVert / (d_l r)

    Args:
        mask: support of B over the layout. [sum d r], bool

    Returns:
        s_l in [0, 1] for every layer. [L]
    """
    return np.array([mask[c].mean() for c in slices(layout.expansion_sizes)])
