"""Peers as real processes, to be killed, frozen, started again and cut off from each other on loopback.

Processes are forked from one that has all imports done, so that a start takes a second. Where a fleet has relays, every
connection between two devices goes through one that can be slow, late, dead or cut.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

QUICK = (
    "rounds=4", "train.steps=2", "train.batch_size=4", "tasks.train_examples=16", "tasks.test_examples=2",
    "methods.local=null", "methods.gossip=null", "methods.paper=null", "methods.orthomesh.clustering=local-search",
)  # fmt: skip
"""Settings of runs in which there is little to learn and much to send."""
PATIENCE = {"meet_s": 8.0, "first_s": 8.0, "least_s": 2.0, "gone_s": 0.5, "linger_s": 3.0, "factor": 2.0}
PRELOADED = ["torch", "transformers", "zenoh", "orthomesh.cli", "orthomesh.peering", "orthomesh.models.base",
             "orthomesh.evaluation.report"]  # fmt: skip


class Relay:
    """A TCP relay to one address. rate_bps, delay_s: of each direction; dead: it takes and forwards nothing."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.rate_bps, self.delay_s, self.dead, self.carried = float("inf"), 0.0, False, 0
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                threading.Thread(target=self._join, args=(ours,), daemon=True).start()

    def _join(self, ours: socket.socket) -> None:
        self._open.add(ours)
        while self.dead and ours in self._open:
            time.sleep(0.05)
        try:
            theirs = socket.create_connection(self._target, timeout=5.0)
        except OSError:
            self._open.discard(ours)
            return ours.close()
        self._open.add(theirs)
        for a, b in ((ours, theirs), (theirs, ours)):
            threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        late: deque[tuple[float, bytes]] = deque()
        with suppress(OSError):  # the other direction may have ended both before this one began
            source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            source.settimeout(0.05)
            while True:
                try:
                    data = source.recv(4096) if not self.dead else self._rest()
                except TimeoutError:
                    data = None
                if data == b"":
                    break
                if data:
                    time.sleep(8 * len(data) / self.rate_bps)
                    late.append((time.monotonic() + self.delay_s, data))
                while late and late[0][0] <= time.monotonic() and not self.dead:
                    sink.sendall(late[0][1])
                    self.carried += len(late.popleft()[1])
        for one in (source, sink):
            self._open.discard(one)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _rest(self) -> None:
        time.sleep(0.05)

    def cut(self) -> None:
        """End all connections that go through here; new ones are taken."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._server.close()
        self.cut()


@dataclass
class Fleet:
    """Peers of one run. pause_s: before each training, so that rounds last; started: the latest process of each."""

    directory: Path
    files: list[Path]
    relays: dict[tuple[int, int], Relay] = field(default_factory=dict)
    pause_s: float = 0.0
    started: dict[int, BaseProcess] = field(default_factory=dict)

    def start(self, device: int, at: str = "", how: int = signal.SIGKILL) -> None:
        """Start a device, or start it again. at: where it stops by itself, see `armed`; how: by which signal."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED, "benchmarks.fleet"])
        process = context.Process(
            target=_peer, args=(str(self.files[device]), str(self.log(device)), at, how, self.pause_s)
        )
        process.start()
        self.started[device] = process

    def log(self, device: int) -> Path:
        """File with all a device has said, over all its lives."""
        return self.files[device].parent / "said.log"

    def said(self, device: int) -> str:
        """All a device has said, over all its lives."""
        return self.log(device).read_text() if self.log(device).is_file() else ""

    def signal(self, device: int, which: int) -> None:
        """SIGKILL, SIGSTOP or SIGCONT."""
        pid = self.started[device].pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, which)

    def ended(self, timeout_s: float) -> dict[int, int | None]:
        """Exit codes by device, None for who still runs after so long."""
        end = time.monotonic() + timeout_s
        for process in self.started.values():
            process.join(max(0.0, end - time.monotonic()))
        return {k: p.exitcode for k, p in sorted(self.started.items())}

    def until(self, device: int, words: str, timeout_s: float = 30.0) -> None:
        """Wait until a device has said something, `dead` for its end, `stopped` for its freeze."""
        end = time.monotonic() + timeout_s
        while not self._is(device, words):
            if time.monotonic() > end:
                raise TimeoutError(f"device {device} has not come to {words!r}; it said:\n{self.said(device)}")
            time.sleep(0.05)

    def _is(self, device: int, words: str) -> bool:
        process = self.started[device]
        if words == "dead":
            return process.exitcode is not None
        if words == "stopped":
            return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return words in self.said(device)

    def between(self, some: set[int]) -> list[Relay]:
        """Relays between these devices and all others."""
        return [relay for pair, relay in self.relays.items() if len(some & set(pair)) == 1]

    def memory_mb(self, device: int) -> float | None:
        """Resident memory of a device's process."""
        with suppress(OSError, IndexError):
            pages = int(Path(f"/proc/{self.started[device].pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return None

    def close(self) -> None:
        """End all processes and relays."""
        for process in self.started.values():
            process.kill()
            process.join()
        for relay in self.relays.values():
            relay.close()


def fleet(
    directory: Path, count: int, *overrides: str, patience: dict[str, float] | None = None, relays: bool = False
) -> Fleet:
    """Make the files of `count` devices on loopback, with keys; nobody is started.

    Args:
        directory: gets a folder a device.
        count: of devices.
        overrides: settings beyond `QUICK`.
        patience: how long they wait, beyond `PATIENCE`.
        relays: whether connections go through relays.
    """
    from orthomesh.preparing import Wishes, prepare

    names = [f"d{k}" for k in range(count)]
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    wishes = Wishes(preset="smoke", overrides=(*QUICK, *overrides), run="faults", air="real")
    list(prepare(directory, [f"{n}={a}" for n, a in zip(names, addresses, strict=True)], wishes))
    made = Fleet(directory, [directory / name / "node.yaml" for name in names])
    for k, file in enumerate(made.files):
        node: dict[str, Any] = yaml.safe_load(file.read_text())
        node["patience"] = {**PATIENCE, **(patience or {})}
        for j in range(k) if relays else ():  # the higher id dials
            made.relays[j, k] = Relay(addresses[j])
            node["addresses"][names[j]] = made.relays[j, k].address
        file.write_text(yaml.safe_dump(node))
    return made


def _peer(file: str, log: str, at: str, how: int, pause_s: float) -> None:
    """The life of a peer's process."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    from orthomesh import cli

    if at:
        arm(at, how)
    if pause_s:
        _slow(pause_s)
    sys.argv = ["orthomesh", "peer", file]
    try:
        cli.main()
    finally:
        with suppress(OSError):  # the log may be on a full disk
            print(f"cpu {time.process_time():.1f} s", flush=True)


def _slow(pause_s: float) -> None:
    """Let every round begin with a pause, so that it lasts without costing anything."""
    from orthomesh.engines.peer import Peer

    real = Peer.begin

    def begin(peer: Peer, stage: Any) -> None:
        real(peer, stage)
        time.sleep(pause_s)

    Peer.begin = begin  # type: ignore[method-assign]


PLACES = ("meeting", "training", "facts", "facts sent", "phase 0", "phase 0 sent", "phase 1", "phase 1 sent", "saving",
          "examining", "reporting")  # fmt: skip
"""Where a device can be struck, in the order in which it comes there."""


def arm(at: str, how: int) -> None:
    """Let this process be struck by a signal at `meeting`, `/reporting`, at ROUND/PLACE or later, or at +N/PLACE.

    +N: once it has gone through so many rounds of its own, whichever they are.
    """
    from orthomesh import checkpoint, experiment, peering
    from orthomesh.engines.peer import Peer
    from orthomesh.engines.wire import Kind

    when, _, place = at.rpartition("/")
    done = threading.Event()

    def strike(here: bool) -> None:
        if here and not done.is_set():
            done.set()
            os.kill(os.getpid(), how)

    def before(owner: Any, name: str, condition: Any) -> None:
        real = getattr(owner, name)

        def struck(*args: Any, **kwargs: Any) -> Any:
            strike(condition(*args))
            return real(*args, **kwargs)

        setattr(owner, name, struck)

    def now(peer: Peer) -> bool:
        peers[:] = [peer]
        own = when.startswith("+")
        return bool(when) and (len(begun) > int(when) if own else peer.box.stage.round >= int(when))

    def begins(peer: Peer, stage: Any) -> bool:
        begun.add(stage)
        return False

    peers: list[Peer] = []
    begun: set[Any] = set()
    number = int(place.split()[1]) if place.startswith("phase") else -1
    before(Peer, "begin", begins)
    before(Peer, "meet", lambda p: place == "meeting")
    before(Peer, "map", lambda p, *_: now(p) and place == "training")
    before(Peer, "share", lambda p, *_: now(p) and place == "facts")
    before(Peer, "_say", lambda p, dst, talk, said: now(p) and place == f"turn {talk.turn}")
    before(Peer, "exchange", lambda p, *_: now(p) and place == f"phase {p._phase}")

    def waiting(peer: Peer, wanted: Any, sent: Any) -> bool:
        facts = not wanted or next(iter(wanted)).kind is Kind.FACTS
        return now(peer) and place == ("facts sent" if facts and number < 0 else f"phase {peer._phase} sent")

    before(Peer, "_wait", waiting)
    before(checkpoint.os, "replace", lambda a, b: place == "saving" and bool(peers) and now(peers[0]))
    before(peering, "examine", lambda *_: place == "examining" and bool(peers) and now(peers[0]))
    before(experiment, "write_tables", lambda *_: place == "reporting")
