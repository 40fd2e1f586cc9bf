"""Tasks by name: which there are, and a device's or the test's share of their examples."""

from __future__ import annotations

import functools

from ..rng import stream
from ..types import Example
from .embedded import TASKS, examples
from .rows import read_directory, read_hub
from .settings import TaskSettings


def names(settings: TaskSettings) -> tuple[str, ...]:
    """The tasks of a run, in order.

    Raises:
        ValueError: data given but no names, or a name twice.
    """
    if settings.data and not settings.names:
        raise ValueError("tasks.names: name the tasks to take from tasks.data, e.g. --tasks snips,trec")
    chosen = settings.names or tuple(TASKS)
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"tasks.names: a task is named twice in {', '.join(chosen)}")
    return chosen


@functools.lru_cache(maxsize=128)
def training_share(settings: TaskSettings, task: str, seed: int, share: int, num_shares: int) -> tuple[Example, ...]:
    """A device's own training examples; devices with the same task have disjoint parts of one keyed draw.

    Rows of a file are drawn without replacement. Embedded tasks draw inputs afresh, so that an input may occur twice.

    Args:
        settings: where from, how many.
        task: its name.
        seed: of the run; decides who gets what.
        share: which of the devices with this task, from 0.
        num_shares: how many devices have this task.

    Raises:
        ValueError: fewer examples than devices, or whatever is wrong with the data.
    """
    wanted = settings.train_examples
    pool = _all(settings, task, "train", wanted * num_shares, seed)
    count = min(wanted, len(pool) // num_shares)
    if count == 0:
        raise ValueError(f"task {task!r} has {len(pool)} training examples for {num_shares} devices")
    return pool[share * count : (share + 1) * count]


@functools.lru_cache(maxsize=128)
def test_set(settings: TaskSettings, task: str, seed: int) -> tuple[Example, ...]:
    """The test examples of a task, the same for every device and method."""
    return _all(settings, task, "test", settings.test_examples, seed)


@functools.lru_cache(maxsize=32)
def _all(settings: TaskSettings, task: str, split: str, count: int, seed: int) -> tuple[Example, ...]:
    """Up to `count` examples of a split in a keyed random order."""
    purpose = f"examples {task} {split}".replace("/", " ")
    if not settings.data:
        return tuple(examples(task, split, count, stream(seed, purpose)))
    pool = (read_hub if settings.data == "hub" else read_directory)(settings, task, split)
    if not pool:
        raise ValueError(f"task {task!r}: its split {split!r} is empty")
    order = stream(seed, purpose).permutation(len(pool))[:count]
    return tuple(pool[int(n)] for n in order)
