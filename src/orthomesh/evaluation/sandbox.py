"""A program from a model, run locked down: no network, no writing, no other process, little memory and time.

The kernel keeps it in (`locking.py`): namespaces of its own for users, network, mounts, processes and shared memory,
every file system read-only and without devices, `/proc` hidden, no capabilities, no new process, no socket, limits on
memory, time and files. An audit hook refuses much of that in Python before (`launching.py`). What it prints is lost.

A program has passed if a mark arrives that is drawn for this run and that no frame, module or file of its process
holds. It could be bent on passing all the same, as tests share a process with what they test: return what equals
everything, or find the mark in its memory with forged byte code. It can read what the user can read, though nothing
gets out, and past the hook write to a named pipe of the user's.
"""

from __future__ import annotations

import functools
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 6.0
"""Longest a program may take."""
PATIENT_SECONDS = 60.0
"""Longest the look takes whether programs can be locked down here: a machine at work is slow."""
MEMORY_BYTES = 1 << 30
MARK_BYTES = 32
APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child")
PYTHON = (sys.executable, "-s", "-P", "-S", "-B")
"""Without packages and without a place to import from, as in isolated mode, which would not heed `PYTHONHASHSEED`."""


def run_program(source: str, seconds: float = SECONDS) -> bool:
    """Whether a program runs to its last line without an error; leaving early is no success.

    Args:
        source: Python.
        seconds: longest it may take.

    Raises:
        ValueError: this machine has no way to lock it down.
    """
    if not locked_down():
        raise ValueError(
            "programs that a model writes are run without network and without writing only, which takes Linux 5.12 or "
            "later on x86-64, ARM or RISC-V of 64 bits, and `unshare` with user namespaces; that does not work here. "
            "Leave out tasks with tests, e.g. --tasks without humaneval and mbpp"
        )
    return _passes(source, seconds)


@functools.cache
def locked_down() -> bool:
    """Whether programs can be locked down here: an empty one passes under all that any other is run under."""
    return shutil.which("unshare") is not None and _passes("", PATIENT_SECONDS)


def locked(command: tuple[str, ...], seconds: float) -> tuple[str, ...]:
    """The command that locks itself down and then becomes another.

    Args:
        command: the other.
        seconds: of processor time it may take.
    """
    locking = str(Path(__file__).with_name("locking.py"))
    return (*APART, *PYTHON, locking, str(MEMORY_BYTES), str(max(1, round(seconds))), *command)


def _passes(source: str, seconds: float) -> bool:
    """The mark goes in with the program, as a file without a name, and comes back over a pipe."""
    mark = secrets.token_hex(MARK_BYTES // 2).encode()
    command = locked((*PYTHON, str(Path(__file__).with_name("launching.py")), str(MARK_BYTES)), seconds)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as told:
        told.write(mark + source.encode(errors="replace"))
        told.seek(0)
        process = subprocess.Popen(
            command, stdin=told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env={
                "PATH": os.defpath, "PYTHONHASHSEED": "0"}, start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                return _first_said(process, seconds) == mark
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def _first_said(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What comes first, a little more than a mark at most; nothing if the program ends or its time is up before."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    return os.read(process.stdout.fileno(), MARK_BYTES + 1) if poll.poll(1000 * seconds) else b""
