"""Runs a program under an audit hook and says a mark once it has run to its last line: `launching.py BYTES`.

Run by `sandbox.py` as a script, without packages, locked down already: mark and program come in, the mark alone goes
out. The mark is kept from the program. It runs in a thread that begins in C, so that no frame lies behind its own; what
says the mark is held by C alone; and what would find it, or make the program skip lines, is refused with the rest.
"""

from __future__ import annotations

import _thread
import operator
import os
import sys
import time
from itertools import starmap

TYPE_CHECKING = False  # importing `typing` takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def hook() -> Callable[[str, tuple[Any, ...]], None]:
    """What Python asks before it acts: whatever writes, starts, signals, connects or looks around itself is refused.

    It goes by constants in its code and by defaults, not by names, which a program could set anew.

    Raises:
        PermissionError: from what is returned, at what is refused.
    """
    changing = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND  # O_TMPFILE takes one of O_ACCMODE

    def watch(
        event: str, args: tuple[Any, ...], changing: int = changing, error: type[Exception] = PermissionError
    ) -> None:
        if event == "open":
            mode, flags = args[1] or "", args[2] or 0
            if "w" in mode or "a" in mode or "x" in mode or "+" in mode or flags & changing:
                raise error("writing")
        elif event == "import":
            if args[0].endswith("_ctypes"):
                raise error(event)
        elif event.startswith((
            "socket.", "subprocess.", "os.", "shutil.", "ctypes.", "pty.", "signal.", "fcntl.", "mmap.", "ftplib.",
            "urllib.", "smtplib.", "tempfile.", "webbrowser.", "gc.", "sys._current_", "sys.settrace", "sys.setprofile",
            "sys.monitoring.", "cpython.",
        )) and event not in ("os.listdir", "os.scandir", "os.walk", "os.fwalk"):  # fmt: skip
            raise error(event)

    return watch


def begin(mark_bytes: int) -> None:
    """Read mark and program, close what they came by, and start.

    Args:
        mark_bytes: how many come before the program.
    """
    with open(0, "rb", closefd=False) as told:
        mark, source = told.read(mark_bytes), told.read().decode()
    verdict = os.dup(1)
    os.dup2(2, 0)  # 2 leads nowhere
    os.dup2(2, 1)
    code = compile(source, "answer", "exec")
    sys.argv = ["answer"]
    sys.addaudithook(hook())
    started = _thread.allocate_lock()
    started.acquire()
    steps = ((started.release,), (exec, code, {"__name__": "__main__"}), (os.write, verdict, mark), (os._exit, 0))
    _thread.start_new_thread(list, (starmap(operator.call, steps),))
    started.acquire()  # before, the thread is not counted


if __name__ == "__main__":
    begin(int(sys.argv[1]))
    while _thread._count():
        time.sleep(0.005)
    os._exit(1)
