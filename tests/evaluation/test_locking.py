"""The kernel's half of the sandbox by itself: programs without an audit hook, and its filter as the kernel reads it."""

from __future__ import annotations

import errno
import struct
import subprocess
from pathlib import Path

import pytest

from orthomesh.evaluation import sandbox
from orthomesh.evaluation.locking import ALLOWED, CALLS, CLONE3, KILLED, REFUSED, THREAD, UNKNOWN, filter_of

locks = pytest.mark.skipif(not sandbox.locked_down(), reason="programs cannot be locked down here")


def run(source: str, cwd: Path) -> str:
    """What a program prints that is locked down and has no hook."""
    command = sandbox.locked((*sandbox.PYTHON, "-c", source), 6.0)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd).stdout.strip()


FORK = """
import _posixsubprocess, os
r, w = os.pipe()
new = _posixsubprocess.fork_exec
args = [[b"/bin/true"], [b"/bin/true"], True, (), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False]
"""


@locks
@pytest.mark.parametrize(
    ("act", "number"),
    [
        ("open('made', 'w')", errno.EROFS),
        ("open('kept', 'a')", errno.EROFS),
        ("os.open('kept', os.O_RDONLY | os.O_TRUNC)", errno.EROFS),
        ("os.remove('kept')", errno.EROFS),
        ("os.mkdir('/dev/shm/made')", errno.EROFS),
        ("open('/dev/null', 'w')", errno.EACCES),  # so are disks
        ("open('/proc/self/mem')", errno.ENOENT),
        ("os.fork()", errno.EPERM),
        ("os.posix_spawn('/bin/true', ['true'], {})", errno.EPERM),
        ("__import__('socket').socket(__import__('socket').AF_UNIX)", errno.EPERM),
        ("os.chroot('/')", errno.EPERM),  # no capability is left
        ("os.kill(1 << 20, 9)", errno.ESRCH),  # nobody else is to be seen
    ],
)
def test_what_the_kernel_refuses(act: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    source = f"import os\ntry:\n    {act}\n    print('done')\nexcept OSError as error:\n    print(error.errno)"
    assert run(source, tmp_path) == str(number)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept", "kept")]


@locks
def test_a_start_that_no_hook_sees_is_refused(tmp_path: Path) -> None:
    """`_posixsubprocess.fork_exec` raises no audit event; its arguments differ between versions of Python."""
    source = FORK + (
        "for more in ((-1, None, None, None, -1, None), (-1, None, None, None, -1, None, False)):\n"
        "    try:\n        print('started', new(*args, *more))\n"
        "    except TypeError:\n        pass\n    except OSError as error:\n        print(error.errno)"
    )
    assert run(source, tmp_path) == str(errno.EPERM)


@locks
def test_what_stays_possible(tmp_path: Path) -> None:
    """Its own identity as the first process of an empty place, threads, and another program in its stead, as locked."""
    thread = "import threading\nt = threading.Thread(target=print, args=('thread',))\nt.start()\nt.join()\n"
    again = "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo $$; true & echo started'])"
    assert run(thread + again, tmp_path).split() == ["thread", "1"]


@locks
def test_a_step_that_fails_ends_it_before_the_command(tmp_path: Path) -> None:
    command = sandbox.locked(("/bin/echo", "unlocked"), 6.0)
    without = [word for word in command if word != "--mount"]  # the mounts of this machine are not its own to change
    done = subprocess.run(without, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "Operation not permitted" in done.stderr


@locks
def test_it_locks_no_machine(tmp_path: Path) -> None:
    """Run by hand it would; it is the first process of its namespace or ends."""
    command = ("unshare", "--user", *sandbox.locked(("/bin/echo", "locked"), 6.0)[len(sandbox.APART) :])
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "would lock this machine" in done.stderr


def verdict(name: str, machine: int, number: int, argument: int = 0) -> int:
    """What the filter returns for a call (struct seccomp_data), read as classic BPF: jumps count from the next step."""
    data = struct.pack("<IIQ6Q", number, machine, 0, argument, 0, 0, 0, 0, 0)
    steps, at, value = list(struct.iter_unpack("=HBBI", filter_of(*CALLS[name]))), 0, 0
    while True:
        code, yes, no, k = steps[at]
        if code == 0x06:
            return k
        if code == 0x20:
            value, at = struct.unpack_from("<I", data, k)[0], at + 1
            continue
        holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
        at += 1 + (yes if holds else no)


@pytest.mark.parametrize("name", CALLS)
def test_the_filter(name: str) -> None:
    machine, clone, refused = CALLS[name]
    assert all(verdict(name, machine, number) == REFUSED for number in (*refused, 425))
    assert verdict(name, machine, clone, THREAD | 0x100) == ALLOWED
    assert verdict(name, machine, clone, 17) == REFUSED  # 17: SIGCHLD, a process
    assert verdict(name, machine, CLONE3) == UNKNOWN
    assert verdict(name, machine, 63) == ALLOWED
    assert verdict(name, machine + 1, 63) == KILLED
    assert verdict(name, machine, 0x40000000 | clone, THREAD) == REFUSED
