"""How a cluster finds its masks, step 1 of IV-C with R3: bids, what is taken, one adapter for one task (R11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from weakref import WeakValueDictionary

import numpy as np

from ..adapters.mask import negotiate
from ..exchange.payload import Section, decode
from ..experts.bank import each, put_each
from ..types import Array, Arrays, DeviceState, Edge, Envelope, Phase, Round
from .coding import read_bid
from .learning import offered
from .parts import by_entry, every_run, shape, taken, under_mask, unpack
from .sparse_orthogonal import SparseOrthogonal

_SETTLED: WeakValueDictionary[tuple[bytes, int], Array] = WeakValueDictionary()
"""Masks that some device in this process still holds, by digest of what it was found from and device."""


def offer(device: DeviceState, carries: tuple[int, ...], c: SparseOrthogonal) -> list[Section]:
    """What a device says in this phase: its bid if it looks for a mask, what is taken if it was there before.

    Args:
        device: the sender.
        carries: its unit, or everybody who was there before.
        c: settings; independent masks need no words.
    """
    own = device.own
    if c.masks == "independent":
        return []
    if "cluster" in own:
        return [Section("one_off", "taken", np.packbits(taken(device, carries)[:: c.run]))]
    quota = every_run(*shape(own), c.run)[1]
    parts = [Section("one_off", "bid", offered(own, device.id, c))]
    parts.append(Section("one_off", "quota", quota.astype(np.uint32)))
    if len(carries) > 1:
        parts.append(Section("one_off", "seed", own["seed"]))
        if c.refinement != "none":  # A is the same only if what refines it is
            parts.append(Section("codes", "code", own["code"]))
    return parts


def agree(device: DeviceState, inbox: Sequence[Envelope], phase: Phase, t: Round, c: SparseOrthogonal) -> DeviceState:
    """The device once it knows whom it is with, which positions are its own, and whose adapter it shares.

    Who was there before keeps its mask and notes who has come. A device that does not hear what is taken takes
    what it likes best; one that does not hear the bid of its group's first stays by itself. Who has left the cluster
    is forgotten: its mask is free, and its expert comes back in the record of the cluster it is in now.
    """
    device = _without_leavers(device, phase)
    mine = [*phase.outgoing.get(device.id, ()), *(e.edge for e in inbox)]
    if "cluster" in device.own and not mine:
        return device
    before = set(device.own["cluster"].tolist()) if "cluster" in device.own else set()
    cluster = sorted({device.id} | before | {k for e in mine for k in e.carries})
    members = each(device.bank, "member")
    for k in {k for e, _, _ in inbox if e.src in e.carries for k in e.carries} - {device.id}:
        members.pop(k, None)  # whoever bids starts afresh
    own, bank = device.own, put_each(device.bank, "member", members)
    if c.masks == "negotiated":
        own, masks = _negotiated(DeviceState(id=device.id, own=own, bank=bank), inbox, mine, t, c)
        bank = put_each(bank, "member", {**members, **{k: {"mask": mask} for k, mask in masks.items()}})
    return DeviceState(id=device.id, own={**own, "cluster": np.array(cluster, dtype=np.uint32)}, bank=bank)


def _without_leavers(device: DeviceState, phase: Phase) -> DeviceState:
    """The device without those of its cluster that are in another one now; who is away stays a member."""
    if "cluster" not in device.own:
        return device
    others = {k for members in phase.clusters if device.id not in members for k in members}
    stay = [k for k in device.own["cluster"].tolist() if k not in others]
    if len(stay) == len(device.own["cluster"]):
        return device
    members = {k: a for k, a in each(device.bank, "member").items() if k not in others}
    own = {**device.own, "cluster": np.array(stay, dtype=np.uint32)}
    return DeviceState(id=device.id, own=own, bank=put_each(device.bank, "member", members))


def _negotiated(
    device: DeviceState, inbox: Sequence[Envelope], mine: Sequence[Edge], t: Round, c: SparseOrthogonal
) -> tuple[Arrays, dict[int, Array]]:
    """The device's parts under its mask, and the masks of those whose bids it has heard, by id, as bits."""
    own, (sizes, quota) = device.own, every_run(*shape(device.own), c.run)
    num = own["B"].size // c.run
    heard = {e.src: decode(payload) for e, payload, _ in inbox if payload is not None}
    for e, payload, _ in inbox:
        if payload is not None:
            _check(e, heard[e.src], num, len(sizes))
    bids: dict[int, Array] = {k: parts["bid"] for k, parts in heard.items() if "bid" in parts}
    owed = {k: heard[k]["quota"].astype(int) for k in bids}
    units = {e.src: e.carries for e, _, _ in inbox if e.src in bids}
    if "mask" in own:
        closed = taken(device, own["cluster"].tolist())[:: c.run]
    else:
        unit = next((e.carries for e in mine if device.id in e.carries), (device.id,))
        if unit[0] not in bids:  # it leads its unit, or has not heard who does
            unit = unit if unit[0] == device.id else (device.id,)
            bids[device.id], owed[device.id] = offered(own, device.id, c), quota
        units[unit[0]] = unit
        told = {k: unpack(parts["taken"], num) for k, parts in heard.items() if "taken" in parts}
        closed = np.logical_or.reduce([np.zeros(num, dtype=bool), *told.values()])
    masks = settled(bids, sizes, owed, closed, c) if bids else {}
    by_device = {k: masks[first] for first, unit in units.items() for k in unit}
    if "mask" not in own:
        own = under_mask(_shared(own, unit, heard.get(unit[0])), by_device.pop(device.id), t)
    return own, by_device


def settled(
    bids: Mapping[int, Array], sizes: Sequence[int], owed: Mapping[int, Array], closed: Array, c: SparseOrthogonal
) -> dict[int, Array]:
    """What devices agree on; those that one process simulates ask the same, and it is worked out once.

    Args:
        bids: as they travel, by device.
        sizes: runs of every group. owed: of them to each device. closed: runs that are taken. c: settings.

    Returns:
        Masks of entries as bits, which nobody may write to, by device.

    Raises:
        ValueError: a bid that cannot be read.
    """
    asked = blake2b(repr((sorted(bids), tuple(sizes), c.run, c.mask_code)).encode(), digest_size=16)
    for k in sorted(bids):
        asked.update(str((bids[k].size, owed[k].tolist())).encode())
        asked.update(np.ascontiguousarray(bids[k]).data)
    asked.update(closed.data)
    key = asked.digest()
    found = {k: mask for k in bids if (mask := _SETTLED.get((key, k))) is not None}
    if len(found) < len(bids):
        read = {k: read_bid(code, closed.size, c) for k, code in bids.items()}
        for k, mask in negotiate(read, sizes, owed, closed).items():
            found[k] = _SETTLED[key, k] = np.packbits(by_entry(mask, c.run))
            found[k].flags.writeable = False
    return found


def _shared(own: Arrays, unit: tuple[int, ...], leader: Arrays | None) -> Arrays:
    """The parts of a device in a group: all but its first start again, under the first's projection."""
    if len(unit) == 1:
        return own
    own = {**own, "group": np.array(unit, dtype=np.uint32)}
    if leader is None:
        return own
    fresh = {name: a for name, a in own.items() if not name.startswith("moment/")}
    adopted = {name: leader[name] for name in ("seed", "code") if name in leader}
    return {**fresh, "B": np.zeros_like(own["B"]), **adopted}


def _check(edge: Edge, parts: Mapping[str, Array], size: int, num_groups: int) -> None:
    """That a message of this phase is a bid, with a seed if it is a group's, or says what is taken.

    Raises:
        ValueError: neither, or of another layout.
    """
    if "bid" in parts:
        right = "quota" in parts and parts["quota"].shape == (num_groups,)
        right = right and (len(edge.carries) == 1 or "seed" in parts)
    else:
        right = "taken" in parts and parts["taken"].shape == (-(-size // 8),)
    if not right:
        raise ValueError(
            f"device {edge.src} sent {sorted(parts)}; a bid or what is taken belongs there, of this layout"
        )
