"""Fed-SB (arXiv 2502.15436): a small matrix R between two frozen factors is all that is trained and averaged.

W0 + s B R A with A and B common to all, so that the mean of R is the mean of the updates, exactly, for r^2 numbers a
layer. Where A, B and the first R come from is LoRA-SB (arXiv 2411.19557): the best approximation of rank r to the
first step that full fine-tuning by AdamW would take, from gradients of the untouched model over a few examples of all
clients. The authors have those in one place. Here nobody has everybody's examples, so the gradients go to a server in
round 0, whole, since their signs are taken after they are added up, and A, B and R come down, once. Whoever missed
them goes on alone from an approximation of its own step, and is told in a later round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import Layout, Shape, matrices_a, matrices_w
from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.directions import leading
from ..exchange.payload import check_length
from ..models.settings import TrainSettings
from ..rng import key, stream
from ..topology.overlay import Topology
from ..types import (
    Array,
    Arrays,
    Bank,
    DeviceState,
    Edge,
    Envelope,
    Expert,
    Facts,
    Learnt,
    Message,
    Method,
    Phase,
    Plan,
    Round,
)
from . import gossip_lora as gossip
from . import server
from .gossip_lora import GossipLora
from .setup import Setup, device_rows

SIDES = ("A", "B", "R")
STEP = ("gradient", "scale")
ONCE: Mapping[str, Literal["one_off"]] = dict.fromkeys(("A", "B", *STEP), "one_off")
"""What is told only once, in this column."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedSb:
    """Settings of Fed-SB."""

    kind: Literal["fedsb"] = "fedsb"
    start: Literal["gradients", "seed"] = "gradients"
    """Where the frozen factors come from: the first gradients of all devices, as its authors have it, which takes round
    0 and the bytes of whole matrices; or a seed, for nothing, and then R starts at zero."""
    samples: Annotated[int, Field(ge=1)] = 50
    """Examples of all devices together that gradients are taken over, one a device at least; of `start: gradients`."""
    warmup: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Share w of the run's T steps over which its authors' rate rises, so that the step which is approximated has the
    rate eta / (w T), eta at most; of `start: gradients`. Training here has no such rise, as no method's has."""
    topology: Topology = "radio"
    """Who averages with whom, as in `gossip_lora`; `radio`, all who reach each other, is as near to a server as it
    gets."""
    num_neighbours: Annotated[int, Field(ge=0)] = 3
    """Neighbours of a device, where the topology asks for their number."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def __post_init__(self) -> None:
        if self.start == "seed" and (self.samples, self.warmup) != (50, 0.02):
            raise ValueError("samples and warmup are of a start from gradients; start: seed has no use for them")

    def build(self, setup: Setup) -> Method:
        """Gossip of R alone, once there is a common start."""
        c = GossipLora(topology=self.topology, num_neighbours=self.num_neighbours)
        train = replace(setup.train, learning_rate=self.learning_rate or setup.train.learning_rate)
        method = replace(
            c.build(setup),
            fit=partial(fit, c=self, train=train, setup=setup),
            describe=partial(gossip.describe, names="R"),
            send=partial(gossip.send, names="R"),
            merge=partial(gossip.merge, names="R"),
            bank=partial(bank, setup=setup),
        )
        if self.start == "seed":
            return method
        return replace(
            method,
            describe=describe,
            plan=partial(plan, c=c, setup=setup),
            send=send,
            merge=partial(merge, c=self, train=train, setup=setup),
        )


def frame(seed: int, layout: Layout) -> tuple[Array, Array]:
    """A with orthonormal rows and B with orthonormal columns, flat, from a seed. [sum r k], [sum d r]"""
    turned = Layout(tuple(Shape(s.name, s.in_features, s.out_features) for s in layout.shapes), layout.rank)
    wide = matrices_a(projection(key(seed, "other-side"), turned), turned)
    return projection(seed, layout), np.concatenate([b.T.ravel() for b in wide])


def started(gradients: Sequence[Array], rate: float, scaling: float, rank: int) -> dict[str, Array]:
    r"""A, B and R whose update is nearest to AdamW's first step on whole matrices (LoRA-SB).

    .. math::  \Delta W = -\eta_1 \operatorname{sign}(G) \approx U_r \Sigma_r V_r^\top, \quad
               B = U_r, \; R = \Sigma_r / s, \; A = V_r^\top

    Args:
        gradients: G of every layer, of any positive scale. [d, k] each
        rate: eta_1 > 0, of that step.
        scaling: s = alpha / r, of the model.
        rank: r.

    Returns:
        A with orthonormal rows, B with orthonormal columns, R diagonal and >= 0, flat, float32, as they are once they
        have travelled in 16 bit. [sum r k], [sum d r], [L r r]

    Raises:
        ValueError: a rank that exceeds a side of a layer.
    """
    parts = [leading(-np.sign(g), rank) for g in gradients]
    made = {
        "A": np.concatenate([v.ravel() for _, _, v in parts]),
        "B": np.concatenate([u.ravel() for u, _, _ in parts]),
        "R": np.concatenate([np.diag(rate * sigma / scaling).ravel() for _, sigma, _ in parts]),
    }
    return {name: a.astype(np.float16).astype(np.float32) for name, a in made.items()}


def rate_of_start(c: FedSb, train: TrainSettings, t: Round) -> float:
    """eta / (w T) of a run of T steps, eta at most.

    >>> round(rate_of_start(FedSb(), TrainSettings(steps=100, learning_rate=1.0), Round(0, 0, 5)), 6)
    0.1
    """
    return train.learning_rate / max(1.0, c.warmup * train.steps * t.total)


def check_start(c: FedSb, rounds: int, weights: int) -> None:
    """Whether a start from gradients is possible.

    Args:
        c: settings.
        rounds: of the run.
        weights: of all adapted matrices together, whose gradients travel whole in 16 bit.

    Raises:
        ValueError: a start from gradients in a run of one round, which it would take, or of more than a message holds.
    """
    if c.start == "gradients" and rounds == 1:
        raise ValueError(
            "a start from gradients takes the first round, so rounds must be 2 at least; or set start: seed"
        )
    if c.start == "gradients":
        check_length(2 * weights, "gradients of whole matrices in 16 bit", "start: seed")


def fit(device: DeviceState, t: Round, c: FedSb, train: TrainSettings, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train R on the device's own data; the optimiser starts afresh every round.

    Raises:
        ValueError: as of `check_start`.
    """
    from ..models.base import load_base
    from ..models.inner import fit_inner

    base, own = load_base(setup.model), device.own
    check_start(c, t.total, sum(s.out_features * s.in_features for s in base.layout.shapes))
    if "R" not in own and c.start == "gradients":
        own = {**own, **_step(device, c, setup)}
        own |= started(matrices_w(own["gradient"], base.layout), rate_of_start(c, train, t), *_size(setup))
    core = own.get("R", np.zeros(len(base.slots) * base.layout.rank**2, dtype=np.float32))
    order = stream(t.seed, "batches", t.index, device.id)
    span = range(t.index * train.steps, t.total * train.steps)
    core, learnt = fit_inner(base, device_rows(setup, device.id), _sides(own, base.layout), core, train, order, span)
    return replace(device, own={**own, "R": core}), learnt


def _size(setup: Setup) -> tuple[float, int]:
    return setup.model.scaling, setup.model.rank


def _sides(own: Arrays, layout: Layout) -> tuple[Array, Array]:
    return (own["A"], own["B"]) if "A" in own else frame(int(own["seed"]), layout)


def _step(device: DeviceState, c: FedSb, setup: Setup) -> dict[str, Array]:
    """The gradient over a device's share of the samples, times their number: 16 bit, and a scale for every layer."""
    from ..models.base import load_base
    from ..models.gradient import first_gradient

    base, rows = load_base(setup.model), device_rows(setup, device.id)
    share = c.samples // setup.num_devices + (device.id < c.samples % setup.num_devices)
    count = min(max(1, share), len(rows))
    drawn = stream(setup.seed, "first-gradient", device.id).choice(len(rows), count, replace=False)
    flat = first_gradient(base, [rows[int(n)] for n in drawn], setup.train)
    whole = matrices_w(flat, base.layout)
    scale = np.array([float(np.abs(g).max()) or 1.0 for g in whole], dtype=np.float32)
    sixteen = np.concatenate([(g / s).astype(np.float16).ravel() for g, s in zip(whole, scale, strict=True)])
    return {"gradient": sixteen, "scale": np.float32(count) * scale}


def describe(device: DeviceState, t: Round) -> Facts:
    """How much it would send, and whether it has the common start."""
    if "gradient" not in device.own:
        return server.describe(device, "R", {"started": np.array(1, dtype=np.uint8)})
    facts = server.describe(device, (*STEP, "scale"))
    return replace(facts, payload_bits=max(facts.payload_bits, server.largest_bits(device.own, SIDES)))


def plan(facts: Mapping[int, Facts], t: Round, c: GossipLora, setup: Setup) -> Plan:
    """Gradients to the server and the start to all, where nobody has it; else to those who lack it, and R is mixed."""
    have = {k: facts[k] for k in sorted(facts) if "started" in facts[k].public}
    if not have:
        return server.star(facts)
    mixed = gossip.plan(have, t, c, setup)
    lack = [k for k in sorted(facts) if k not in have]
    centre = server.hub(have)
    late = (Phase(name="down", edges=tuple(Edge(centre, k) for k in lack)),) if lack else ()
    return replace(mixed, phases=(*late, *mixed.phases))


def send(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """The gradient up, the start down, or R."""
    if phase.name not in ("up", "down"):
        return gossip.send(device, phase, t, names="R")
    dsts = tuple(e.dst for e in phase.outgoing.get(device.id, ()))
    if not dsts:
        return ()
    own = device.own
    parts = {name: own[name] for name in STEP} if phase.name == "up" else server.halves(own, SIDES)
    return (server.frame(device.id, dsts, parts, ONCE),)


def merge(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: FedSb, train: TrainSettings, setup: Setup
) -> DeviceState:
    """The server adds gradients up and decomposes their signs; the others take what it found; or R is mixed."""
    if phase.name not in ("up", "down"):
        return gossip.merge(device, inbox, phase, t, names="R")
    if not inbox:
        return device
    own, told = device.own, {n: a for n, a in device.own.items() if n not in STEP}
    if phase.name == "up":
        mine = {name: own[name] for name in STEP}
        got = {**server.collect(device, inbox, mine), device.id: mine}
        made = started(summed([got[k] for k in sorted(got)], setup), rate_of_start(c, train, t), *_size(setup))
        return replace(device, own={**told, **made})
    for parts in server.collect(device, inbox, {name: own[name] for name in SIDES}).values():
        return replace(device, own={**told, **{name: a.astype(np.float32) for name, a in parts.items()}})
    return device


def summed(parts: Sequence[Arrays], setup: Setup) -> list[Array]:
    """Sum over devices of what each has added up over its samples. [d, k] each"""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    whole = [(matrices_w(p["gradient"], layout), p["scale"]) for p in parts]
    return [sum(scale[n] * w[n].astype(np.float32) for w, scale in whole) for n in range(len(layout.shapes))]


def bank(device: DeviceState, setup: Setup) -> Bank:
    """The one adapter the device has, R A and B."""
    from ..models.base import load_base

    if "R" not in device.own:
        return Bank(experts=())
    layout = load_base(setup.model).layout
    A, B = _sides(device.own, layout)
    cores = device.own["R"].reshape(-1, layout.rank, layout.rank)
    inner = [core @ a for core, a in zip(cores, matrices_a(A, layout), strict=True)]
    return Bank(experts=(Expert(owner=device.id, A=np.concatenate([a.ravel() for a in inner]), B=B),))
