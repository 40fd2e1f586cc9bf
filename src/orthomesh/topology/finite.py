"""Base-(k+1) graphs: the exact mean of any number of devices after finitely many rounds (arXiv 2305.11420).

Every round is a symmetric doubly stochastic averaging in which nobody has more than k neighbours; the product of
all rounds is 11'/n. Weights are by (receiver, sender), as in `mixing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .mixing import Pair

Weights = dict[Pair, float]
Rounds = list[list[tuple[Pair, float]]]
"""Links (i, j) with their weight, round by round."""


def base(ids: Iterable[int], num_peers: int) -> tuple[Weights, ...]:
    """Rounds whose product is the exact mean, for any number of devices and any k: the Base-(k+1) graph.

    With n = p q, where p has the prime factors up to k + 1, p groups of q devices find their means by the simple
    graph, and groups of p, one of each, then average by a hyper-hypercube; or all by the simple graph where that
    takes fewer rounds.

    Args:
        ids: devices.
        num_peers: k, most neighbours in a round, >= 1.

    Returns:
        Weights of each round, all (i, i) among them; symmetric, doubly stochastic. At most 2 log_(k+1) n + 2 rounds,
        at least one.

    Raises:
        ValueError: no peers, or no devices.

    >>> base(range(2), 1)
    ({(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.5},)
    """
    nodes = sorted(set(ids))
    if num_peers < 1 or not nodes:
        raise ValueError(f"Base-(k+1) needs devices and at least one peer, got {len(nodes)} and {num_peers}")
    q = len(nodes)
    for prime in range(2, num_peers + 2):
        while q % prime == 0:
            q //= prime
    groups = [nodes[k : k + q] for k in range(0, len(nodes), q)]
    split = _together([_simple(group, num_peers) for group in groups])
    split += _together([_cube([group[k] for group in groups], num_peers) for k in range(q)])
    return tuple(_weights(links, nodes) for links in min(_simple(nodes, num_peers), split, key=len) or [[]])


def _simple(nodes: Sequence[int], k: int) -> Rounds:
    """Simple Base-(k+1) graph: parts of a (k+1)^p devices find their means, the smaller then balance the larger.

    With parts V_1, V_2, ... by falling p and each V_j of a_j blocks of P_j = (k+1)^(p_j): every device of the
    later parts meets one of each block of V_j at weight P_j / sum_(l >= j) |V_l|. That makes the mean of every
    block the mean of all, so that the blocks finish on their own.
    """
    parts = _parts(len(nodes), k)
    if len(parts) == 1 or _factors(len(nodes), k) is not None:
        return _cube(nodes, k)
    blocks, start = [], 0
    for size, count in parts:
        blocks.append([nodes[start + b * size : start + (b + 1) * size] for b in range(count)])
        start += count * size
    rounds = _together([_cube([i for block in part for i in block], k) for part in blocks])
    begin = len(rounds)
    for j, part in enumerate(blocks[:-1]):
        later = [i for rest in blocks[j + 1 :] for block in rest for i in block]
        weight = len(part[0]) / (len(part) * len(part[0]) + len(later))
        meeting = [((block[n], i), weight) for block in part for n, i in enumerate(later)]
        finish = _together([_cube(block, k) for block in part])
        rounds = _together([rounds, [[] for _ in range(begin + j)] + [meeting] + finish])
    return rounds


def _cube(nodes: Sequence[int], k: int) -> Rounds:
    """Hyper-hypercube: n = n_1 n_2 ... with factors up to k + 1; in round l those that differ in digit l average."""
    factors = _factors(len(nodes), k)
    assert factors is not None
    rounds: Rounds = []
    stride = 1
    for f in factors:
        groups = [range(first, first + f * stride, stride) for first in range(len(nodes)) if first // stride % f == 0]
        rounds.append([((nodes[a], nodes[b]), 1.0 / f) for group in groups for a in group for b in group if a < b])
        stride *= f
    return rounds


def _factors(n: int, k: int) -> list[int] | None:
    """The fewest factors up to k + 1 whose product is n, the largest first; none if there are none."""
    if n == 1:
        return []
    found = [
        [f, *rest] for f in range(min(n, k + 1), 1, -1) if n % f == 0 and (rest := _factors(n // f, k)) is not None
    ]
    return min(found, key=len, default=None)


def _parts(n: int, k: int) -> list[tuple[int, int]]:
    """Digits of n in base k + 1 that are not zero: (power, digit), the largest power first."""
    parts, power = [], 1
    while n:
        n, digit = divmod(n, k + 1)
        if digit:
            parts.append((power, digit))
        power *= k + 1
    return parts[::-1]


def _together(sequences: Sequence[Rounds]) -> Rounds:
    """Rounds of disjoint devices side by side; whoever is done rests."""
    longest = max((len(rounds) for rounds in sequences), default=0)
    return [[link for rounds in sequences if t < len(rounds) for link in rounds[t]] for t in range(longest)]


def _weights(links: Sequence[tuple[Pair, float]], nodes: Sequence[int]) -> Weights:
    """Both directions of every link, and what is left for oneself."""
    weights = {pair: w for (i, j), w in links for pair in ((i, j), (j, i))}
    for i in nodes:
        weights[i, i] = 0.0
    for (i, _), w in sorted((pair, w) for pair, w in weights.items() if pair[0] != pair[1]):
        weights[i, i] += w
    return {(i, j): 1.0 - weights[i, i] if i == j else weights[i, j] for i, j in sorted(weights)}
