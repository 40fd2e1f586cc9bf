"""A whole run: methods one after the other, round by round, with evaluation, checkpoints and records.

`run` is a generator of events, so that whoever watches decides what to show; it never prints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from .checkpoint import load_devices, save_devices
from .config import STRICT
from .engines.inprocess import InProcess, pin_threads, worker_pool
from .evaluation.accuracy import Exam, Score, no_bank, own_expert, same_answers, sit
from .evaluation.record import Journal
from .methods import MethodSettings
from .methods.setup import Setup
from .methods.sparse_orthogonal import SparseOrthogonal
from .models.settings import ModelSettings, TrainSettings
from .round import run_round
from .tasks.catalogue import names
from .tasks.settings import TaskSettings
from .types import DeviceState, Method, Round, RoundInfo
from .wireless.air import SimulatedAir
from .wireless.channel import Channel
from .wireless.link import Radio

BASE, ORACLE = "base", "oracle"
"""Rows of every table that are no method: the untouched model, and each prompt to its own device's expert."""


@settings(frozen=True, kw_only=True, config=STRICT)
class Evaluate:
    """How often and on how much devices are examined; the final examination takes all test examples."""

    every: Annotated[int, Field(ge=0)] = 1
    """Rounds between examinations on the way; 0: only the final one."""
    prompts: Annotated[int, Field(ge=1)] = 25
    """Test prompts a task on the way."""
    devices: Annotated[int, Field(ge=1)] = 2
    """Devices examined on the way; in the end all are."""


@settings(frozen=True, kw_only=True, config=STRICT)
class Experiment:
    """Everything a run depends on. Two runs with equal settings end with equal hashes."""

    name: str = "default"
    """What the run is called."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Every random draw is keyed by it."""
    devices: Annotated[int, Field(ge=1)] | None = None
    """Number of devices; none: one per task."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Communication rounds."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Worker processes that compute; does not change the result."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Torch threads of each; changes the last bits of the result."""
    model: ModelSettings = ModelSettings()
    """The frozen base model."""
    tasks: TaskSettings = TaskSettings()
    """What the devices learn."""
    train: TrainSettings = TrainSettings()
    """Local fine-tuning."""
    channel: Channel = Channel()
    """Where devices are and how their signals fade."""
    radio: Radio = Radio()
    """What a device transmits with."""
    evaluate: Evaluate = Evaluate()
    """Examinations."""
    methods: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the methods to run, by the label they get in tables; each names its `kind`."""

    def setup(self) -> Setup:
        """The part that methods share, with the task of every device."""
        tasks = names(self.tasks)
        count = self.devices or len(tasks)
        return Setup(
            seed=self.seed,
            assignment=tuple(tasks[k % len(tasks)] for k in range(count)),
            model=self.model,
            train=self.train,
            tasks=self.tasks,
            radio=self.radio,
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One thing that happened. round: rounds done of this label, 0 at its start. share: of the whole run."""

    label: str
    round: int
    share: float
    info: RoundInfo | None = None
    accuracy: Mapping[str, float] | None = None
    final: bool = False


def run(x: Experiment, directory: Path) -> Iterator[Progress]:
    """Run an experiment, or go on with one that was interrupted, in its directory.

    A method that has a checkpoint goes on from there; one that has none starts. Records of rounds that no
    checkpoint covers are written again, so an interrupted run ends like one that was not.

    Args:
        x: the settings; when going on, the same as before.
        directory: where checkpoints and records are kept.

    Yields:
        What happened, as it happens.

    Raises:
        ValueError: a checkpoint that cannot be read, or settings that do not fit the data or the model.
        OSError: nothing can be written; the last checkpoint is whole.
    """
    pin_threads(x.threads)
    setup, journal = x.setup(), Journal(directory)
    pool = worker_pool(min(x.workers, setup.num_devices), x.threads)
    engine = InProcess(setup.num_devices, pool)
    parts = 1 + len(x.methods) * (x.rounds + 2)  # share of the whole; an examination counts two rounds
    try:
        if not journal.has(BASE, 0):
            nobody = {0: DeviceState(id=0, own={})}
            journal.write_exam(BASE, 0, *_examine(nobody, no_bank, x, setup, engine, final=True))
        yield Progress(label=BASE, round=0, share=1 / parts, accuracy=journal.accuracy(BASE, 0), final=True)
        for number, (label, method) in enumerate(x.methods.items()):
            before = (1 + number * (x.rounds + 2)) / parts
            for step in _run_method(x, setup, label, method, engine, journal, directory):
                done = before + (step.round + 2 * step.final) / parts
                yield Progress(**{**vars(step), "share": done})
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def checkpoint_path(directory: Path, label: str) -> Path:
    """Where the states of a method's devices are kept."""
    return directory / "state" / f"{label}.safetensors"


def _run_method(
    x: Experiment,
    setup: Setup,
    label: str,
    settings_: MethodSettings,
    engine: InProcess,
    journal: Journal,
    directory: Path,
) -> Iterator[Progress]:
    """All rounds of one method and its final examination."""
    method = settings_.build(setup)
    air = SimulatedAir(channel=x.channel, radio=x.radio, seed=x.seed, num_devices=setup.num_devices)
    path = checkpoint_path(directory, label)
    devices: dict[int, DeviceState] = {k: method.init(k) for k in engine.hosted}
    done = 0
    if path.exists():
        devices, done = load_devices(path)
    yield Progress(label=label, round=done, share=0)
    for index in range(done, x.rounds):
        started = time.monotonic()
        devices, info = run_round(Round(x.seed, index, x.rounds), devices, method, air, engine)
        journal.write_round(label, info, devices, time.monotonic() - started)
        due = x.evaluate.every and (index + 1) % x.evaluate.every == 0 and index + 1 < x.rounds
        accuracy = None
        if due:
            few = {k: devices[k] for k in sorted(devices)[: x.evaluate.devices]}
            journal.write_exam(label, index + 1, *_examine(few, method.bank, x, setup, engine, final=False))
            accuracy = journal.accuracy(label, index + 1)
        save_devices(path, devices, index + 1)
        yield Progress(label=label, round=index + 1, share=0, info=info, accuracy=accuracy)
    if not journal.has(label, x.rounds):
        journal.write_exam(label, x.rounds, *_examine(devices, method.bank, x, setup, engine, final=True))
    if isinstance(settings_, SparseOrthogonal) and not journal.has(ORACLE, 0):
        journal.write_exam(ORACLE, 0, *_oracle(devices, method, x, setup, engine))
    yield Progress(label=label, round=x.rounds, share=0, accuracy=journal.accuracy(label, x.rounds), final=True)


def _exam(x: Experiment, setup: Setup, final: bool) -> Exam:
    tasks = tuple(dict.fromkeys(setup.assignment))
    owners = tuple((t, tuple(k for k, mine in enumerate(setup.assignment) if mine == t)) for t in tasks)
    limit = x.tasks.test_examples if final else min(x.evaluate.prompts, x.tasks.test_examples)
    return Exam(model=x.model, tasks=x.tasks, seed=x.seed, limit=limit, owners=owners)


def _examine(
    devices: Mapping[int, DeviceState],
    bank: Any,
    x: Experiment,
    setup: Setup,
    engine: InProcess,
    *,
    final: bool,
) -> tuple[list[dict[str, Score]], list[int], dict[int, int]]:
    """Every task to every device; devices that would answer alike are asked once.

    Returns:
        Scores by task of every device asked, how many devices each stands for, and experts held by device.
    """
    prints = engine.map(partial(same_answers, bank=bank), devices)
    alike: dict[str, list[int]] = {}
    for k, (print_, _) in prints.items():
        alike.setdefault(print_, []).append(k)
    exam = _exam(x, setup, final)
    tasks = [t for t, _ in exam.owners]
    asked = [devices[group[0]] for group in alike.values()]
    halves = [tasks[0::2], tasks[1::2]] if len(asked) < x.workers else [tasks]  # one device, two workers
    jobs = {n: (device, tuple(part)) for n, (device, part) in enumerate((d, p) for d in asked for p in halves if p)}
    found = engine.map(partial(sit, bank=bank, exam=exam), jobs)
    scores: dict[int, dict[str, Score]] = {}
    for n, (device, _) in jobs.items():
        scores.setdefault(device.id, {}).update(found[n])
    ordered = [{t: scores[device.id][t] for t in tasks} for device in asked]
    return ordered, [len(group) for group in alike.values()], {k: n for k, (_, n) in prints.items()}


def _oracle(
    devices: Mapping[int, DeviceState], method: Method, x: Experiment, setup: Setup, engine: InProcess
) -> tuple[list[dict[str, Score]], list[int], dict[int, int]]:
    """Each task to the devices that own it, answering with their own expert only: the upper bound."""
    exam = _exam(x, setup, final=True)
    jobs = {k: (devices[k], (setup.assignment[k],)) for k in devices}
    found = engine.map(partial(sit, bank=partial(own_expert, bank=method.bank), exam=exam), jobs)
    best: dict[str, list[Score]] = {}
    for k in sorted(found):
        for task, score in found[k].items():
            best.setdefault(task, []).append(score)
    joined = {
        t: Score(sum(s.asked for s in ss), sum(s.right for s in ss), sum(s.asked for s in ss), ss[0].cut)
        for t, ss in best.items()
    }
    return [joined], [1], dict.fromkeys(devices, 1)
