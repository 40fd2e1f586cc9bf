"""Exact clustering of few items, and bounds for many: subset dynamic programming, set covering, simple bounds. R10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from .clustering_instance import Instance, Members, components, limit, neighbours, union_rates

MOST_BY_SUBSETS = 16
"""Items up to which all subsets are looked at: 65536 of them."""

MOST_SETS = 300_000
"""Allowed sets up to which they are listed."""


@dataclass(frozen=True, eq=False)
class Sets:
    """All allowed sets of items: members ascending, padded with -1, and rate on the grid. [N n], [N]"""

    members: Int[np.ndarray, "N n"]
    rate: Int[np.ndarray, " N"]


def allowed_sets(instance: Instance, most: int = MOST_SETS) -> Sets:
    """Every set of items that may be a cluster, by size, each grown from one that lacks its last member (heredity).

    Args:
        instance: items, how they join, who may be together.
        most: how many sets are listed at most.

    Raises:
        ValueError: more sets than that.
    """
    M = len(instance.leaves)
    near = _adjacency(instance)
    later = np.triu(near, 1)
    members, rows = np.arange(M)[:, None], instance.leaves
    common = later.copy()  # who may be added: later, and known to all members
    found, rates, total = [members], [np.zeros(M, dtype=np.int64)], M
    while len(members):
        at, new = np.nonzero(common)
        if total + len(at) > 20 * most:
            raise ValueError(_too_many(M, most))
        buffer = np.concatenate([rows, instance.leaves])
        rate = union_rates(instance, buffer, at, len(rows) + new)
        fits = rate <= limit(instance)
        at, new, rate = at[fits], new[fits], rate[fits]
        grown = np.concatenate([members[at], new[:, None]], axis=1)
        if instance.further is not None and grown.shape[1] > 1:
            may = np.array([instance.further(tuple(s)) is not None for s in grown.tolist()], dtype=bool)
            at, new, rate, grown = at[may], new[may], rate[may], grown[may]
        rows = instance.join(buffer, at, len(rows) + new)
        common = common[at] & later[new]
        members = grown
        total += len(members)
        if total > most:
            raise ValueError(_too_many(M, most))
        found.append(members)
        rates.append(rate)
    widest = max(s.shape[1] for s in found)
    padded = [np.pad(s, ((0, 0), (0, widest - s.shape[1])), constant_values=-1) for s in found]
    return Sets(np.concatenate(padded), np.concatenate(rates))


def by_subsets(instance: Instance) -> tuple[Members, ...]:
    """Fewest clusters, then least sum_C n_C S_C, exactly, by dynamic programming over all subsets.

    Args:
        instance: at most 16 items.

    Returns:
        The optimal partition.

    Raises:
        ValueError: more items.
    """
    M = len(instance.leaves)
    if M > MOST_BY_SUBSETS:
        raise ValueError(
            f"all subsets of {M} items are too many, {MOST_BY_SUBSETS} items is the most; use set covering"
        )
    if M == 0:
        return ()
    sets = allowed_sets(instance, most=2**M)
    held = sets.members >= 0
    mask = np.where(held, 1 << np.maximum(sets.members, 0), 0).sum(axis=1)
    lowest = sets.members[:, 0]
    price = (1 << 56) + held.sum(axis=1) * sets.rate  # one cluster outweighs all rates: 16 x 16 x 2^40 < 2^56
    best = np.full(1 << M, np.iinfo(np.int64).max // 2, dtype=np.int64)
    choice = np.zeros(1 << M, dtype=np.int64)
    best[0] = 0
    for low in reversed(range(M)):
        rest = (np.arange(1 << (M - 1 - low), dtype=np.int64) << (low + 1)) | (1 << low)
        for n in np.flatnonzero(lowest == low).tolist():
            covered = rest[(rest & mask[n]) == mask[n]]
            value = best[covered ^ mask[n]] + price[n]
            better = value < best[covered]
            best[covered[better]] = value[better]
            choice[covered[better]] = n
    left, clusters = (1 << M) - 1, []
    while left:
        n = int(choice[left])
        clusters.append(tuple(int(i) for i in sets.members[n] if i >= 0))
        left ^= int(mask[n])
    return tuple(sorted(clusters))


def by_covering(instance: Instance, most: int = MOST_SETS) -> tuple[Members, ...]:
    """Fewest clusters exactly, by HiGHS on the set-covering problem of all allowed sets; ties are not settled.

    Covering is enough, since whatever is covered twice can be dropped from one set (heredity); only sets that no
    other contains are needed.

    Args:
        instance: items, how they join, who may be together.
        most: how many allowed sets are listed at most.

    Returns:
        A partition with the fewest clusters; its sum_C n_C S_C need not be the least.

    Raises:
        ValueError: too many allowed sets, or a solver that gives up.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # late: costs half a second

    M = len(instance.leaves)
    if M == 0:
        return ()
    columns, incidence = _maximal(allowed_sets(instance, most), M)
    done = milp(
        np.ones(len(columns)),
        constraints=LinearConstraint(incidence, lb=1.0),
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, 1),
    )
    if not done.success:
        raise ValueError(f"set covering of {M} items: {done.message}")
    clusters, seen = [], set[int]()
    for n in np.flatnonzero(done.x > 0.5).tolist():
        members = tuple(i for i in columns[n] if i not in seen)
        seen.update(members)
        clusters.append(members)
    return tuple(sorted(c for c in clusters if c))


def lower_bound(instance: Instance, most: int = 50_000) -> tuple[int, str]:
    """No partition has fewer clusters than this, and what says so: the largest of three bounds, per component.

    Size: no cluster holds more than the n items of least rate. Conflict: items that may not meet in pairs are all
    apart. Linear program: the fractional set cover, where allowed sets are few enough to be listed.

    Args:
        instance: items, how they join, who may be together.
        most: how many allowed sets are listed for the linear program; beyond that it is left out.

    Returns:
        The bound, >= 1 if there is an item, and the name of the bound that decides most components.
    """
    M, pairs = len(instance.leaves), _allowed(instance)
    if M == 0:
        return 0, "there is no item"
    apart = _apart(M, pairs)
    total, by = 0, {"size": 0, "conflict": 0}
    biggest = _biggest(instance)
    for items in components(M, pairs):
        size, conflict = -(-len(items) // biggest), int(apart[items].sum())
        total += max(size, conflict)
        by["size" if size > conflict else "conflict"] += len(items)
    name = max(by, key=lambda k: by[k])
    try:
        relaxed = _relaxed(instance, most) if M <= 2000 else 0
    except ValueError:
        relaxed = 0  # too many sets: the other bounds stand
    return (relaxed, "linear program") if relaxed > total else (total, name)


def _relaxed(instance: Instance, most: int) -> int:
    from scipy.optimize import linprog  # late, as above

    M = len(instance.leaves)
    columns, incidence = _maximal(allowed_sets(instance, most), M)
    done = linprog(np.ones(len(columns)), A_ub=-incidence, b_ub=-np.ones(M), bounds=(0, None), method="highs")
    return int(np.ceil(done.fun - 1e-6)) if done.success else 0


def _maximal(sets: Sets, num_items: int) -> tuple[list[Members], Any]:
    """Allowed sets that no other contains, and which items each holds. [M N], sparse"""
    from scipy.sparse import csc_array

    every = [tuple(i for i in row if i >= 0) for row in sets.members.tolist()]
    inner = {s[:n] + s[n + 1 :] for s in every if len(s) > 1 for n in range(len(s))}
    outer = [s for s in every if s not in inner]
    rows = np.array([i for s in outer for i in s])
    starts = np.cumsum([0, *(len(s) for s in outer)])
    return outer, csc_array((np.ones(len(rows)), rows, starts), shape=(num_items, len(outer)))


def _biggest(instance: Instance) -> int:
    """Largest n for which even `least` n items would keep to S_max; M where nothing is known."""
    least, M = instance.least, len(instance.leaves)
    if least is None:
        return M
    rows, zero, one = least[:1], np.array([0]), np.array([1])
    for n in range(1, len(least)):
        both = np.concatenate([rows, least[n : n + 1]])
        if union_rates(instance, both, zero, one)[0] > limit(instance):
            return n
        rows = instance.join(both, zero, one)
    return M


def _apart(num_items: int, pairs: Int[np.ndarray, "E 2"]) -> Bool[np.ndarray, " M"]:
    """A maximal set of items no two of which may meet, fewest neighbours first. [M]"""
    starts, ids = neighbours(num_items, pairs)
    degree = np.diff(starts)
    chosen, out = np.zeros(num_items, dtype=bool), np.zeros(num_items, dtype=bool)
    for item in np.argsort(degree, kind="stable").tolist():
        if not out[item]:
            chosen[item] = True
            out[ids[starts[item] : starts[item + 1]]] = True
    return chosen


def _allowed(instance: Instance) -> Int[np.ndarray, "E 2"]:
    fits = union_rates(instance, instance.leaves, *instance.pairs.T) <= limit(instance)
    return np.asarray(instance.pairs[fits])


def _adjacency(instance: Instance) -> Bool[np.ndarray, "M M"]:
    near = np.zeros((len(instance.leaves),) * 2, dtype=bool)
    i, j = _allowed(instance).T
    near[i, j] = near[j, i] = True
    return near


def _too_many(num_items: int, most: int) -> str:
    return (
        f"{num_items} items have more than {most} allowed clusters, too many to list; "
        "solve exactly for fewer items, or use local search"
    )
