"""A partition that solvers change in place: who is where, whom an item could join, what a cluster is without one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from ..types import Array
from .clustering_instance import Instance, Members, limit, neighbours, on_grid, union_rates

NOWHERE = -1


class Parts:
    """Clusters by label 0..M-1; made and changed by one solver, never handed out.

    Rows 0..M-1 of `rows` are the items, row M + c is cluster c. A set that `further` is asked about is asked once.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.num_items = len(instance.leaves)
        self.starts, self.ids = neighbours(self.num_items, instance.pairs)
        self.near = [set(self.ids[a:b].tolist()) for a, b in zip(self.starts, self.starts[1:], strict=False)]
        self.rows = np.concatenate([instance.leaves, np.zeros_like(instance.leaves)])
        self.label = np.full(self.num_items, NOWHERE, dtype=np.int64)
        self.members: list[list[int]] = [[] for _ in range(self.num_items)]
        self.count = np.zeros(self.num_items, dtype=np.int64)
        self.rate = np.zeros(self.num_items, dtype=np.int64)
        self.limit = limit(instance)
        self.free = list(range(self.num_items))[::-1]
        self._without: dict[int, Array] = {}
        self._rate_without: dict[int, Array] = {}
        self._options: dict[int, tuple[Array, Array]] = {}  # of items that were asked about since the last change
        self._asked: dict[Members, bool] = {}

    def clusters(self) -> tuple[Members, ...]:
        """The partition: by smallest member, members ascending."""
        return tuple(sorted(tuple(sorted(m)) for m in self.members if m))

    def load(self, clusters: Iterable[Members]) -> None:
        """Put items together as given."""
        for members in clusters:
            label = self.open(members[0])
            for i in members[1:]:
                self.put(i, label)

    def open(self, item: int) -> int:
        """A new cluster of one item; its label."""
        label = self.free.pop()
        self.rows[self.num_items + label] = self.rows[item]
        self._set(label, [item], 0)
        self.label[item] = label
        return label

    def put(self, item: int, label: int) -> None:
        """Add an item to a cluster, or to one that is empty."""
        if not self.members[label]:
            self.free.remove(label)
            self.free.append(label)
            self.open(item)
            return
        a, b = np.array([self.num_items + label]), np.array([item])
        rate = int(on_grid(self.instance.rate(self.rows, a, b))[0])
        self.rows[a] = self.instance.join(self.rows, a, b)
        self._set(label, [*self.members[label], item], rate)
        self.label[item] = label

    def take(self, item: int) -> None:
        """Take an item out of its cluster, which is made again from those that stay."""
        label = int(self.label[item])
        self.label[item] = NOWHERE
        if self.count[label] == 1:
            self._set(label, [], 0)
            self.free.append(label)
            return
        at = self.members[label].index(item)
        row, rate = self.without(label)[at], int(self.rate_without(label)[at])
        self.rows[self.num_items + label] = row
        self._set(label, [i for i in self.members[label] if i != item], rate)

    def without(self, label: int) -> Array:
        """Rows of a cluster without each of its members, in their order; joined anew, since nothing divides out."""
        if label not in self._without:
            self._leave_out(label)
        return self._without[label]

    def rate_without(self, label: int) -> Array:
        """Rates of a cluster of several without each of its members, on the grid."""
        if label not in self._rate_without:
            self._leave_out(label)
        return self._rate_without[label]

    def options(self, item: int, but: Collection[int] = ()) -> tuple[Array, Array]:
        """Clusters an item could join now, and the rates they would have, on the grid."""
        if item not in self._options:
            self._options[item] = self._find(item)
        labels, rates = self._options[item]
        if but and len(labels):
            kept = [c not in but for c in labels.tolist()]
            return labels[kept], rates[kept]
        return labels, rates

    def _find(self, item: int) -> tuple[Array, Array]:
        near = self.label[self.ids[self.starts[item] : self.starts[item + 1]]]
        near = near[near != NOWHERE]
        if not len(near):
            return near, near
        labels, known = np.unique(near, return_counts=True)
        labels = labels[known == self.count[labels]]
        rates = union_rates(self.instance, self.rows, self.num_items + labels, np.full(len(labels), item))
        fits = rates <= self.limit
        if self.instance.further is not None:
            for n in np.flatnonzero(fits):
                fits[n] = self.may([*self.members[labels[n]], item])
        return labels[fits], rates[fits]

    def swaps(self, item: int, but: Collection[int] = ()) -> tuple[Array, Array, Array]:
        """Members that would make room for an item by leaving: their labels, they, the rates with the item instead.

        A cluster with one member that the item must not meet can lose that one only; one that is too full, any.
        """
        near = np.unique(self.label[self.ids[self.starts[item] : self.starts[item + 1]]])
        labels, leavers, rows = [], [], []
        for c in near.tolist():
            if c == NOWHERE or c in but:
                continue
            strangers = [n for n, j in enumerate(self.members[c]) if j not in self.near[item]]
            if len(strangers) > 1 or self.count[c] == 1:
                continue
            for n in strangers or range(len(self.members[c])):
                labels.append(c)
                leavers.append(self.members[c][n])
                rows.append(self.without(c)[n])
        if not rows:
            none = np.zeros(0, dtype=np.int64)
            return none, none, none
        both = np.concatenate([np.stack(rows), self.rows[item : item + 1]])
        n = len(rows)
        rates = union_rates(self.instance, both, np.arange(n), np.full(n, n))
        fits = rates <= self.limit
        if self.instance.further is not None:
            for k in np.flatnonzero(fits):
                fits[k] = self.may([*(j for j in self.members[labels[k]] if j != leavers[k]), item])
        return np.array(labels)[fits], np.array(leavers)[fits], rates[fits]

    def joined_rate(self, label: int, leaver: int, item: int) -> int | None:
        """Rate of a cluster with an item in the place of one of its members, or None where it is too much."""
        if self.count[label] == 1:
            return 0
        row = self.without(label)[self.members[label].index(leaver)]
        both = np.stack([row, self.rows[item]])
        rate = int(on_grid(self.instance.rate(both, np.array([0]), np.array([1])))[0])
        stays = [j for j in self.members[label] if j != leaver]
        return rate if rate <= self.limit and self.may([*stays, item]) else None

    def may(self, members: Iterable[int]) -> bool:
        """Whether `further` allows a set."""
        key = tuple(sorted(members))
        if self.instance.further is None or len(key) == 1:
            return True
        if key not in self._asked:
            self._asked[key] = self.instance.further(key) is not None
        return self._asked[key]

    def _set(self, label: int, members: list[int], rate: int) -> None:
        self.members[label] = members
        self.count[label] = len(members)
        self.rate[label] = rate
        self._options.clear()
        self._without.pop(label, None)
        self._rate_without.pop(label, None)

    def _leave_out(self, label: int) -> None:
        """All members at once: joined one after the other, each left out of its own row."""
        members = self.members[label]
        n = len(members)
        leaves = self.instance.leaves[members]
        acc = np.repeat(leaves[:1], n, axis=0)
        acc[0] = leaves[min(1, n - 1)]
        rate, at = np.zeros(n, dtype=np.int64), np.arange(n)
        for k in range(1, n):
            both = np.concatenate([acc, leaves[k : k + 1]])
            who = at[(at != k) & ~((at == 0) & (k == 1))]
            other = np.full(len(who), n)
            rate[who] = on_grid(self.instance.rate(both, who, other))
            acc[who] = self.instance.join(both, who, other)
        self._without[label], self._rate_without[label] = acc, rate
