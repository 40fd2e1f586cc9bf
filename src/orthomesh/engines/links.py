"""A device's encrypted connections to its neighbours: a zenoh session without router, multicast or shared memory.

Everything travels as a query with a payload, whose reply is the acknowledgement: publications are dropped without a
word where a link is slow. Key expressions are `om/RECEIVER/SENDER` with ids, and access control lets a certificate
write only under its own id. The device of the higher id dials, so that two devices have one connection.
"""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .keys import Credentials
from .sockets import Carried, carried
from .wire import HEAD_BYTES

ROOT = "om"
LEASE_MS, SIGNS = 20_000, 2
"""After so long without a sign of life a connection is given up; and how many signs come in that time."""


@dataclass(frozen=True, kw_only=True)
class Book:
    """Whom a device talks to. names: of all devices, by id. addresses: `host:port` of neighbours, by id.

    listen: own `host:port`. credentials: for mutual TLS; none: plain TCP. discovery: neighbours without an address are
    looked for by multicast. max_body: longest message body that is taken, bytes.
    """

    me: int
    names: tuple[str, ...]
    listen: str
    addresses: Mapping[int, str]
    credentials: Credentials | None
    discovery: bool
    max_body: int


def is_loopback(address: str) -> bool:
    """Whether a `host:port` never leaves the machine.

    >>> is_loopback("127.0.0.2:7447"), is_loopback("[::1]:7447"), is_loopback("192.168.1.4:7447")
    (True, True, False)
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def session_settings(book: Book, listens: bool = True) -> dict[str, Any]:
    """zenoh's configuration for a book, by its key.

    Args:
        book: who talks to whom.
        listens: false for one who only asks, who dials everybody.
    """
    scheme = "tls" if book.credentials else "tcp"
    dialled = [a for k, a in sorted(book.addresses.items()) if k < book.me or not listens]
    settings: dict[str, Any] = {
        "mode": "peer",
        "listen/endpoints": [f"{scheme}/{book.listen}"] if listens else [],
        "connect/endpoints": [f"{scheme}/{address}" for address in dialled],
        "connect/timeout_ms": -1,
        "connect/exit_on_failure": False,
        "connect/retry": {"period_init_ms": 200, "period_max_ms": 1000, "period_increase_factor": 2},
        "open/return_conditions/connect_scouted": False,
        "scouting/multicast/enabled": book.discovery,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/link/tx/lease": LEASE_MS,
        "transport/link/tx/keep_alive": SIGNS,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": 30_000_000,
        "transport/link/rx/max_message_size": book.max_body + (1 << 16),
        "low_pass_filter": [
            {"id": "size", "flows": ["ingress"], "messages": ["query", "reply", "put"],
             "key_exprs": ["**"], "size_limit": book.max_body + HEAD_BYTES},
        ],
    }  # fmt: skip
    if book.credentials:
        files = book.credentials
        tls = {
            "root_ca_certificate": files.authority, "enable_mtls": True, "verify_name_on_connect": True,
            "listen_certificate": files.certificate, "listen_private_key": files.key,
            "connect_certificate": files.certificate, "connect_private_key": files.key,
        }  # fmt: skip
        settings |= {f"transport/link/tls/{k}": v if isinstance(v, bool) else str(v) for k, v in tls.items()}
        settings["access_control"] = access(book)
    return settings


def access(book: Book) -> dict[str, Any]:
    """Access control: what a certificate's name may do here. Everything else is refused."""
    rules, policies = [], []
    subjects: list[dict[str, Any]] = [{"id": "member", "cert_common_names": list(book.names)}]

    def rule(name: str, flow: str, messages: list[str], keys: list[str]) -> str:
        rules.append({"id": name, "permission": "allow", "flows": [flow], "messages": messages, "key_exprs": keys})
        return name

    for k, name in enumerate(book.names):
        subjects.append({"id": f"only-{k}", "cert_common_names": [name]})
        own = [
            rule(f"write-{k}", "ingress", ["query"], [f"{ROOT}/{book.me}/{k}"]),
            rule(f"answer-{k}", "ingress", ["declare_queryable", "reply"], [f"{ROOT}/{k}/**"]),
            rule(f"alive-{k}", "ingress", ["liveliness_token"], [f"{ROOT}/alive/{k}/*"]),
        ]
        policies.append({"rules": own, "subjects": [f"only-{k}"]})
    kinds = ["query", "reply", "declare_queryable", "liveliness_token"]
    look = ["liveliness_query", "declare_liveliness_subscriber"]
    everybody = [
        rule("out", "egress", [*kinds, *look], [f"{ROOT}/**"]),
        rule("look", "ingress", look, [f"{ROOT}/alive/**"]),
        rule("status", "ingress", ["query"], [f"{ROOT}/{book.me}/status"]),
    ]
    policies.append({"rules": everybody, "subjects": ["member"]})
    return {
        "enabled": True, "default_permission": "deny", "rules": rules, "subjects": subjects, "policies": policies,
    }  # fmt: skip


def open_session(book: Book, listens: bool = True) -> Any:
    """A zenoh session for a book.

    Raises:
        ValueError: the address to listen on is in use, is none of this machine, or a key cannot be used.
    """
    import zenoh

    config = zenoh.Config()
    for key, value in session_settings(book, listens).items():
        config.insert_json5(key, json.dumps(value))
    try:
        return zenoh.open(config)
    except zenoh.ZError as error:
        said = str(error)
        if "Address already in use" in said:
            sentence = f"{book.listen} is in use; another peer may be running here, or give `listen` another port"
        elif "Cannot assign requested address" in said:
            sentence = f"{book.listen} is no address of this machine; `listen` needs one that is, or 0.0.0.0"
        else:
            sentence = f"cannot listen on {book.listen}: {said}"
        raise ValueError(sentence) from None


class Links:
    """What a device sends and hears; `receive` and `tell` are called on threads of their own.

    receive(src, data): a message, returns the reply. tell(): the status as bytes. changed(): somebody came or went.
    """

    def __init__(
        self,
        book: Book,
        life: int,
        receive: Callable[[int, bytes], bytes],
        tell: Callable[[], bytes],
        changed: Callable[[], None],
    ) -> None:
        self.book, self._receive, self._tell, self._changed = book, receive, tell, changed
        self._lock = threading.Lock()
        self._lives: dict[int, set[int]] = {}
        self._device: dict[str, int] = {}
        self._counted: dict[tuple[str, str], tuple[int, Carried]] = {}
        self.session = open_session(book)
        me, live = book.me, self.session.liveliness()
        senders = [k for k in range(len(book.names)) if k != me]
        self._kept = [self.session.declare_queryable(f"{ROOT}/{me}/{k}", self._hear) for k in senders]
        self._kept += [
            self.session.declare_queryable(f"{ROOT}/{me}/status", self._answer),
            live.declare_subscriber(f"{ROOT}/alive/*/*", self._sign, history=True),
            live.declare_token(f"{ROOT}/alive/{me}/{life}"),
        ]

    @property
    def zid(self) -> str:
        """Of this session, by which others tell its connections apart."""
        return str(self.session.info.zid())

    def knows(self, zid: str, device: int) -> None:
        """Note whose session it is."""
        with self._lock:
            self._device[zid] = device

    def push(self, dst: int, data: bytes, timeout_s: float) -> bytes | None:
        """Send a message and wait for its acknowledgement; none where it did not come in time or nobody is there."""
        import zenoh

        replies = self.session.get(
            f"{ROOT}/{dst}/{self.book.me}", payload=data, timeout=max(0.05, timeout_s),
            congestion_control=zenoh.CongestionControl.BLOCK, consolidation=zenoh.ConsolidationMode.NONE,
        )  # fmt: skip
        found = [bytes(reply.ok.payload) for reply in replies if reply.ok is not None]
        return found[0] if found else None

    def alive(self) -> dict[int, set[int]]:
        """Lives of the devices whose connection stands."""
        with self._lock:
            return {k: set(lives) for k, lives in self._lives.items() if lives and k != self.book.me}

    def meter(self) -> dict[int, Carried]:
        """Bytes exchanged with every device since the start, as the kernel counts them; -1 for others."""
        ends = {}
        for link in self.session.info.links():
            here, there = (str(end).partition("/")[2].partition("?")[0] for end in (link.src, link.dst))
            named = link.auth_identifier in self.book.names
            known = self.book.names.index(link.auth_identifier) if named else self._device.get(str(link.zid), -1)
            ends[here, there] = known
        now = carried()
        with self._lock:
            self._counted |= {pair: (ends[pair], now[pair]) for pair in ends.keys() & now.keys()}
            total: dict[int, Carried] = {}
            for device, one in self._counted.values():
                before = total.get(device, Carried(0, 0))
                total[device] = Carried(before.sent + one.sent, before.received + one.received)
        return dict(sorted(total.items()))

    def close(self) -> None:
        """End all connections."""
        self.session.close()

    def _hear(self, query: Any) -> None:
        with query, suppress(Exception):  # whatever it was, the session goes on; the sender hears nothing
            src = int(str(query.key_expr).rpartition("/")[2])
            data = bytes(query.payload) if query.payload is not None else b""
            query.reply(query.key_expr, self._receive(src, data))

    def _answer(self, query: Any) -> None:
        with query, suppress(Exception):
            query.reply(query.key_expr, self._tell())

    def _sign(self, sample: Any) -> None:
        import zenoh

        with suppress(ValueError):
            _, _, device, life = str(sample.key_expr).split("/")
            with self._lock:
                lives = self._lives.setdefault(int(device), set())
                (lives.add if sample.kind == zenoh.SampleKind.PUT else lives.discard)(int(life))
            self._changed()
