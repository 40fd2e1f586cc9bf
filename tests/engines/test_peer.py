"""The peer engine among two or three: what arrives, who is missing, and that no wait is without end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ether
import numpy as np
import pytest
from ether import Ether

from orthomesh.engines import peer as engine
from orthomesh.engines.deadlines import Patience
from orthomesh.engines.inprocess import InProcess
from orthomesh.engines.links import Book
from orthomesh.engines.mailbox import Terms
from orthomesh.engines.peer import Peer
from orthomesh.engines.wire import Kind, Letter, Stage, pack
from orthomesh.exchange.payload import Section, encode
from orthomesh.methods.clusters import Limits, arrange, talk
from orthomesh.types import Edge, Engine, Facts, Formed, Message, Phase, Round
from orthomesh.wireless.link import Radio

TERMS = Terms(run="test", config="c" * 64, base="b" * 64, version="1")
PATIENCE = Patience(meet_s=20, first_s=20, least_s=1, gone_s=0.3, factor=1)
T = Round(0, 0, 3)


def payload(*values: int) -> bytes:
    return encode([Section("values", "v", np.array(values, dtype=np.uint8))]).payload


def facts(k: int) -> Facts:
    return Facts(id=k, public={"n": np.array(k)}, columns={"control": 20}, payload_bits=80, gains={9: k / 7})


def message(src: int, *dsts: int) -> Message:
    body = payload(src)
    return Message(src=src, dsts=dsts, payload=body, columns={"values": len(body)})


@pytest.fixture
def peers(free_ports: Callable[[int], list[int]]) -> Iterator[Callable[..., list[Peer]]]:
    """Makes peers on loopback, without encryption, that have not met yet."""
    made: list[Peer] = []

    def make(count: int, absent: int = 0, changes: dict[int, dict[str, Any]] | None = None) -> list[Peer]:
        names = tuple("abcd"[: count + absent])
        at = dict(enumerate(f"127.0.0.1:{port}" for port in free_ports(count + absent)))
        for k in range(count):
            book = Book(
                me=k, names=names, listen=at[k], addresses={n: a for n, a in at.items() if n != k},
                credentials=None, discovery=False, max_body=1 << 16,
            )  # fmt: skip
            options = {"life": k + 1, "terms": TERMS, "run": bytes(8), "story": b"{}", "patience": PATIENCE}
            made.append(Peer(book=book, **{**options, **(changes or {}).get(k, {})}))
        return made

    yield make
    for peer in made:
        peer.close()


def together(jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as threads:
        return [f.result() for f in [threads.submit(job) for job in jobs]]


def met(made: list[Peer]) -> list[Peer]:
    assert together([p.meet for p in made]) == [{}] * len(made)
    return made


def test_facts_and_messages_reach_everybody(peers: Callable[..., list[Peer]]) -> None:
    patient = {"patience": replace(PATIENCE, least_s=20)}
    a, _, c = made = met(peers(3, changes=dict.fromkeys(range(3), patient)))
    assert all(isinstance(p, Engine) for p in made)
    shared = together([lambda p=p: p.share({p.book.me: facts(p.book.me)}, T) for p in made])
    for everybody in shared:
        assert list(everybody) == [0, 1, 2]
        assert [f.gains for f in everybody.values()] == [facts(k).gains for k in range(3)]
        assert [int(f.public["n"]) for f in everybody.values()] == [0, 1, 2]
    phase = Phase(name="x", edges=(Edge(0, 1), Edge(0, 2), Edge(2, 1)))
    outboxes = [[message(0, 1, 2)], [], [replace(message(2), lost=(1,))]]  # the air took what c had for b
    start = time.monotonic()
    inboxes = together([lambda p=p, o=o: p.exchange(o, phase, T) for p, o in zip(made, outboxes, strict=True)])
    assert time.monotonic() - start < 20  # nobody waited for what does not come
    assert inboxes[1] == {1: [(Edge(0, 1), payload(0), True), (Edge(2, 1), None, True)]}
    assert inboxes[2] == {2: [(Edge(0, 2), payload(0), True)]}
    assert inboxes[0] == {0: []}
    inboxes = together([lambda p=p: p.exchange([], phase, T) for p in made])  # nobody has anything to say
    assert [envelope[1:] for p, box in zip(made, inboxes, strict=True) for envelope in box[p.book.me]] == [
        (None, False)
    ] * 3
    assert [p.missing for p in made] == [set()] * 3
    assert (a.traffic[1].predicted, a.traffic[2].predicted) == (20 + len(payload(0)), 20 + len(payload(0)))
    assert c.traffic[1].predicted == 20


def test_the_next_phase_and_the_next_round_have_places_of_their_own(peers: Callable[..., list[Peer]]) -> None:
    made = met(peers(2))
    phase = Phase(name="x", edges=(Edge(0, 1),))

    def rounds(p: Peer) -> list[bytes | None]:
        got = []
        for index in range(3):
            p.begin(Stage(0, index))
            p.share({p.book.me: facts(p.book.me)}, T)
            for n in range(2):
                body = payload(index, n)
                out = [Message(src=0, dsts=(1,), payload=body, columns={"values": len(body)})]
                got += [e.payload for e in p.exchange(out if p.book.me == 0 else [], phase, T)[p.book.me]]
        return got

    assert together([lambda p=p: rounds(p) for p in made]) == [[], [payload(i, n) for i in range(3) for n in range(2)]]


def test_a_round_closes_without_whoever_is_gone_or_silent(peers: Callable[..., list[Peer]]) -> None:
    a, b, c = made = met(peers(3))
    c.close()
    start = time.monotonic()
    shared = together([lambda p=p: p.share({p.book.me: facts(p.book.me)}, T) for p in (a, b)])
    assert [list(everybody) for everybody in shared] == [[0, 1], [0, 1]]
    assert time.monotonic() - start < 10  # far less than first_s: its connection is gone
    assert (a.missing, b.missing) == ({2}, {2})
    phase = Phase(name="x", edges=(Edge(1, 0), Edge(2, 0)))
    silent = [(Edge(1, 0), None, True), (Edge(2, 0), None, True)]
    assert a.exchange([], phase, T) == {0: silent}  # b is there, and does not even say that it has nothing to say
    assert a.missing == {1, 2}
    assert time.monotonic() - start < 20
    made.remove(c)


@pytest.fixture
def air(monkeypatch: pytest.MonkeyPatch) -> Ether:
    """Peers made with `ether.peer` are connected by it."""
    made = Ether()
    monkeypatch.setattr(engine, "Links", made.links)
    return made


def in_air(count: int, **options: Any) -> list[Peer]:
    return [ether.peer(k, count, **options) for k in range(count)]


def shared(made: list[Peer]) -> list[dict[int, Facts]]:
    return together([lambda p=p: p.share({p.book.me: facts(p.book.me)}, T) for p in made])


def test_facts_reach_those_without_a_connection_and_no_plan_pairs_them(air: Ether) -> None:
    air.apart = {frozenset((0, 2))}
    made = in_air(3, patience=replace(ether.PATIENCE, meet_s=0.2))
    together([p.meet for p in made])
    assert [p.met for p in made] == [(1,), (0, 2), (1,)]
    told = shared(made)
    assert [list(everybody) for everybody in told] == [[0, 1, 2]] * 3
    assert [everybody[0].gains[2] for everybody in told] == [0.0] * 3
    assert [everybody[2].gains[0] for everybody in told] == [0.0] * 3
    assert 0 not in told[0][1].gains  # b has both connections; its gains are what the air says
    assert [p.missing for p in made] == [set()] * 3


def test_facts_come_along_a_chain_of_devices(air: Ether) -> None:
    air.apart = {frozenset((j, k)) for j in range(5) for k in range(j + 2, 5)}
    made = in_air(5, patience=replace(ether.PATIENCE, meet_s=0.2))
    together([p.meet for p in made])
    assert [list(everybody) for everybody in shared(made)] == [[0, 1, 2, 3, 4]] * 5


def test_who_hears_less_fetches_it_and_who_is_heard_by_nobody_is_left_out_by_all(air: Ether) -> None:
    made = met(in_air(4, patience=replace(ether.PATIENCE, first_s=1.0)))

    def lost(src: int, dst: int, data: bytes) -> bool:  # d speaks and only c hears it; nobody hears what b says to a
        return data[5] == Kind.FACTS and ((src == 3 and dst != 2) or (src, dst) == (1, 0))

    air.lost = lost
    assert [list(everybody) for everybody in shared(made)] == [[0, 1, 2, 3]] * 4
    air.lost = lambda src, dst, data: False
    for p in made:
        p.begin(Stage(0, 1))
    made[3].close()
    told = shared(made[:3])
    assert [list(everybody) for everybody in told] == [[0, 1, 2]] * 3
    assert [p.missing for p in made[:3]] == [{3}] * 3


def test_who_has_told_its_facts_to_an_earlier_life_is_asked_for_them_long_before_its_time_is_over(air: Ether) -> None:
    patience = replace(ether.PATIENCE, first_s=600.0, least_s=0.3)
    a, b, c = met(in_air(3, patience=patience))
    assert [list(everybody) for everybody in shared([a, b, c])] == [[0, 1, 2]] * 3
    a.close()
    again = ether.peer(0, 3, patience=patience, life=9)
    assert again.meet() == {}
    start = time.monotonic()
    assert list(again.share({0: facts(0)}, T)) == [0, 1, 2]
    assert time.monotonic() - start < 60
    assert again.missing == set()


SIX = [(k,) for k in range(6)]
LIMITS = Limits(max_collision=0.0, negotiated=True, cast="broadcast", radio=Radio(), sizes=(10,), solver="agnes")


def dense(k: int, count: int) -> Facts:
    """A quarter of all positions; every link is good, those of near ids best."""
    gains = {j: 1e-6 / abs(j - k) for j in range(count) if j != k}
    public = {"density": np.full(1, 0.25, dtype=np.float32)}
    return Facts(id=k, public=public, columns={"control": 9}, payload_bits=800, gains=gains)


def formed(made: list[Peer], count: int, after: Callable[[int], Any] = lambda k: None) -> list[Formed]:
    def one(p: Peer) -> Formed:
        everybody = p.share({p.book.me: dense(p.book.me, count)}, T)
        after(p.book.me)
        return p.form(talk(everybody, LIMITS), T)

    return together([lambda p=p: one(p) for p in made])


def test_clusters_form_over_connections_as_in_one_process_and_the_bytes_are_the_same(air: Ether) -> None:
    made = met(in_air(6))
    found = formed(made, 6)
    forming = talk({k: dense(k, 6) for k in range(6)}, LIMITS)
    here = InProcess(6).form(forming, T)
    assert here.clusters == ((0, 1, 2, 3), (4, 5)) == arrange({k: dense(k, 6) for k in range(6)}, SIX, LIMITS)
    assert [f.clusters for f in found] == [here.clusters] * 6
    assert {k: n for f in found for k, n in f.told.items()} == dict(here.told)
    assert {k: n for f in found for k, n in f.framing.items()} == dict(here.framing)
    assert all(isinstance(p, Engine) and p.missing == set() for p in made)
    sent = [[t.predicted for t in p.traffic.values()] for p in made]
    assert all(9 < n <= 9 + here.told[k] for k, one in enumerate(sent) for n in one)  # not all is for everybody


def test_who_falls_silent_while_clusters_form_is_alone_and_the_others_belong_together(air: Ether) -> None:
    made = met(in_air(5, patience=replace(ether.PATIENCE, least_s=1.0)))
    turns = [0]

    def lost(src: int, dst: int, data: bytes) -> bool:
        kind = Kind(data[5])
        turns[0] += src == 4 and kind is Kind.TALK
        return 4 in (src, dst) and turns[0] > 8 and kind in (Kind.TALK, Kind.OUTCOME, Kind.ASK)  # in its third turn

    air.lost = lost
    found = formed(made, 5)
    assert [f.clusters for f in found[:4]] == [((0, 1, 2, 3), (4,))] * 4
    assert found[4].clusters == ((0,), (1,), (2,), (3,), (4,))  # all it knows
    assert [p.missing for p in made[:4]] == [{4}] * 4


def test_a_device_without_a_connection_to_some_has_their_clusters_too(air: Ether) -> None:
    air.apart = {frozenset((0, 3)), frozenset((1, 3)), frozenset((0, 2))}
    made = in_air(4, patience=replace(ether.PATIENCE, meet_s=0.2))
    together([p.meet for p in made])
    found = formed(made, 4)
    assert [f.clusters for f in found] == [found[0].clusters] * 4
    assert found[0].clusters in (((0, 1), (2, 3)), ((0,), (1, 2), (3,)))  # nobody is with whom it does not reach


def test_one_that_claims_to_be_far_ahead_is_not_followed_and_two_are(air: Ether) -> None:
    made = in_air(4, last=Stage(1, 9))
    made[3].begin(Stage(0, 7))  # it lies
    met(made)
    here = Stage(0, 1)
    assert [p.ahead(here) for p in made[:3]] == [here] * 3
    assert made[0].ahead(here) == here
    assert made[0].box.refused[3, "alone ahead"] == 2
    assert made[0].box.news() == ["device 3 alone says it is in round 8 of method 1; that is not followed"]
    made[2].begin(Stage(0, 5))
    made[0].courier.greet(2)
    assert made[0].ahead(here) == Stage(0, 5)  # both have been there
    assert made[0].ahead(Stage(0, 8)) == Stage(0, 8)
    made[3].begin(Stage(2, 0))
    made[0].courier.greet(3)  # the answer says where it is
    assert made[0].box.furthest[3] == Stage(0, 7)
    for p in made[1:3]:
        p.close()
    assert made[0].ahead(here) == Stage(0, 7)  # the only one that is there


def test_two_of_three_that_come_back_together_find_the_third(air: Ether) -> None:
    made = in_air(3, last=Stage(1, 9))
    made[2].begin(Stage(0, 7))  # it has gone on alone
    met(made)
    assert [p.ahead(Stage(0, 1)) for p in made] == [Stage(0, 7), Stage(0, 7), Stage(0, 1)]
    assert not made[0].box.refused


def test_who_was_in_a_round_with_us_is_followed_no_further_than_it_can_have_come(air: Ether) -> None:
    made = met(in_air(3, last=Stage(1, 9)))
    for p in made:
        p.map(lambda item: item, {p.book.me: 0})
        p._training_s = 1e4
    shared(made)
    made[2].begin(Stage(1, 0))  # it lies
    for p in made[:2]:
        p.courier.greet(2)
        assert p.ahead(Stage(0, 1)) == Stage(0, 1)
        assert p.box.refused[2, "alone ahead"] == 1
        p._together[2] = (Stage(0, 0), time.monotonic() - 3e4)  # it has had the time
        assert p.ahead(Stage(0, 1)) == Stage(0, 7)


def test_a_device_that_never_comes_is_named(peers: Callable[..., list[Peer]]) -> None:
    (a,) = peers(1, absent=1, changes={0: {"patience": replace(PATIENCE, meet_s=0.5)}})
    assert a.meet() == {1: "does not answer"}
    assert a.share({0: facts(0)}, T).keys() == {0}


def test_a_device_of_other_settings_is_told_the_difference_and_the_rest_goes_on(
    peers: Callable[..., list[Peer]],
) -> None:
    story = {"train": {"steps": 5}, "seed": 0}
    wrong = {
        "terms": replace(TERMS, config="x"),
        "story": json.dumps({**story, "seed": 1}).encode(),
        "run": bytes(7) + b"1",
    }
    right = {"story": json.dumps(story).encode(), "patience": replace(PATIENCE, meet_s=3)}
    a, b, c = peers(3, changes={0: right, 1: right, 2: wrong})

    def alone() -> str:
        with pytest.raises(ValueError, match="refuses") as caught:
            c.meet()
        return str(caught.value)

    first, second, said = together([a.meet, b.meet, alone])
    assert said == "; ".join(f"{n} refuses this device: seed is 1 here and 0 there" for n in "ab")
    assert first == second == {2: "refuses this device: seed is 0 here and 1 there"}
    assert a.met == (1,)
    assert list(a.box.refused) == [(2, "different")]


def test_two_devices_of_one_name(peers: Callable[..., list[Peer]], free_ports: Callable[[int], list[int]]) -> None:
    a, b = met(peers(2))
    book = replace(b.book, listen=f"127.0.0.1:{free_ports(1)[0]}")
    second = Peer(book=book, life=9, terms=TERMS, run=bytes(8), story=b"{}", patience=replace(PATIENCE, meet_s=1.0))
    try:
        assert second.meet() == {0: "says that a b is connected already"}
    finally:
        second.close()
    assert a.box.lives == {1: 2}


def test_a_returning_device_hears_where_the_others_are(peers: Callable[..., list[Peer]]) -> None:
    a, b = made = met(peers(2))
    book = b.book
    b.close()
    made.remove(b)
    a.begin(Stage(1, 2))
    again = Peer(book=book, life=5, terms=TERMS, run=bytes(8), story=b"{}", patience=PATIENCE)
    made.append(again)
    assert again.meet() == {}
    assert again.ahead(Stage(0, 0)) == Stage(1, 2)
    assert a.box.lives == {1: 5}
    assert a.box.news() == ["device 1 is back"]


def test_who_comes_back_into_a_run_does_not_wait_for_those_who_are_gone(peers: Callable[..., list[Peer]]) -> None:
    a, b = peers(2, absent=1)
    a.begin(Stage(0, 1))  # a has gone on without the third
    start = time.monotonic()
    assert b.meet() == {2: "does not answer"}
    assert time.monotonic() - start < PATIENCE.meet_s / 2


def test_computing_happens_here_and_in_order(peers: Callable[..., list[Peer]]) -> None:
    (a,) = peers(1)
    assert a.map(lambda item, more: item + more, {2: 5, 0: 1}, 10) == {0: 11, 2: 15}
    assert a.hosted == (0,)


def test_a_device_whose_others_have_ended_over_the_difference_ends_too(peers: Callable[..., list[Peer]]) -> None:
    (a,) = peers(1, absent=1)
    other = json.dumps({"run": "test", "config": "y", "base": "b", "version": "1", "zid": "z"}).encode()
    hello = Letter(kind=Kind.HELLO, run=bytes(8), src=1, dst=0, life=1, stage=Stage(0, 0), body=other)
    a.box.receive(1, pack(hello))
    start = time.monotonic()
    with pytest.raises(ValueError, match="b refuses this device, or has ended: settings, base model or version differ"):
        a.meet()
    assert time.monotonic() - start < PATIENCE.meet_s / 2
