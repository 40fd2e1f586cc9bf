"""FLASC (arXiv 2406.05233): adapters trained dense, sparse only on the air, both up and down.

A server keeps the dense weights. Down go the largest of them, up come the largest changes; nothing remembers what was
cut off, unless it is told to (`feedback`), which makes it top-k with error feedback. The authors rank all entries
together. Since A starts large and B at zero, nothing of B would come down in the first rounds and devices would answer
as the base does, so here A and B are ranked apart unless told otherwise. The device that serves first goes on serving,
since the weights are there.
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
from ..experts.bank import get, put
from ..types import Array, Arrays, DeviceState, Envelope, Facts, Learnt, Message, Method, Phase, Plan, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
from .server import send, serve, star, told
from .setup import Setup

BETAS = (0.9, 0.999)
"""Of the server's AdamW."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flasc:
    """Settings of FLASC."""

    kind: Literal["flasc"] = "flasc"
    up: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of all entries that a device sends of its change."""
    down: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of all entries that the server sends of its weights."""
    ranking: Literal["apart", "together"] = "apart"
    """Whether A and B are ranked each for itself, or all entries together (the authors)."""
    server_rate: Annotated[float, Field(gt=0)] | None = None
    """Rate of the server's AdamW on the mean change, 0.001 in the authors' code; none: the mean change is added."""
    feedback: bool = False
    """Whether a device adds what its message has left out to its next change: top-k with error feedback. The authors
    remember nothing."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of the devices' AdamW; none: the run's."""

    def build(self, setup: Setup) -> Method:
        """Gossip LoRA's training between sparse messages."""
        c = GossipLora(learning_rate=self.learning_rate)
        return replace(
            c.build(setup),
            fit=partial(fit, c=c, setup=setup),
            describe=partial(describe, c=self),
            plan=plan,
            send=partial(hand_in, c=self),
            merge=partial(merge, c=self),
        )


def flat(own: Arrays, prefix: str = "") -> Array:
    """A and B in a row."""
    return np.concatenate([own[f"{prefix}A"], own[f"{prefix}B"]])


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train all entries, and note where the round began."""
    from ..models.base import load_base

    own = device.own
    if "A" not in own:
        layout = load_base(setup.model).layout
        start = {"A": projection(int(own["seed"]), layout), "B": np.zeros(layout.num_expansion, dtype=np.float32)}
        own = {**own, **start}
    began = {f"start/{name}": own[name] for name in "AB"}
    trained, learnt = gossip.fit(replace(device, own=own), t, c, setup)
    return replace(trained, own={**trained.own, **began}), learnt


def describe(device: DeviceState, t: Round, c: Flasc) -> Facts:
    """How much it would send, and whether it serves."""
    public = {"serves": np.array(1, dtype=np.uint8)} if get(device.bank, "serves") else {}
    columns = encode([Section("control", name, a) for name, a in public.items()]).columns
    size = flat(device.own).size
    return Facts(id=device.id, public=public, columns=columns, payload_bits=most_bits(size, c.up))


def plan(facts: Mapping[int, Facts], t: Round) -> Plan:
    """Up to the server and down again."""
    return star(facts)


def hand_in(device: DeviceState, phase: Phase, t: Round, c: Flasc) -> tuple[Message, ...]:
    """The largest changes, or the server's largest weights."""
    return send(device, phase, _told(device.own, c), COLUMN_OF)


def _packed(x: Array, share: float, own: Arrays, c: Flasc) -> dict[str, Array]:
    return packed(x, share, (own["A"].size, own["B"].size) if c.ranking == "apart" else ())


def _told(own: Arrays, c: Flasc) -> dict[str, Array]:
    """The largest of what a device has to say."""
    return _packed(_change(own), c.up, own, c)


def _change(own: Arrays) -> Array:
    """What training has changed, and what messages before have left out, if that is remembered."""
    change = flat(own) - flat(own, "start/")
    return change + own["left"] if "left" in own else change


def left_out(own: Arrays, device: int, c: Flasc) -> Array:
    r"""What a message leaves out, rounding to 16 bit included; whether it arrives or not, the sender cannot tell.

    .. math::  e \leftarrow (\Delta + e) - \mathrm{top}_k(\Delta + e)
    """
    change = _change(own)
    return np.asarray(change - opened(_told(own, c), change.size, device), dtype=np.float32)


def merge(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: Flasc) -> DeviceState:
    """The server moves its weights; then all go on from the largest of them, with zeros elsewhere."""
    own = device.own
    num_a, size = own["A"].size, flat(own).size
    if phase.name == "up":
        if not inbox:
            return device
        got = {e.edge.src: opened(decode(e.payload), size, e.edge.src) for e in inbox if e.payload is not None}
        got[device.id] = opened(_told(own, c), size, device.id)
        held = get(device.bank, "serves") or {"x": flat(own, "start/")}
        held = moved(held, np.mean([got[k] for k in sorted(got)], axis=0), c.server_rate)
        kept = replace(device, bank=put(device.bank, "serves", held))
        return serve(kept, _packed(held["x"], c.down, own, c))
    own = {**own, "left": left_out(own, device.id, c)} if c.feedback else own
    device, news = told(replace(device, own=own), inbox)
    if not news:
        return device
    x = opened(news, size, device.id)
    return replace(device, own={**device.own, "A": x[:num_a], "B": x[num_a:]})


def moved(held: Arrays, change: Array, rate: float | None) -> dict[str, Array]:
    r"""The server's weights after the mean change of the devices.

    .. math::  x \leftarrow x + \Delta \quad \text{or} \quad
               x \leftarrow x + \eta \, \hat m / (\sqrt{\hat v} + 10^{-8})

    with the moments of AdamW, the change taken for a descent direction.

    Args:
        held: x, and with a rate the moments m and v and their count, if there was a round before. [n]
        change: Delta. [n]
        rate: eta of AdamW; None: the change is added.

    >>> moved({"x": np.ones(2, dtype=np.float32)}, np.array([1.0, -1.0], dtype=np.float32), 0.5)["x"].tolist()
    [1.5, 0.5]
    """
    if rate is None:
        return {"x": np.asarray(held["x"] + change, dtype=np.float32)}
    none, count = np.zeros_like(held["x"]), int(held.get("count", 0)) + 1
    m = BETAS[0] * held.get("m", none) + (1 - BETAS[0]) * change
    v = BETAS[1] * held.get("v", none) + (1 - BETAS[1]) * change**2
    step = m / (1 - BETAS[0] ** count) / (np.sqrt(v / (1 - BETAS[1] ** count)) + 1e-8)
    found = {"x": held["x"] + rate * step, "m": m, "v": v}
    return {**{n: a.astype(np.float32) for n, a in found.items()}, "count": np.array(count, dtype=np.uint32)}
