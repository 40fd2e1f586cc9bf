"""What has arrived at a device, and what was refused: the rules of the wire without the wire.

A letter is taken if it is of this run, from whom the connection says, of the life its sender greeted with, and of a
round that is not over. A second copy is acknowledged again, a second one with other content is not taken. What is
held is bounded for every sender, so nobody can fill the memory of another.
"""

from __future__ import annotations

import json
import math
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..exchange.payload import decode
from .gathering import OPEN, Known, digest, pack_known
from .talking import read_outcome, read_turn
from .wire import HEAD_BYTES, MAX_BODY, Kind, Letter, Refusal, Refused, Stage, unpack, unpack_facts

SWELL = 8
"""Times its own limit that a body may take in memory once its arrays are read."""
HELD = 4
"""Bodies of the greatest length that one sender may have waiting here."""
MAX_HELLO = 1 << 12
MAX_REPLY = 1 << 24
NOBODY = -1
"""In place of a device, for what is refused before anybody knows whose it is."""
_REPLY = struct.Struct("<BBI")
TAKEN = 0
TOLD = (Kind.FACTS, Kind.OUTCOME)
"""What all tell all, and ask others about where it has not come."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all devices of a run agree on. run: its name. config, base: digests. version: of the code."""

    run: str
    config: str
    base: str
    version: str


class Slot(NamedTuple):
    """A place for one body. kind: of letter; an edge's is PARCEL, whatever came. What all tell all has phase 0."""

    kind: Kind
    stage: Stage
    phase: int
    src: int


class Came(NamedTuple):
    """What came to a place. body: none where nothing comes. seconds: when it came. said: whether its sender had
    something to say there, so that it is lost where it does not come."""

    body: bytes | None
    seconds: float
    said: bool = True


class Answer(NamedTuple):
    """What became of a message at the other end. code: TAKEN or a `Refusal`. more: why, for a refused hello."""

    code: int
    stage: Stage
    more: bytes


def read_answer(data: bytes | None) -> Answer | None:
    """An acknowledgement from bytes; none where there is none, or it is not one."""
    if data is None or not _REPLY.size <= len(data) <= MAX_REPLY:
        return None
    code, method, round_ = _REPLY.unpack_from(data)
    return Answer(code, Stage(method, round_), data[_REPLY.size :])


class Mailbox:
    """Letters of one device by place, whoever has greeted it, and what was refused."""

    def __init__(self, me: int, last: Stage, run: bytes, terms: Terms, story: bytes, max_body: int) -> None:
        self.me, self.last, self.run, self.terms = me, last, run, terms
        self._story, self.max_body = story, min(max_body, MAX_BODY)
        self.stirred = threading.Condition()
        self.stage = self._before = Stage(0, 0)
        self.lives: dict[int, int] = {}
        self.zids: dict[int, str] = {}
        self.furthest: dict[int, Stage] = {}
        self.refused: Counter[tuple[int, str]] = Counter()
        self._notes: list[str] = []
        self._held: dict[Slot, Came] = {}
        self._known: dict[tuple[Kind, Stage], Known] = {}
        self._connected: Callable[[], Mapping[int, Collection[int]]] = dict
        self._greet_back: Callable[[int], object] = lambda src: None

    def watch(
        self, connected: Callable[[], Mapping[int, Collection[int]]], greet_back: Callable[[int], object]
    ) -> None:
        """Say how the lives that are connected can be known, and what to do when a device begins a new life."""
        self._connected, self._greet_back = connected, greet_back

    def stir(self) -> None:
        """Wake whoever waits: somebody came or went."""
        with self.stirred:
            self.stirred.notify_all()

    def receive(self, src: int, data: bytes) -> bytes:
        """Take a message or refuse it; returns the answer."""
        with self.stirred:
            code, more = TAKEN, b""
            try:
                more = self._take(src, unpack(data, self.max_body))
            except Refused as refused:
                code = self._refuse(src, refused)
                more = self._story if refused.why is Refusal.DIFFERENT else b""
            self.stirred.notify_all()
            return _REPLY.pack(code, *self.stage) + more

    def turned_away(self, why: str, sentence: str) -> None:
        """Count what was refused before it was a message; the first of a kind is told."""
        with self.stirred:
            self.refused[NOBODY, why] += 1
            if self.refused[NOBODY, why] == 1:
                self._notes.append(f"refused {sentence}")

    def _refuse(self, src: int, refused: Refused) -> int:
        """Count it; the first of a kind from a device is told."""
        place = (src, refused.why.name.lower())
        self.refused[place] += 1
        if self.refused[place] == 1 and refused.why is not Refusal.STRANGER:
            self._notes.append(f"refused a message of device {src}: {refused}")
        return int(refused.why)

    def _take(self, src: int, letter: Letter) -> bytes:
        """Put a letter where it belongs, or raise; returns what was asked for."""
        if (letter.src, letter.dst) != (src, self.me):
            said = f"it says from {letter.src} to {letter.dst}, but came over the connection of {src} to {self.me}"
            raise Refused(Refusal.OTHER_DEVICE, said)
        if letter.stage > self.last:
            raise Refused(Refusal.MALFORMED, f"it is of {_words(letter.stage)}, which is beyond the end of the run")
        if letter.kind is Kind.HELLO:
            self._greeted(src, letter)
            return b""
        if letter.run != self.run:
            raise Refused(Refusal.OTHER_RUN, "it belongs to another run")
        if src not in self.lives:
            raise Refused(Refusal.STRANGER, "it has not said who it is since this device was started")
        if letter.life != self.lives[src]:
            raise Refused(Refusal.REPLAYED, "it was sent in another life of that device")
        self.saw(src, letter.stage)
        if letter.kind is Kind.ASK and letter.stage >= self._before:
            return self._heard_of(letter)
        if letter.stage < self.stage:
            raise Refused(Refusal.STALE, f"it is of round {letter.stage.round + 1}, which is over here")
        self._put(src, letter)
        return b""

    def saw(self, src: int, stage: Stage) -> None:
        """Note where a device says it is; nobody is beyond the end."""
        if stage <= self.last:
            self.furthest[src] = max(stage, self.furthest.get(src, stage))

    def doubt(self, src: int, stage: Stage) -> None:
        """Count a device that says it is where nobody else is, and tell the first time."""
        with self.stirred:
            self.refused[src, "alone ahead"] += 1
            if self.refused[src, "alone ahead"] == 1:
                self._notes.append(f"device {src} alone says it is in {_words(stage)}; that is not followed")

    def _heard_of(self, letter: Letter) -> bytes:
        """What has come here of what all tell all: whose, or one body, for one that has not heard it itself."""
        if len(letter.body) not in (1, 5) or letter.body[0] not in TOLD:
            raise Refused(Refusal.MALFORMED, "a question names what it is about in one byte, and one device in four")
        kind, device = Kind(letter.body[0]), int.from_bytes(letter.body[1:], "little")
        if len(letter.body) == 1:
            return pack_known(self._known.get((kind, letter.stage), Known(OPEN, {})))
        body = self._held.get(Slot(kind, letter.stage, 0, device), Came(None, 0.0)).body or b""
        return body if len(body) <= MAX_REPLY - _REPLY.size else b""

    def know(self, kind: Kind, standing: int, bodies: Mapping[int, bytes]) -> None:
        """Answer from now on, and until the round after this one is over, with these bodies of this round."""
        with self.stirred:
            now = time.monotonic()
            for k, body in bodies.items():
                self._held[Slot(kind, self.stage, 0, k)] = Came(body, now)
            self._known[kind, self.stage] = Known(standing, {k: digest(body) for k, body in bodies.items()})

    def lacks(self, wanted: Collection[Slot]) -> list[Slot]:
        """Places where nothing has come yet, of those who are connected."""
        with self.stirred:
            here = self._connected()
            return [
                slot for slot in wanted if slot not in self._held and self.lives.get(slot.src) in here.get(slot.src, ())
            ]

    def hear(self, slot: Slot, body: bytes) -> None:
        """Put what was asked for in its place, unless it has come meanwhile or its round is over."""
        with self.stirred:
            if slot.stage == self.stage and slot not in self._held:
                self._held[slot] = Came(body, time.monotonic())
                self.stirred.notify_all()

    def _put(self, src: int, letter: Letter) -> None:
        empty = letter.kind in (Kind.NOTHING, Kind.UNSAID)
        slot = Slot(Kind.PARCEL if empty else letter.kind, letter.stage, letter.phase, src)
        one = Came(None if empty else letter.body, time.monotonic(), letter.kind is not Kind.UNSAID)
        if slot in self._held:
            if self._held[slot]._replace(seconds=one.seconds) == one:
                return  # sent again because the acknowledgement was lost
            raise Refused(Refusal.REPLAYED, "another one with the same place was there before")
        self.check(letter.kind, src, letter.stage, letter.body)
        for old in sorted({s.stage for s in self._held if s.src == src and s.stage > self.stage})[:-1]:
            self._drop(lambda s, old=old: s.src == src and s.stage == old)  # type: ignore[misc]
        waiting = [held.body for s, held in self._held.items() if s.src == src]
        size = sum(len(body or b"") + HEAD_BYTES for body in waiting) + len(letter.body)
        if size > HELD * self.max_body or len(waiting) > 4096:
            raise Refused(Refusal.OVERSIZED, f"{size} bytes of one device would be waiting here")
        self._held[slot] = one

    def check(self, kind: Kind, src: int, stage: Stage, body: bytes) -> None:
        """That a body can be read, within memory; raises if not."""
        if kind is Kind.FACTS:
            unpack_facts(body, src, SWELL * self.max_body)
        elif kind is Kind.TALK:
            read_turn(body, src, self.me, stage.round)
        elif kind is Kind.OUTCOME:
            read_outcome(body, src, stage.round)
        elif kind is Kind.PARCEL:
            try:
                decode(body, SWELL * self.max_body)
            except ValueError as error:
                raise Refused(Refusal.MALFORMED, str(error)) from None
        elif body:
            raise Refused(Refusal.MALFORMED, f"a message of kind {kind.name} has no body")

    def _greeted(self, src: int, letter: Letter) -> None:
        """A device says who it is: it takes part if it runs the same."""
        told = _read_hello(letter.body)
        differs = [name for name, mine in asdict(self.terms).items() if told[name] != mine]
        if differs:
            name = differs[0]
            here, there = getattr(self.terms, name)[:16], told[name][:16]
            words = {"run": "another run", "config": "other settings", "base": "another base model"}
            what = words.get(name, "another version of the code")
            raise Refused(Refusal.DIFFERENT, f"it has {what}: {there} there, {here} here")
        known = self.lives.get(src)
        if known is not None and letter.life != known:
            if known in self._connected().get(src, ()):
                raise Refused(Refusal.TAKEN, "a device of this name is connected already")
            if letter.life < known:
                raise Refused(Refusal.REPLAYED, "it was sent in an earlier life of that device")
            self._drop(lambda s: s.src == src)
            self._notes.append(f"device {src} is back")
        self.lives[src], self.zids[src], self.furthest[src] = letter.life, told["zid"], letter.stage
        if letter.life != known:
            self._greet_back(src)

    def _drop(self, which: Callable[[Slot], bool]) -> None:
        for slot in [s for s in self._held if which(s)]:
            del self._held[slot]

    def enter(self, stage: Stage) -> None:
        """Begin a round; what came for earlier ones is forgotten, but for what others may still ask about."""
        with self.stirred:
            if stage > self.stage:
                self._before, self.stage = self.stage, stage
            self._known = {place: known for place, known in self._known.items() if place[1] >= self._before}
            self._drop(lambda s: s.stage < (self._before if s.kind in TOLD else stage))

    def called(self, by: Collection[int]) -> Stage | None:
        """The earliest round after this one that one of these devices, or two others, have told facts of."""
        with self.stirred:
            told: dict[Stage, set[int]] = {}
            for slot in self._held:
                if slot.kind is Kind.FACTS and slot.stage > self.stage:
                    told.setdefault(slot.stage, set()).add(slot.src)
        return min((stage for stage, who in told.items() if len(who) > 1 or who & set(by)), default=None)

    def collect(self, wanted: Mapping[Slot, float], gone_s: float) -> dict[Slot, Came]:
        """Wait for letters.

        Args:
            wanted: places, each with how long to wait for it, seconds from now.
            gone_s: how long to wait for a device that is not connected, seconds.

        Returns:
            What came, by place, with the seconds it took; a place is absent where nothing came, its body is None where
            the sender said that nothing comes, be it lost or not said.
        """
        start = time.monotonic()
        away: dict[int, float] = {}
        with self.stirred:
            while True:
                now = time.monotonic()
                connected = self._connected()
                for src in {slot.src for slot in wanted}:
                    here = self.lives.get(src) in connected.get(src, ())
                    away[src] = math.inf if here else min(now, away.get(src, now))
                left = [
                    min(start + limit_s, away[slot.src] + gone_s) - now
                    for slot, limit_s in wanted.items()
                    if slot not in self._held and self.waits(slot)
                ]
                if not left or max(left) <= 0:
                    came = {slot: self._held[slot] for slot in wanted if slot in self._held}
                    return {s: one._replace(seconds=max(0.0, one.seconds - start)) for s, one in came.items()}
                self.stirred.wait(min(max(0.01, max(left)), 1.0))

    def waits(self, slot: Slot) -> bool:
        """Whether a sender can still be expected to write to a place: it is not known to be in a later round."""
        return self.furthest.get(slot.src, slot.stage) <= slot.stage

    def news(self) -> list[str]:
        """What has happened since this was last asked, in sentences."""
        with self.stirred:
            told, self._notes = self._notes, []
            return told


def _words(stage: Stage) -> str:
    return f"round {stage.round + 1} of method {stage.method + 1}"


def hello(terms: Terms, zid: str) -> bytes:
    """The body of a greeting."""
    return json.dumps({**asdict(terms), "zid": zid}).encode()


def _read_hello(body: bytes) -> dict[str, str]:
    try:
        told: Any = json.loads(body[:MAX_HELLO]) if len(body) <= MAX_HELLO else None
    except (ValueError, RecursionError):
        told = None
    names = ("run", "config", "base", "version", "zid")
    if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in names):
        raise Refused(Refusal.MALFORMED, "a greeting that cannot be read")
    return {name: told[name] for name in names}
