"""Locks the process it is run in, for good, and becomes the command it is given: `locking.py MEMORY SECONDS COMMAND`.

Run by `sandbox.py` as a script, without packages, as the first process of namespaces of its own, in which it may mount.
It becomes the command, so that nothing with which it talks to the kernel is left. Any step that fails ends it before.

Numbers are the kernel's: mount_setattr(2), prctl(2), capabilities(7), seccomp(2), linux/filter.h, asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys

THREADS = 64
FILES = 32

MOUNT_SETATTR, HERE, RECURSIVE = 442, -100, 0x8000
READ_ONLY, NO_SET_UID, NO_DEVICES = 1, 2, 4
SET_SECCOMP, FILTER = 22, 2
SET_SECUREBITS, NO_ROOT_FOR_GOOD = 28, 3
SET_NO_NEW_PRIVILEGES = 38

LOAD, EQUAL, AT_LEAST, ANY_OF, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16
KILLED, ALLOWED, REFUSED, UNKNOWN = 0x80000000, 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
OTHER_TABLE = 0x40000000
"""From here on, numbers of x86-64 that mean the same calls once more."""
CLONE3, IO_URING_SETUP = 435, 425
THREAD = 0x10000


CALLS = {
    "x86_64": (0xC000003E, 56, (57, 58, 41, 272)),
    "aarch64": (0xC00000B7, 220, (198, 97)),
    "riscv64": (0xC00000F3, 220, (198, 97)),
}
"""By machine: its number, that of clone, and those of fork, vfork, socket and unshare, where there are such."""


def lock(name: str, memory_bytes: int, seconds: int) -> None:
    """Lock this process: file systems, privileges, limits, then system calls.

    Args:
        name: of this machine, as in `CALLS`.
        memory_bytes: addresses it may take.
        seconds: processor time it may take.

    Raises:
        OSError: the kernel refuses a step.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SET_UID | NO_DEVICES)
    size, none = ctypes.c_size_t(ctypes.sizeof(flags)), ctypes.c_ulong(0)
    _done(libc.mount(b"none", b"/proc", b"tmpfs", none, None))  # it shows a process its own memory
    _done(libc.syscall(ctypes.c_long(MOUNT_SETATTR), HERE, b"/", RECURSIVE, ctypes.byref(flags), size))
    _done(libc.prctl(SET_SECUREBITS, ctypes.c_ulong(NO_ROOT_FOR_GOOD), none, none, none))  # else it could mount anew
    _done(libc.prctl(SET_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), none, none, none))
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, THREADS),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))
    steps = filter_of(*CALLS[name])
    kept = ctypes.create_string_buffer(steps)
    program = struct.pack("@HP", len(steps) // 8, ctypes.addressof(kept))
    _done(libc.prctl(SET_SECCOMP, ctypes.c_ulong(FILTER), ctypes.c_char_p(program), none, none))


def filter_of(machine: int, clone: int, refused: tuple[int, ...]) -> bytes:
    """What the kernel asks at every system call: no new process, no socket, no further namespace; threads are fine.

    `RLIMIT_NPROC` does not hold for root, and a socket with a place in the file system has no network to be kept from.

    Args:
        machine: how the kernel names it.
        clone: number of the call that makes threads and processes.
        refused: numbers of those that do no good.

    Returns:
        Steps of 8 bytes each: code, jumps if so and if not, number.
    """
    steps = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILLED), (LOAD, 0, 0, NUMBER)]
    steps += [(AT_LEAST, 0, 1, OTHER_TABLE), (RETURN, 0, 0, REFUSED)]
    for number in (*refused, IO_URING_SETUP):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSED)]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, UNKNOWN)]  # its flags cannot be seen; the C library then uses clone
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY_OF, 1, 0, THREAD), (RETURN, 0, 0, REFUSED)]
    return b"".join(struct.pack("=HBBI", *step) for step in [*steps, (RETURN, 0, 0, ALLOWED)])


def _done(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    if os.getpid() != 1:
        sys.exit("locking.py is for namespaces of its own, as sandbox.py makes them; here it would lock this machine")
    lock(os.uname().machine, int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])
