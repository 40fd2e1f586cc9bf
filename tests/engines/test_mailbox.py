"""What is taken of the wire and what is refused, without a wire."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthomesh.engines.gathering import CLOSED, OPEN, Known, digest, read_known
from orthomesh.engines.mailbox import NOBODY, TAKEN, Mailbox, Slot, Terms, hello, read_answer
from orthomesh.engines.talking import pack_turn
from orthomesh.engines.wire import Kind, Letter, Refusal, Stage, pack, pack_facts
from orthomesh.exchange.payload import Section, encode
from orthomesh.topology.messages import Kind as Talked
from orthomesh.topology.messages import Message
from orthomesh.types import Facts

RUN = bytes(range(8))
TERMS = Terms(run="test", config="c" * 64, base="b" * 64, version="1")
STORY = b'{"train": {"steps": 5}}'
FRAME = encode([Section("values", "values", np.arange(5, dtype=np.float16))]).payload
GREETING = Letter(kind=Kind.HELLO, run=RUN, src=1, dst=0, life=7, stage=Stage(0, 0), body=hello(TERMS, "z"))
ACK = Message(Talked.ACK, 7, 1, 0, 2)
PARCEL = Letter(kind=Kind.PARCEL, run=RUN, src=1, dst=0, life=7, stage=Stage(0, 0), body=FRAME)


def box(max_body: int = 1 << 12, greeted: bool = True) -> Mailbox:
    made = Mailbox(0, Stage(9, 99), RUN, TERMS, STORY, max_body)
    if greeted:
        assert code(made, GREETING) == TAKEN
    return made


def code(at: Mailbox, letter: Letter | bytes, src: int = 1) -> int:
    answer = read_answer(at.receive(src, letter if isinstance(letter, bytes) else pack(letter)))
    assert answer is not None
    return answer.code


def there(at: Mailbox, *slots: Slot) -> dict[Slot, bytes | None]:
    return {slot: one.body for slot, one in at.collect(dict.fromkeys(slots, 0.0), 0.0).items()}


def test_a_parcel_is_kept_for_its_place() -> None:
    at = box()
    assert code(at, PARCEL) == TAKEN
    nothing = replace(PARCEL, kind=Kind.NOTHING, body=b"", phase=1)
    assert code(at, nothing) == TAKEN
    assert code(at, replace(nothing, kind=Kind.UNSAID, phase=2)) == TAKEN
    slots = [Slot(Kind.PARCEL, Stage(0, 0), phase, 1) for phase in (0, 1, 2, 3)]
    assert there(at, *slots) == {slots[0]: FRAME, slots[1]: None, slots[2]: None}
    assert [one.said for one in at.collect(dict.fromkeys(slots, 0.0), 0.0).values()] == [True, True, False]
    assert code(at, replace(nothing, kind=Kind.UNSAID)) == Refusal.REPLAYED  # what was lost was said


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (replace(PARCEL, src=2), Refusal.OTHER_DEVICE),
        (replace(PARCEL, dst=2), Refusal.OTHER_DEVICE),
        (replace(PARCEL, run=bytes(8)), Refusal.OTHER_RUN),
        (replace(PARCEL, life=6), Refusal.REPLAYED),
        (replace(PARCEL, body=b"no frame"), Refusal.MALFORMED),
        (replace(PARCEL, kind=Kind.FACTS), Refusal.MALFORMED),
        (replace(PARCEL, kind=Kind.NOTHING), Refusal.MALFORMED),
        (replace(PARCEL, kind=Kind.UNSAID), Refusal.MALFORMED),
        (replace(PARCEL, stage=Stage(9, 100)), Refusal.MALFORMED),
        (replace(PARCEL, kind=Kind.TALK, body=b"\0"), Refusal.MALFORMED),
        (replace(PARCEL, kind=Kind.TALK, body=pack_turn(0, [ACK])), Refusal.MALFORMED),  # of another epoch
        (replace(PARCEL, kind=Kind.OUTCOME, body=b"no cluster"), Refusal.MALFORMED),
        (replace(GREETING, stage=Stage(10, 0)), Refusal.MALFORMED),
        (replace(PARCEL, body=bytes((1 << 12) + 1)), Refusal.OVERSIZED),
        (replace(GREETING, body=hello(replace(TERMS, base="x" * 64), "z")), Refusal.DIFFERENT),
        (replace(GREETING, body=hello(replace(TERMS, run="other"), "z")), Refusal.DIFFERENT),
        (replace(GREETING, body=b"{}"), Refusal.MALFORMED),
        (replace(GREETING, body=b"[" * 4000), Refusal.MALFORMED),
        (b"OMW1 and then noise", Refusal.MALFORMED),
    ],
)
def test_what_does_not_fit_is_refused_counted_and_told_once(letter: Letter | bytes, why: Refusal) -> None:
    at = box()
    assert [code(at, letter) for _ in range(3)] == [why] * 3
    assert at.refused[1, why.name.lower()] == 3
    assert len(at.news()) == 1
    assert at.news() == []
    assert code(at, PARCEL) == TAKEN  # the run goes on


def test_what_is_refused_before_it_is_a_message_is_counted_and_told_once() -> None:
    at = box()
    for _ in range(3):
        at.turned_away("plain", "a connection: it does not speak TLS")
    at.turned_away("stranger", "a connection: it has no certificate")
    assert at.refused == {(NOBODY, "plain"): 3, (NOBODY, "stranger"): 1}
    assert [said for said in at.news() if "connection" in said] == [
        "refused a connection: it does not speak TLS",
        "refused a connection: it has no certificate",
    ]


def test_a_refused_greeting_is_told_what_runs_here() -> None:
    answer = read_answer(box().receive(1, pack(replace(GREETING, body=hello(replace(TERMS, config="y"), "z")))))
    assert answer is not None
    assert answer.more == STORY


def test_a_copy_is_acknowledged_again_and_a_second_version_is_not_taken() -> None:
    at = box()
    assert [code(at, PARCEL), code(at, PARCEL)] == [TAKEN, TAKEN]
    other = encode([Section("values", "values", np.ones(5, dtype=np.float16))]).payload
    assert code(at, replace(PARCEL, body=other)) == Refusal.REPLAYED
    assert there(at, Slot(Kind.PARCEL, Stage(0, 0), 0, 1)) == {Slot(Kind.PARCEL, Stage(0, 0), 0, 1): FRAME}


def test_a_round_that_is_over_takes_nothing_and_the_answer_says_where_we_are() -> None:
    at = box()
    at.enter(Stage(1, 2))
    answer = read_answer(at.receive(1, pack(replace(PARCEL, stage=Stage(1, 1)))))
    assert answer is not None
    assert (answer.code, answer.stage) == (Refusal.STALE, Stage(1, 2))
    assert code(at, replace(PARCEL, stage=Stage(1, 3))) == TAKEN  # whoever is ahead may write already
    assert at.furthest[1] == Stage(1, 3)


def test_who_has_not_greeted_is_asked_to() -> None:
    at = box(greeted=False)
    assert code(at, PARCEL) == Refusal.STRANGER
    assert at.news() == []  # it happens to everybody after a restart
    assert code(at, GREETING) == TAKEN
    assert code(at, PARCEL) == TAKEN


def test_a_name_is_one_devices_while_it_is_connected() -> None:
    at = box()
    connected = {1: {7}}
    greeted: list[int] = []
    at.watch(lambda: connected, greeted.append)
    assert code(at, replace(GREETING, life=8)) == Refusal.TAKEN
    connected.clear()
    assert code(at, PARCEL) == TAKEN
    assert code(at, replace(GREETING, life=8)) == TAKEN  # it was started again
    assert greeted == [1]
    assert there(at, Slot(Kind.PARCEL, Stage(0, 0), 0, 1)) == {}  # what its earlier life sent is forgotten
    assert code(at, replace(GREETING, life=7)) == Refusal.REPLAYED
    assert code(at, PARCEL) == Refusal.REPLAYED


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4095), st.integers(0, 900)), max_size=30))
def test_nobody_fills_the_memory_of_another(letters: list[tuple[int, int, int]]) -> None:
    at = box(max_body=1 << 10)
    for round_, phase, size in letters:
        body = encode([Section("values", "v", np.arange(size, dtype=np.uint8))]).payload
        at.receive(1, pack(replace(PARCEL, stage=Stage(0, round_), phase=phase, body=body)))
    slots = [Slot(Kind.PARCEL, Stage(0, r), p, 1) for r, p, _ in letters]
    assert sum(len(body or b"") for body in there(at, *slots).values()) <= 4 << 10
    assert len({slot.stage for slot in there(at, *slots)} - {Stage(0, 0)}) <= 2


def test_facts_are_checked_and_kept() -> None:
    facts = Facts(id=1, public={"have": np.zeros((1, 2), dtype=np.uint32)}, columns={}, payload_bits=8)
    at = box()
    assert code(at, replace(PARCEL, kind=Kind.FACTS, body=pack_facts(facts))) == TAKEN
    assert there(at, Slot(Kind.FACTS, Stage(0, 0), 0, 1)) == {Slot(Kind.FACTS, Stage(0, 0), 0, 1): pack_facts(facts)}


def test_facts_of_a_third_device_are_told_to_who_asks() -> None:
    body = pack_facts(Facts(id=1, public={}, columns={}, payload_bits=8))
    at = box()
    code(at, replace(PARCEL, kind=Kind.FACTS, body=body))
    code(at, replace(GREETING, src=2), src=2)

    def ask(*question: int, index: int = 0) -> tuple[int, bytes]:
        letter = Letter(kind=Kind.ASK, run=RUN, src=2, dst=0, life=7, stage=Stage(0, index), body=bytes(question))
        answer = read_answer(at.receive(2, pack(letter)))
        assert answer is not None
        return answer.code, answer.more

    kind = Kind.FACTS
    assert ask(kind, 1, 0, 0, 0) == (TAKEN, body)
    assert ask(kind, 2, 0, 0, 0) == (TAKEN, b"")
    assert read_known(ask(kind)[1]) == Known(OPEN, {})
    for wrong in ((), (kind, 1), (Kind.PARCEL, 1, 0, 0, 0), (99,)):
        assert ask(*wrong)[0] == Refusal.MALFORMED
    at.know(kind, CLOSED, {0: b"own", 1: body})
    at.enter(Stage(0, 1))  # the next round, in which others may still be in this one
    assert read_known(ask(kind)[1]) == Known(CLOSED, {0: digest(b"own"), 1: digest(body)})
    assert ask(kind, 0, 0, 0, 0) == (TAKEN, b"own")
    assert read_known(ask(kind, index=1)[1]).standing == OPEN
    at.enter(Stage(0, 2))
    assert ask(kind)[0] == Refusal.STALE


def test_a_wait_ends_with_the_letter_the_deadline_or_the_device() -> None:
    at, slot = box(), Slot(Kind.PARCEL, Stage(0, 0), 0, 1)
    connected: dict[int, set[int]] = {1: {7}}
    at.watch(lambda: connected, lambda src: None)
    start = time.monotonic()
    assert at.collect({slot: 0.1}, 30.0) == {}
    assert time.monotonic() - start >= 0.1
    threading.Timer(0.1, lambda: code(at, PARCEL)).start()
    assert at.collect({slot: 30.0}, 5.0)[slot][0] == FRAME
    late = slot._replace(phase=1)
    threading.Timer(0.1, lambda: (connected.clear(), at.stir())).start()
    assert at.collect({late: 30.0}, 0.1) == {}
    code(at, replace(PARCEL, stage=Stage(0, 4)))
    assert at.collect({late: 30.0}, 30.0) == {}  # it has gone on without us
    assert time.monotonic() - start < 25  # each of these three waits would have lasted longer


def test_answers_that_are_none() -> None:
    assert read_answer(None) is None
    assert read_answer(b"\x00") is None
    assert json.loads(hello(TERMS, "z"))["zid"] == "z"
