"""Updates folded into the base of one device: kept as factors, and made whole only while the model is used.

own: fold/A [n, sum r k] and fold/B [n, sum d r], whose products add up, without scaling; beside A and B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ..adapters.lowrank import Layout, matrices_a, matrices_b
from ..types import Array, Arrays, Bank, DeviceState, Envelope, Expert, Facts, Learnt, Method, Phase, Plan, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora, received
from .overlays import gather
from .server import describe, halves, through
from .setup import Setup


def folded(blocks: Sequence[tuple[Array, Array]], layout: Layout) -> list[Array]:
    r"""Sum of updates layer by layer.

    .. math::  \Delta W_l = \sum_n B_{n,l} A_{n,l} = [B_{1,l}, \dots] [A_{1,l}; \dots]

    Args:
        blocks: A [sum r k] and B [sum d r], n of them.
        layout: of each.

    Returns:
        One matrix a layer. [d, k] each

    >>> from orthomesh.adapters.lowrank import Shape
    >>> one = Layout((Shape("x", 2, 1),), 1)
    >>> folded([(np.ones(1), np.array([1.0, 2.0])), (np.ones(1), np.ones(2))], one)[0].tolist()
    [[2.0], [3.0]]
    """
    wide = zip(*(matrices_a(a, layout) for a, _ in blocks), strict=True)
    tall = zip(*(matrices_b(b, layout) for _, b in blocks), strict=True)
    return [np.concatenate(b, axis=1) @ np.concatenate(a) for a, b in zip(wide, tall, strict=True)]


def blocks_of(own: Arrays) -> list[tuple[Array, Array]]:
    """What is folded in. n of (A, B)"""
    return list(zip(own["fold/A"], own["fold/B"], strict=True)) if "fold/A" in own else []


def with_blocks(own: Arrays, blocks: Sequence[tuple[Array, Array]]) -> dict[str, Array]:
    """The device's parts with these blocks folded in, instead of any before."""
    A, B = (np.stack([np.asarray(pair[n], dtype=np.float32) for pair in blocks]) for n in (0, 1))
    return {**own, "fold/A": A, "fold/B": B}


def fit(device: DeviceState, t: Round, c: GossipLora, setup: Setup) -> tuple[DeviceState, Learnt]:
    """Train both factors on top of what is folded in, which stays."""
    from ..models.base import load_base
    from ..models.whole import change_of, wearing

    blocks, base = blocks_of(device.own), load_base(setup.model)
    if not blocks:
        return gossip.fit(device, t, c, setup)
    change = change_of(base, [base.scaling * update for update in folded(blocks, base.layout)])
    with wearing(base, change):
        return gossip.fit(device, t, c, setup)


def bank(device: DeviceState, setup: Setup) -> Bank:
    """One expert: what is folded in, and the adapter on top of it."""
    from ..models.base import load_base
    from ..models.whole import change_of

    own, none = device.own, np.zeros(0, dtype=np.float32)
    blocks = blocks_of(own)
    if not blocks:
        return gossip.bank(device)
    base = load_base(setup.model)
    blocks += [(own["A"], own["B"])] if "B" in own else []
    change = change_of(base, [base.scaling * update for update in folded(blocks, base.layout)])
    return Bank(experts=(Expert(owner=device.id, A=none, B=none, weights=change),))


def passed_on(c: GossipLora, setup: Setup) -> Method:
    """Adapters trained on top of what is folded in, of which a server hands everybody's to everybody; how they are
    merged is left to who asks."""
    return replace(
        c.build(setup),
        fit=partial(fit, c=c, setup=setup),
        describe=announce,
        plan=partial(plan, setup=setup),
        bank=partial(bank, setup=setup),
    )


def announce(device: DeviceState, t: Round) -> Facts:
    """How much an adapter takes at most."""
    return describe(device, "AB")


def plan(facts: Mapping[int, Facts], t: Round, setup: Setup) -> Plan:
    """Everybody's adapter to everybody, over the server."""
    return through(facts, setup.radio)


def heard(
    device: DeviceState, inbox: Sequence[Envelope], phase: Phase
) -> tuple[DeviceState, list[tuple[Array, Array]]]:
    """A and B of all who arrived, its own among them, in 16 bit and in order of id; none while relays are at work.

    Raises:
        ValueError: factors of another size, or not finite.
    """
    device, arrived = gather(device, inbox, phase)
    got: dict[int, Arrays] = {k: parts for k, (_, parts) in received(arrived).items()}
    for k, parts in got.items():
        if any(parts[name].shape != device.own[name].shape for name in "AB"):
            raise ValueError(f"device {k} sent factors of another size than {device.id} has")
        if not all(np.isfinite(parts[name]).all() for name in "AB"):
            raise ValueError(f"device {k} sent values that are not finite, its training has diverged")
    if got:
        got[device.id] = halves(device.own, "AB")
    return device, [(got[k]["A"].astype(np.float32), got[k]["B"].astype(np.float32)) for k in sorted(got)]
