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

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from ..evaluation.accuracy import Exam, Score, mean_accuracy
from ..evaluation.examine import examine, examine_oracle
from ..methods.setup import Setup
from ..methods.sparse_orthogonal import SparseOrthogonal, unjoined
from ..types import Bank, DeviceState, Engine

STAGES = ("trained", "joined apart", "joined", "held", "given")
CAUSES = ("collisions", "averaging", "radio", "choice")
"""Between neighbouring stages."""


class Breakdown(NamedTuple):
    """Accuracy by stage and task. stages: {stage: {task: [0, 1]}}, in the order of `STAGES`."""

    stages: Mapping[str, Mapping[str, float]]

    def drops(self, task: str) -> dict[str, float]:
        """What each cause costs one task; they add up to trained - given."""
        at = [self.stages[stage][task] for stage in STAGES]
        return {cause: at[n] - at[n + 1] for n, cause in enumerate(CAUSES)}


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
