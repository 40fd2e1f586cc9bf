"""What a reproduction will cost, said before it starts: memory and disk by arithmetic, time by a short probe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..adapters.projection import num_kept
from ..evaluation.accuracy import no_bank, sit, test_rows
from ..evaluation.record import Journal
from ..experiment import Experiment, exam_of
from ..methods.centralised import Centralised
from ..methods.choco import Choco
from ..methods.fedalt import FedAlt
from ..methods.fedex import FedEx
from ..methods.fedsb import FedSb
from ..methods.flasc import Flasc
from ..methods.flora import Flora
from ..methods.full import Full, memory_bytes
from ..methods.gossip_lora import GossipLora
from ..methods.hard_moe import HardMoe
from ..methods.merged import Merged
from ..methods.olora import OLora
from ..methods.slora import SLora
from ..models.size import Size, memory_b, size_of
from ..types import Round

FULL_OVER_ADAPTERS = 1.3
"""Time of a step that trains every weight over one that trains adapters; the backbone's passes are the same."""
PROBE_PROMPTS = 3
"""Of every task."""
REPORT_B = 5_500_000
"""Of the page that a run leaves, which holds what draws it."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measured here: seconds of one optimiser step on one device, and of answering one prompt."""

    step_s: float
    answer_s: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of all runs that are not done yet. memory_b: at once, in bytes. disk_b: left behind. seconds: about, at most."""

    seconds: float
    memory_b: int
    disk_b: int


def memory(x: Experiment) -> int:
    """Bytes a run holds at once: the model in every process with the projections it keeps, what training one device
    keeps, and all devices' states.

    Training keeps, for every token of the part of a batch that is read at once, about 18 vectors of the model's width
    in each block (34 with feed-forward layers four times as wide) in 4 bytes, or two with `checkpointing`.

    Args:
        x: the experiment.
    """
    size, devices = size_of(x.model), x.setup().num_devices
    each = 2 if x.model.dtype == "bfloat16" else 4
    rows = -(-x.train.batch_size // x.train.accumulate)
    tokens = rows * (x.model.max_length or min(256, size.context))
    kept = (2 if x.train.checkpointing else 18) * size.layers + 34
    activations = tokens * size.width * kept * 4
    states = max((_state(m, x, devices) * devices + _worn(m, size) for m in x.methods.values()), default=0)
    if any(isinstance(m, FedSb) and m.start == "gradients" for m in x.methods.values()):
        states += size.parameters * (6 * devices + 4)  # in 16 bit: kept, sent and read; that of one device as taken
    if any(_is_full(m) for m in x.methods.values()):
        states = max(states, memory_bytes(size.parameters, devices))
    processes = min(x.workers, devices) + 1
    projections = 4 * size.projection * min(num_kept(size.projection), devices)
    return processes * (size.parameters * each + projections + activations // 2) + activations // 2 + states


def disk(x: Experiment) -> int:
    """Bytes that a run leaves: a checkpoint for every method, all its devices' states, and a page."""
    devices = x.setup().num_devices
    return REPORT_B + sum(_state(m, x, devices) * devices for m in x.methods.values())


def _state(method: object, x: Experiment, devices: int) -> int:
    """Bytes of one device's state: both factors with their moments, or all weights, and what it has of the others."""
    size = size_of(x.model)
    if _is_full(method):
        return 4 * size.parameters
    adapter = size.expansion + size.projection
    return 12 * adapter + devices * size.expansion // 2 + 4 * adapter * _others(method, x.rounds, devices)


def _others(method: object, rounds: int, devices: int) -> int:
    """Adapters in 4 bytes an entry that a device keeps beyond those of `_state`: what is folded into its base grows
    with every round, FLoRA by all adapters and FedEx-LoRA by as many factors of the residual."""
    if isinstance(method, Flora | FedEx):
        return rounds * devices
    if isinstance(method, Choco):
        return devices + 1  # copies, and when each entry of its own last changed
    if isinstance(method, OLora):
        return devices
    if isinstance(method, Merged):
        return -(-devices // 2)  # in 16 bit
    return 1 if isinstance(method, FedAlt | Flasc) else 0


def _worn(method: object, size: Size) -> int:
    """Bytes of a change of whole matrices, made while a model is used that cannot be told as one adapter; and of its
    sum with the base."""
    return 8 * size.parameters if isinstance(method, Flora | FedEx | FedAlt | Merged | SLora) else 0


def _is_full(method: object) -> bool:
    return isinstance(method, Full) or (isinstance(method, HardMoe) and method.experts == "full")


def probe(x: Experiment) -> Probe:
    """Train one device for two steps, the second time counts; then ask a few prompts of every task.

    Answers that are written out take longer than those that are chosen, so every task is asked.
    """
    setup = x.setup()
    exam = exam_of(x, setup, final=True)._replace(limit=PROBE_PROMPTS)
    tasks = tuple(task for task, _ in exam.owners)
    method = GossipLora().build(replace(setup, train=replace(setup.train, steps=2)))
    begun = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        state, _ = method.fit(method.init(0), Round(x.seed, 0, 1))
    step_s = (time.perf_counter() - begun) / 2
    for task in tasks:
        test_rows(exam, task)  # read and tokenised once, so it is not part of an answer
    begun = time.perf_counter()
    asked = sum(score.asked for score in sit((state, tasks), no_bank, exam).values())
    return Probe(step_s=step_s, answer_s=(time.perf_counter() - begun) / asked)


def cost(runs: Mapping[Path, Experiment], measured: Probe) -> Cost:
    """What is still to be done, at most: every device is taken to answer for itself.

    Args:
        runs: experiments by directory; methods whose examination is on record there cost nothing more.
        measured: seconds of a step and of an answer.
    """
    seconds = 0.0
    for directory, x in runs.items():
        left = {k: m for k, m in x.methods.items() if not Journal(directory).has(k, x.rounds)}
        seconds += sum(_seconds(x, m, measured) for m in left.values()) / min(x.workers, x.setup().num_devices)
    largest = max((memory(x) for x in runs.values()), default=0)
    return Cost(seconds=seconds, memory_b=largest, disk_b=sum(disk(x) for x in runs.values()))


def _seconds(x: Experiment, method: object, measured: Probe) -> float:
    setup = x.setup()
    tasks = len(set(setup.assignment))
    steps = setup.num_devices * x.rounds * x.train.steps * (FULL_OVER_ADAPTERS if _is_full(method) else 1.0)
    askers = 1 if isinstance(method, HardMoe | Centralised) else setup.num_devices
    prompts = (askers * tasks + setup.num_devices) * x.tasks.test_examples  # before the last exchange its own task too
    ways = (x.rounds - 1) // x.evaluate.every if x.evaluate.every else 0
    prompts += (
        ways * min(x.evaluate.devices, setup.num_devices) * tasks * min(x.evaluate.prompts, x.tasks.test_examples)
    )
    return steps * measured.step_s + prompts * measured.answer_s


def check_memory(x: Experiment, there: int | None = None, without_full: str = "") -> None:
    """Whether a run fits into this machine's memory, before anything is loaded.

    Args:
        x: the experiment.
        there: bytes at hand; none: this machine's. A model on a GPU is not looked at.
        without_full: how to leave out what trains every weight; else by the labels of this run.

    Raises:
        ValueError: it does not fit, with the estimate.
    """
    if x.model.device != "cpu":
        return
    there = memory_b() if there is None else there
    needed = memory(x)
    if needed > there:
        size = size_of(x.model)
        raise ValueError(
            f"{x.model.source} has {size.parameters:,} parameters; this run would hold about {needed / 2**30:.1f} GiB "
            f"at once and leave {disk(x) / 2**30:.1f} GiB on disk; this machine has {there / 2**30:.1f} GiB of memory. "
            f"{_smaller(x, without_full)}"
        )


def _smaller(x: Experiment, without_full: str) -> str:
    """What would need less."""
    full = [f"-s methods.{label}=null" for label, m in x.methods.items() if _is_full(m)]
    ways: Sequence[str] = [
        *([f"leave out what trains every weight, {without_full or ' '.join(full)}"] if full else []),
        *(["-s model.dtype=bfloat16"] if x.model.dtype == "float32" else []),
        *(["-s workers=1"] if x.workers > 1 else []),
        *(["-s train.checkpointing=true"] if not x.train.checkpointing else []),
        f"-s train.accumulate={x.train.batch_size}" if x.train.accumulate < x.train.batch_size else "a smaller model",
    ]  # fmt: skip
    return f"It takes less with: {'; '.join(ways)}."
