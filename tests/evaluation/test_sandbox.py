"""Programs run locked down: what passes, what fails, and what they cannot do."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from orthomesh.evaluation import sandbox
from orthomesh.evaluation.sandbox import run_program

pytestmark = pytest.mark.skipif(not sandbox.locked_down(), reason="no user namespaces here")


def test_tests_that_hold_pass_and_others_do_not() -> None:
    program = "from collections import Counter\ndef f(x):\n    return Counter(x)['a']\n"
    assert run_program(program + "assert f('aba') == 2")
    assert not run_program(program + "assert f('aba') == 3")
    assert not run_program("def f(:")


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit(0)",  # leaving early is no success
        "import os; os._exit(0)",
        "import socket; socket.socket().connect(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "x = bytearray(2 * 10**9)",
        "import ctypes; ctypes.CDLL(None)",
        "import numpy",  # no site packages
        "import __main__; __main__.BAD = ('none.',); import os; os.system('true')",
        "import os; os.fork()",
    ],
)
def test_what_a_program_cannot_do(source: str) -> None:
    assert not run_program(source)


SAY = """
import os, re, sys
def say(found):
    for mark in re.findall("[0-9a-f]{32}", str(found)):
        for number in range(32):
            try:
                os.write(number, mark.encode())
            except OSError:
                pass
    os._exit(0)
"""


@pytest.mark.parametrize(
    "source",
    [
        "import __main__; say(vars(__main__))",
        "say(open('answer.py').read())",
        "say(os.read(0, 1000))",
        "os.lseek(0, 0, 0); say(os.read(0, 1000))",
        "say(sys.orig_argv)",
        "say(open('/proc/self/cmdline').read())",
        "say(open('/proc/self/mem', 'rb').read())",
        "f = sys._getframe()\nwhile f.f_back:\n    f = f.f_back\nsay([f.f_globals, f.f_locals])",
        "say([(f.f_locals, f.f_back.f_locals) for f in sys._current_frames().values()])",
        "import gc; say(gc.get_objects())",
        "import gc; say([gc.get_referrers(x) for x in gc.get_referrers(os.write)])",
        "import _xxsubinterpreters as sub; sub.create()",
    ],
)
def test_the_mark_is_not_to_be_found(source: str) -> None:
    assert not run_program(f"{SAY}\n{source}\nassert False")


def test_lines_cannot_be_skipped() -> None:
    """As a debugger does: from the line after the one in which the trace is set to the last."""
    jump = "import sys\ndef trace(f, *_):\n    if f.f_lineno == 7:\n        f.f_lineno = 8\n    return trace"
    assert not run_program(f"{jump}\nx = sys._getframe().f_trace = trace; sys.settrace(x)\nassert not x\nx = 1\n")


def test_files_cannot_be_changed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    for act in (
        "open({!r}, 'w')", "__import__('os').remove({!r})", "__import__('pathlib').Path({!r}).write_text('x')",
        "import os; os.open({!r}, os.O_RDONLY | os.O_TRUNC)", "import os; os.open({!r} + '.new', os.O_CREAT)",
    ):  # fmt: skip
        assert not run_program(act.format(str(kept)))
        assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_what_programs_are_made_of_works() -> None:
    """Threads, deep calls, much output, the same order of sets in every run, an empty place and nothing to be read."""
    for source in (
        "import threading\nl = []\nt = threading.Thread(target=lambda: l.append(1))\nt.start()\nt.join()\nassert l",
        "import sys\nsys.setrecursionlimit(30000)\ndef f(n):\n    return n and 1 + f(n - 1)\nassert f(20000) == 20000",
        "for _ in range(20000):\n    print('x' * 100)",
        "import sys\nassert not sys.flags.hash_randomization and __name__ == '__main__' and sys.argv == ['answer']",
        "import os\nassert os.listdir('.') == [] == os.listdir('/proc')",
        "try:\n    input()\nexcept EOFError:\n    pass\nelse:\n    assert False",
        "x = 'caf\u00e9'\r\nassert len(x) == 4\r\n",
    ):
        assert run_program(source), source


def test_it_is_stopped_in_time() -> None:
    begun = time.monotonic()
    assert not run_program("while True: pass", seconds=1.0)
    assert time.monotonic() - begun < 20


def test_nothing_of_what_it_prints_is_kept() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    assert not run_program("s = 'x' * 2**20\nwhile True: print(s)", seconds=1.0)
    pour = "import os\nwhile True:\n    for n in range(1, 5):\n        os.write(n, b'x' * 2**20)"
    assert not run_program(pour, seconds=300.0)  # over the pipe of the mark it is stopped at once
    assert time.monotonic() - begun < 60
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 64 * 1024  # KiB


def test_it_is_seen_where_programs_cannot_be_locked_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look runs what every program is run under, so that a step the kernel refuses is noticed."""
    monkeypatch.setattr(
        sandbox, "APART", (*sandbox.APART[:2], "--net", "--pid", "--fork")
    )  # whose mounts are not its own
    assert not sandbox.locked_down.__wrapped__()
    monkeypatch.setattr(sandbox, "APART", ("false",))
    assert not sandbox.locked_down.__wrapped__()


def test_without_namespaces_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "locked_down", lambda: False)
    with pytest.raises(ValueError, match="run without network and without writing only"):
        run_program("pass")
