"""SLoRA (arXiv 2308.06522): a sparse change of the weights first, whose best low-rank part is where adapters start.

Stage one: a random mask, the same for all and drawn from a seed, says which entries of the adapted matrices devices
train, and a server averages them. Stage two: the base is itself again, what stage one has changed is cut to the rank
by singular values, and both factors are trained and averaged from there. The decomposition of the last mean is the same
wherever it is made, signs included, so each device makes its own. Whoever missed that mean has another one, whose
factors have nothing to do with the others': it says so, neither serves nor is averaged, and takes the next mean of
factors, which costs nothing but that word. Where all missed it, the one least behind serves, and all take its factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..config import STRICT
from ..exchange.product import nearest_factors, with_signs
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
from . import gossip_lora as gossip
from .full import RATE
from .gossip_lora import GossipLora
from .server import behind, collect, describe, halves, init, means, send, serve, serves_alone, star, told
from .setup import Setup, device_rows


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SLora:
    """Settings of SLoRA."""

    kind: Literal["slora"] = "slora"
    first_share: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of the rounds that stage one takes: one at least, and one is left for stage two."""
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the adapted matrices' entries that stage one trains; none: as many as an adapter has, so that both
    stages send alike."""
    sparse_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW in stage one; none: a sixth of the run's, as for all weights."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW in stage two; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """A sparse stage before gossip LoRA's training with a server's average."""
        c = GossipLora(learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            init=partial(init, setup=setup),
            fit=partial(fit, c=self, stage_two=c, setup=setup),
            describe=partial(announce, c=self, setup=setup),
            plan=plan,
            send=hand_in,
            merge=merge,
            bank=partial(bank, c=self, setup=setup),
        )


def first_rounds(t: Round, share: float) -> int:
    """Rounds of stage one; none where there is only one round.

    >>> [first_rounds(Round(0, 0, total), 0.4) for total in (1, 2, 5, 10)]
    [0, 1, 2, 4]
    """
    return min(max(1, round(share * t.total)), t.total - 1)


def masks(c: SLora, setup: Setup) -> list[Array]:
    """Which entries of every adapted matrix stage one trains. [d, k] bool each"""
    from ..models.base import load_base

    layout, found = load_base(setup.model).layout, []
    for n, (_, d, k) in enumerate(layout.shapes):
        density = c.density or min(1.0, layout.rank * (d + k) / (d * k))
        found.append(stream(setup.seed, "sparse-mask", n).random((d, k), dtype=np.float32) < density)
    return found


def spread(sparse: Array, where: Sequence[Array]) -> list[Array]:
    """Matrices with the entries of a mask filled in, in order, and zeros elsewhere. [d, k] each

    >>> spread(np.array([1.0, 2.0]), [np.array([[False, True]]), np.array([[True], [False]])])[1].tolist()
    [[2.0], [0.0]]
    """
    found = [np.zeros(mask.shape, dtype=np.float32) for mask in where]
    ends = np.cumsum([mask.sum() for mask in where])
    for matrix, mask, part in zip(found, where, np.split(sparse, ends[:-1]), strict=True):
        matrix[mask] = part
    return found


def fit(device: DeviceState, t: Round, c: SLora, stage_two: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the entries under the mask, or both factors, which start from what stage one came to."""
    if t.index < first_rounds(t, c.first_share):
        return _fit_sparse(device, t, c, setup)
    own = dict(device.own)
    sparse = own.pop("sparse", None)
    if sparse is not None and sparse.any():
        own |= started(spread(sparse, masks(c, setup)), setup)
    return gossip.fit(replace(device, own=own), t, stage_two, setup)


def _fit_sparse(device: DeviceState, t: Round, c: SLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    from ..models.base import load_base
    from ..models.whole import change_of, fit_whole, updates_of

    base, where = load_base(setup.model), masks(c, setup)
    own = {"sparse": np.zeros(sum(int(m.sum()) for m in where), dtype=np.float32), **device.own}
    active = change_of(base, where) > 0
    begin = change_of(base, spread(own["sparse"], where))
    train = replace(setup.train, learning_rate=c.sparse_rate or RATE * setup.train.learning_rate)
    order = stream(t.seed, "batches", t.index, device.id)
    span = range(t.index * train.steps, t.total * train.steps)
    change, learnt = fit_whole(base, device_rows(setup, device.id), begin, train, order, span, active)
    found = [update[mask] for update, mask in zip(updates_of(base, change), where, strict=True)]
    return replace(device, own={**own, "sparse": np.concatenate(found)}), learnt


def started(updates: Sequence[Array], setup: Setup) -> dict[str, Array]:
    r"""Factors whose scaled product is the best approximation of what stage one has changed.

    .. math::  B = U_r \sqrt{\Sigma_r / s}, \quad A = \sqrt{\Sigma_r / s} \, V_r^\top, \quad
               \Delta W = U \Sigma V^\top

    with signs fixed, so that they are the same on machines that decompose in other ways.

    Args:
        updates: Delta W of every adapted matrix. [d, k] each
        setup: the run's; s is its model's scaling.
    """
    from ..models.base import load_base

    base = load_base(setup.model)
    pairs = [
        with_signs(*nearest_factors([1.0 / base.scaling], [update], [np.eye(update.shape[1])], base.layout.rank))
        for update in updates
    ]
    return {name: np.concatenate([pair[n].ravel() for pair in pairs]) for n, name in enumerate("BA")}


def names(own: Arrays) -> Sequence[str]:
    """What travels: the sparse entries, or both factors."""
    return ("sparse",) if "sparse" in own else "AB"


def announce(device: DeviceState, t: Round, c: SLora, setup: Setup) -> Facts:
    """How much that takes at most; in stage two also how far behind a device is that lacks the common start."""
    first, late = first_rounds(t, c.first_share), behind(device, t, setup)
    lacks = bool(late) and t.index >= first > t.index - int(late["behind"])
    return describe(device, names(device.own), late if lacks else {})


def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
    """Up to the server, whoever has the common start, and down again to all."""
    return star(facts, [k for k in facts if "behind" not in facts[k].public])


def hand_in(device: DeviceState, phase: Phase, t: Round) -> tuple[Message, ...]:
    """The own part, or the server's mean."""
    mine = halves(device.own, names(device.own))
    return send(averaged(device, {}) if serves_alone(device, phase) else device, phase, mine)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round) -> DeviceState:
    """The server averages; then all go on from that."""
    if phase.name == "up":
        mine = halves(device.own, names(device.own))
        return averaged(device, collect(device, inbox, mine)) if inbox else device
    device, news = told(averaged(device, {}) if serves_alone(device, phase) else device, inbox)
    if not news:
        return device
    found = {name: a.astype(np.float32) for name, a in news.items()}
    return replace(device, own={**device.own, **found, "version": np.array(t.index + 1, dtype=np.uint32)})


def averaged(device: DeviceState, got: Mapping[int, Arrays]) -> DeviceState:
    """The server with the mean of what arrived and its own part."""
    which = names(device.own)
    return serve(device, halves(means({**got, device.id: halves(device.own, which)}, which), which))


def bank(device: DeviceState, c: SLora, setup: Setup) -> Bank:
    """The sparse change on the base, or the adapter."""
    from ..models.base import load_base
    from ..models.whole import change_of

    if "sparse" not in device.own:
        return gossip.bank(device)
    none = np.zeros(0, dtype=np.float32)
    change = change_of(load_base(setup.model), spread(device.own["sparse"], masks(c, setup)))
    return Bank(experts=(Expert(owner=device.id, A=none, B=none, weights=change),))
