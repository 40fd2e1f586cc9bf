"""Weights of gossip averaging and how fast it mixes: Metropolis-Hastings (Boyd, Diaconis and Xiao 2004)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

Pair = tuple[int, int]


def metropolis(pairs: Iterable[Pair], ids: Iterable[int]) -> dict[Pair, float]:
    """Mixing weights from local degrees, W_ij = 1 / (1 + max(deg_i, deg_j)), W_ii = 1 - sum_j W_ij.

    Args:
        pairs: links (i, j), i < j.
        ids: devices.

    Returns:
        Weight of every (i, j) that exchange, both ways, and of every (i, i); symmetric, >= 0, rows and
        columns sum to 1. Ascending.

    Raises:
        ValueError: a pair that is not (lower, higher) of the ids, or one given twice.

    >>> metropolis([(0, 1)], [0, 1, 2])
    {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.5, (2, 2): 1.0}
    """
    neighbours: dict[int, list[int]] = {i: [] for i in sorted(ids)}
    for i, j in sorted(pairs):
        if not (i in neighbours and j in neighbours and i < j) or j in neighbours[i]:
            raise ValueError(f"mixing: ({i}, {j}) is given twice or is not a pair (lower, higher) of the devices")
        neighbours[i].append(j)
        neighbours[j].append(i)
    weights: dict[Pair, float] = {}
    for i, around in neighbours.items():
        row = {j: 1.0 / (1 + max(len(around), len(neighbours[j]))) for j in sorted(around)}
        row[i] = 1.0 - sum(row.values())
        weights |= {(i, j): row[j] for j in sorted(row)}
    return weights


def matrix(weights: Mapping[Pair, float], ids: Iterable[int]) -> Float[np.ndarray, "n n"]:
    """Weights as a matrix, rows and columns in ascending order of id; 0 where there is no weight.

    Args:
        weights: weight by (row, column).
        ids: devices.

    Raises:
        ValueError: a weight between devices that are not given.

    >>> matrix({(3, 3): 1.0, (7, 7): 1.0}, [7, 3]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    place = {i: k for k, i in enumerate(sorted(set(ids)))}
    w = np.zeros((len(place), len(place)))
    for (i, j), weight in weights.items():
        if i not in place or j not in place:
            raise ValueError(f"mixing: the weight of ({i}, {j}) names a device that is not given")
        w[place[i], place[j]] = weight
    return w


def slem(matrix: Float[np.ndarray, "n n"]) -> float:
    """Share of a disagreement that survives one round of averaging, ||W - 11'/n||_2.

    For symmetric W the second largest eigenvalue modulus: 0 averages at once, 1 never mixes.

    Args:
        matrix: doubly stochastic W, [n n].

    Returns:
        In [0, 1] for doubly stochastic W.

    Raises:
        ValueError: a matrix that is empty or not square.

    >>> slem(np.full((4, 4), 0.25))
    0.0
    """
    n = len(matrix)
    if n == 0 or matrix.shape != (n, n):
        raise ValueError(f"mixing: W must be square and not empty, got shape {matrix.shape}")
    return float(np.linalg.norm(matrix - 1.0 / n, ord=2))
