"""What zenoh refuses is heard, by what its log really says; and what others print goes on to where it went."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orthomesh.engines.keys import Credentials, credentials, make_authority, make_device
from orthomesh.engines.links import ROOT, Book, Links, open_session
from orthomesh.engines.overheard import Refused, overheard, refusal_in

TLS = "2026-11-26T19:12:42.069791Z  WARN acc-0 ThreadId(06) zenoh_link_tls::unicast: "


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (TLS + "received corrupt message of type InvalidContentType. Hint: increase the limit.", "plain"),
        (TLS + "invalid peer certificate: BadSignature. Hint: increase the limit.", "certificate"),
        (TLS + "peer sent no certificates. Hint: increase the limit.", "stranger"),
        (TLS + "received fatal alert: BadCertificate. Hint: increase the limit.", "alert"),
        (TLS + "Too many open files (os error 24). Hint: increase the limit.", "files"),
        (TLS.replace(" WARN ", "\x1b[33m WARN\x1b[0m ") + "tls handshake eof. Hint: increase the limit.", "handshake"),
        ("... zenoh::net::routing::interceptor: Msg intercepted!", "not_allowed"),
    ],
)
def test_lines_of_the_log(line: str, why: str) -> None:
    heard = refusal_in(line)
    assert heard is not None
    assert heard.why == why
    assert "Hint" not in heard.sentence


@pytest.mark.parametrize("line", ["", "WARN", "zenoh: Gossip is disabled", "Unable to connect to configured peer x!"])
def test_lines_that_are_no_refusal(line: str) -> None:
    assert refusal_in(line) is None


def test_strangers_and_forgers_are_heard(
    tmp_path: Path, free_ports: Callable[[int], list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, names = tmp_path / "ours", tmp_path / "theirs", ("a", "b", "c")
    make_authority(ours)
    make_authority(theirs)
    for name in ("a", "b", "x"):
        make_device(ours, name, ["127.0.0.1"])
    false_c = make_device(theirs, "c", ["127.0.0.1"])
    rogue = Credentials(authority=ours / "ca.crt", certificate=false_c.certificate, key=false_c.key)
    port, other = free_ports(2)
    book = Book(
        me=0, names=names, listen=f"127.0.0.1:{port}", addresses={}, credentials=credentials(ours, "a"),
        discovery=False, max_body=1 << 16,
    )  # fmt: skip
    asks = replace(book, me=1, listen="127.0.0.1:0", addresses={0: book.listen}, credentials=credentials(ours, "b"))
    heard: list[Refused] = []

    def whys(until: str) -> list[str]:
        end = time.monotonic() + 10
        while until not in [r.why for r in heard]:
            assert time.monotonic() < end, heard
            time.sleep(0.02)
        return [r.why for r in heard]

    def asked(who: Book, until: str) -> None:
        session = open_session(who, listens=False)
        try:
            whys(until)
        finally:
            session.close()

    a = Links(book, life=1, receive=lambda src, data: b"", tell=lambda: b"{}", changed=lambda: None)
    with overheard(heard.append):
        b = open_session(asks)
        try:
            end = time.monotonic() + 10
            while not [r for r in b.get(f"{ROOT}/0/1", payload=b"own", timeout=1.0) if r.ok is not None]:
                assert time.monotonic() < end
            assert heard == []  # what is allowed is not refused
            b.put(f"{ROOT}/0/2", b"forged")
            b.get(f"{ROOT}/0/2", payload=b"forged", timeout=0.2)
            whys("not_allowed")
        finally:
            b.close()
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            whys("plain")
        with socket.create_connection(("127.0.0.1", port)):
            pass
        whys("handshake")
        trusting = ssl.create_default_context(cafile=str(ours / "ca.crt"))
        with trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"):
            whys("stranger")
        asked(replace(asks, credentials=rogue), "certificate")
        asked(replace(asks, names=("a", "x"), credentials=credentials(ours, "x")), "no_member")
        thief = open_session(replace(book, me=2, listen=f"127.0.0.1:{other}", credentials=rogue))
        asked(replace(asks, addresses={0: f"127.0.0.1:{other}"}), "answered_by")  # it has taken a's address
        thief.close()
        os.write(1, b"said by somebody else\n")
    a.close()
    assert f"whoever answers at 127.0.0.1:{other}" in next(r.sentence for r in heard if r.why == "answered_by")
    assert "said by somebody else" in capfd.readouterr().out
    print("afterwards")
    assert "afterwards" in capfd.readouterr().out
