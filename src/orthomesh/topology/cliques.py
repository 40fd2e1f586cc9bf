"""D-Cliques: small complete graphs whose members together see every label (Bellet et al., arXiv 2104.07365).

The opposite of the paper's clusters in one respect: it groups diverse data, the paper keeps masks from colliding.
Clique averaging of gradients is not here: what travels in this package are adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from ..types import Array
from .graphs import Pairs, complete

Counts = Float[np.ndarray, " labels"]


def label_cliques(
    counts: Mapping[int, Counts], size: int, num_swaps: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """Cliques whose labels are distributed as evenly like everybody's as greedy swapping gets them.

    From random cliques; in each step two are drawn, and of the swaps of one member each that lower the sum of
    their skews one is drawn.

    Args:
        counts: examples of every label, by device. [labels]
        size: members of a clique, >= 1; the last one may have fewer.
        num_swaps: steps, >= 0.
        rng: a stream of its own.

    Returns:
        Cliques by smallest member, members ascending: a partition of the devices.

    Raises:
        ValueError: no members, a device without examples, or a negative or missing count.
    """
    if size < 1 or num_swaps < 0:
        raise ValueError(f"cliques have at least 1 member and are swapped 0 times or more, got {size}, {num_swaps}")
    for i in sorted(counts):
        if not (np.all(counts[i] >= 0) and 0 < counts[i].sum() < np.inf):
            raise ValueError(f"cliques: labels of device {i} are counted from 0, one at least, got {counts[i]}")
    ids = sorted(counts)
    labels = np.stack([counts[i] for i in ids]) if ids else np.zeros((0, 1))
    order = rng.permutation(len(ids))
    cliques = [order[k : k + size] for k in range(0, len(ids), size)]
    for _ in range(num_swaps if len(cliques) > 1 else 0):
        a, b = (cliques[k] for k in rng.choice(len(cliques), size=2, replace=False))
        change = labels[b][None, :] - labels[a][:, None]  # of the first clique, by members that swap
        here, there = labels[a].sum(axis=0), labels[b].sum(axis=0)
        now = _skew(here, labels) + _skew(there, labels)
        better = np.argwhere(_skew(here + change, labels) + _skew(there - change, labels) < now - 1e-12)
        if len(better):
            m, n = better[rng.integers(len(better))]
            a[m], b[n] = b[n], a[m]
    return tuple(sorted(tuple(sorted(ids[k] for k in members)) for members in cliques))


def skew(members: Sequence[int], counts: Mapping[int, Counts]) -> float:
    """How unlike everybody's labels those of a clique are, sum over labels of |p_C(y) - p(y)|.

    Args:
        members: of the clique, at least one.
        counts: examples of every label, by device. [labels]

    Returns:
        In [0, 2].

    >>> skew([0], {0: np.array([1.0, 0.0]), 1: np.array([0.0, 1.0])})
    1.0
    """
    everybody = np.stack([counts[i] for i in sorted(counts)])
    return float(_skew(np.sum([counts[i] for i in sorted(members)], axis=0), everybody))


def _skew(cliques: Float[np.ndarray, "*shape labels"], everybody: Float[np.ndarray, "M labels"]) -> Array:
    """Skew of any number of cliques, given their counts."""
    everywhere = everybody.sum(axis=0)
    shares = cliques / cliques.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(shares - everywhere / everywhere.sum()).sum(axis=-1))


def joined(cliques: Sequence[Sequence[int]]) -> Pairs:
    """Everybody of a clique with each other, and one link between any two cliques, from where fewest are yet.

    Args:
        cliques: disjoint groups of devices.

    Returns:
        Pairs, ascending: connected, of complete graphs and c (c - 1) / 2 links between c of them.

    >>> joined([(0, 1), (2, 3), (4,)])
    ((0, 1), (0, 2), (1, 4), (2, 3), (3, 4))
    """
    links = dict.fromkeys((i for members in cliques for i in members), 0)
    pairs = {pair for members in cliques for pair in complete(members)}
    for a, b in combinations(cliques, 2):
        i, j = (min(members, key=lambda k: (links[k], k)) for members in (a, b))
        pairs.add((min(i, j), max(i, j)))
        links[i] += 1
        links[j] += 1
    return tuple(sorted(pairs))
