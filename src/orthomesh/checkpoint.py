"""What survives a kill at any moment: device states on disk, replaced whole or not at all, and their hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .types import Array, Arrays, DeviceState

PLAIN, SHARED = "1", "2"
"""Versions of a checkpoint: every array by itself; or those that are one and the same array written once."""
AGAIN = ".again"
"""Beside the arrays, whose names begin with a device: names of what is one of them over again, and of which."""


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new one.

    Several may write one file at a time: one waits for the other, and the last counts.

    Raises:
        OSError: e.g. no space left; the old file is untouched and the attempt leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = path.with_name(f".{path.name}.new")
    with _held(attempt) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(attempt, path)
        except OSError:
            attempt.unlink(missing_ok=True)
            raise


def _held(attempt: Path) -> BinaryIO:
    """An empty file that no other process writes to or renames until it is closed; what a crash left in it goes."""
    import fcntl

    while True:
        number = os.open(attempt, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(number, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(attempt), os.fstat(number)):  # else it was renamed while we waited
                if os.fstat(number).st_size:
                    os.truncate(number, 0)
                return os.fdopen(number, "wb")
        os.close(number)


class Shelf:
    """What is to be written and waits for space where there is none: a full disk ends nothing."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}

    def put(self, what: str, write: Callable[[], None]) -> str:
        """Write, or keep to write later, in place of what is kept under the same name.

        Args:
            what: its name, for a sentence.
            write: does it; raises OSError where it cannot.

        Returns:
            A sentence where it had to be kept, the first of several, else nothing.
        """
        known = bool(self._waiting)
        self._waiting.pop(what, None)
        self._waiting[what] = write
        said = self.clear()
        return "" if known else said

    def clear(self) -> str:
        """Write all that is kept, the oldest first; a sentence where that fails, else nothing."""
        for what, write in list(self._waiting.items()):
            try:
                write()
            except OSError as error:
                return f"{what} cannot be written, {error.strerror or error}; kept in memory until it can"
            del self._waiting[what]
        return ""


def digest(devices: Mapping[int, DeviceState]) -> str:
    """SHA-256 over all arrays of all devices: names, types, shapes and bytes, in order of id and name."""
    return _sha256(_flat(devices))


def save_devices(path: Path, devices: Mapping[int, DeviceState], rounds_done: int) -> None:
    """Write a checkpoint: the states of all devices after so many rounds.

    An array that several devices of this process hold, such as the record of a cluster, is written once.
    """
    once, again = _once(_flat(devices))
    if again:
        once[AGAIN] = np.frombuffer(zlib.compress(json.dumps(again).encode(), 1), dtype=np.uint8)
    note = {
        "schema": SHARED if again else PLAIN,
        "rounds_done": str(rounds_done),
        "devices": json.dumps(sorted(devices)),
        "sha256": _seal(once, sorted(devices), rounds_done),
    }
    write_whole(path, save({name: np.asarray(a, order="C") for name, a in once.items()}, metadata=note))


def load_devices(path: Path) -> tuple[dict[int, DeviceState], int]:
    """Read a checkpoint back.

    Returns:
        The states by id, and how many rounds they have behind them. What was one array is one again.

    Raises:
        ValueError: no checkpoint, truncated, of another version, or altered since it was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            note = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} cannot be read, it may be truncated: {error}") from None
    if note.get("schema") not in (PLAIN, SHARED):
        known = f"this code reads {PLAIN!r} and {SHARED!r}"
        raise ValueError(f"checkpoint {path} is of version {note.get('schema')!r}, {known}")
    try:
        ids, rounds_done = json.loads(note["devices"]), int(note["rounds_done"])
        again = {AGAIN: arrays.pop(AGAIN)} if note["schema"] == SHARED else {}
        devices = _gather(arrays, ids)
        whole = _seal({**_flat(devices), **again}, ids, rounds_done) == note["sha256"]
        if whole and again:
            names: dict[str, str] = json.loads(zlib.decompress(again[AGAIN].tobytes()))
            devices = _gather({**arrays, **{name: arrays[first] for name, first in names.items()}}, ids)
    except (KeyError, TypeError, ValueError):  # a name or a note that this code never writes
        whole = False
    if not whole:
        raise ValueError(f"checkpoint {path} was altered since it was written: its SHA-256 does not match")
    return devices, rounds_done


def _seal(once: Arrays, ids: Sequence[int], rounds_done: int) -> str:
    """What must not change unnoticed: rounds done, who the devices are (some may hold nothing), and their states."""
    return hashlib.sha256(f"{rounds_done}|{list(ids)}|{_sha256(once)}".encode()).hexdigest()


def _sha256(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _once(flat: dict[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Every array under its first name, and for each further name of one the first."""
    first = {id(array): name for name, array in reversed(flat.items())}
    again = {name: first[id(array)] for name, array in flat.items() if first[id(array)] != name}
    return {name: array for name, array in flat.items() if name not in again}, again


def _flat(devices: Mapping[int, DeviceState]) -> dict[str, Array]:
    flat: dict[str, Array] = {}
    for k in sorted(devices):
        for part, arrays in (("own", devices[k].own), ("bank", devices[k].bank)):
            flat.update({f"{k}/{part}/{name}": arrays[name] for name in sorted(arrays)})
    return flat


def _gather(arrays: Arrays, ids: Sequence[int]) -> dict[int, DeviceState]:
    parts: dict[tuple[int, str], dict[str, Array]] = {(k, part): {} for k in ids for part in ("own", "bank")}
    for name, array in arrays.items():
        owner, part, rest = name.split("/", 2)
        parts[int(owner), part][sys.intern(rest)] = array
    return {k: DeviceState(id=k, own=parts[k, "own"], bank=parts[k, "bank"]) for k in ids}
