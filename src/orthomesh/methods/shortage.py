"""What a device tells its cluster when its values do not fit on the air this round: Lemma 1's answers at run time.

A plan knows the gains of its round, so it notes on every edge how many bits its sender's links carry. Where the values
take more, the setting `on_infeasible` says what goes instead; what was not told counts as not sent, so that the change
since then brings it up again (error feedback). Entries a receiver has never heard are missing, that is zero. Who missed
what a part counts from keeps the part, and its version, so that all are told again when they fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..types import Array, Arrays, Column, Facts, Phase
from ..wireless.access import num_turns, turn_radio, turns
from ..wireless.infeasible import Answer, dequantise, quantise, tell
from ..wireless.infeasible import Quantised as Grid
from ..wireless.link import Radio
from ..wireless.power import payload_limit_bits

BESIDES_BITS = 4096
"""Heads of a frame and its sections, version and scale: travels whatever is told."""
WORTH = 0.25
"""A link that does not carry this part of a payload is not worth cutting everybody's down to it."""
CHARGED: Mapping[str, Column] = {
    "values": "values",
    "packed": "values",
    "grid": "control",
    "kept": "mask",
    "span": "control",
    "base": "control",
}
"""What the parts of a telling are charged to."""


class Telling(NamedTuple):
    """parts: what goes out. sent: values as receivers have them afterwards, [n]. start: where the next part begins."""

    parts: Arrays
    sent: Array
    start: int = 0


def with_room(phase: Phase, facts: Mapping[int, Facts], radio: Radio) -> Phase:
    """A phase whose edges say how many bits their sender can tell within deadline and power (11a)(11b).

    Args:
        phase: planned.
        facts: payload and gains of every sender.
        radio: the settings; bands of their own or turns, not reuse.

    Returns:
        The phase with `room_bits`. Links that do not carry a quarter of the payload are left out of the reckoning;
        the air drops them as it would have.
    """
    turn = turns(phase.edges, np.zeros((0, 0)), radio)
    room: dict[int, float] = {}
    for i, mine in sorted(phase.outgoing.items()):
        heard = [facts[i].gains.get(e.dst, math.inf) for e in mine]
        least = WORTH * facts[i].payload_bits
        near = [h for h in heard if h == math.inf or payload_limit_bits([h], radio, "broadcast") >= least]
        known = [h for h in near if h < math.inf]
        if known:
            room[i] = payload_limit_bits(known, turn_radio(radio, num_turns(turn)[turn[i][0]]), phase.cast)
    return replace(phase, edges=tuple(e._replace(room_bits=room.get(e.src, math.inf)) for e in phase.edges))


def room_of(device: int, phase: Phase, told_once_bits: int) -> float:
    """Bits that are left for a device's values in a phase, after heads and what is told once where it is lacking."""
    mine = phase.outgoing.get(device, ())
    besides = BESIDES_BITS + (told_once_bits if any(e.fresh for e in mine) else 0)
    return max(0.0, min((e.room_bits for e in mine), default=math.inf) - besides)


def telling(own: Arrays, now: Array, room_bits: float, answer: Answer) -> Telling:
    """What goes out of a device's values.

    Args:
        own: `sent`: what receivers have, from round `version`, on which the rest of a part counts (`base`); `start`:
            where the last part ended. Each may be missing.
        now: active entries in 16 bit. [n]
        room_bits: left for them.
        answer: to values that do not fit.

    Returns:
        All values where they fit, and where nothing of use does: then the air drops them.
    """
    known = own["sent"] if "sent" in own and own["sent"].shape == now.shape else np.zeros_like(now)
    told = tell(now, known, room_bits, answer, min(int(own.get("start", 0)), now.size))
    if told is None or (told.bits == 16 and told.kept.all()):
        return Telling({"values": now}, now)
    if answer == "quantise":
        grid = quantise(now, told.bits)
        parts = {"packed": _packed(grid.codes, told.bits), "grid": np.array([grid.scale, told.bits])}
        return Telling(parts, dequantise(grid).astype(np.float16))
    sent, base = np.where(told.kept, now, known), np.array(own.get("version", 0), dtype=np.uint32)
    if answer == "partial":
        start, stop = (int(k) for k in np.flatnonzero(told.kept)[[0, -1]] + [0, 1])
        span = {"span": np.array([start, stop], dtype=np.uint32), "values": now[start:stop], "base": base}
        return Telling(span, sent, stop % now.size)
    return Telling({"kept": np.packbits(told.kept), "values": now[told.kept], "base": base}, sent)


def whole(src: int, parts: Arrays, known: Arrays, size: int) -> Arrays:
    """A member's message with all its values, whatever of them it told.

    Args:
        src: who sent it.
        parts: what arrived.
        known: what is known of the member.
        size: positions of the layout, sum d r.

    Returns:
        The parts with `values` of full length; missing entries are what was known under this mask, else zero. Where
        that is not what the sender counts from (`base`) they may be out of date, so the version stays what it was and
        all are told again. Parts as they are where the member's mask is not known: values alone are of no use.

    Raises:
        ValueError: parts that do not fit the member's mask.
    """
    short = parts.keys() & {"packed", "kept", "span"}
    mask = parts.get("mask", known.get("mask"))
    if not short or mask is None or mask.shape != (-(-size // 8),):
        return parts
    n = int(np.unpackbits(mask, count=size).sum())
    held = known.get("values") if np.array_equal(mask, known.get("mask", mask)) else None
    full = held.copy() if held is not None and held.shape == (n,) else np.zeros(n, dtype=np.float16)
    rest = {name: a for name, a in parts.items() if name not in ("packed", "grid", "kept", "span", "values", "base")}
    try:
        before = known.get("version", np.zeros_like(parts["version"]))
        if "packed" not in parts and int(parts["base"]) != int(before):
            rest["version"] = before
        if "packed" in parts:
            scale, bits = parts["grid"].tolist()
            full = dequantise(Grid(_unpacked(parts["packed"], n, int(bits)), scale)).astype(np.float16)
        elif "kept" in parts:
            full[np.unpackbits(parts["kept"], count=n).astype(bool)] = parts["values"]
        else:
            start, stop = parts["span"].tolist()
            full[start:stop] = parts["values"].reshape(stop - start)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"device {src} sent a part of its values that does not fit its mask") from None
    return {**rest, "values": full}


def _packed(codes: Array, bits: int) -> Array:
    """Codes of b bits each, one after the other."""
    shifted = codes + (1 << (bits - 1)) - 1
    return np.packbits((shifted[:, None] >> np.arange(bits)) & 1)


def _unpacked(packed: Array, n: int, bits: int) -> Array:
    """Codes from their bits; n of them."""
    if not 2 <= bits <= 16 or packed.shape != (-(-n * bits // 8),):
        raise ValueError("codes of another length")
    raised = np.unpackbits(packed, count=n * bits).reshape(n, bits).astype(np.int64)
    return np.asarray((raised << np.arange(bits)).sum(axis=1) - (1 << (bits - 1)) + 1)
