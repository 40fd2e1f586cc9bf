"""The run directories that several peers have left, joined into one, as if one process had hosted all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import load_devices, save_devices, write_whole
from .evaluation.record import Journal
from .experiment import BASE, ORACLE, Experiment, checkpoint_path, finish
from .presets import of_run
from .types import DeviceState


def join(directories: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join peers' directories and write what a finished run leaves, report included.

    Args:
        directories: of peers of one run, each with other devices.
        out: new or empty directory.

    Returns:
        The summary; its hash is that of a simulation with the same settings if nothing was lost on the way.

    Raises:
        ValueError: settings that differ, a device twice, no finished round, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another --out")
    x, notes = _settings(directories), []
    states = {label: _states(directories, label) for label in x.methods}
    journal = Journal(out)
    for label in (BASE, *x.methods, ORACLE):
        _join_records([Journal(d) for d in directories], label, journal)
    for label, devices in states.items():
        if missing := set(range(x.setup().num_devices)) - devices.keys():
            notes.append(f"{label}: nothing here of devices {', '.join(map(str, sorted(missing)))}")
        save_devices(checkpoint_path(out, label), devices, x.rounds)
    write_whole(out / "config.yaml", (directories[0] / "config.yaml").read_bytes())
    told = [json.loads(f.read_text(encoding="utf-8")) for d in directories if (f := d / "summary.json").is_file()]
    notes = list(dict.fromkeys([*notes, *(note for one in told for note in one["notes"])]))
    return finish(x, out, notes, max((one["wall_s"] for one in told), default=0.0))


def _settings(directories: Sequence[Path]) -> Experiment:
    """The settings all directories have; where data and models lie may differ."""
    found = [of_run(d) for d in directories]
    for one, directory in zip(found, directories, strict=True):
        if (one.seed, one.rounds, one.train, one.methods) != (
            found[0].seed, found[0].rounds, found[0].train, found[0].methods,
        ):  # fmt: skip
            raise ValueError(f"{directory} is of another run than {directories[0]}: their settings differ")
    return found[0]


def _states(directories: Sequence[Path], label: str) -> dict[int, DeviceState]:
    joined: dict[int, DeviceState] = {}
    for directory in directories:
        path = checkpoint_path(directory, label)
        if not path.is_file():
            continue  # a device that was gone by then
        for k, state in load_devices(path)[0].items():
            if k in joined:
                raise ValueError(f"{directory}: device {k} is in another directory too; give each once")
            joined[k] = state
    if not joined:
        raise ValueError(f"no finished round of {label} in {', '.join(map(str, directories))}")
    return dict(sorted(joined.items()))


def _join_records(journals: Sequence[Journal], label: str, into: Journal) -> None:
    rounds: dict[int, list[Mapping[str, Any]]] = {}
    exams: dict[int, list[Mapping[str, Any]]] = {}
    trained: dict[int, list[Mapping[str, Any]]] = {}
    for journal in journals:
        for record in journal.rounds(label):
            rounds.setdefault(int(record["devices"][0]["round"]), []).append(record)
        for exam in journal.exams(label):
            exams.setdefault(int(exam["round"]), []).append(exam)
        for record in journal.trained(label):
            trained.setdefault(int(record["round"]), []).append(record)
    for number, records in rounds.items():
        into.put(label, "round", number, _one_round(records))
    for number, several in exams.items():
        into.put(label, "exam", number, _one_exam(several))
    for number, several in trained.items():
        into.put(label, "trained", number, {**several[0], **_means(several, ("accuracy",)), "prompts": _most(several)})


def _one_round(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A round as all devices have it; the partition is the one that most of them found."""
    plans = [json.dumps(r["clusters"]) for r in records]
    return {
        "devices": sorted((row for r in records for row in r["devices"]), key=lambda row: row["device"]),
        "links": [link for r in records for link in r["links"]],
        "clusters": json.loads(max(plans, key=lambda plan: (plans.count(plan), plan))),
        "elapsed_s": max(r["elapsed_s"] for r in records),
        "wall_s": max(r["wall_s"] for r in records),
    }


def _one_exam(exams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over devices of every task that any of them was asked."""
    right = [e["route_right"] for e in exams]
    return {
        **exams[0],
        **_means(exams, ("accuracy", "unread", "own")),
        "prompts": _most(exams),
        "cut": _most(exams, "cut"),
        "route_right": None if None in right else float(np.mean(right)),
        "held": {k: n for e in exams for k, n in e["held"].items()},
    }


def _means(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Task by task, over the records that have it."""
    found = {}
    for name in names:
        told = [r.get(name, {}) for r in records]
        tasks = dict.fromkeys(task for one in told for task in one)
        found[name] = {t: float(np.mean([one[t] for one in told if t in one])) for t in tasks}
    return found


def _most(records: Sequence[Mapping[str, Any]], name: str = "prompts") -> dict[str, int]:
    """The largest count of every task."""
    tasks = dict.fromkeys(task for r in records for task in r[name])
    return {t: max(r[name].get(t, 0) for r in records) for t in tasks}
