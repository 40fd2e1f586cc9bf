"""The peer engine: hosts one device and talks to the others over encrypted sockets; nobody coordinates.

Facts go to every neighbour, messages along the plan's edges, each until it is acknowledged or its deadline has passed.
Where an edge carries nothing, because nothing was said or the simulated air took it, the receiver is told which, so
that a wait ends with the last word of the others, not with a clock. A device that is gone, or late, counts as silent.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..exchange.framing import ANSWER_BYTES, talk_bytes
from ..topology.conversation import Talk, begin, hear, is_over, mutual, outcome, spoken
from ..topology.messages import Message as Talked
from ..topology.messages import encode
from ..types import Edge, Envelope, Facts, Formed, Forming, Message, Phase, Round
from .courier import RETRY_S, Courier, Traffic
from .deadlines import Pace, Patience
from .following import Claim, claims, follow, reachable
from .gathering import CLOSED, OPEN, WAITED, Known, common, compare, digest, read_known
from .links import Book, Links
from .mailbox import SWELL, Came, Mailbox, Slot, Terms
from .talking import pack_turn, read_outcome, read_turn
from .wire import MAX_METHODS, MAX_ROUNDS, Kind, Refused, Stage, pack_facts, unpack_facts

Y = TypeVar("Y")
END = Stage(MAX_METHODS - 1, MAX_ROUNDS - 1)
"""Of the longest run there can be."""
SILENCE = Came(None, math.inf)
"""Where nothing came of what may have been said."""


@dataclass
class Peer:
    """An engine for one device. stage and phase follow the run loop and the round; missing: who was silent in it.

    last: where the run ends. lock: held while computing, for tests that host several peers in one process.
    """

    book: Book
    life: int
    terms: Terms
    run: bytes
    story: bytes
    last: Stage = END
    patience: Patience = field(default_factory=Patience)
    tell: Callable[[], bytes] = bytes
    lock: Any = field(default_factory=threading.Lock)
    missing: set[int] = field(default_factory=set)
    _phase: int = 0
    _bits: dict[int, int] = field(default_factory=dict)
    _steps: int = 1
    _together: dict[int, tuple[Stage, float]] = field(default_factory=dict)
    _training_s: float = 0.0

    def __post_init__(self) -> None:
        self.pace = Pace(self.patience)
        self.box = Mailbox(self.book.me, self.last, self.run, self.terms, self.story, self.book.max_body)
        self.links = Links(self.book, self.life, self.box.receive, lambda: self.tell(), self.box.stir)
        self.courier = Courier(self.links, self.box, self.pace, self.life, self.story)
        self.box.watch(self.links.alive, lambda src: self.courier.submit(self.courier.greet, src))
        self._idle_since = time.monotonic()

    @property
    def hosted(self) -> tuple[int, ...]:
        """The one device."""
        return (self.book.me,)

    @property
    def traffic(self) -> dict[int, Traffic]:
        """What was sent, by receiver."""
        return self.courier.traffic

    @property
    def met(self) -> tuple[int, ...]:
        """Devices that have greeted this one and run the same, ascending."""
        return tuple(sorted(self.box.lives))

    @property
    def heard(self) -> tuple[int, ...]:
        """Devices whose facts the last plan was made from, ascending."""
        return tuple(sorted(self._bits))

    def map(self, fn: Callable[..., Y], items: Mapping[int, Any], *args: Any) -> dict[int, Y]:
        """Apply `fn(item, *args)` to each item here, in order of id."""
        with self.lock:
            start = time.monotonic()
            done = {k: fn(items[k], *args) for k in sorted(items)}
            self._training_s = min(max(time.monotonic() - start, 1e-3), self._training_s or math.inf)
            return done

    def begin(self, stage: Stage) -> None:
        """A round begins: letters of earlier ones are of no use any more."""
        self.box.enter(stage)
        self.missing = set()

    def meet(self) -> dict[int, str]:
        """Greet every neighbour until all have answered or patience is over.

        Returns:
            What keeps a neighbour away, by id: it was not reached, or it refuses, with the reason.

        Raises:
            ValueError: all neighbours that answered refuse this device, and none is left to wait for.
        """
        end = time.monotonic() + self.patience.meet_s
        others = [k for k in range(len(self.book.names)) if k != self.book.me]
        wrong = dict.fromkeys(others, "does not answer")
        while time.monotonic() < end:
            for k, future in [
                (k, self.courier.submit(self.courier.greet, k)) for k in others if wrong.get(k) is not None
            ]:
                wrong[k] = future.result()
            wrong = {k: said for k, said in wrong.items() if said or k not in self.box.lives}
            firm = [said for said in wrong.values() if said and said.startswith("refuses")]
            begun = [claim for claim in self.claims() if claim.stage > Stage(0, 0)]
            if begun:  # they may be past waiting for the same ones; where it is one, another may say otherwise
                end = min(end, time.monotonic() + (self.patience.gone_s if begun[1:] else self.patience.least_s))
            if not wrong or len(firm) == len(others):
                break
            with self.box.stirred:
                self.box.stirred.wait(0.25)
        for k in set(wrong) - self.box.lives.keys():
            wrong[k] = wrong[k] or "has not greeted back"
        if others and len([w for w in wrong.values() if w.startswith("refuses")]) == len(others):
            raise ValueError("; ".join(f"{self.book.names[k]} {said}" for k, said in wrong.items()))
        return {k: said for k, said in wrong.items() if said}

    def share(self, facts: Mapping[int, Facts], t: Round) -> dict[int, Facts]:
        """Tell own facts to whoever was met, and gather theirs; without those of devices that stay silent.

        What did not come straight, since a message was lost or the two have no connection, is asked of the others until
        all who are there have the same, so that all plan with the same facts. Where two have no connection, their gain
        is 0 and no plan pairs them.
        """
        me, stage, now = self.book.me, self.box.stage, time.monotonic()
        own_s, others = now - self._idle_since, [k for k in self.met if k != me]
        apart = dict.fromkeys(set(range(len(self.book.names))) - {me, *others}, 0.0)
        mine = replace(facts[me], gains={**facts[me].gains, **apart})
        body, self._phase, size = pack_facts(mine), 0, sum(mine.columns.values())
        sent = [self.courier.send(k, Kind.FACTS, body, size, self.pace.facts_s(k, own_s)) for k in others]
        wanted = {Slot(Kind.FACTS, stage, 0, k): self.pace.facts_s(k, own_s) for k in others}
        with self._asking(wanted):
            came = self._wait(wanted, sent)
        for slot, one in came.items():
            self.pace.saw_wait(slot.src, one.seconds)
        for slot in self._silent(wanted.keys() - came.keys()):
            self.pace.missed_facts(slot.src, wanted[slot])
        told = {me: body, **{s.src: one.body for s, one in came.items() if one.body}}
        bodies = self._agree(Kind.FACTS, told, len(self.book.names))
        self._idle_since = time.monotonic()
        self._together |= dict.fromkeys(bodies.keys() - {me}, (stage, self._idle_since))
        room = SWELL * self.book.max_body
        everybody = {k: mine if k == me else unpack_facts(bodies[k], k, room) for k in sorted(bodies)}
        self._bits = {k: f.payload_bits for k, f in everybody.items()}
        cut = any(f.gains.get(k, 1.0) == 0.0 for f in everybody.values() for k in everybody)
        self._steps = len(everybody) if cut else 1
        self.missing |= set(others) - everybody.keys()
        return everybody

    @contextmanager
    def _asking(self, wanted: Collection[Slot]) -> Iterator[None]:
        """Meanwhile ask those who are late for what they have told: they may have told it to an earlier life of this.

        They themselves only, so that nobody speaks for them before their time is over; ever more rarely.
        """
        over = threading.Event()

        def ask() -> None:
            pause_s = self.patience.least_s
            while not over.wait(pause_s):
                pause_s *= 2
                for slot in self.box.lacks(wanted):
                    if not over.is_set() and (body := self._fetch(slot.kind, slot.src, slot.src)):
                        self.box.hear(slot, body)

        thread = threading.Thread(target=ask, daemon=True, name="asking")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()  # a question takes two seconds at most

    def _agree(self, kind: Kind, bodies: dict[int, bytes], count: int) -> dict[int, bytes]:
        """Bodies as all who are there have them, by device: what is lacking is fetched, what others lack left out.

        Where all `count` are there, nothing is asked.
        """
        left, me, standing, start = frozenset[int](), self.book.me, WAITED, time.monotonic()
        end = start + self.patience.least_s
        while len(bodies) < count:
            self.box.know(kind, standing, bodies)
            mine, now = {k: digest(body) for k, body in bodies.items()}, time.monotonic()
            others = [k for k in bodies if k in self.box.lives and k in self.links.alive()]
            told = self._known(kind, others)
            if any(known.standing == OPEN for known in told.values()):  # its own deadlines will end that
                end = min(start + self.patience.first_s, now + self.patience.least_s)
            fetch, leave, standing = compare(me, mine, told, left)
            left = leave if now < end else leave | (mine.keys() - common(me, mine, told))
            fetched = {d: body for d, k in fetch.items() if (body := self._fetch(kind, d, k))}
            steps = 1 if len(others) == len(bodies) - 1 else len(bodies)  # to the farthest of them
            bodies = {k: body for k, body in {**bodies, **fetched}.items() if k not in left}
            if standing > steps or now >= end:
                break
            time.sleep(0.0 if fetched else RETRY_S)
        self.box.know(kind, CLOSED, bodies)
        return dict(sorted(bodies.items()))

    def _known(self, kind: Kind, others: Sequence[int]) -> dict[int, Known]:
        """What others say they have; without those that do not answer, or have gone on long ago."""
        asked = {k: self.courier.submit(self.courier.ask, k, bytes([kind])) for k in others}
        told = {}
        for k, future in asked.items():
            with suppress(Refused):
                if (said := future.result()) is not None:
                    told[k] = read_known(said)
        return told

    def _fetch(self, kind: Kind, device: int, holder: int) -> bytes | None:
        """Of one device what another has of it, if it can be read."""
        body = self.courier.ask(holder, bytes([kind]) + device.to_bytes(4, "little"))
        with suppress(Refused):
            if body:
                self.box.check(kind, device, self.box.stage, body)
                return body
        return None

    def form(self, forming: Forming, t: Round) -> Formed:
        """Talk with all who were met until nobody has anything to say, then tell all which cluster came of it.

        Who falls silent is gone for all who wait for it, each by its own clock. Clusters are as far as their members
        say the same, by what all who are there know of it; a device that nobody has heard of any more is alone.
        """
        me, stage, others = self.book.me, self.box.stage, {k for k in self.met if k in forming.leaves}
        count, told, copies, lost = len(forming.leaves), 0, 0, set[int]()
        gone = forming.leaves.keys() - others - {me}
        talk = begin(me, forming.leaves, forming.price, t.index)
        while True:
            told += sum(len(encode(m)) for m in talk.says)
            said = {k: spoken(talk, k) for k in sorted(others)}
            copies += sum(map(len, said.values()))
            sent = [self._say(k, talk, said[k]) for k in said]
            if is_over(talk, self._steps, count):
                break
            wanted = {Slot(Kind.TALK, stage, talk.turn, k): self.pace.arrival_s(k, 0) for k in others}
            came = {s.src: one.body or b"" for s, one in self._wait(wanted, sent).items()}
            turns = {k: turn for k in sorted(came) if (turn := read_turn(came[k], k, me, t.index)) is not None}
            silent, alive = others - turns.keys(), self.links.alive()
            for k in sorted(silent & alive.keys()):
                self.courier.send(k, Kind.TALK, b"", 0, self.patience.least_s, talk.turn + 1)
            heard = [m for turn in turns.values() for m in turn.said]
            talk = hear(talk, heard, gone | silent, [turn.quiet for turn in turns.values()])
            others = {k for k, turn in turns.items() if turn.quiet <= self._steps}  # the rest have ended
            lost, gone = lost | silent, set()
        for k in others:  # whose last turn is acknowledged and not waited for
            self.traffic[k].framing += ANSWER_BYTES
        formed = self._formed(outcome(talk), forming, lost)
        framing = talk_bytes(talk.turn, copies, len(forming.leaves) - 1)
        return formed._replace(told={me: told + formed.told[me]}, framing={me: framing})

    def _say(self, dst: int, talk: Talk, said: Sequence[Talked]) -> Future[None]:
        """A turn to one device."""
        size, body = sum(len(encode(m)) for m in said), pack_turn(talk.quiet, said)
        return self.courier.send(dst, Kind.TALK, body, size, self.pace.transfer_s(dst, len(body)), talk.turn)

    def _formed(self, ended: Talked, forming: Forming, lost: Collection[int]) -> Formed:
        """What all say they ended with, as all know it; those who were lost on the way are told, not waited for."""
        me, stage, body = self.book.me, self.box.stage, encode(ended)
        others = [k for k in self.met if k in forming.leaves]
        sent = [self.courier.send(k, Kind.OUTCOME, body, len(body), self.pace.transfer_s(k, len(body))) for k in others]
        wanted = {Slot(Kind.OUTCOME, stage, 0, k): self.pace.arrival_s(k, 0) for k in others if k not in lost}
        came = self._wait(wanted, sent)
        known = {me: body, **{s.src: one.body for s, one in came.items() if one.body}}
        bodies = self._agree(Kind.OUTCOME, known, len(forming.leaves))
        stated = {k: read_outcome(b, k, stage.round) for k, b in bodies.items() if k in forming.leaves}
        self.missing |= set(others) - stated.keys()
        alone = [(k,) for k in forming.leaves.keys() - stated.keys()]
        return Formed(tuple(sorted([*mutual(stated), *alone])), {me: len(body)}, {})

    def exchange(self, outbox: Sequence[Message], phase: Phase, t: Round) -> dict[int, list[Envelope]]:
        """Send what there is over own edges and take in one envelope per incoming edge, in order of sender."""
        me, stage, place = self.book.me, self.box.stage, self._phase
        payload = {dst: m.payload for m in outbox for dst in m.dsts}
        taken = {dst for m in outbox for dst in m.lost}
        met, sent = set(self.met), []
        for edge in phase.edges:
            if edge.src == me and edge.dst in met:
                body = payload.get(edge.dst, b"")
                none = Kind.NOTHING if edge.dst in taken else Kind.UNSAID
                kind = Kind.PARCEL if edge.dst in payload else none
                limit_s = self.pace.transfer_s(edge.dst, len(body))
                sent.append(self.courier.send(edge.dst, kind, body, len(body), limit_s, place))
        mine = sorted((e for e in phase.edges if e.dst == me), key=lambda e: e.src)
        wanted = {Slot(Kind.PARCEL, stage, place, e.src): self._limit_s(e) for e in mine if e.src in met}
        came = self._wait(wanted, sent)
        self._phase += 1
        self.missing |= {s.src for s in wanted.keys() - came.keys()}
        for slot, one in came.items():
            self.pace.saw_arrival(slot.src, len(one.body or b""), one.seconds)
        for slot in self._silent(wanted.keys() - came.keys()):
            self.pace.missed_arrival(slot.src)
        found = [came.get(Slot(Kind.PARCEL, stage, place, e.src), SILENCE) for e in mine]
        return {me: [Envelope(e, one.body, one.said) for e, one in zip(mine, found, strict=True)]}

    def _limit_s(self, edge: Edge) -> float:
        """How long an edge's message may take, by what its parts are said to hold."""
        bits = sum(self._bits.get(k, 0) for k in (edge.carries or (edge.src,)))
        return self.pace.arrival_s(edge.src, bits / 8)

    def _silent(self, slots: Collection[Slot]) -> list[Slot]:
        """Those of devices that are connected and have not gone on without us: they were too slow."""
        alive = self.links.alive()
        return [s for s in slots if self.box.lives.get(s.src) in alive.get(s.src, ()) and self.box.waits(s)]

    def _wait(self, wanted: Mapping[Slot, float], sent: Sequence[Future[None]]) -> dict[Slot, Came]:
        """Letters by place with the seconds they took, once all that is sent has been acknowledged or given up."""
        for slot in wanted:
            self.traffic.setdefault(slot.src, Traffic()).framing += ANSWER_BYTES
        came = self.box.collect(wanted, self.patience.gone_s)
        for future in sent:
            future.result()  # bounded by its own deadline
        return came

    def ahead(self, here: Stage) -> Stage:
        """The furthest round that others are in, as far as they are to be followed, at least `here`.

        A claim that is not believed is counted, and told once.
        """
        now, took_s = time.monotonic(), self._training_s
        most = {k: reachable(then, now - at, took_s, self.last) for k, (then, at) in self._together.items() if took_s}
        stage, doubted = follow(self.claims(), here, most)
        if doubted is not None:
            self.box.doubt(doubted.device, doubted.stage)
        return stage

    def claims(self) -> list[Claim]:
        """Where the others say they are, the furthest first."""
        return claims(self.box.furthest, self.met, self.links.alive().keys())

    def close(self) -> None:
        """End all connections; nothing is sent any more."""
        self.courier.close()
        self.links.close()
