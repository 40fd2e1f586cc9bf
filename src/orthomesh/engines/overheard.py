"""What zenoh refuses before any message is ours, overheard from its log: it tells Python nothing else of it.

A handshake that fails, a certificate of this authority that is no device of the run, a message under another's name or
too long, and, where this device dials, an answer by somebody without the right certificate. zenoh writes its log to the
standard output of the process; meanwhile that is a pipe which is read here, and Python's own output goes on to where it
went. A pipe that is full loses lines, so that nobody can stop a device by knocking: counts are then too low.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TextIO

FILTER = ",".join(
    (
        "warn",
        "zenoh::net::routing::interceptor=trace",
        "zenoh::net::routing::interceptor::access_control=info",
        "zenoh::net::routing::interceptor::low_pass=warn",
        "zenoh::net::runtime::orchestrator=debug",
    )
)
"""Levels of zenoh's log at which refusals are written, and little else."""
LONGEST = 4096
"""Bytes of a line that are read."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ZENOH = re.compile(r"^\d{4}-\d\d-\d\dT\S+ +(TRACE|DEBUG|INFO|WARN|ERROR) ")


class Refused(NamedTuple):
    """Something that was refused. why: what it is counted under. sentence: for whoever reads the log."""

    why: str
    sentence: str


def refusal_in(line: str) -> Refused | None:
    """What a line of zenoh's log says was refused; none where it says nothing of the kind.

    >>> refusal_in("... WARN acc-0 zenoh_link_tls::unicast: tls handshake eof. Hint: increase the limit.").why
    'handshake'
    """
    said = _ANSI.sub("", line)
    if "zenoh_link_tls::unicast: " in said and " WARN " in said:
        reason = said.partition("zenoh_link_tls::unicast: ")[2].partition(". Hint")[0].strip()[:200]
        why, words = _kind(reason)
        return Refused(why, f"a connection: {words} ({reason})")
    if "did not match any configured ACL subject" in said:
        return Refused("no_member", "a connection: its certificate is of no device of this run")
    if "interceptor: Msg intercepted" in said:
        return Refused("not_allowed", "a message: too long, or under a name that is not its sender's")
    found = re.search(r"Unable to connect to configured peer \w+/(\S+?)! .*(invalid peer certificate: .{1,160})", said)
    if found:
        reason = found[2].partition(" at /")[0].strip()
        return Refused("answered_by", f"whoever answers at {found[1]}: not the device that was dialled ({reason})")
    return None


def _kind(reason: str) -> tuple[str, str]:
    """What became of a handshake, by what the library of TLS says."""
    if "corrupt message" in reason:
        return "plain", "it does not speak TLS"
    if "no certificates" in reason:
        return "stranger", "it has no certificate"
    if "invalid peer certificate" in reason:
        return "certificate", "its certificate is not of this authority, or not valid now"
    if "fatal alert" in reason:
        return "alert", "it does not accept this device's certificate"
    if "os error 24" in reason:
        return "files", "this process has too many files open"
    return "handshake", "it ended before it had proved who it is"


@contextmanager
def overheard(take: Callable[[Refused], object]) -> Iterator[None]:
    """Read zenoh's log meanwhile; what it refuses is given to `take`, on a thread of its own.

    Where the environment sets RUST_LOG, its levels hold and zenoh's log is shown as well. Once a process has set the
    levels they stay. Anything but Linux and macOS: nothing is heard.
    """
    if os.name != "posix":
        yield
        return
    import zenoh

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(ValueError, OSError):
        sys.stdout.flush()
    kept, before = os.dup(1), sys.stdout
    os.dup2(write_end, 1)
    os.close(write_end)
    if _is_first(before):
        sys.stdout = os.fdopen(os.dup(kept), "w", buffering=1, encoding=before.encoding, errors=before.errors)
    zenoh.init_log_from_env_or(FILTER)
    listener = threading.Thread(target=_listen, args=(read_end, kept, take), daemon=True, name="overhearing")
    listener.start()
    try:
        yield
    finally:
        ours, sys.stdout = sys.stdout, before
        with suppress(ValueError, OSError):
            (ours.flush if ours is before else ours.close)()
        os.dup2(kept, 1)  # the last end to write to is gone, so that the listener ends
        listener.join(5.0)
        os.close(kept)


def _is_first(output: TextIO) -> bool:
    """Whether it writes to where zenoh does."""
    try:
        return output.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _listen(read_end: int, kept: int, take: Callable[[Refused], object]) -> None:
    """Read lines to the end; what is none of zenoh's goes on to where it was meant to go."""
    shown = "RUST_LOG" in os.environ
    with os.fdopen(read_end, "rb") as lines:
        while line := lines.readline(LONGEST):
            said = line.decode(errors="replace")
            with suppress(Exception):  # whatever comes, the pipe is read on
                if (refused := refusal_in(said)) is not None:
                    take(refused)
            if shown or not _ZENOH.match(_ANSI.sub("", said)):
                with suppress(OSError):
                    os.write(kept, line)
