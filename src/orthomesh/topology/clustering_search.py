"""Local search: fewer clusters by dissolving the smallest, then less collision by moving and swapping items. R10."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .clustering_fit import best_fit
from .clustering_instance import Instance, Members, order_of
from .clustering_merge import merge_rounds
from .clustering_parts import Parts

Moves = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to search.

    depth: how many items may make room for one another in a row. tries: items that are offered around, at most, to
    dissolve one cluster. sweeps: of moves and swaps over all items. restarts: further orders of best-fit decreasing to
    start from. seed: of these orders.
    """

    depth: int = 1
    tries: int = 200
    sweeps: int = 3
    restarts: int = 0
    seed: int = 0


def effort(num_items: int) -> Effort:
    """What takes about a second: much for few items, little for many."""
    if num_items <= 200:
        return Effort(depth=3, tries=200 if num_items <= 20 else 2000, sweeps=8, restarts=4 if num_items <= 20 else 8)
    return Effort(depth=2) if num_items <= 2000 else Effort()


def local_search(instance: Instance, how: Effort | None = None) -> tuple[Members, ...]:
    """Fewest clusters, then least sum_C n_C S_C, by moving items between clusters, reading R10.

    Dissolving: the members of the smallest cluster go elsewhere, each where it fits, or where it fits once another
    item has made room and gone elsewhere itself. Moving and swapping: whatever lowers sum_C n_C S_C. Both in turn
    until nothing helps. Starts: best-fit decreasing, and up to 2000 items the paper's mergers too; of equal results
    the one of least power.

    Args:
        instance: items, how they join, who may be together.
        how: how hard; none: by the number of items.

    Returns:
        The best partition over all starts, no worse than any of them.
    """
    how = effort(len(instance.leaves)) if how is None else how
    starts = [best_fit(instance)]
    starts += [merge_rounds(instance).clusters] if len(instance.leaves) <= 2000 else []
    starts += [best_fit(instance, restarts=1, seed=how.seed * 1000 + n + 1) for n in range(how.restarts)]
    found = [improve(instance, start, how) for start in dict.fromkeys(starts)]
    return min(found, key=lambda clusters: order_of(instance, clusters))


def improve(instance: Instance, clusters: Iterable[Members], how: Effort) -> tuple[Members, ...]:
    """A partition no worse than the one given: fewer clusters, or as many and no more sum_C n_C S_C."""
    parts = Parts(instance)
    parts.load(clusters)
    tried: set[Members] = set()
    while _dissolve_all(parts, how, tried) | _settle(parts, how.sweeps):
        if not _dissolve_all(parts, how, tried):
            break
    return parts.clusters()


def _dissolve_all(parts: Parts, how: Effort, tried: set[Members]) -> bool:
    """Dissolve whatever can be, smallest clusters first. Whether any was; what could not be is noted."""
    any_gone = False
    queue = sorted((n, c) for c, n in enumerate(parts.count.tolist()) if n)
    for _, label in queue:
        members = tuple(sorted(parts.members[label]))
        if not members or members in tried:
            continue
        if _dissolve(parts, label, how):
            any_gone = True
        else:
            tried.add(members)
    if any_gone:
        tried.clear()
    return any_gone


def _dissolve(parts: Parts, label: int, how: Effort) -> bool:
    """Find every member of a cluster another place, or leave everything as it was."""
    members = sorted(parts.members[label], key=lambda i: (len(parts.near[i]), -parts.instance.size[i], i))
    moves, tries = Moves(), iter(range(how.tries))
    for item in members:
        if not _place(parts, item, {label}, how.depth, (moves, tries)):
            for moved, back in reversed(moves):
                parts.take(moved)
                parts.put(moved, back)
            return False
    return True


def _place(parts: Parts, item: int, but: set[int], depth: int, notes: tuple[Moves, Iterator[int]]) -> bool:
    """Move an item to another cluster, at most `depth` others making room in a row; noted with where it came from."""
    moves, tries = notes
    if next(tries, None) is None:
        return False
    old = int(parts.label[item])
    labels, rates = parts.options(item, but)
    if len(labels):
        parts.take(item)
        parts.put(item, int(labels[rates.argmax()]))
        moves.append((item, old))
        return True
    if depth == 0:
        return False
    labels, leavers, _ = parts.swaps(item, but)
    for new, leaver in zip(labels.tolist(), leavers.tolist(), strict=True):
        if _place(parts, leaver, {*but, new}, depth - 1, notes):
            parts.take(item)
            parts.put(item, new)
            moves.append((item, old))
            return True
    return False


def _settle(parts: Parts, sweeps: int) -> bool:
    """Move and swap items while sum_C n_C S_C falls, at most so many sweeps. Whether anything changed."""
    changed = False
    fresh = set(range(parts.num_items))
    for _ in range(sweeps):
        todo, fresh = sorted(fresh), set()
        for item in todo:
            touched = _relocate(parts, item) or _swap(parts, item)
            if touched:
                changed = True
                fresh |= {j for c in touched for i in parts.members[c] for j in (i, *parts.near[i])}
        if not fresh:
            break
    return changed


def _relocate(parts: Parts, item: int) -> tuple[int, ...]:
    """Move an item to where sum n S falls most; the labels it changed, none if it stays."""
    old = int(parts.label[item])
    labels, rates = parts.options(item, {old})
    if not len(labels):
        return ()
    n = int(parts.count[old])
    left = (n - 1) * _rate_left(parts, item, old) - n * int(parts.rate[old])
    gain = (parts.count[labels] + 1) * rates - parts.count[labels] * parts.rate[labels] + left
    best = int(gain.argmin())
    if gain[best] < 0 or (n == 1 and gain[best] <= 0):
        parts.take(item)
        parts.put(item, int(labels[best]))
        return (old, int(labels[best]))
    return ()


def _swap(parts: Parts, item: int) -> tuple[int, ...]:
    """Change places with another item where sum n S falls; the labels it changed, none if nothing helps."""
    old = int(parts.label[item])
    if parts.rate[old] == 0 and parts.count[old] > 1:
        return ()
    labels, others, rates = parts.swaps(item, {old})
    for new, other, rate in zip(labels.tolist(), others.tolist(), rates.tolist(), strict=True):
        mates = [i for i in parts.members[old] if i != item]
        if not all(i in parts.near[other] for i in mates):
            continue
        there = int(parts.count[new]) * (rate - int(parts.rate[new]))
        if there >= int(parts.count[old]) * int(parts.rate[old]):
            continue
        here = parts.joined_rate(old, item, other)
        if here is not None and there + int(parts.count[old]) * (here - int(parts.rate[old])) < 0:
            parts.take(item)
            parts.take(other)
            parts.put(other, old)
            parts.put(item, new)
            return (old, new)
    return ()


def _rate_left(parts: Parts, item: int, label: int) -> int:
    """Rate of a cluster without one of its members."""
    if parts.count[label] <= 2:
        return 0
    return int(parts.rate_without(label)[parts.members[label].index(item)])
