"""What every method needs to know of the run it is part of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ..models.settings import ModelSettings, TrainSettings
from ..tasks.catalogue import training_share
from ..tasks.settings import TaskSettings
from ..types import Example
from ..wireless.link import Radio


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The part of a run that methods share: data, model, training, radio budget.

    assignment: task of every device, by id.
    """

    seed: int
    assignment: tuple[str, ...]
    model: ModelSettings
    train: TrainSettings
    tasks: TaskSettings
    radio: Radio

    @property
    def num_devices(self) -> int:
        """How many devices take part."""
        return len(self.assignment)


def device_examples(setup: Setup, device: int) -> tuple[Example, ...]:
    """The training examples of one device."""
    task = setup.assignment[device]
    peers = [k for k, other in enumerate(setup.assignment) if other == task]
    return training_share(setup.tasks, task, setup.seed, peers.index(device), len(peers))


@functools.lru_cache(maxsize=128)
def device_rows(setup: Setup, device: int) -> list[Any]:
    """The same as `models.tokens.Row`s for the run's base model; kept, since every round needs them."""
    from ..models.base import load_base  # late: the command line reads methods for their settings
    from ..models.tokens import tokenise

    return tokenise(load_base(setup.model), device_examples(setup, device), f"task {setup.assignment[device]}")
