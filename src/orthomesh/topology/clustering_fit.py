"""Best-fit decreasing: the items that are hardest to place first, each where it leaves the least room. R10."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rng import stream
from .clustering_instance import Instance, Members, order_of
from .clustering_parts import Parts


def best_fit(instance: Instance, restarts: int = 0, seed: int = 0) -> tuple[Members, ...]:
    """Clusters by best-fit decreasing, the best of several orders.

    Items by falling size go, one by one, into the cluster whose rate is highest with them, or open one of their own.
    Further orders are drawn at random: sizes times exp(normal / 2).

    Args:
        instance: items, how they join, who may be together.
        restarts: how many further orders are tried.
        seed: of these orders.

    Returns:
        The partition with the fewest clusters; among those the least sum_C n_C S_C, then the least power.

    >>> add = lambda rows, a, b: rows[a] + rows[b]
    >>> over = lambda rows, a, b: np.maximum(0.0, rows[a] + rows[b] - 1.0)
    >>> loads, every = np.array([0.3, 0.6, 0.7, 0.4]), np.array([[i, j] for i in range(4) for j in range(i + 1, 4)])
    >>> best_fit(Instance(leaves=loads, join=add, rate=over, max_rate=0.0, pairs=every, power=np.zeros(6), size=loads))
    ((0, 2), (1, 3))
    """
    orders = [np.argsort(-instance.size, kind="stable")]
    for n in range(restarts):
        factor = np.exp(0.5 * stream(seed, "best fit", n).standard_normal(len(instance.size)))
        orders.append(np.argsort(-(instance.size * factor), kind="stable"))
    found = [_fit(instance, order.tolist()) for order in orders]
    if len(found) == 1:
        return found[0]
    return min(found, key=lambda clusters: order_of(instance, clusters))


def _fit(instance: Instance, order: Sequence[int]) -> tuple[Members, ...]:
    parts = Parts(instance)
    for item in order:
        labels, rates = parts.options(item)
        if len(labels):
            parts.put(item, int(labels[np.argmax(rates)]))
        else:
            parts.open(item)
    return parts.clusters()
