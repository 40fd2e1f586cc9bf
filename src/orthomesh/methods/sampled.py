"""Adaptive federated LoRA with independent sampling (arXiv 2505.23555): who joins a round, and with which ranks.

In each round every device joins by a chance of its own and trains and sends only some ranks, W0 + s B S A with S
diagonal, zeros and ones. The server adds up what comes, each over its chance, so that absence moves nothing on
average. Chances and ranks follow from `planning.sampling`; they are found by the server from the updates' norms and
the links, told with its model, and count from the next round on. The model is the serving device's own: whoever missed
the latest says how far behind it is and does not serve; where all are behind, the one least so does. Reconstruction
where descriptions leave it open: weights are equal, ranks are the same in all layers and drawn from a seed, so that
nothing says which they are.
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
from ..planning.sampling import shares, split
from ..rng import stream
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from ..wireless.link import Radio
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .server import behind, halves, hub, init, largest_bits, send, serve, serves_alone, star, told
from .setup import Setup
from .soft import uplinks


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sampled:
    """Settings of adaptive federated LoRA with independent sampling."""

    kind: Literal["sampled"] = "sampled"
    floor: Annotated[float, Field(ge=0)] = 1.0
    """Rounds that are needed though all join with all ranks, over those that absence and cut ranks then add."""
    least_ranks: Annotated[float, Field(gt=0)] = 1.0
    """Least that a device sends on average, in ranks; below 1, the chance to join."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA's training between a server's rounds.

        Raises:
            ValueError: more ranks at least than there are.
        """
        if self.least_ranks > setup.model.rank:
            raise ValueError(f"least_ranks {self.least_ranks:g} exceed the rank {setup.model.rank} (model.rank)")
        c = GossipLora(learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            init=partial(init, setup=setup),
            fit=partial(fit, c=c, setup=setup),
            describe=partial(describe, setup=setup),
            plan=partial(plan, c=self, setup=setup),
            send=partial(hand_in, setup=setup),
            merge=partial(merge, setup=setup),
        )


def sketch(count: int, device: int, t: Round, rank: int) -> Array:
    """Which ranks a device trains in a round, and sends if it joins. [r] bool"""
    held = np.zeros(rank, dtype=bool)
    held[stream(t.seed, "sketch", t.index, device).permutation(rank)[:count]] = True
    return held


def joins(share: float, device: int, t: Round) -> bool:
    """Whether a device joins, by a chance of its own."""
    return bool(stream(t.seed, "joins", t.index, device).random() < split(share)[0])


def kept(own: Arrays, held: Array, layout: Layout) -> dict[str, Array]:
    """Both factors with zeros at all ranks but those held."""
    a = [np.where(held[:, None], x, 0) for x in matrices_a(own["A"], layout)]
    b = [np.where(held, x, 0) for x in matrices_b(own["B"], layout)]
    return {name: np.concatenate([x.ravel() for x in each]) for name, each in (("A", a), ("B", b))}


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train the ranks of the sketch; all others are at zero meanwhile, and stay as they were."""
    from ..models.base import load_base

    layout, own = load_base(setup.model).layout, device.own
    if "B" not in own:
        zeros = np.zeros(layout.num_expansion, dtype=np.float32)
        own = {**own, "A": projection(int(own["seed"]), layout), "B": zeros, "share": np.array(float(layout.rank))}
    held = sketch(split(float(own["share"]))[1], device.id, t, layout.rank)
    begun = kept(own, held, layout)
    ended, learnt = gossip.fit(replace(device, own={**own, **begun}), t, c, setup)
    moved = {f"moved/{n}": ended.own[n] - begun[n] for n in "AB"}
    return replace(device, own={**own, **{n: own[n] + moved[f"moved/{n}"] for n in "AB"}, **moved}), learnt


def describe(device: DeviceState, t: Round, setup: Setup) -> Facts:
    """How far its update went, as if all ranks had been trained, its share, and how far behind it is, if it is."""
    share = float(device.own["share"])
    far = sum(float(np.square(device.own[f"moved/{n}"].astype(np.float64)).sum()) for n in "AB")
    norm = np.array((far * setup.model.rank / split(share)[1]) ** 0.5, dtype=np.float32)
    public = {"norm": norm, "share": np.array(share), **behind(device, t, setup)}
    columns = encode([Section("control", name, a) for name, a in public.items()]).columns
    return Facts(id=device.id, public=public, columns=columns, payload_bits=largest_bits(device.own, "AB"))


def plan(facts: Mapping[int, Facts], t: Round, c: Sampled, setup: Setup) -> Plan:
    """Up from those that join, down to all; `weight` of an edge up is 1 / q, of one down its receiver's next share."""
    rank = setup.model.rank
    now = {k: float(facts[k].public["share"]) for k in sorted(facts)}
    made = star(facts, [k for k, share in now.items() if joins(share, k, t)])
    if not made.phases:
        return made
    up, down = made.phases
    nexts = next_shares(facts, [e.dst for e in down.edges], c, setup.radio, rank)
    above = tuple(e._replace(weight=1.0 / split(now[e.src])[0]) for e in up.edges)
    below = tuple(e._replace(weight=nexts[e.dst]) for e in down.edges)
    return Plan(phases=(replace(up, edges=above), replace(down, edges=below)))


def next_shares(
    facts: Mapping[int, Facts], ids: Sequence[int], c: Sampled, radio: Radio, rank: int
) -> dict[int, float]:
    """What every device but the server sends from now on, in ranks: seconds are those of its link at full power, the
    server's model down to the worst of them takes the same time whoever joins."""
    links = uplinks(facts, ids, hub(facts), radio)
    rate = links.band_hz * np.log2(1.0 + links.snr_hz / links.band_hz)
    bits = max(facts[k].payload_bits for k in ids)
    square = np.array([float(facts[k].public["norm"]) ** 2 for k in ids])
    worth = square / square.sum() if square.any() else np.full(len(ids), 1.0 / len(ids))
    found = shares(worth, bits / rank / rate, float(bits / rate.min()), c.floor, (c.least_ranks, float(rank)))
    return dict(zip(ids, found.tolist(), strict=True))


def sketched(own: Arrays, held: Array, layout: Layout) -> dict[str, Array]:
    """The update's ranks that are held, row by row and column by column, 16 bit."""
    a = [x[held].ravel() for x in matrices_a(own["moved/A"], layout)]
    b = [x[:, held].ravel() for x in matrices_b(own["moved/B"], layout)]
    return {"A": np.concatenate(a).astype(np.float16), "B": np.concatenate(b).astype(np.float16)}


def opened(parts: Arrays, src: int, t: Round, layout: Layout) -> dict[str, Array]:
    """An update with zeros at all ranks that did not travel; how many did is told by its length.

    Raises:
        ValueError: values that are not those of a sketch, or not finite.
    """
    held = sketch(parts["A"].size * layout.rank // layout.num_projection, src, t, layout.rank)
    where = kept({"A": np.ones(layout.num_projection), "B": np.ones(layout.num_expansion)}, held, layout)
    found = {}
    for n in "AB":
        at = where[n] > 0
        if parts[n].shape != (int(at.sum()),) or not np.isfinite(parts[n]).all():
            raise ValueError(f"device {src} sent {parts[n].size} values of {n}, not finite or not those of a sketch")
        found[n] = np.zeros(at.size, dtype=np.float32)
        found[n][at] = parts[n]
    return found


def stepped(begun: Arrays, updates: Mapping[int, tuple[float, Arrays]], count: int) -> dict[str, Array]:
    r"""The server's factors after a round; on average over who joins, those after a round of all.

    .. math::  X \leftarrow X + \sum_n a_n \frac{I_n}{q_n} \Delta_n, \quad a_n = 1 / N

    Args:
        begun: A and B before.
        updates: 1 / q_n and Delta_n of those that joined, by device.
        count: N, devices of the run.

    >>> stepped({"A": np.zeros(1), "B": np.ones(1)}, {3: (2.0, {"A": np.ones(1), "B": np.ones(1)})}, 4)["B"].tolist()
    [1.5]
    """
    found = {}
    for name in "AB":
        steps = [weight * updates[k][1][name].astype(np.float64) / count for k, (weight, _) in sorted(updates.items())]
        found[name] = (begun[name] + np.sum(steps, axis=0)).astype(np.float32)
    return found


def hand_in(device: DeviceState, phase: Phase, t: Round, setup: Setup) -> tuple[Message, ...]:
    """The ranks of the sketch, or the server's factors, whether anybody had to send or not."""
    from ..models.base import load_base

    if phase.name != "up" or device.id not in phase.outgoing:
        return send(served(device, {}, t, setup) if serves_alone(device, phase) else device, phase, {})
    layout = load_base(setup.model).layout
    held = sketch(split(float(device.own["share"]))[1], device.id, t, layout.rank)
    return send(device, phase, sketched(device.own, held, layout))


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, setup: Setup) -> DeviceState:
    """The server adds up what came, its own part by its own chance; then all go on from that, also where nobody else
    was to join. Where the server's word is lost, a device goes on from what it has itself.
    """
    from ..models.base import load_base

    if phase.name == "up":
        layout, got = load_base(setup.model).layout, dict[int, tuple[float, Arrays]]()
        for edge, payload, _ in inbox:
            if payload is not None:
                got[edge.src] = edge.weight, opened(decode(payload), edge.src, t, layout)
        return served(device, got, t, setup) if inbox else device
    device, news = told(served(device, {}, t, setup) if serves_alone(device, phase) else device, inbox)
    if not news:
        return device
    found = {name: a.astype(np.float32) for name, a in news.items()}
    share = np.array(next((e.edge.weight for e in inbox), float(device.own["share"])))
    return replace(device, own={**device.own, **found, "share": share, "version": np.array(t.index + 1, np.uint32)})


def served(device: DeviceState, got: Mapping[int, tuple[float, Arrays]], t: Round, setup: Setup) -> DeviceState:
    """The server with its factors after the round: from 1 / q_n and the update of those that arrived, and its own."""
    own, mine = device.own, float(device.own["share"])
    if joins(mine, device.id, t):
        got = {**got, device.id: (1.0 / split(mine)[0], {n: own[f"moved/{n}"] for n in "AB"})}
    begun = {n: own[n] - own[f"moved/{n}"] for n in "AB"}
    return serve(device, halves(stepped(begun, got, setup.num_devices), "AB"))
