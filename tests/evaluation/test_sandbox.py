"""Programs run locked down: what passes, what fails, and what they cannot do."""

from __future__ import annotations

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
    ],
)
def test_what_a_program_cannot_do(source: str) -> None:
    assert not run_program(source)


def test_files_cannot_be_changed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    for act in ("open({!r}, 'w')", "__import__('os').remove({!r})", "__import__('pathlib').Path({!r}).write_text('x')"):
        assert not run_program(act.format(str(kept)))
        assert kept.read_text() == "kept"


def test_it_is_stopped_in_time() -> None:
    begun = time.monotonic()
    assert not run_program("while True: pass", seconds=1.0)
    assert time.monotonic() - begun < 20


def test_without_namespaces_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "locked_down", lambda: False)
    with pytest.raises(ValueError, match="run without network only"):
        run_program("pass")
