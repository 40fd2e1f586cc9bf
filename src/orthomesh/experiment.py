"""A whole run: methods one after the other, round by round, with evaluation, checkpoints and records.

`run` is a generator of events, so that whoever watches decides what to show; it never prints.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from .checkpoint import digest, load_devices, save_devices, write_whole
from .config import STRICT
from .engines.inprocess import InProcess, Pool, pin_threads, worker_pool
from .engines.ray import ray_pool
from .evaluation.accuracy import Exam, no_bank, test_rows
from .evaluation.examine import Result, examine, examine_oracle, examine_own
from .evaluation.record import Journal, write_tables
from .evaluation.summary import SCHEMA, joint_digest, row
from .methods import MethodSettings
from .methods.fedsb import FedSb, check_start
from .methods.hard_moe import HardMoe
from .methods.setup import Setup, device_rows
from .methods.sparse_orthogonal import SparseOrthogonal, unjoined
from .methods.trained import as_trained
from .models.settings import ModelSettings, TrainSettings
from .round import exchange, train
from .tasks.catalogue import names
from .tasks.settings import TaskSettings
from .types import DeviceState, Method, Round, RoundInfo
from .wireless.air import SimulatedAir
from .wireless.channel import Channel, positions
from .wireless.link import Radio
from .wireless.traces import traced_gains

BASE, ORACLE = "base", "oracle"
"""Rows of every table that are no method: the untouched model, and each prompt to its own device's expert."""
ALONE = ("local", "centralised", "hard_moe")
"""Kinds whose devices exchange nothing by design."""


@settings(frozen=True, kw_only=True, config=STRICT)
class Evaluate:
    """How often and on how much devices are examined; the final examination takes all test examples."""

    every: Annotated[int, Field(ge=0)] = 1
    """Rounds between examinations on the way; 0: only the final one."""
    prompts: Annotated[int, Field(ge=1)] = 25
    """Test prompts a task on the way."""
    devices: Annotated[int, Field(ge=1)] = 2
    """Devices examined on the way; in the end all are."""
    scorer: Literal["own", "lm-eval"] = "own"
    """Who scores answers that are chosen or written out: ourselves, or lm-evaluation-harness (extra `eval`)."""
    answer_tokens: Annotated[int, Field(ge=1)] = 400
    """Tokens that are written at most where an answer is checked by what it says."""


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
    engine: Literal["inprocess", "ray"] = "inprocess"
    """Where workers run: on this machine, or on a Ray cluster; does not change the result."""
    ray_address: str | None = None
    """`host:port` of a running Ray cluster, `auto` for the one of this machine; none: one is started here."""
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
    pool = _pool(x, setup.num_devices)
    engine = InProcess(setup.num_devices, pool)
    parts = 1 + len(x.methods) * (x.rounds + 2)  # share of the whole; an examination counts two rounds
    try:
        if not journal.has(BASE, 0):
            nobody = {0: DeviceState(id=0, own={})}
            journal.write_exam(BASE, 0, examine(nobody, no_bank, exam_of(x, setup, final=True), engine, x.workers))
        yield Progress(label=BASE, round=0, share=1 / parts, accuracy=journal.accuracy(BASE, 0), final=True)
        for number, (label, method) in enumerate(x.methods.items()):
            before = (1 + number * (x.rounds + 2)) / parts
            for step in _run_method(x, setup, label, method, engine, journal, directory):
                done = before + (step.round + 2 * step.final) / parts
                yield Progress(**{**vars(step), "share": done})
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _pool(x: Experiment, num_devices: int) -> Pool | None:
    """The workers of a run; none where this process computes alone."""
    count = min(x.workers, num_devices)
    if x.engine == "ray":
        return ray_pool(count, x.threads, x.ray_address, x.model.device.startswith("cuda"))
    return worker_pool(count, x.threads)


def checkpoint_path(directory: Path, label: str) -> Path:
    """Where the states of a method's devices are kept."""
    return directory / "state" / f"{label}.safetensors"


def oracle_of(x: Experiment) -> str | None:
    """The method whose experts the oracle asks: the first that keeps experts apart."""
    return next((label for label, m in x.methods.items() if isinstance(m, SparseOrthogonal)), None)


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
        started, t = time.monotonic(), Round(x.seed, index, x.rounds)
        trained, learnt = train(t, devices, method, engine)
        devices, info = exchange(t, trained, learnt, method, air, engine)
        journal.write_round(label, info, devices, time.monotonic() - started)
        if t.is_last:
            before = examine_own(trained, as_trained(settings_, method, setup), exam_of(x, setup, final=True), engine)
            journal.write_trained(label, index + 1, before)
        del trained  # of large models two sets of states are all there is room for
        due = x.evaluate.every and (index + 1) % x.evaluate.every == 0 and index + 1 < x.rounds
        accuracy = None
        if due:
            exam = exam_of(x, setup, final=False)
            journal.write_exam(label, index + 1, _examined(x, settings_, devices, method, exam, engine))
            accuracy = journal.accuracy(label, index + 1)
        save_devices(path, devices, index + 1)
        yield Progress(label=label, round=index + 1, share=0, info=info, accuracy=accuracy)
    exam = exam_of(x, setup, final=True)
    if not journal.has(label, x.rounds):
        journal.write_exam(label, x.rounds, _examined(x, settings_, devices, method, exam, engine, final=True))
    if isinstance(settings_, SparseOrthogonal) and label == oracle_of(x) and not journal.has(ORACLE, 0):
        apart = partial(unjoined, c=settings_, setup=setup)  # what was trained, whatever joining made of it
        journal.write_exam(ORACLE, 0, examine_oracle(devices, apart, exam, engine))
    yield Progress(label=label, round=x.rounds, share=0, accuracy=journal.accuracy(label, x.rounds), final=True)


def _examined(
    x: Experiment,
    settings_: MethodSettings,
    devices: Mapping[int, DeviceState],
    method: Method,
    exam: Exam,
    engine: InProcess,
    final: bool = False,
) -> Result:
    """Every task put to every device, on the way to a few; an oracle puts each to the devices that own it."""
    if isinstance(settings_, HardMoe):
        return examine_oracle(devices, method.bank, exam, engine)
    asked = dict(devices) if final else {k: devices[k] for k in sorted(devices)[: x.evaluate.devices]}
    return examine(asked, method.bank, exam, engine, x.workers, method.made_of)


def exam_of(x: Experiment, setup: Setup, *, final: bool) -> Exam:
    """What devices are asked: on the way a few prompts of every task, in the end all."""
    tasks = tuple(dict.fromkeys(setup.assignment))
    owners = tuple((t, tuple(k for k, mine in enumerate(setup.assignment) if mine == t)) for t in tasks)
    limit = x.tasks.test_examples if final else min(x.evaluate.prompts, x.tasks.test_examples)
    return Exam(
        model=x.model,
        tasks=x.tasks,
        seed=x.seed,
        limit=limit,
        owners=owners,
        harness=x.evaluate.scorer == "lm-eval",
        longest=x.evaluate.answer_tokens,
    )


def check(x: Experiment) -> list[str]:
    """Load the model and read all data once, so that nothing is found wrong after hours of work.

    Returns:
        Sentences a user should know, e.g. that prompts were cut.

    Raises:
        ValueError: whatever is wrong with model, tasks or settings.
    """
    if not x.methods:
        raise ValueError("methods: there is nothing to run, name at least one")
    if x.engine != "ray" and x.ray_address is not None:
        raise ValueError(f"ray_address: {x.ray_address} is of use with engine: ray only")
    from .models.base import load_base  # late: the command line reads this file for its settings
    from .models.size import size_of

    if x.evaluate.scorer == "lm-eval" and importlib.util.find_spec("lm_eval") is None:
        raise ValueError("evaluate.scorer: lm-eval is not installed; pip install 'orthomesh[eval]', or take `own`")
    setup = x.setup()
    for index in range(x.rounds if x.channel.trace is not None else 0):
        traced_gains(x.channel, x.radio, index, setup.num_devices)
    for label, method in x.methods.items():
        try:
            if isinstance(method, FedSb):
                check_start(method, x.rounds, size_of(x.model).adapted)
            method.build(setup)
        except ValueError as error:
            raise ValueError(f"methods.{label}: {error}") from None
    load_base(x.model)
    notes = []
    for k, task in enumerate(setup.assignment):
        cut = sum(row.cut for row in device_rows(setup, k))
        if cut:
            notes.append(f"{cut} training prompts of {task} (device {k}) exceed the context; their beginnings are cut")
    exam = exam_of(x, setup, final=True)
    for task, _ in exam.owners:
        rows = test_rows(exam, task)
        if cut := sum(row.cut for row in rows):
            notes.append(f"{cut} of {len(rows)} test prompts of {task} exceed the context; their beginnings are cut")
    unused = set(names(x.tasks)) - set(setup.assignment)
    if unused:
        notes.append(f"{setup.num_devices} devices leave these tasks without one: {', '.join(sorted(unused))}")
    return notes


def finish(x: Experiment, directory: Path, notes: Sequence[str], wall_s: float) -> dict[str, Any]:
    """Write what a finished run leaves: tables in Parquet, `summary.json` and `report.html`.

    Args:
        x: the settings.
        directory: of the run, all methods done.
        notes: sentences for the reader.
        wall_s: how long this process worked on it.

    Returns:
        The summary (docs/summary.md), its methods as a list of `rows`.
    """
    from .evaluation.report import read_run, write_report  # late: it loads plotly and scipy
    from .models.base import load_base

    journal, setup, base = Journal(directory), x.setup(), load_base(x.model)
    states = {label: load_devices(checkpoint_path(directory, label))[0] for label in x.methods}
    rows = [row(journal, BASE, BASE, None)]
    rows += [row(journal, label, m.kind, states[label]) for label, m in x.methods.items()]
    if journal.has(ORACLE, 0) and journal.accuracy(ORACLE, 0).keys() >= rows[0]["accuracy"].keys():  # not a lone peer's
        rows.append(row(journal, ORACLE, ORACLE, None))
    for made in rows:
        if made["collision"]:
            made["collision"]["layers"] = list(base.layout.names)
    places = positions(x.channel, x.seed, setup.num_devices).tolist()
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "name": x.name,
        "seed": x.seed,
        "final_sha256": joint_digest({label: digest(devices) for label, devices in states.items()}),
        "rounds": x.rounds,
        "devices": [
            {"id": k, "task": task, "x_m": places[k][0], "y_m": places[k][1]} for k, task in enumerate(setup.assignment)
        ],
        "tasks": [task for task in dict.fromkeys(setup.assignment) if all(task in r["accuracy"] for r in rows)],
        "model": {"name": x.model.source, "parameters": base.num_parameters, "layers": len(base.slots)},
        "radio": {
            "bandwidth_hz": x.radio.bandwidth_hz,
            "deadline_s": x.radio.deadline_s,
            "max_power_dbm": x.radio.max_power_dbm,
            "radius_m": x.channel.radius_m,
        },
        "versions": versions(),
        "wall_s": wall_s,
        "notes": [*notes, *_isolation(rows, {label: _num_experts(devices) for label, devices in states.items()})],
        "methods": {made["label"]: made for made in rows},
    }
    write_tables(journal, list(summary["methods"]))
    write_whole(directory / "summary.json", json.dumps(summary, indent=1).encode())
    write_report(directory)
    return dict(read_run(directory).summary)


def _num_experts(devices: Mapping[int, DeviceState]) -> int:
    """How many experts there are among devices: those of a group (R11) share one."""
    return len({tuple(d.own["group"].tolist()) if "group" in d.own else (k,) for k, d in devices.items()})


def _isolation(rows: Sequence[Mapping[str, Any]], num_experts: Mapping[str, int]) -> list[str]:
    """A sentence for every method whose devices could not all reach each other."""
    found = []
    for made in rows:
        label, there = made["label"], num_experts.get(made["label"], 0)
        if made["kind"] not in (BASE, ORACLE, *ALONE) and not made["bytes_per_device"]["values"] and there > 1:
            found.append(f"{label}: nothing was exchanged, no link could carry it within power and deadline")
        if made["clusters"] and made["experts_held"] < there:
            found.append(
                f"{label}: a device answers with {made['experts_held']:g} of {there} experts on average, "
                "the radio let no more through"
            )
    return found


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    wanted = ("orthomesh", "torch", "transformers", "numpy", "safetensors", "datasets")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in wanted}}
