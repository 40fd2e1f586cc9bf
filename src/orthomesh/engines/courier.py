"""What a device sends to the others: greetings, questions, and letters until they are acknowledged or given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..exchange.framing import LETTER_BYTES
from .deadlines import SMALLEST_PROBE, Pace
from .differing import difference
from .links import Book
from .mailbox import TAKEN, Mailbox, hello, read_answer
from .wire import HEAD_BYTES, Kind, Letter, Refusal, pack

Y = TypeVar("Y")
RETRY_S = 0.1
"""Between two attempts to reach a device; doubles up to a second."""


@dataclass
class Traffic:
    """Bytes to one device: as a simulator would count them, what framing adds by its model, and with our heads."""

    predicted: int = 0
    framing: int = 0
    framed: int = 0


@runtime_checkable
class Wires(Protocol):
    """Where messages go: connections to others, as in `Links`."""

    @property
    def book(self) -> Book:
        """Who they are."""
        ...

    @property
    def zid(self) -> str:
        """By which others tell this end."""
        ...

    def knows(self, zid: str, device: int) -> None:
        """Note whose end that is."""
        ...

    def push(self, dst: int, data: bytes, timeout_s: float) -> bytes | None:
        """Send a message and wait for its acknowledgement."""
        ...

    def alive(self) -> Mapping[int, Collection[int]]:
        """Lives of those whose connection stands."""
        ...


@dataclass
class Courier:
    """Sends for one device, to several others at a time.

    life: grows with every start of the device. story: its settings in full, for whoever differs. traffic: by receiver.
    """

    links: Wires
    box: Mailbox
    pace: Pace
    life: int
    story: bytes
    traffic: dict[int, Traffic] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = len(self.links.book.names) - 1
        self._threads = ThreadPoolExecutor(max_workers=max(1, min(32, others)), thread_name_prefix="courier")

    def submit(self, fn: Callable[..., Y], *args: Any) -> Future[Y]:
        """Have something done beside whatever else is under way."""
        return self._threads.submit(fn, *args)

    def greet(self, dst: int) -> str:
        """Say hello to one device; what is wrong, in words, or nothing."""
        letter = self._letter(Kind.HELLO, dst, hello(self.box.terms, self.links.zid))
        answer = read_answer(self.links.push(dst, pack(letter), 5.0))
        if answer is None:
            if self.box.refused[dst, "different"]:  # it has been here, and ended when it saw that it is alone
                return "refuses this device, or has ended: settings, base model or version differ"
            return "does not answer"
        if answer.code == TAKEN:
            self.box.saw(dst, answer.stage)
            if dst in self.box.zids:
                self.links.knows(self.box.zids[dst], dst)
            return ""
        if answer.code == Refusal.DIFFERENT:
            return f"refuses this device: {difference(self.story, answer.more)}"
        if answer.code == Refusal.TAKEN:
            return f"says that a {self.links.book.names[self.box.me]} is connected already"
        return f"does not take the greeting: {Refusal(answer.code).name.lower()}"

    def ask(self, dst: int, question: bytes) -> bytes | None:
        """Another's answer to a question about this round; none where there is none."""
        letter = self._letter(Kind.ASK, dst, question)
        answer = read_answer(self.links.push(dst, pack(letter), 2.0))
        return answer.more if answer is not None and answer.code == TAKEN else None

    def send(self, dst: int, kind: Kind, body: bytes, predicted: int, limit_s: float, phase: int = 0) -> Future[None]:
        """Send a letter of this round; the future is done when it is acknowledged or given up.

        Args:
            dst: to whom.
            kind: of letter.
            body: what is in it.
            predicted: bytes of it that a simulator would count; the rest is framing.
            limit_s: when to give up.
            phase: its place.
        """
        letter = self._letter(kind, dst, body, phase)
        count = self.traffic.setdefault(dst, Traffic())
        count.predicted += predicted
        count.framing += LETTER_BYTES + len(body) - predicted
        count.framed += HEAD_BYTES + len(body)
        return self.submit(self._deliver, letter, limit_s)

    def _deliver(self, letter: Letter, limit_s: float) -> None:
        """Push a letter until it is acknowledged, refused, its receiver is gone or the deadline has passed."""
        dst, data, pause_s = letter.dst, pack(letter), RETRY_S
        start = here = time.monotonic()
        while (now := time.monotonic()) < start + limit_s:
            answer = read_answer(self.links.push(dst, data, start + limit_s - now))
            if answer is not None:
                self.box.saw(dst, answer.stage)
                if answer.code == Refusal.STRANGER and not self.greet(dst):
                    continue
                if answer.code == TAKEN:
                    self.pace.saw_transfer(dst, len(data), time.monotonic() - now)
                return
            if dst in self.links.alive():
                here = time.monotonic()
            elif time.monotonic() - here > self.pace.patience.gone_s:
                return
            time.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)
        if dst in self.links.alive() and len(data) >= SMALLEST_PROBE:
            self.pace.missed_transfer(dst)

    def _letter(self, kind: Kind, dst: int, body: bytes, phase: int = 0) -> Letter:
        return Letter(
            kind=kind, run=self.box.run, src=self.box.me, dst=dst, life=self.life, stage=self.box.stage, phase=phase,
            body=body,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is sent any more."""
        self._threads.shutdown(wait=True, cancel_futures=True)
