"""How far a device that seems to be behind follows the others: who must say so, and how far they can have come.

A round takes at least as long as its training. So one that took part in a round with us and has been away since cannot
be further than the time since then allows, whatever it says. Of one that has not been in a round with this device since
it was started nothing is known: whoever returns has to take somebody's word for where the others are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .wire import Stage

SPEED = 2.0
"""Times the fastest own training that another's rounds may be."""


class Claim(NamedTuple):
    """Where a device says it is."""

    stage: Stage
    device: int


def claims(furthest: Mapping[int, Stage], met: Collection[int], alive: Collection[int]) -> list[Claim]:
    """Of those who are connected, the furthest first; where nobody is, of those who were.

    >>> claims({1: Stage(0, 2), 2: Stage(0, 5), 3: Stage(0, 9)}, [1, 2, 3], [1, 2])[0]
    Claim(stage=Stage(method=0, round=5), device=2)
    """
    known = [k for k in met if k in furthest]
    there = [k for k in known if k in alive] or known
    return sorted((Claim(furthest[k], k) for k in there), reverse=True)


def follow(said: list[Claim], here: Stage, most: Mapping[int, Stage]) -> tuple[Stage, Claim | None]:
    """Where to go on, and a claim that is not believed.

    Args:
        said: by all who are connected, the furthest first.
        here: where this device would go on otherwise.
        most: how far others can be at most, of whom that is known.

    Returns:
        The furthest stage that two say they have reached. Where fewer than three are connected one is enough, since
        two that come back together must find the one that has gone on; but no further than it can be.

    >>> b, c, d = (Claim(Stage(0, 9), 1), Claim(Stage(0, 2), 2), Claim(Stage(0, 2), 3))
    >>> follow([b, c, d], Stage(0, 2), {})
    (Stage(method=0, round=2), Claim(stage=Stage(method=0, round=9), device=1))
    >>> follow([b, c], Stage(0, 2), {}), follow([b, c], Stage(0, 2), {1: Stage(0, 4)})[0]
    ((Stage(method=0, round=9), None), Stage(method=0, round=4))
    """
    if not said:
        return here, None
    first = said[0]
    possible = said[1].stage if len(said) > 2 else min(first.stage, most.get(first.device, first.stage))
    believed = max(here, possible)
    return believed, first if first.stage > believed else None


def reachable(then: Stage, elapsed_s: float, training_s: float, last: Stage) -> Stage:
    """How far a device can be that was in a round so long ago, counting as many rounds a method as the longest has.

    >>> reachable(Stage(0, 3), 60.0, 30.0, Stage(1, 9)), reachable(Stage(0, 3), 1e9, 30.0, Stage(1, 9))
    (Stage(method=0, round=8), Stage(method=1, round=9))
    """
    rounds = 1 + int(min(SPEED * elapsed_s / training_s, 1e9))
    length = last.round + 1
    method, round_ = divmod(then.method * length + then.round + rounds, length)
    return min(Stage(method, round_), last)
