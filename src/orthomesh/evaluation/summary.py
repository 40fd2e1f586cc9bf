"""`summary.json`: what a run came to, in one documented, versioned file (docs/summary.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..adapters.collision import collision_rate, empirical_rate
from ..adapters.lowrank import slices
from ..types import COLUMNS, DeviceState
from .record import Journal

SCHEMA = 1


def row(journal: Journal, label: str, kind: str, devices: Mapping[int, DeviceState] | None) -> dict[str, Any]:
    """Everything the tables say about one method, from its records and final states.

    Args:
        journal: the run's records.
        label: the method's label.
        kind: what it is; `base` and `oracle` are no methods and cost nothing.
        devices: final states, for masks and clusters; none for base and oracle.

    Returns:
        Means per device over the whole run where not said otherwise.
    """
    exam, rounds, trained = journal.exams(label)[-1], journal.rounds(label), journal.trained(label)
    told = [r for one in rounds for r in one["devices"]]
    num = len(rounds[-1]["devices"]) if rounds else 1
    sent = {c: sum(r[f"bytes_{c}"] for r in told) / num for c in COLUMNS}
    clusters = rounds[-1]["clusters"] if rounds else []
    return {
        "label": label,
        "kind": kind,
        "accuracy": exam["accuracy"],
        "mean": float(np.mean(list(exam["accuracy"].values()))),
        "unread": exam.get("unread", {}),
        "as_trained": trained[-1]["accuracy"] if trained else None,
        "aggregated": exam.get("own") if trained else None,
        "bytes_per_device": sent,
        "bytes_per_device_round": {c: n / max(1, len(rounds)) for c, n in sent.items()},
        "framing_per_device": sum(r.get("framing_bytes", 0) for r in told) / num,
        **{name: sum(r[name] for r in told) / num for name in ("airtime_s", "energy_j", "lost")},
        "elapsed_s": sum(one["elapsed_s"] for one in rounds),
        "trained_parameters": rounds[-1]["devices"][0]["trained"] if rounds else 0,
        "experts_held": float(np.mean(list(exam["held"].values()))),
        "route_right": exam["route_right"],
        "clusters": clusters,
        "collision": _collision(devices, clusters) if devices else None,
    }


def _collision(devices: Mapping[int, DeviceState], clusters: Sequence[Sequence[int]]) -> dict[str, list[float]] | None:
    """Collision rate of every layer, expected of independent masks (19) and as the masks are; mean over devices."""
    if not clusters or not all("mask" in d.own for d in devices.values()):
        return None
    if any(k not in devices for members in clusters for k in members):
        return None  # a peer's own directory knows no masks but its own
    expected, found = [], []
    for members in clusters:
        own = [devices[k].own for k in members]
        sizes = [int(n) for n in own[0]["sizes"]]
        densities = np.stack([o["quota"] / o["sizes"] for o in own]).astype(np.float64)
        masks = np.stack([np.unpackbits(o["mask"], count=sum(sizes)).astype(bool) for o in own])
        expected.append(len(members) * collision_rate(densities))
        found.append(len(members) * np.array([empirical_rate(masks[:, cut]) for cut in slices(sizes)]))
    return {
        "expected": (np.sum(expected, axis=0) / len(devices)).tolist(),
        "empirical": (np.sum(found, axis=0) / len(devices)).tolist(),
    }


def joint_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a run from those of its methods, in order of label."""
    return hashlib.sha256("\n".join(f"{k}:{digests[k]}" for k in sorted(digests)).encode()).hexdigest()
