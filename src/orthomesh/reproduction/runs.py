"""One run directory for each method and seed (and number of devices), gone on with where it was left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from ..checkpoint import load_devices, write_whole
from ..engines.inprocess import InProcess, pin_threads
from ..evaluation.record import Journal
from ..experiment import Experiment, checkpoint_path, exam_of, versions
from ..methods.sparse_orthogonal import SparseOrthogonal
from ..presets import of_run, plain
from .breakdown import Breakdown, break_down
from .scales import at_count, at_seed

Runs = Mapping[Path, Experiment]
VERSIONS = "versions.json"
"""Written before a run's settings, so that a directory with settings lacks nothing."""
ANYWHERE = ("workers", "engine", "ray_address")
"""Settings that say where a run is computed and change nothing of its result."""
ROUNDED = ("model.device",)
"""Settings that change its last bits: finished runs that differ in them belong together, an unfinished one does not go
on with another."""


def runs_of(x: Experiment, out: Path, seeds: int, counts: tuple[int, ...] = ()) -> dict[Path, Experiment]:
    """Which runs a table or figure needs, by directory: one for each seed and method, seed by seed.

    Each stands by itself, so that processes can share them, and tables that have methods in common.

    Args:
        x: the experiment with all methods; seeds count from its own.
        out: where the runs go.
        seeds: how many.
        counts: numbers of devices; empty for a table.
    """
    return {
        (out if count is None else out / f"devices{count:02d}") / label / f"seed{seed}": replace(
            at_seed(x if count is None else at_count(x, count), seed), methods={label: method}
        )
        for count in counts or (None,)
        for seed in range(x.seed, x.seed + seeds)
        for label, method in x.methods.items()
    }


@contextmanager
def claimed(directory: Path) -> Iterator[bool]:
    """Make a run's directory and hold it against other processes; False where another one holds it."""
    import fcntl

    directory.mkdir(parents=True, exist_ok=True)
    held = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(held)


def begin(directory: Path, x: Experiment) -> bool:
    """Make a run's directory, or see that it holds the same run.

    Where it is finished, what it was computed on may be another. What a kill in here leaves behind is begun anew.

    Returns:
        Whether the run is finished already.

    Raises:
        ValueError: the directory holds a run with other settings, or something else.
    """
    config = directory / "config.yaml"
    if config.is_file():
        finished = (directory / "summary.json").is_file()
        changed = _differences(plain(of_run(directory)), plain(x), (*ANYWHERE, *(ROUNDED if finished else ())))
        if changed:
            raise ValueError(
                f"{directory} holds a run with other settings ({changed}); give the same ones to go on with it, or "
                "another --out"
            )
        return finished
    if directory.exists() and not all(map(_of_a_beginning, directory.iterdir())):
        raise ValueError(f"{directory} holds something else than a run; choose another --out")
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / VERSIONS, json.dumps(versions(), indent=1).encode())
    write_whole(config, yaml.safe_dump(plain(x), sort_keys=False).encode())
    return False


def _of_a_beginning(path: Path) -> bool:
    """Whether a file is what `begin` writes before the settings, or what a kill leaves of writing one."""
    return path.is_file() and (path.name == VERSIONS or (path.name.startswith(".") and ".new" in path.name))


def there(runs: Runs) -> dict[Path, Experiment]:
    """Those that are finished.

    Raises:
        ValueError: a directory holds a run with other settings.
    """
    return {d: x for d, x in runs.items() if (d / "config.yaml").is_file() and begin(d, x)}


def computed_on(runs: Runs) -> list[str]:
    """A sentence where finished runs were not all computed on one kind of device; the most common is not listed."""
    kinds: dict[str, list[str]] = {}
    for directory, x in runs.items():
        kinds.setdefault(of_run(directory).model.device, []).append(f"{next(iter(x.methods))} (seed {x.seed})")
    if len(kinds) < 2:
        return []
    most, *others = sorted(kinds, key=lambda kind: -len(kinds[kind]))
    told = "; ".join(f"on {kind} {', '.join(kinds[kind])}" for kind in others)
    return [f"computed on {most}, but {told}: sums are rounded in another order there"]


def _differences(
    there: Mapping[str, object], asked: Mapping[str, object], aside: Sequence[str], above: str = ""
) -> str:
    """The first few keys that differ, by dotted name, but for those aside."""
    found: list[str] = []
    for name in dict.fromkeys([*there, *asked]):
        if f"{above}{name}" in aside:
            continue
        a, b = there.get(name), asked.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = _differences(a, b, aside, f"{above}{name}.")
            found += [inner] if inner else []
        elif a != b:
            found.append(f"{above}{name}")
    return ", ".join(found[:4])


def broken_down(directory: Path, x: Experiment, label: str) -> Breakdown | None:
    """Where a finished run's method loses accuracy, kept in `breakdown-LABEL.json`; None where it has no experts."""
    settings = x.methods.get(label)
    if not isinstance(settings, SparseOrthogonal):
        return None
    path = directory / f"breakdown-{label}.json"
    if path.is_file():
        return Breakdown(json.loads(path.read_text(encoding="utf-8")))
    pin_threads(x.threads)
    setup = x.setup()
    devices, _ = load_devices(checkpoint_path(directory, label))
    exam, engine = exam_of(x, setup, final=True), InProcess(setup.num_devices, None)
    found = break_down(devices, settings, setup, exam, engine, Journal(directory).accuracy(label, x.rounds))
    write_whole(path, json.dumps(found.stages, indent=1).encode())
    return found
