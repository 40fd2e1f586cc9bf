"""SOFT and TSFA (arXiv 2505.00333, the paper's [24]): orthogonal ranks, of which a server's devices send the strongest.

Reconstruction: the text could not be read beyond its abstract. Both factors are trained under a penalty that keeps
ranks orthogonal, and averaged apart, rank by rank over those that sent it. How many ranks each sends follows from
`planning.tsfa` under a limit of the mean latency of a round; its seconds are those of a band that the devices share,
while the air charges the links as it does any others. The structural rank is chosen before that and once: of the
model's ranks the fewest that hold nearly all of the devices' first updates, among those that meet the limit at the
links of the first round. The server cuts its mean to them; a rank at zero in both factors never moves again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.lowrank import Layout, matrices_a, matrices_b
from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.payload import Section, decode, encode
from ..planning.tsfa import Uplinks, control, least_latency, next_queue, offline_rank, tail_energy
from ..rng import stream
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from ..units import from_db
from ..wireless.link import Radio, max_power_w, noise_w
from .gossip_lora import GossipLora
from .server import halves, hub, largest_bits, send, serve, star, told
from .setup import Setup, device_rows

STRONGEST_HZ = 1e15
"""p h / N0 of a link of which nothing else is known."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Soft:
    """Settings of SOFT with TSFA."""

    kind: Literal["soft"] = "soft"
    penalty: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the penalty on ranks that are not orthogonal."""
    latency_s: Annotated[float, Field(gt=0)] = 0.5
    """Longest latency of a round, on average over the run."""
    slack: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the first updates' energy that a smaller structural rank may cost; 0: the most ranks that meet the
    limit."""
    tradeoff: Annotated[float, Field(gt=0)] = 1.0
    """V, what a lost share of an update costs against a second of queue."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """The method's functions for one run."""
        return replace(
            GossipLora().build(setup),
            fit=partial(fit, c=self, setup=setup),
            describe=partial(describe, setup=setup),
            plan=partial(plan, c=self, setup=setup),
            send=partial(hand_in, setup=setup),
            merge=partial(merge, c=self, setup=setup),
        )


def fit(device: DeviceState, t: Round, c: Soft, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train both factors under the penalty; the optimiser starts afresh every round."""
    from ..models import finetune
    from ..models.base import load_base
    from ..models.penalty import Penalty

    base, own = load_base(setup.model), device.own
    if "B" not in own:
        zeros = np.zeros(base.layout.num_expansion, dtype=np.float32)
        own = {**own, "A": projection(int(own["seed"]), base.layout), "B": zeros, "queue": np.array(0.0)}
    train = setup.train if c.learning_rate is None else replace(setup.train, learning_rate=c.learning_rate)
    start = finetune.Factors(A=own["A"], B=own["B"], train_projection=True, penalty=Penalty(within=c.penalty))
    order = stream(t.seed, "batches", t.index, device.id)
    done, total = t.index * train.steps, t.total * train.steps
    ended, learnt = finetune.fit(base, device_rows(setup, device.id), start, train, order, done=done, total=total)
    return replace(device, own={**own, "A": ended.A, "B": ended.B}), learnt


def importance(own: Arrays, layout: Layout) -> Array:
    """What every rank of every layer is worth, |b_j| |a_j|, without any decomposition. [L, r]"""
    pairs = zip(matrices_a(own["A"], layout), matrices_b(own["B"], layout), strict=True)
    return np.stack([np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=0) for a, b in pairs])


def structural(own: Arrays, layout: Layout) -> int:
    """Ranks of a layer that are not at zero, at most over the layers."""
    return int((importance(own, layout) > 0).sum(axis=1).max())


def describe(device: DeviceState, t: Round, setup: Setup) -> Facts:
    """What would be lost with fewer ranks, the virtual queue, and the structural rank."""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    lost = tail_energy(importance(device.own, layout)).astype(np.float16)
    public = {"lost": lost, "queue": device.own["queue"], "rank": np.array(structural(device.own, layout), np.uint16)}
    columns = encode([Section("control", name, a) for name, a in public.items()]).columns
    return Facts(id=device.id, public=public, columns=columns, payload_bits=largest_bits(device.own, "AB"))


def uplinks(facts: Mapping[int, Facts], ids: Sequence[int], centre: int, radio: Radio) -> Uplinks:
    """The links of `ids` to the server, at full power; what computing takes is not known and counts as none."""
    noise = from_db(radio.gap_db) * noise_w(replace(radio, noise="per_band"), 1.0)
    snr = [facts[k].gains.get(centre, np.inf) * max_power_w(radio) / noise for k in ids]
    near = np.clip(snr, 1.0, STRONGEST_HZ)
    return Uplinks(snr_hz=near, compute_s=np.zeros(len(ids)), band_hz=radio.bandwidth_hz)


def plan(facts: Mapping[int, Facts], t: Round, c: Soft, setup: Setup) -> Plan:
    """Up and down; `room_bits` of an edge up is what the control allows and its `weight` the structural rank, `weight`
    of one down is the latency that the control expects.

    The queue is the server's.
    """
    made = star(facts)
    if not made.phases:
        return made
    up, down = made.phases
    ids, centre = [e.src for e in up.edges], hub(facts)
    lost = np.stack([facts[k].public["lost"].astype(np.float64) for k in ids])
    bits = max(facts[k].payload_bits for k in ids) / lost.shape[1]
    queue_s = float(facts[centre].public["queue"])
    links = uplinks(facts, ids, centre, setup.radio)
    rank = min(int(f.public["rank"]) for f in facts.values())
    if t.index == 0:
        rank = first_rank(lost[:, : max(rank, 1)].mean(axis=0), bits, links, c)
    found = control(lost[:, : max(rank, 1)], bits, links, queue_s, c.tradeoff)
    rooms = [e._replace(room_bits=bits * int(m), weight=float(rank)) for e, m in zip(up.edges, found.kept, strict=True)]
    waits = [e._replace(weight=found.latency_s) for e in down.edges]
    return Plan(phases=(replace(up, edges=tuple(rooms)), replace(down, edges=tuple(waits))))


def first_rank(lost: Array, rank_bits: float, links: Uplinks, c: Soft) -> int:
    """The structural rank, before there is a queue; one where no rank meets the limit, and the control sees to it.

    Args:
        lost: E(m) for m = 1..r, mean over devices. [r]
        rank_bits: payload of one rank.
        links: of the first round.
        c: limit and slack.
    """
    ranks = np.arange(1, lost.size + 1)
    payloads = np.repeat(rank_bits * ranks[:, None], len(links.snr_hz), axis=1)
    seconds, _ = least_latency(payloads, links)
    if seconds.min() > c.latency_s:
        return 1
    return offline_rank(ranks.tolist(), lost.tolist(), seconds.tolist(), c.latency_s, c.slack)


def strongest(own: Arrays, kept: int, layout: Layout) -> dict[str, Array]:
    """The strongest ranks of every layer as they travel, and which they are.

    Returns:
        ranks: a bit for each of a layer's, layer by layer. A, B: their rows and columns, 16 bit.
    """
    g = importance(own, layout)
    mask = np.zeros(g.shape, dtype=bool)
    np.put_along_axis(mask, np.argsort(-g, axis=1, kind="stable")[:, :kept], True, axis=1)
    a = [x[m].ravel() for x, m in zip(matrices_a(own["A"], layout), mask, strict=True)]
    b = [x[:, m].ravel() for x, m in zip(matrices_b(own["B"], layout), mask, strict=True)]
    sides = {"A": np.concatenate(a).astype(np.float16), "B": np.concatenate(b).astype(np.float16)}
    return {"ranks": np.packbits(mask), **sides}


def opened(parts: Arrays, layout: Layout, src: int) -> tuple[dict[str, Array], Array]:
    """A and B with zeros where a rank was not sent, and which were. [L, r]

    Raises:
        ValueError: factors that do not fit the ranks named, or are not finite.
    """
    shape = len(layout.shapes), layout.rank
    mask = np.unpackbits(parts["ranks"], count=shape[0] * shape[1]).reshape(shape).astype(bool)
    own = {n: np.zeros(size, np.float32) for n, size in (("A", layout.num_projection), ("B", layout.num_expansion))}
    where = {n: np.zeros_like(a) for n, a in own.items()}
    layers = zip(matrices_a(where["A"], layout), matrices_b(where["B"], layout), mask, strict=True)
    for a, b, held in layers:
        a[held], b[:, held] = True, True
    for n in "AB":
        if parts[n].shape != (int(where[n].sum()),) or not np.isfinite(parts[n]).all():
            raise ValueError(f"device {src} sent {parts[n].size} values of {n}, not finite or not those of its ranks")
        own[n][where[n] > 0] = parts[n]
    return own, mask


def mean_ranks(parts: Mapping[int, tuple[Arrays, Array]], layout: Layout) -> dict[str, Array]:
    r"""Factors averaged apart, every rank over those that sent it.

    .. math::  \bar a_{l,j} = \sum_{i \in S_{l,j}} a_{i,l,j} / |S_{l,j}|, \quad \bar b_{l,j} likewise

    Args:
        parts: A and B, and which ranks they hold, by device; every rank is held by one at least. [L, r]
        layout: of the adapters.
    """
    ids = sorted(parts)
    count = np.sum([parts[k][1] for k in ids], axis=0)
    total = {n: np.sum([parts[k][0][n].astype(np.float64) for k in ids], axis=0) for n in "AB"}
    for a, b, held in zip(matrices_a(total["A"], layout), matrices_b(total["B"], layout), count, strict=True):
        a /= held[:, None]
        b /= held
    return {n: x.astype(np.float32) for n, x in total.items()}


def hand_in(device: DeviceState, phase: Phase, t: Round, setup: Setup) -> tuple[Message, ...]:
    """As many ranks as the control allows, or the server's."""
    from ..models.base import load_base

    layout, mine = load_base(setup.model).layout, phase.outgoing.get(device.id, ())
    if phase.name != "up" or not mine:
        return send(device, phase, {}, {"ranks": "mask"})
    bits = largest_bits(device.own, "AB") / layout.rank
    parts = strongest(device.own, max(1, round(mine[0].room_bits / bits)), layout)
    return send(device, phase, parts, {"ranks": "mask"})


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: Soft, setup: Setup) -> DeviceState:
    """The server averages, its own ranks all among them, and keeps the strongest; then all go on from that, and note
    the queue."""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    if phase.name == "up":
        if not inbox:
            return device
        got = {e.edge.src: decode(e.payload) for e in inbox if e.payload is not None}
        held: dict[int, tuple[Arrays, Array]] = {k: opened(parts, layout, k) for k, parts in got.items()}
        held[device.id] = halves(device.own, "AB"), np.ones((len(layout.shapes), layout.rank), dtype=bool)
        rank = max(1, int(max(e.weight for e in phase.edges)))
        return serve(device, strongest(mean_ranks(held, layout), rank, layout))
    device, news = told(device, inbox)
    queue = next_queue(float(device.own["queue"]), max(e.weight for e in phase.edges), c.latency_s)
    found = opened(news, layout, phase.edges[0].src)[0] if news else {}
    return replace(device, own={**device.own, **found, "queue": np.array(queue)})
