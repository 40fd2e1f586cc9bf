"""Devices with the same task as one (reading R11): who belongs together, and what their averages are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..experts.bank import get
from ..experts.taskcode import unlikeness
from ..types import Arrays, DeviceState, Facts, Round
from .parts import unpack

Members = tuple[int, ...]


def groups(
    facts: Mapping[int, Facts], widths: tuple[int, ...], most: float, allowed: Callable[[Members], bool]
) -> tuple[Members, ...]:
    """Devices whose task codes differ no more than chance explains, by complete linkage in order of id.

    A device joins the first group of which it is like every member and which stays within the radio's limits.
    Nobody decides for others: every device finds the same groups from the same facts.

    Args:
        facts: task code (`code`) and its squared standard errors (`error`) of the devices to group.
        widths: of the layer inputs, as in `experts.taskcode.unlikeness`.
        most: largest unlikeness within a group; 1 is its expectation for one task.
        allowed: whether members ascending keep the radio's limits.

    Returns:
        A partition of the devices.
    """
    found: list[Members] = []
    for k in sorted(facts):
        for n, members in enumerate(found):
            if all(_apart(facts[m], facts[k], widths) <= most for m in members) and allowed((*members, k)):
                found[n] = (*members, k)
                break
        else:
            found.append((k,))
    return tuple(found)


def _apart(one: Facts, other: Facts, widths: tuple[int, ...]) -> float:
    a, b = one.public, other.public
    return unlikeness((a["code"], b["code"]), (a["error"], b["error"]), widths)


def averaged(device: DeviceState, t: Round) -> Arrays:
    r"""The device's parts with B set to the mean over its group, exact because all share A and the mask.

    .. math::  B \leftarrow \frac 1{|G|} \sum_{j \in G} B_j

    The mean is over values as they were sent, in 16 bit and in order of id, so that all members find the same bits
    when nothing is lost. Those that sent nothing this round, or under another mask, do not count: in the round in
    which masks are found only the first has anything to send, and all begin from what it has. Moments stay.

    Args:
        device: after what its cluster sent this round was put into its bank.
        t: which round.

    Returns:
        Its own parts; unchanged for a device without a group, or one in which nobody sent anything.
    """
    own = device.own
    if "group" not in own:
        return own
    told = {k: get(device.bank, f"member/{k}") for k in own["group"].tolist()}
    told[device.id] = {**own, "values": own["sent"]} if "sent" in own else {}
    sent = {k: parts["values"] for k, parts in told.items() if _counts(parts, own, t)}
    if not sent:
        return own
    total = np.zeros(sent[min(sent)].shape, dtype=np.float32)
    for k in sorted(sent):
        total += sent[k]
    B = np.zeros_like(own["B"])
    B[unpack(own["mask"], B.size)] = total / np.float32(len(sent))
    return {**own, "B": B}


def _counts(told: Arrays, own: Arrays, t: Round) -> bool:
    """Whether a member's values are of this round and belong to the device's projection and mask."""
    return (
        "values" in told
        and int(told["version"]) == t.index + 1
        and int(told["seed"]) == int(own["seed"])
        and np.array_equal(told["mask"], own["mask"])
    )
