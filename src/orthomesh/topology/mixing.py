"""Weights of gossip averaging and how fast it mixes: Metropolis-Hastings (Boyd, Diaconis and Xiao 2004).

W_ij is what the receiver i gives to the value of the sender j. Rows add up to one (row-stochastic: everybody
averages); where columns do too (doubly stochastic) the mean of all devices stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def equal(heard: Mapping[int, Iterable[int]]) -> dict[Pair, float]:
    """Everybody weighs itself and all it hears alike, W_ij = 1 / (1 + number heard).

    Args:
        heard: whom each device hears, by receiver.

    Returns:
        Weight of every (receiver, sender) and every (i, i); rows sum to 1, columns too if everybody is heard by
        as many as it hears and all hear equally many. Ascending.

    Raises:
        ValueError: a device that hears itself, one twice, or one that is not given.

    >>> equal({0: [1], 1: []})
    {(0, 0): 0.5, (0, 1): 0.5, (1, 1): 1.0}
    """
    weights: dict[Pair, float] = {}
    for i in sorted(heard):
        row = sorted([i, *heard[i]])
        if len(set(row)) < len(row) or not heard.keys() >= set(row):
            raise ValueError(f"mixing: device {i} hears {row[:-1]}, which must be others of the devices, each once")
        weights |= {(i, j): 1.0 / len(row) for j in row}
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


def spectral_gap(matrix: Float[np.ndarray, "n n"]) -> float:
    """How fast a round mixes, 1 - ||W - 11'/n||_2; the larger the better.

    Args:
        matrix: doubly stochastic W, [n n].

    Returns:
        In [0, 1] for doubly stochastic W.

    >>> spectral_gap(np.eye(3))
    0.0
    """
    return 1.0 - slem(matrix)


def consensus_distance(parameters: Float[np.ndarray, "n d"]) -> float:
    r"""How far devices are apart, root mean square distance to their mean.

    .. math::  \Xi = \Bigl( \frac 1 n \sum_i \lVert x_i - \bar x \rVert^2 \Bigr)^{1/2}

    Args:
        parameters: one row per device. [n d]

    Returns:
        >= 0; 0 where all agree.

    Raises:
        ValueError: no device.

    >>> consensus_distance(np.array([[0.0, 3.0], [8.0, 9.0]]))
    5.0
    """
    if len(parameters) == 0:
        raise ValueError("mixing: the distance between devices needs at least one")
    apart = parameters - parameters.mean(axis=0)
    return float(np.sqrt(np.square(apart).sum() / len(parameters)))


def consensus_over_time(
    parameters: Float[np.ndarray, "n d"], rounds: Sequence[Float[np.ndarray, "n n"]]
) -> list[float]:
    """Consensus distance before the first and after each of some rounds of pure averaging, x <- W x.

    The gap alone foretells little of deep learning (Vogels, Hendrikx and Jaggi 2022); this shows it round by
    round, for graphs that change too.

    Args:
        parameters: one row per device. [n d]
        rounds: W of each round, [n n].

    Returns:
        One more distance than there are rounds.

    >>> consensus_over_time(np.array([[0.0], [2.0]]), [np.eye(2), np.full((2, 2), 0.5)])
    [1.0, 1.0, 0.0]
    """
    distances = [consensus_distance(parameters)]
    for w in rounds:
        parameters = w @ parameters
        distances.append(consensus_distance(parameters))
    return distances
