"""How a command speaks when something is wrong: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn, cast, final

import typer
from rich.console import Console


def say(message: str, code: int) -> NoReturn:
    """Print one sentence on standard error and end with an exit code.

    Args:
        message: what is wrong, where, and what would be right.
        code: 2 for a mistake, 130 for Ctrl-C.

    Raises:
        typer.Exit: always.
    """
    with suppress(OSError):  # what it is written to may be full as well
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"orthomesh: {message}", markup=False)
    raise typer.Exit(code)


@final
class Lasting:
    """Standard output for what must outlive it: where it is full, or whoever read it has gone, words are left out."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write if that can be done; the length of the text in any case."""
        with suppress(OSError):
            _output().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is kept, if that can be done."""
        with suppress(OSError):
            _output().flush()

    def isatty(self) -> bool:
        """Whether somebody watches."""
        return _output().isatty()

    def fileno(self) -> int:
        """Of what is written to."""
        return _output().fileno()

    def let_go(self) -> None:
        """Write the rest or drop it, so that ending does not fail over it."""
        try:
            _output().flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), _output().fileno())


def _output() -> IO[str]:
    """Standard output as it is now, without what a live line puts before it."""
    return cast(IO[str], getattr(sys.stdout, "rich_proxied_file", sys.stdout))


@contextmanager
def sentences(directory: Path | None = None) -> Iterator[None]:
    """Turn what can go wrong into a sentence: 2 for a mistake or a full disk, 130 for Ctrl-C.

    Args:
        directory: of a run that can be resumed, or none.

    Raises:
        typer.Exit: in place of ValueError, OSError and KeyboardInterrupt.
    """
    resume = f" Go on with: orthomesh resume {directory}" if directory else ""
    try:
        yield
    except ValueError as error:
        say(str(error), 2)
    except KeyboardInterrupt:
        say(f"interrupted; every finished round is kept.{resume}" if directory else "interrupted", 130)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(1) from None
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        say(f"cannot read or write{place}: {error.strerror or error}. The last checkpoint is whole.{resume}", 2)
