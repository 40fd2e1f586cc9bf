"""Who averages with whom where hearing need not be mutual: exponential graphs and epidemic learning.

Weights are by (receiver, sender), as in `mixing`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .mixing import Pair, equal

Weights = dict[Pair, float]


def exponential(ids: Iterable[int]) -> Weights:
    """Static exponential graph: each hears those 1, 2, 4, ... places before it (Ying et al., arXiv 2110.13363).

    Returns:
        Equal weights of everybody and the ceil(log2 n) it hears; doubly stochastic. For n = 2^k the share that
        survives a round is 1 - 2 / (1 + k).

    >>> exponential(range(2))
    {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.5}
    """
    nodes = sorted(ids)
    n = len(nodes)
    steps = [1 << d for d in range(_num_steps(n))]
    return equal({i: [nodes[k - step] for step in steps] for k, i in enumerate(nodes)})


def one_peer(ids: Iterable[int], round_index: int) -> Weights:
    """One-peer exponential graph: in round t each hears only the one 2^(t mod ceil(log2 n)) places before it.

    Args:
        ids: devices.
        round_index: t, >= 0.

    Returns:
        One half for oneself and the one heard; doubly stochastic. The product of ceil(log2 n) rounds in a row is
        the exact mean if and only if n is a power of two.

    >>> one_peer(range(4), 1)[0, 2]
    0.5
    """
    nodes = sorted(ids)
    if len(nodes) < 2:
        return equal({i: [] for i in nodes})
    step = 1 << round_index % _num_steps(len(nodes))
    return equal({i: [nodes[k - step]] for k, i in enumerate(nodes)})


def epidemic(ids: Iterable[int], num_sent: int, rng: np.random.Generator) -> Weights:
    """EL-Local: each sends to some others drawn at random, each averages what it gets (arXiv 2310.01972).

    Nobody knows who else draws whom, so how many a device hears varies. EL-Oracle is `graphs.random_regular` of
    a new draw each round under `mixing.metropolis`.

    Args:
        ids: devices.
        num_sent: s, how many others each sends to, 0 <= s < number of devices.
        rng: a stream of its own for each round.

    Returns:
        Equal weights of everybody and whom it hears; row-stochastic, columns in expectation only.

    Raises:
        ValueError: more receivers than there are others, or fewer than none.
    """
    nodes = sorted(ids)
    if not 0 <= num_sent < max(1, len(nodes)):
        raise ValueError(f"{len(nodes)} devices cannot send to {num_sent} others each")
    heard: dict[int, list[int]] = {i: [] for i in nodes}
    for k, i in enumerate(nodes):
        for other in rng.choice(len(nodes) - 1, size=num_sent, replace=False) if num_sent else ():
            heard[nodes[other + (other >= k)]].append(i)
    return equal(heard)


def _num_steps(n: int) -> int:
    """ceil(log2 n), 0 for nobody."""
    return max(0, n - 1).bit_length()
