"""FedALT (arXiv 2503.11880): a device's own adapter is never overwritten; the mean of the others rests beside it.

The authors train a mixer that weighs own and others token by token (`mixer: trained`); by default the others' part has
a constant weight, so that both can be folded into the base. The mean of the others is one of factors, A and B apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import Layout
from ..adapters.projection import projection
from ..config import STRICT
from ..rng import stream
from ..types import (
    Array,
    Arrays,
    Bank,
    DeviceState,
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
from .fair import announce
from .folds import bank, blocks_of, fit, with_blocks
from .gossip_lora import GossipLora
from .server import collect, halves, means, send, serve, star, told
from .setup import Setup, device_rows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FedAlt:
    """Settings of FedALT."""

    kind: Literal["fedalt"] = "fedalt"
    others: Annotated[float, Field(gt=0)] = 0.5
    """Under a constant mixer the weight of the mean of the others; the own adapter has weight one."""
    mixer: Literal["constant", "trained"] = "constant"
    """Whether the weights of own and others are constant, or a softmax of G x in every layer, G trained and a device's
    own (the authors)."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA's training on top of what the others have."""
        c = GossipLora(learning_rate=self.learning_rate)
        common = replace(c.build(setup), describe=announce, plan=plan, send=hand_in)
        if self.mixer == "trained":
            return replace(
                common,
                fit=partial(fit_with_mixer, c=c, setup=setup),
                merge=partial(merge, others=1.0),
                bank=partial(weighed, setup=setup),
            )
        return replace(
            common,
            fit=partial(fit, c=c, setup=setup),
            merge=partial(merge, others=self.others),
            bank=partial(bank, setup=setup),
        )


def resting(own: Arrays, layout: Layout) -> tuple[Array, Array]:
    """A and B of the others' mean, zeros before anything was heard."""
    blocks = blocks_of(own)
    if blocks:
        return blocks[0]
    return np.zeros(layout.num_projection, np.float32), np.zeros(layout.num_expansion, np.float32)


def fit_with_mixer(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the own adapter and the mixer, which begins with equal weights, beside the others' mean at rest."""
    from ..models.base import load_base
    from ..models.mixed import Mixed, fit_mixed

    base, own = load_base(setup.model), device.own
    if "B" not in own:
        width = sum(shape.in_features for shape in base.layout.shapes)
        zeros = {"B": np.zeros(base.layout.num_expansion, np.float32), "mixer": np.zeros((2, width), np.float32)}
        own = {**own, "A": projection(int(own["seed"]), base.layout), **zeros}
    train = setup.train if c.learning_rate is None else replace(setup.train, learning_rate=c.learning_rate)
    order = stream(t.seed, "batches", t.index, device.id)
    span = range(t.index * train.steps, t.total * train.steps)
    start = Mixed(own["A"], own["B"], own["mixer"])
    rows, rest = device_rows(setup, device.id), resting(own, base.layout)
    ended, learnt = fit_mixed(base, rows, start, rest, train, order, span)
    return replace(device, own={**own, **ended._asdict()}), learnt


def weighed(device: DeviceState, setup: Setup) -> Bank:
    """The own adapter and the others' mean, under the device's mixer."""
    from ..models.base import load_base

    own = device.own
    if "B" not in own:
        return Bank(experts=())
    beside = (*resting(own, load_base(setup.model).layout), own["mixer"])
    return Bank(experts=(Expert(owner=device.id, A=own["A"], B=own["B"], beside=beside),), choice="mixer")


def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
    """Up to the server and down again."""
    return star(facts)


def hand_in(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """The own factors; from the server the mean of those that arrived, and whose they were."""
    return send(device, phase, halves(device.own, "AB"), {"members": "control"})


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, others: float) -> DeviceState:
    """The server averages; then each takes itself out of the mean and keeps the rest beside its own."""
    mine = halves(device.own, "AB")
    if phase.name == "up":
        got: dict[int, Arrays] = {**collect(device, inbox, mine)}
        if not inbox:
            return device
        got[device.id] = mine
        members = np.array(sorted(got), dtype=np.uint32)
        return serve(device, {**halves(means(got, "AB"), "AB"), "members": members})
    device, news = told(device, inbox)
    if not news:
        return device
    rest = without(news, device.id, mine)
    return device if rest is None else replace(device, own=with_blocks(device.own, [(rest[0], others * rest[1])]))


def without(news: Arrays, device: int, mine: Arrays) -> tuple[Array, Array] | None:
    r"""Mean factors of the others from the mean of all, A and B; none where there is no other.

    .. math::  X^R_i = (N \bar X - X_i) / (N - 1)

    >>> all_ = {"A": np.array([2.0]), "B": np.array([4.0]), "members": np.array([0, 1])}
    >>> without(all_, 1, {"A": np.array([3.0]), "B": np.array([5.0])})
    (array([1.], dtype=float32), array([3.], dtype=float32))
    """
    count = news["members"].size
    if device not in news["members"]:
        return news["A"].astype(np.float32), news["B"].astype(np.float32)
    if count < 2:
        return None
    A, B = ((count * news[n].astype(np.float32) - mine[n].astype(np.float32)) / (count - 1) for n in "AB")
    return np.asarray(A, dtype=np.float32), np.asarray(B, dtype=np.float32)
