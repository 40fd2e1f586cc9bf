"""How a device of the paper's method learns, IV-B: a dense warm-up, its mask (18), then B under it, eq. (6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..adapters.density import allocate, entry_budget
from ..adapters.mask import spans, top_mask
from ..adapters.projection import projection
from ..adapters.refinement import refine
from ..experts.sketch import pack, sketch_size, task_sketch
from ..experts.taskcode import squared_error, task_code
from ..rng import key, stream
from ..types import Array, Arrays, DeviceState, Learnt, Round
from ..units import from_db
from ..wireless.compute import parameter_budget
from ..wireless.power import payload_limit_bits
from .coding import code_bid, code_sketch, wish
from .parts import by_run, cuts_of, every_run, fixed_bits, shape, under_mask, unpack
from .setup import Setup, device_rows
from .sparse_orthogonal import SparseOrthogonal

CODE_PROMPTS = 32
"""Prompts whose layer inputs are averaged into a task code: the paper's small batch."""
SKETCH_PROMPTS = 256
"""Prompts whose scatter makes a task sketch; it takes more of them than a mean does."""
VALUE_BITS = 16
"""Bits of one active entry on the air."""


def init(device: int, c: SparseOrthogonal, setup: Setup) -> DeviceState:
    """Nothing but the seed of the device's projection, eq. (16)."""
    seed = key(setup.seed, "device", device) if c.seeds == "own" else key(setup.seed, "common-projection")
    return DeviceState(id=device, own={"seed": np.array(seed, dtype=np.uint64)})


def fit(device: DeviceState, t: Round, c: SparseOrthogonal, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Warm up densely, find the mask (18), then train B under it, eq. (6); A stays what the seed makes it.

    A negotiated mask comes with the exchange, so until then the rest of the round is dense too.
    """
    own = device.own if "B" in device.own else _begun(device, c, setup)
    steps = setup.train.steps
    warmup = 0 if "mask" in own else c.warmup_steps or steps
    own, learnt = _train(own, device.id, t, range(warmup or steps), c, setup)
    if not warmup:
        return replace(device, own=own), learnt
    if c.masks == "negotiated":
        own = {**own, "bid": offered(own, device.id, c)}  # the mask waits for the cluster's bids
    else:
        mask = top_mask(by_run(score(own, device.id, c), c.run), *every_run(*shape(own), c.run))
        own = under_mask(own, np.packbits(np.repeat(mask, c.run)), t)
    if warmup < steps:
        own, rest = _train(own, device.id, t, range(warmup, steps), c, setup)
        learnt = replace(rest, first_loss=learnt.first_loss, steps=steps)
    return replace(device, own=own), learnt


def score(own: Arrays, device: int, c: SparseOrthogonal) -> Array:
    """What the mask ranks, larger is better: B or its gradient after the warm-up, or a draw that ignores both (R2)."""
    if c.score == "magnitude":
        return np.abs(own["B"])
    if c.score == "random":
        return stream(int(own["seed"]), "random-mask", device).random(own["B"].size)
    return own["saliency"] if c.score == "gradient" else own["B"]


def offered(own: Arrays, device: int, c: SparseOrthogonal) -> Array:
    """The device's bid as it travels (R3), worked out once a training: `bid` of its parts, or from what it trained."""
    if "bid" in own:
        return own["bid"]
    sizes, quota = every_run(*shape(own), c.run)
    return code_bid(wish(score(own, device, c), sizes, quota, c), c)


def entries(device: int, c: SparseOrthogonal, setup: Setup) -> Array:
    """How many entries of every matrix's B the device trains, (20)-(22) within (7), (11a), (11c). [L]

    Args:
        device: its id, whose prompts and number of examples count.
        c: density, allocation and limits.
        setup: the run.

    Returns:
        Quotas; they add up to the budget, or stay below it under `softmax`. [L]

    Raises:
        ValueError: limits that leave less than one entry a matrix.
    """
    from ..models.base import load_base  # late: the command line reads methods for their settings
    from ..models.covariance import layer_entropies

    base, rows = load_base(setup.model), device_rows(setup, device)
    sizes = base.layout.expansion_sizes
    computed, sent = None, None
    if c.max_cost is not None:
        computed = parameter_budget(c.max_cost, len(rows), setup.train.batch_size, c.cost_per_parameter)
    if c.link_gain_db is not None:
        sent = payload_limit_bits([from_db(c.link_gain_db)], setup.radio, "broadcast")
        sent -= fixed_bits(sum(sizes), _num_told(sum(base.widths), c))
        if sent < 0:
            raise ValueError(
                f"link_gain_db: a link of {c.link_gain_db} dB does not even carry masks and task codes within "
                f"{setup.radio.deadline_s} s; a higher radio.deadline_s would do"
            )
    budget = entry_budget(sizes, c.density, computed, sent, VALUE_BITS)
    if c.allocation == "uniform":
        return allocate(np.zeros(len(sizes)), sizes, budget)
    return allocate(layer_entropies(base, rows[:CODE_PROMPTS]), sizes, budget, c.allocation, c.temperature)


def needs_code(c: SparseOrthogonal) -> bool:
    """Whether anything goes by task codes, so that they must be worked out and told."""
    return c.choice == "nearest" or c.gated or c.refinement != "none" or c.pool is not None


def _num_told(num_code: int, c: SparseOrthogonal) -> int:
    """Numbers of 16 bit that a device tells of its task."""
    return num_code * needs_code(c) + sketch_size(c.sketch) * (c.choice == "discriminant")


def _begun(device: DeviceState, c: SparseOrthogonal, setup: Setup) -> dict[str, Array]:
    """The parts of a device that starts: what it tells of its task, quotas, and an expansion of zeros.

    Raises:
        ValueError: runs that do not fit the layout.
    """
    from ..models.answer import prompt_means, prompt_sketches
    from ..models.base import load_base

    base, rows = load_base(setup.model), device_rows(setup, device.id)
    every_run(base.layout.expansion_sizes, np.zeros(1), c.run)
    code = told = np.zeros(0, dtype=np.float16)
    if needs_code(c):
        means = prompt_means(base, rows[:CODE_PROMPTS])
        code = task_code(means).astype(np.float16)
    if c.choice == "discriminant":
        told = pack(task_sketch(prompt_sketches(base, rows[:SKETCH_PROMPTS], c.sketch_blocks, c.sketch)))
        told = code_sketch(told, c.sketch) if c.sketch_bits == 8 else told
    begun: Mapping[str, Array] = {
        "code": code,
        "sketch": told,
        "B": np.zeros(base.layout.num_expansion, dtype=np.float32),
        "quota": entries(device.id, c, setup).astype(np.uint32),
        "sizes": np.array(base.layout.expansion_sizes, dtype=np.uint32),
        "spans": spans(base.layout.names, c.level).astype(np.uint32),
    }
    extra = {}
    if c.pool is not None:
        extra["error"] = squared_error(means, base.widths)
    if c.score == "gradient":
        extra["saliency"] = np.zeros(base.layout.num_expansion, dtype=np.float32)
    return {**device.own, **begun, **extra}


def _train(
    own: Arrays, device: int, t: Round, steps: range, c: SparseOrthogonal, setup: Setup
) -> tuple[Arrays, Learnt]:
    """Some of a round's steps on B, dense before there is a mask, with the optimiser's moments carried along."""
    from ..models.base import load_base
    from ..models.finetune import Factors
    from ..models.finetune import fit as finetune

    base = load_base(setup.model)
    active = unpack(own["mask"], own["B"].size) if "mask" in own else None
    A = projection(int(own["seed"]), base.layout, c.projection)
    start = Factors(
        A=refine(A, own["code"], base.layout, cuts_of(base), c.refinement),
        B=own["B"],
        active=active,
        moments={n.removeprefix("moment/"): a for n, a in own.items() if n.startswith("moment/")},
        saliency=own.get("saliency"),
    )
    train = replace(setup.train, steps=len(steps), learning_rate=c.learning_rate or setup.train.learning_rate)
    warms_up = active is None and steps.start == 0  # what follows in the same round has batches of its own
    order = stream(t.seed, "batches", t.index, device, int(warms_up))
    done = t.index * setup.train.steps + steps.start
    ended, learnt = finetune(
        base, device_rows(setup, device), start, train, order, done=done, total=t.total * setup.train.steps
    )
    after = {"B": ended.B, **{f"moment/{n}": a for n, a in ended.moments.items()}}
    if ended.saliency is not None:
        after["saliency"] = ended.saliency
    return {**own, **after}, learnt
