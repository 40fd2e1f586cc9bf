"""Who is asked what: devices that would answer alike are asked once, and the oracle's upper bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from ..types import Bank, DeviceState, Engine
from .accuracy import Exam, Score, own_expert, same_answers, sit


class Result(NamedTuple):
    """scores: by task, for every device asked. weights: how many devices each stands for. held: experts by device.
    own: by task, of those asked that have it, added up."""

    scores: list[dict[str, Score]]
    weights: list[int]
    held: dict[int, int]
    own: Mapping[str, Score] = MappingProxyType({})


def examine(
    devices: Mapping[int, DeviceState],
    bank: Callable[[DeviceState], Bank],
    exam: Exam,
    engine: Engine,
    num_parts: int = 1,
    made_of: Callable[[DeviceState], bytes] | None = None,
) -> Result:
    """Put every task to every device.

    Args:
        devices: states by id.
        bank: what a device answers with.
        exam: what is asked.
        engine: where the answering is done.
        num_parts: into how many jobs one device's tasks are split; changes nothing but the waiting.
        made_of: a digest of all that a bank depends on: of devices with the same one bank is looked at; none: each.

    Returns:
        The outcome; devices that would answer alike share one entry.
    """
    prints = _prints(devices, bank, engine, made_of)
    alike: dict[str, list[int]] = {}
    for k, (print_, _) in prints.items():
        alike.setdefault(print_, []).append(k)
    tasks = [task for task, _ in exam.owners]
    asked = [group[0] for group in alike.values()]
    parts = [tuple(tasks[n::num_parts]) for n in range(num_parts)]
    jobs = dict(enumerate((devices[k], part) for k in asked for part in parts if part))
    found = engine.map(partial(sit, bank=bank, exam=exam), jobs)
    scores: dict[int, dict[str, Score]] = {k: {} for k in asked}
    for n, (device, _) in jobs.items():
        scores[device.id].update(found[n])
    ordered = [{task: scores[k][task] for task in tasks} for k in asked]
    by_device = {k: scores[group[0]] for group in alike.values() for k in group}
    return Result(
        ordered,
        [len(group) for group in alike.values()],
        {k: n for k, (_, n) in prints.items()},
        {task: _total(by_owners) for task, by_owners in _owners(by_device, exam).items()},
    )


def _prints(
    devices: Mapping[int, DeviceState],
    bank: Callable[[DeviceState], Bank],
    engine: Engine,
    made_of: Callable[[DeviceState], bytes] | None,
) -> dict[int, tuple[str, int]]:
    """What `same_answers` says of every device, with one bank for all whose banks are made of the same."""
    kinds = {k: k if made_of is None else made_of(devices[k]) for k in sorted(devices)}
    firsts = {kind: k for k, kind in reversed(kinds.items())}
    found = engine.map(partial(same_answers, bank=bank), {k: devices[k] for k in firsts.values()})
    return {k: found[firsts[kind]] for k, kind in kinds.items()}


def examine_own(
    devices: Mapping[int, DeviceState], bank: Callable[[DeviceState], Bank], exam: Exam, engine: Engine
) -> Result:
    """Each task to the devices that have it, answering with all they hold.

    Returns:
        One outcome that stands for everybody; tasks that several devices have add up theirs.
    """
    jobs = {k: (devices[k], (task,)) for task, owners in exam.owners for k in owners if k in devices}
    found = engine.map(partial(sit, bank=bank, exam=exam), jobs)
    joined = {task: _total(scores) for task, scores in _owners(found, exam).items()}
    return Result([joined], [1], dict.fromkeys(devices, 1), joined)


def examine_oracle(
    devices: Mapping[int, DeviceState], bank: Callable[[DeviceState], Bank], exam: Exam, engine: Engine
) -> Result:
    """Each task to the devices that own it, answering with their own expert only: the upper bound.

    Returns:
        As `examine_own`, every prompt counted as sent to the right expert.
    """
    found = examine_own(devices, partial(own_expert, bank=bank), exam, engine)
    joined = {task: s._replace(routed=s.asked) for task, s in found.own.items()}
    return found._replace(scores=[joined], own=joined)


def _owners(found: Mapping[int, Mapping[str, Score]], exam: Exam) -> dict[str, list[Score]]:
    """By task, the scores of those devices asked that have it; without tasks that none of them has."""
    each = {task: [found[k][task] for k in owners if k in found] for task, owners in exam.owners}
    return {task: scores for task, scores in each.items() if scores}


def _total(scores: Sequence[Score]) -> Score:
    """Of one task: answers added up; prompts that were cut are the same for all."""
    asked, right, unread = (sum(getattr(s, name) for s in scores) for name in ("asked", "right", "unread"))
    routed = -1 if any(s.routed < 0 for s in scores) else sum(s.routed for s in scores)
    return Score(asked, right, routed, scores[0].cut, unread)
