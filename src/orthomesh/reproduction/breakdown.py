"""Where accuracy is lost between an expert as it was trained and the answer a device gives.

Four stages, each task by task, accuracy in [0, 1]:

1. trained: the task's own expert as its device trained it (the oracle).
2. joined apart: the same expert out of its cluster's union, every entry divided by its holders, read through its mask.
3. joined: the same expert as the method's own rule joins it, e.g. the plain mean (10) that divides by all members.
4. held: every device answers with the right expert if it holds one, with the base if it does not.
5. given: every device answers as the method does, choosing for itself.

The drops between neighbours are what collisions, averaging, the radio and wrong choices cost; they add up to the whole
by construction. A drop below zero is a gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from ..evaluation.accuracy import Exam, Score, mean_accuracy
from ..evaluation.examine import examine, examine_oracle
from ..methods.setup import Setup
from ..methods.sparse_orthogonal import SparseOrthogonal, unjoined
from ..types import Bank, DeviceState, Engine

STAGES = ("trained", "joined apart", "joined", "held", "given")
CAUSES = ("collisions", "averaging", "radio", "choice")
"""Between neighbouring stages."""
MEAN = "mean"


class Breakdown(NamedTuple):
    """Accuracy by stage and task. stages: {stage: {task: [0, 1]}}, in the order of `STAGES`."""

    stages: Mapping[str, Mapping[str, float]]

    def drops(self, task: str) -> dict[str, float]:
        """What each cause costs one task; they add up to trained - given."""
        at = [self.stages[stage][task] for stage in STAGES]
        return {cause: at[n] - at[n + 1] for n, cause in enumerate(CAUSES)}


HEAD = ("method", "task", "as trained", "aggregated", "answered", *(f"- {cause}" for cause in CAUSES))
"""Of the table: a task by its own expert before and after aggregation, what devices answer, and who took what."""


class Loss(NamedTuple):
    """One task under one method, or the mean over its tasks: %, mean over seeds. drops: in the order of `CAUSES`."""

    method: str
    task: str
    stages: tuple[float, ...]
    drops: tuple[float, ...]


def losses(method: str, each: Sequence[Breakdown], tasks: Sequence[str]) -> list[Loss]:
    """Every task of a method, then their mean.

    Args:
        method: its title.
        each: of every seed.
        tasks: in order.
    """
    found = []
    for task in tasks:
        stages = tuple(100 * float(np.mean([b.stages[s][task] for b in each])) for s in STAGES)
        drops = tuple(100 * float(np.mean([b.drops(task)[c] for b in each])) for c in CAUSES)
        found.append(Loss(method, task, stages, drops))
    means = (tuple(np.mean([getattr(one, part) for one in found], axis=0).tolist()) for part in ("stages", "drops"))
    return [*found, Loss(method, MEAN, *means)]


def cells(loss: Loss) -> list[str]:
    """A line of the table, under `HEAD`."""
    at = dict(zip(STAGES, loss.stages, strict=True))
    told = (at["trained"], at["joined"], at["given"], *loss.drops)
    return [loss.method, loss.task, *(f"{value:.1f}" for value in told)]


def as_table(found: Sequence[Loss]) -> Table:
    """Means over tasks, for a terminal."""
    table = Table(title="what is lost on the way to an answer, %, mean over tasks and seeds", box=None)
    for n, name in enumerate(HEAD):
        if n != 1:
            table.add_column(name, justify="left" if n == 0 else "right", no_wrap=True)
    for loss in found:
        if loss.task == MEAN:
            first, _, *rest = cells(loss)
            table.add_row(first, *rest)
    return table


def as_markdown(found: Sequence[Loss]) -> str:
    """All tasks of all methods."""
    lines = [HEAD, ["---"] * 2 + ["---:"] * (len(HEAD) - 2), *(cells(loss) for loss in found)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def right_expert(device: DeviceState, bank: Callable[[DeviceState], Bank], owners: tuple[int, ...]) -> Bank:
    """Of what a device holds, the experts of one task's owners; without one the base answers."""
    experts = tuple(e for e in bank(device).experts if e.owner in owners)
    return Bank(experts=experts[:1])


def break_down(
    devices: Mapping[int, DeviceState],
    settings: SparseOrthogonal,
    setup: Setup,
    exam: Exam,
    engine: Engine,
    given: Mapping[str, float] | None = None,
) -> Breakdown:
    """Accuracy at every stage, from a run's last states.

    Args:
        devices: states by id, all rounds done.
        settings: of the method that made them.
        setup: of the run.
        exam: what is asked.
        engine: where the answering is done.
        given: the last stage by task, where it is on record.

    Returns:
        Every task at every stage.
    """
    bank = settings.build(setup).bank
    union = replace(settings, aggregation="union").build(setup).bank if settings.aggregation == "mean" else bank
    alone = partial(unjoined, c=settings, setup=setup)
    stages: dict[str, Mapping[str, float]] = {}
    for stage, which in (("trained", alone), ("joined apart", union), ("joined", bank)):
        stages[stage] = mean_accuracy(examine_oracle(devices, which, exam, engine).scores, [1])
    stages["held"] = _held(devices, bank, exam, engine)
    if given is None:
        found = examine(devices, bank, exam, engine)
        given = mean_accuracy(found.scores, found.weights)
    stages["given"] = dict(given)
    return Breakdown(stages)


def _held(
    devices: Mapping[int, DeviceState], bank: Callable[[DeviceState], Bank], exam: Exam, engine: Engine
) -> dict[str, float]:
    """Every task by every device with the right expert; devices that hold the same answer once."""
    found: dict[str, float] = {}
    for task, owners in exam.owners:
        one = exam._replace(owners=((task, owners),))
        result: Any = examine(devices, partial(right_expert, bank=bank, owners=owners), one, engine)
        scores: list[dict[str, Score]] = result.scores
        found[task] = mean_accuracy(scores, result.weights)[task]
    return found
