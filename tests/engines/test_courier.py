"""Letters are pushed until they are acknowledged or given up, and counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from orthomesh.engines.courier import Courier
from orthomesh.engines.deadlines import Pace, Patience
from orthomesh.engines.links import Book
from orthomesh.engines.mailbox import TAKEN, Mailbox, Terms
from orthomesh.engines.wire import HEAD_BYTES, Kind, Refusal, Stage, unpack
from orthomesh.exchange.framing import LETTER_BYTES

TERMS = Terms(run="r", config="c", base="b", version="v")
BOOK = Book(
    me=0, names=("a", "b"), listen="127.0.0.1:1", addresses={}, credentials=None, discovery=False, max_body=1 << 16
)


@dataclass
class Played:
    """Connections whose other end answers from a list, then not at all."""

    answers: list[bytes | None]
    there: dict[int, set[int]] = field(default_factory=lambda: {1: {7}})
    book: Book = BOOK
    zid: str = "z"
    pushed: list[bytes] = field(default_factory=list)

    def knows(self, zid: str, device: int) -> None:
        """Nothing is counted here."""

    def push(self, dst: int, data: bytes, timeout_s: float) -> bytes | None:
        """The next answer."""
        self.pushed.append(data)
        return self.answers.pop(0) if self.answers else None

    def alive(self) -> dict[int, set[int]]:
        """Who is there."""
        return self.there


def answer(code: int = TAKEN, round_: int = 0, more: bytes = b"") -> bytes:
    return bytes([code, 0]) + round_.to_bytes(4, "little") + more


@pytest.fixture
def made() -> Iterator[Callable[[Played], Courier]]:
    couriers: list[Courier] = []

    def make(wires: Played) -> Courier:
        box = Mailbox(0, Stage(0, 9), bytes(8), TERMS, b"{}", 1 << 16)
        couriers.append(Courier(wires, box, Pace(Patience(gone_s=0.0)), life=1, story=b"{}"))
        return couriers[-1]

    yield make
    for courier in couriers:
        courier.close()


def test_a_letter_is_pushed_until_it_is_acknowledged_and_counted_once(made: Callable[[Played], Courier]) -> None:
    wires = Played([None, None, answer(round_=3)])
    courier = made(wires)
    courier.send(1, Kind.FACTS, b"12345", 3, limit_s=30.0, phase=2).result()
    assert len(set(wires.pushed)) == 1
    assert len(wires.pushed) == 3
    letter = unpack(wires.pushed[0])
    assert (letter.kind, letter.src, letter.dst, letter.phase, letter.body) == (Kind.FACTS, 0, 1, 2, b"12345")
    count = courier.traffic[1]
    assert (count.predicted, count.framing, count.framed) == (3, LETTER_BYTES + 2, HEAD_BYTES + 5)
    assert courier.box.furthest[1] == Stage(0, 3)


def test_it_is_given_up_at_its_deadline_or_when_nobody_is_there(made: Callable[[Played], Courier]) -> None:
    courier = made(Played([]))
    courier.send(1, Kind.PARCEL, bytes(5000), 5000, limit_s=0.15).result()
    assert courier.pace.rates_bps()[1] <= Patience().slowest_bps  # the link is slower than thought
    alone = made(Played([], there={}))
    alone.send(1, Kind.PARCEL, bytes(5000), 5000, limit_s=600.0).result()
    assert alone.pace.rates_bps() == {}


def test_who_is_not_known_over_there_greets_first(made: Callable[[Played], Courier]) -> None:
    wires = Played([answer(Refusal.STRANGER), answer(), answer()])
    made(wires).send(1, Kind.NOTHING, b"", 0, limit_s=30.0).result()
    assert [unpack(data).kind for data in wires.pushed] == [Kind.NOTHING, Kind.HELLO, Kind.NOTHING]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(), ""),
        (None, "does not answer"),
        (answer(Refusal.TAKEN), "says that a a is connected already"),
        (answer(Refusal.DIFFERENT, more=b'{"seed": 1}'), "refuses this device: "),
        (answer(Refusal.OTHER_RUN), "does not take the greeting: other_run"),
    ],
)
def test_what_keeps_another_away_is_said_in_words(
    said: bytes | None, words: str, made: Callable[[Played], Courier]
) -> None:
    told = made(Played([said])).greet(1)
    assert told.startswith(words)
    assert bool(told) == bool(words)


def test_a_question_has_an_answer_or_none(made: Callable[[Played], Courier]) -> None:
    courier = made(Played([answer(more=b"that"), answer(Refusal.STALE, more=b"that")]))
    assert [courier.ask(1, b"what") for _ in range(3)] == [b"that", None, None]
