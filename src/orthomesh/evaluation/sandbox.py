"""A program from a model, run locked down: no network, no environment, no writing, little memory and time.

Its own process in its own user and network namespace (`unshare`), Python in isolated mode without site packages, an
empty directory to be in, limits on processor time, memory and files, and an audit hook that cannot be removed and
refuses to open for writing, to start or signal processes, to touch files, sockets and foreign libraries. It can still
read what the user can read; nothing it reads gets out.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 6.0
"""Longest a program may take."""
MEMORY_BYTES = 1 << 30

LAUNCHER = """
import resource, sys
path, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = open(path).read()
code = compile(source, "answer", "exec")
for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 0),
                   (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(what, (most, most))
say = sys.stdout.write
flush = sys.stdout.flush
BAD = ("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "pty.", "signal.", "fcntl.", "mmap.",
       "ftplib.", "urllib.", "smtplib.", "tempfile.", "webbrowser.")
FINE = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
def watch(event, args):
    if event.startswith(BAD) and event not in FINE:
        raise PermissionError(event)
    if event == "open" and (isinstance(args[1], str) and set(args[1]) & set("wax+") or (args[2] or 0) & 3):
        raise PermissionError("writing")
sys.addaudithook(watch)
sys.argv = ["answer"]
exec(code, {"__name__": "__main__"})
"""


def run_program(source: str, seconds: float = SECONDS) -> bool:
    """Whether a program runs to its last line without an error.

    A line that only we know is printed after it, so that leaving early is no success.

    Args:
        source: Python.
        seconds: longest it may take.

    Raises:
        ValueError: this machine has no way to keep it from the network.
    """
    if not locked_down():
        raise ValueError(
            "programs that a model writes are run without network only, which takes Linux and `unshare` with user "
            "namespaces; they are not there. Leave out tasks with tests, e.g. --tasks without humaneval and mbpp"
        )
    mark = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.py"
        path.write_text(f"{source}\nimport sys\nsys.stdout.write('\\n{mark}\\n')\n", encoding="utf-8", errors="replace")
        limits = (str(MEMORY_BYTES), str(max(1, round(seconds))))
        command = ["unshare", "-rn", sys.executable, "-I", "-S", "-B", "-c", LAUNCHER, str(path), *limits]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env={
                "PATH": os.defpath, "PYTHONHASHSEED": "0"}, start_new_session=True,
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
    return process.returncode == 0 and printed.decode(errors="replace").rstrip("\n").endswith(mark)


@functools.cache
def locked_down() -> bool:
    """Whether a process without network can be made here."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False)
    return done.returncode == 0
