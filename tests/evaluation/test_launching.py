"""The hook's half of the sandbox by itself, and what a program sees of what runs it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from orthomesh.evaluation import sandbox
from orthomesh.evaluation.launching import hook
from orthomesh.evaluation.sandbox import run_program

locks = pytest.mark.skipif(not sandbox.locked_down(), reason="programs cannot be locked down here")


@pytest.mark.parametrize(
    ("event", "args"),
    [
        *(("open", ("x", mode, 0)) for mode in ("w", "ab", "x", "r+")),
        *(("open", ("x", None, flag)) for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND)),
        ("import", ("_ctypes", None)),
        ("import", ("other._ctypes", None)),
        *((event, ()) for event in ("socket.connect", "os.system", "os.remove", "gc.get_objects", "sys.settrace")),
    ],
)
def test_what_is_refused(event: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(PermissionError):
        hook()(event, args)


def test_what_is_not() -> None:
    for args in (("x", "r", 0), ("x", "rb", None), (3, None, os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)):
        hook()("open", args)
    for event in ("os.listdir", "os.scandir", "compile", "exec", "_thread.start_new_thread"):
        hook()(event, ())
    hook()("import", ("math", None))


OUTSIDE = "import os\ntry:\n    os.system('true')\nexcept PermissionError:\n    pass\nelse:\n    raise SystemExit\n"


@locks
@pytest.mark.parametrize(
    "source",
    [
        "import builtins\nbuiltins.PermissionError = builtins.isinstance = builtins.set = lambda *_: False\n",
        "import __main__\n__main__.PermissionError = __main__.hook = __main__.begin = print\n",
        "import __main__\n__main__.hook.__code__ = (lambda: None).__code__\n",
        "import sys\nsys.addaudithook(lambda *_: None)\n",
        "try:\n    open('x', 'w')\nexcept PermissionError as error:\n    found = error.__traceback__\n"
        "while found.tb_next:\n    found = found.tb_next\nfound.tb_frame.f_locals.clear()\n",
    ],
)
def test_the_hook_does_not_go_by_what_a_program_can_change(source: str) -> None:
    rest = OUTSIDE.replace("except PermissionError", "except BaseException")
    assert run_program(source + rest)


@locks
def test_no_frame_lies_behind_that_of_a_program() -> None:
    assert run_program("import sys\nassert sys._getframe().f_back is None")


@locks
def test_what_a_program_breaks_of_the_launcher_is_its_own_loss() -> None:
    for source in ("import _thread; _thread._count = lambda: 0", "import _thread; _thread.interrupt_main()"):
        assert not run_program(f"{source}\nimport time\ntime.sleep(30)")
    assert not run_program("import os\nos.write(3, b'0' * 32)")
