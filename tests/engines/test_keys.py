"""Certificates: what TLS will accept, and a sentence for what it would refuse without a word."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orthomesh.engines.keys import Credentials, check, check_name, common_name, make_authority, make_device
from orthomesh.engines.keys import read_certificate as read


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_authority(tmp_path)
    return tmp_path


def shake_hands(server: Credentials, dialler: Credentials, host: str) -> str:
    """Python's own TLS between two of our identities; the name the server saw, or the failure."""
    here, there = socket.socketpair()
    seen: list[str] = []

    def serve() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.authority))
        context.load_cert_chain(server.certificate, server.key)
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            with context.wrap_socket(there, server_side=True) as secure:
                subject = dict(item[0] for item in secure.getpeercert()["subject"])  # type: ignore[index,union-attr]
                secure.sendall(subject["commonName"].encode())
        except (ssl.SSLError, OSError) as error:
            seen.append(type(error).__name__)
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    context = ssl.create_default_context(cafile=str(dialler.authority))
    context.load_cert_chain(dialler.certificate, dialler.key)
    try:
        with context.wrap_socket(here, server_hostname=host) as secure:
            return secure.recv(99).decode()
    finally:
        here.close()
        thread.join()


def test_two_devices_shake_hands_and_know_each_other(store: Path) -> None:
    server, dialler = make_device(store, "a", ["127.0.0.1"]), make_device(store, "b", ["127.0.0.1"])
    assert shake_hands(server, dialler, "127.0.0.1") == "b"
    assert shake_hands(server, dialler, "a") == "b"  # its own name is in the certificate too


def test_another_address_and_another_authority_are_refused(store: Path, tmp_path: Path) -> None:
    rogue = tmp_path / "rogue"
    make_authority(rogue)
    server, stranger = make_device(store, "a", ["127.0.0.1"]), make_device(rogue, "b", ["127.0.0.1"])
    with pytest.raises(ssl.SSLError):
        shake_hands(server, server, "127.0.0.2")
    trusting = Credentials(authority=server.authority, certificate=stranger.certificate, key=stranger.key)
    try:
        heard = shake_hands(server, trusting, "127.0.0.1")
    except (ssl.SSLError, ConnectionError):
        heard = ""  # closed with or without a word
    assert heard == ""


def test_keys_are_closed_to_others_and_the_authority_stays(store: Path) -> None:
    files, before = make_device(store, "a", []), (store / "ca.crt").read_bytes()
    assert stat.S_IMODE(files.key.stat().st_mode) == stat.S_IMODE((store / "ca.key").stat().st_mode) == 0o600
    assert not make_authority(store)
    assert (store / "ca.crt").read_bytes() == before
    assert common_name(read(files.certificate)) == "a"
    assert check(files, "a") == []


def test_a_key_that_others_can_read_is_told(store: Path) -> None:
    files = make_device(store, "a", [])
    os.chmod(files.key, 0o644)
    assert [note for note in check(files, "a") if "chmod 600" in note]


def test_validity_is_judged_by_the_clock_with_a_day_of_slack(store: Path) -> None:
    now = datetime.now(UTC)
    files = make_device(store, "a", [], days=30, now=now)
    assert check(files, "a", now - timedelta(hours=1)) == []  # a clock that is behind
    with pytest.raises(ValueError, match=r"a\.crt expired .* orthomesh keys --renew"):
        check(files, "a", now + timedelta(days=31))
    with pytest.raises(ValueError, match=r"is not valid before .* set the clock"):
        check(files, "a", now - timedelta(days=2))
    assert [n for n in check(files, "a", now + timedelta(days=25)) if "renew it soon" in n]


def test_renewing_replaces_and_nothing_else_does(store: Path) -> None:
    before = make_device(store, "a", []).certificate.read_bytes()
    with pytest.raises(ValueError, match="add --renew"):
        make_device(store, "a", [])
    assert make_device(store, "a", [], renew=True).certificate.read_bytes() != before
    assert check(make_device(store, "a", [], renew=True), "a") == []


def test_files_that_do_not_belong_together(store: Path, tmp_path: Path) -> None:
    a, b = make_device(store, "a", []), make_device(store, "b", [])
    with pytest.raises(ValueError, match="is the certificate of 'a', this device is 'b'"):
        check(a, "b")
    with pytest.raises(ValueError, match="does not belong to"):
        check(Credentials(authority=a.authority, certificate=a.certificate, key=b.key), "a")
    make_authority(tmp_path / "other")
    with pytest.raises(ValueError, match="was not issued by"):
        check(Credentials(authority=tmp_path / "other" / "ca.crt", certificate=a.certificate, key=a.key), "a")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        check(Credentials(authority=a.authority, certificate=a.certificate, key=tmp_path / "none.key"), "a")
    shutil.copy(a.key, store / "broken.crt")
    with pytest.raises(ValueError, match="is not a certificate"):
        read(store / "broken.crt")
    (store / "ca.key").unlink()
    with pytest.raises(ValueError, match=r"has ca\.crt but not ca\.key"):
        make_authority(store)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "ca", "ü", "x" * 65, "a*"])
def test_names_that_cannot_be_one(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a device"):
        check_name(name)
