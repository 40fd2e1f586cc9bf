"""Connections that only members can open, and on which a member can write only under its own name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orthomesh.engines.keys import Credentials, credentials, make_authority, make_device
from orthomesh.engines.links import ROOT, Book, Links, access, is_loopback, open_session, session_settings

NAMES = ("a", "b", "c")
BOOK = Book(
    me=1, names=("a", "b", "c"), listen="127.0.0.1:7001", addresses={0: "127.0.0.1:7000", 2: "127.0.0.1:7002"},
    credentials=None, discovery=False, max_body=1 << 16,
)  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("keys")
    make_authority(store)
    for name in NAMES:
        make_device(store, name, ["127.0.0.1"])
    return store


@pytest.fixture
def pair(keys: Path, free_ports: Callable[[int], list[int]]) -> Iterator[tuple[Links, Links, list[bytes]]]:
    """Devices a and b with TLS; the list is what a has heard."""
    at = [f"127.0.0.1:{port}" for port in free_ports(2)]
    heard: list[bytes] = []

    def take(src: int, data: bytes) -> bytes:
        heard.append(data)
        return b"taken of %d" % src

    made = [
        Links(
            Book(
                me=k, names=NAMES, listen=at[k], addresses={1 - k: at[1 - k]},
                credentials=credentials(keys, NAMES[k]), discovery=False, max_body=1 << 16,
            ),
            life=k + 10, receive=take, tell=lambda: b"{}", changed=lambda: None,
        )
        for k in range(2)
    ]  # fmt: skip
    wait(lambda: made[0].alive().keys() == {1} and made[1].alive().keys() == {0})
    wait(lambda: made[1].push(0, b"", 1.0) is not None)  # tokens may come before those who answer
    heard.clear()
    yield made[0], made[1], heard
    for links in made:
        links.close()


def wait(until: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_message_is_acknowledged_and_its_bytes_are_counted(pair: tuple[Links, Links, list[bytes]]) -> None:
    a, b, heard = pair
    noise = os.urandom(50_000)
    before = a.meter()[1].received
    assert b.push(0, noise, 20.0) == b"taken of 1"
    assert heard == [noise]
    assert b.alive() == {0: {10}}
    assert 50_000 < a.meter()[1].received - before < 51_000  # TLS and zenoh take their part
    assert b.push(0, os.urandom((1 << 16) + 1000), 1.0) is None  # longer than a takes
    assert len(heard) == 1


def test_a_member_cannot_write_under_another_name(pair: tuple[Links, Links, list[bytes]]) -> None:
    a, b, heard = pair
    forged = [list(b.session.get(f"{ROOT}/0/0", payload=b"forged", timeout=1.0))]
    forged.append(list(b.session.get(f"{ROOT}/0/2", payload=b"forged", timeout=1.0)))
    b.session.put(f"{ROOT}/0/1", b"a publication")
    assert not [reply for replies in forged for reply in replies if reply.ok is not None]
    token = b.session.liveliness().declare_token(f"{ROOT}/alive/2/99")
    assert b.push(0, b"own", 20.0) == b"taken of 1"
    assert heard == [b"own"]
    assert a.alive() == {1: {11}}
    token.undeclare()


def test_strangers_get_no_connection(pair: tuple[Links, Links, list[bytes]], keys: Path, tmp_path: Path) -> None:
    a, _, heard = pair
    make_authority(tmp_path)
    own = make_device(tmp_path, "b", ["127.0.0.1"])
    rogue = Credentials(authority=keys / "ca.crt", certificate=own.certificate, key=own.key)
    asks = Book(
        me=1, names=NAMES, listen="127.0.0.1:1", addresses={0: a.book.listen}, credentials=None, discovery=False,
        max_body=1 << 16,
    )  # fmt: skip
    for credentials_ in (None, rogue):  # plain TCP, and a certificate of another authority with a member's name
        session = open_session(replace(asks, credentials=credentials_), listens=False)
        try:
            assert list(session.get(f"{ROOT}/0/1", payload=b"let me in", timeout=1.0)) == []
            assert list(session.info.links()) == []
        finally:
            session.close()
    assert heard == []


def test_a_device_that_ends_is_noticed_at_once(pair: tuple[Links, Links, list[bytes]]) -> None:
    a, b, _ = pair
    b.close()
    wait(lambda: not a.alive(), 5.0)
    assert a.push(1, b"anybody there?", 5.0) is None


def test_an_address_in_use_or_of_nobody_is_a_sentence(pair: tuple[Links, Links, list[bytes]]) -> None:
    busy = replace(pair[0].book, addresses={})
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:\d+ is in use; another peer"):
        open_session(busy)
    with pytest.raises(ValueError, match="no address of this machine"):
        open_session(replace(busy, listen="192.0.2.1:7447"))


def test_the_higher_id_dials_and_nothing_is_left_to_chance() -> None:
    settings = session_settings(BOOK)
    assert settings["connect/endpoints"] == ["tcp/127.0.0.1:7000"]
    assert settings["listen/endpoints"] == ["tcp/127.0.0.1:7001"]
    off = ("scouting/multicast/enabled", "scouting/gossip/enabled", "transport/shared_memory/enabled")
    assert [settings[key] for key in off] == [False] * 3
    asking = session_settings(BOOK, listens=False)
    assert (len(asking["connect/endpoints"]), asking["listen/endpoints"]) == (2, [])


def test_access_is_denied_where_nothing_is_said() -> None:
    rules = access(BOOK)
    assert rules["default_permission"] == "deny"
    write = {r["id"]: r["key_exprs"] for r in rules["rules"] if r["id"].startswith("write")}
    assert write == {"write-0": ["om/1/0"], "write-1": ["om/1/1"], "write-2": ["om/1/2"]}
    subjects = {s["id"]: s["cert_common_names"] for s in rules["subjects"]}
    by_rule = {rule: subjects[p["subjects"][0]] for p in rules["policies"] for rule in p["rules"]}
    assert by_rule["write-2"] == by_rule["alive-2"] == by_rule["answer-2"] == ["c"]


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("10.0.0.1:1", False),
        ("pi.local:1", False),
        ("0.0.0.0:1", False),
    ],
)
def test_what_never_leaves_the_machine(address: str, inside: bool) -> None:
    assert is_loopback(address) is inside
