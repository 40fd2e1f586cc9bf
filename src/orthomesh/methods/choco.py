"""Gossip LoRA with top-k messages and error feedback, in the form of CHOCO-SGD (arXiv 1902.00340).

Compressing what devices have would break their consensus. Everybody keeps for each neighbour, and for itself, a copy
that all neighbours of that device share; messages are the largest entries of how far the device is from its copy, so
that what was left out comes up again. A device that has missed a message is told the whole copy before the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ..adapters.projection import projection
from ..config import STRICT
from ..exchange.payload import Section, decode, encode
from ..exchange.sparse import COLUMN_OF, most_bits, opened, packed
from ..experts.bank import get, places, put
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from . import gossip_lora as gossip
from .flasc import flat
from .gossip_lora import GossipLora
from .server import frame
from .setup import Setup


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Choco:
    """Settings of CHOCO gossip with top-k."""

    kind: Literal["choco"] = "choco"
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of all entries of A and B that a message holds."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """gamma, how far a device moves towards the copies of its neighbours; smaller for smaller densities."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA among all in reach, with messages of another kind."""
        c = GossipLora(topology="radio", learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup),
            describe=partial(describe, c=self),
            plan=partial(plan, c=c, setup=setup),
            send=partial(send, c=self),
            merge=partial(merge, c=self, setup=setup),
        )


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train all entries; the copies stay where they are, at first at the common start."""
    trained, learnt = gossip.fit(device, t, c, setup)
    if "copy" in device.own:
        return trained, learnt
    found = {"copy": common(device.own, setup), "version": np.array(0, dtype=np.uint32)}
    return replace(trained, own={**trained.own, **found}), learnt


def common(own: Arrays, setup: Setup) -> Array:
    """Where everybody starts: what a copy is before the first message. [n]"""
    from ..models.base import load_base

    layout = load_base(setup.model).layout
    return np.concatenate([projection(int(own["seed"]), layout), np.zeros(layout.num_expansion, dtype=np.float32)])


def describe(device: DeviceState, t: Round, c: Choco) -> Facts:
    """How many messages are in its copy, and in those it has of others: (id, count) rows by id."""
    have = [(k, int(get(device.bank, f"copy/{k}")["version"])) for k in places(device.bank, "copy")]
    public = {"version": device.own["version"], "have": np.array(have, dtype=np.uint32).reshape(-1, 2)}
    columns = encode([Section("control", name, a) for name, a in public.items()]).columns
    size = flat(device.own).size
    return Facts(id=device.id, public=public, columns=columns, payload_bits=most_bits(size, c.density))


def plan(facts: Mapping[int, Facts], t: Round, c: GossipLora, setup: Setup) -> Plan:
    """`refresh`, whole copies to those who missed a message, where there are any; then `gossip` among all in reach."""
    phases = gossip.plan(facts, t, c, setup).phases
    have = {k: {int(i): int(n) for i, n in f.public["have"]} for k, f in facts.items()}
    stale = [e for p in phases for e in p.edges if have[e.dst].get(e.src, 0) != int(facts[e.src].public["version"])]
    return Plan(phases=((Phase(name="refresh", edges=tuple(stale)),) if stale else ()) + phases)


def send(device: DeviceState, phase: Phase, t: Round, c: Choco) -> tuple[Message, ...]:
    """The largest entries of how far the device is from its copy; or the copy itself, as it is."""
    dsts = tuple(e.dst for e in phase.outgoing.get(device.id, ()))
    if not dsts:
        return ()
    own = device.own
    if phase.name == "refresh":
        return (frame(device.id, dsts, {"copy": own["copy"], "version": own["version"]}, COLUMN_OF),)
    parts = {**packed(flat(own) - own["copy"], c.density), "version": own["version"]}
    return (frame(device.id, dsts, parts, COLUMN_OF),)


def merge(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: Choco, setup: Setup
) -> DeviceState:
    r"""Bring copies up to date, then move towards them.

    .. math::  \hat x_j \leftarrow \hat x_j + q_j, \quad q_j = \mathrm{top}_k(x_j - \hat x_j), \quad
               x_i \leftarrow x_i + \gamma \sum_j w_{ij} (\hat x_j - \hat x_i)

    A neighbour whose message was lost is left out of the sum.

    Raises:
        ValueError: a copy or a message of another size, or not finite.
    """
    own, bank, size = device.own, device.bank, flat(device.own).size
    got = {e.edge.src: (e.edge.weight, decode(e.payload)) for e in inbox if e.payload is not None}
    if phase.name == "refresh":
        for k, (_, parts) in sorted(got.items()):
            if parts["copy"].shape != (size,) or not np.isfinite(parts["copy"]).all():
                raise ValueError(f"device {k} sent a copy that has not {size} finite entries")
            bank = put(bank, f"copy/{k}", parts)
        return replace(device, bank=bank)
    mine = own["copy"] + opened(packed(flat(own) - own["copy"], c.density), size, device.id)
    pull = np.zeros(size, dtype=np.float32)
    for k, (weight, parts) in sorted(got.items()):
        known = get(bank, f"copy/{k}") or {"copy": common(own, setup), "version": np.array(0, dtype=np.uint32)}
        if int(known["version"]) != int(parts["version"]):
            continue  # the refresh was lost too; the next one comes before the next message
        copy = known["copy"] + opened(parts, size, k)
        bank = put(bank, f"copy/{k}", {"copy": copy, "version": _next(known)})
        pull += np.float32(weight) * (copy - mine)
    x, num_a = flat(own) + np.float32(c.step) * pull, own["A"].size
    found: Arrays = {"A": x[:num_a], "B": x[num_a:], "copy": mine, "version": _next(own)}
    return replace(device, own={**own, **found}, bank=bank)


def _next(parts: Arrays) -> Array:
    return np.array(int(parts["version"]) + 1, dtype=np.uint32)
