"""Updates folded into the base of one device: kept as factors, and made whole only while the model is used.

own: fold/A [n, sum r k] and fold/B [n, sum d r], whose products add up, without scaling; beside A and B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..adapters.lowrank import Layout, matrices_a, matrices_b
from ..types import Array, Arrays, Bank, DeviceState, Expert, Learnt, Round
from . import gossip_lora as gossip
from .gossip_lora import GossipLora
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
