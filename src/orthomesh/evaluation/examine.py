"""Who is asked what: devices that would answer alike are asked once, and the oracle's upper bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from ..types import Bank, DeviceState, Engine
from .accuracy import Exam, Score, own_expert, same_answers, sit


class Result(NamedTuple):
    """scores: by task, for every device asked. weights: how many devices each stands for. held: experts by device."""

    scores: list[dict[str, Score]]
    weights: list[int]
    held: dict[int, int]


def examine(
    devices: Mapping[int, DeviceState],
    bank: Callable[[DeviceState], Bank],
    exam: Exam,
    engine: Engine,
    num_parts: int = 1,
) -> Result:
    """Put every task to every device.

    Args:
        devices: states by id.
        bank: what a device answers with.
        exam: what is asked.
        engine: where the answering is done.
        num_parts: into how many jobs one device's tasks are split; changes nothing but the waiting.

    Returns:
        The outcome; devices that would answer alike share one entry.
    """
    prints = engine.map(partial(same_answers, bank=bank), devices)
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
    return Result(ordered, [len(group) for group in alike.values()], {k: n for k, (_, n) in prints.items()})


def examine_oracle(
    devices: Mapping[int, DeviceState], bank: Callable[[DeviceState], Bank], exam: Exam, engine: Engine
) -> Result:
    """Each task to the devices that own it, answering with their own expert only: the upper bound.

    Returns:
        One outcome that stands for everybody; tasks with several owners add up theirs.
    """
    jobs = {k: (devices[k], (task,)) for task, owners in exam.owners for k in owners if k in devices}
    found = engine.map(partial(sit, bank=partial(own_expert, bank=bank), exam=exam), jobs)
    joined = {}
    for task, owners in exam.owners:
        scores = [found[k][task] for k in owners if k in found]
        asked, right = sum(s.asked for s in scores), sum(s.right for s in scores)
        joined[task] = Score(asked, right, asked, scores[0].cut, sum(s.unread for s in scores))
    return Result([joined], [1], dict.fromkeys(devices, 1))
