"""How one watches running peers: a status page with Prometheus metrics, and a question to all devices of a run."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .engines.links import ROOT, Book, open_session

MAX_STATUS = 1 << 16
"""Bytes of an answer that are read."""


def ask_all(book: Book, timeout_s: float = 3.0) -> dict[int, dict[str, Any] | None]:
    """The status of every device of a run, as the devices themselves tell it.

    Args:
        book: with the addresses of all devices, the one asked from included.
        timeout_s: how long to wait for each.

    Returns:
        By id; none for a device that does not answer.
    """
    session = open_session(book, listens=False)
    found: dict[int, dict[str, Any] | None] = {}
    try:
        left = set(range(len(book.names)))
        for _ in range(max(1, int(timeout_s / 0.25))):
            for k in sorted(left):
                replies = list(session.get(f"{ROOT}/{k}/status", timeout=timeout_s))
                read = [read_status(bytes(r.ok.payload)) for r in replies if r.ok is not None]
                if read:
                    found[k] = read[0]
                    left.discard(k)
            if not left:
                break
            threading.Event().wait(0.25)  # connections take a moment
    finally:
        session.close()
    return {k: found.get(k) for k in range(len(book.names))}


def read_status(data: bytes) -> dict[str, Any] | None:
    """A status from bytes; none where it is none."""
    try:
        told = json.loads(data) if len(data) <= MAX_STATUS else None
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def in_words(name: str, told: Mapping[str, Any] | None) -> str:
    """One device's status as a line.

    >>> in_words("pi-1", None)
    'pi-1: does not answer'
    """
    if told is None:
        return f"{name}: does not answer"
    words = [f"{name}: {told.get('doing')}"]
    if told.get("label"):
        words.append(f"{told['label']} round {told.get('round')} of {told.get('rounds')}")
    if isinstance(told.get("loss"), int | float):
        words.append(f"loss {told['loss']:.3f}")
    if told.get("cluster"):
        words.append("cluster " + "+".join(str(k) for k in told["cluster"]))
    words.append(f"connected to {len(told.get('connected', ()))}")
    if told.get("missing"):
        words.append("missed " + ", ".join(str(k) for k in told["missing"]))
    if told.get("refused"):
        words.append(f"refused {sum(told['refused'].values())} messages")
    return ", ".join(words)


def metrics(told: Mapping[str, Any]) -> str:
    """A status in the text format of Prometheus."""
    lines: list[str] = []

    def put(name: str, kind: str, what: str, values: Mapping[str, Any]) -> None:
        lines.extend([f"# HELP orthomesh_{name} {what}", f"# TYPE orthomesh_{name} {kind}"])
        lines.extend(f"orthomesh_{name}{labels} {value}" for labels, value in values.items())

    put("up", "gauge", "1 while the device runs.", {_labels(device=told["name"], run=told["run"]): 1})
    put("round", "gauge", "Round of the current method.", {_labels(method=told["label"]): told["round"]})
    put(
        "loss",
        "gauge",
        "Training loss at the end of the last round.",
        {} if told["loss"] is None else {"": told["loss"]},
    )
    put("connected", "gauge", "Devices that are connected.", {"": len(told["connected"])})
    put("missing", "gauge", "Devices the last round closed without.", {"": len(told["missing"])})
    memory = {} if told["memory_bytes"] is None else {"": told["memory_bytes"]}
    put("memory_bytes", "gauge", "Memory of the process.", memory)
    sent = {_labels(to=k): n for k, n in told["sent_bytes"].items()}
    put("sent_bytes_total", "counter", "Bytes framed for a device.", sent)
    rates = {_labels(to=k): n for k, n in told["rates_bps"].items()}
    put("link_rate_bps", "gauge", "Measured rate of a link, bit/s.", rates)
    refused = {
        _labels(**dict(zip(("source", "why"), k.split("/"), strict=True))): n for k, n in told["refused"].items()
    }
    put("refused_total", "counter", "Messages that were refused.", refused)
    return "\n".join(lines) + "\n"


def _labels(**labels: object) -> str:
    quoted = (f'{k}="{str(v).translate({34: None, 92: None, 10: None})}"' for k, v in labels.items())
    return "{" + ",".join(quoted) + "}"


def page(told: Mapping[str, Any]) -> str:
    """A status as a small page that loads itself again every five seconds."""
    rows = "".join(f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in told.items())
    title = html.escape(f"{told['name']} of {told['run']}")
    style = "body{font:15px sans-serif;margin:2em}th{text-align:left;padding-right:2em;font-weight:600}"
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>{title}</title>'
        f"<style>{style}</style><h1>{title}</h1><table>{rows}</table><p><a href='/metrics'>metrics</a></p>"
    )


@contextmanager
def served(address: str | None, tell: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Serve `/` and `/metrics` on `host:port` meanwhile; nothing where there is no address.

    Raises:
        ValueError: the address is in use, or is none of this machine.
    """
    if address is None:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        """Answers with what `tell` says at the moment."""

        timeout = 10

        def do_GET(self) -> None:
            kind, text = {
                "/": ("text/html", page), "/metrics": ("text/plain; version=0.0.4", metrics),
            }.get(self.path, ("text/plain", None))  # fmt: skip
            body = text(tell()).encode() if text else b"there is / and /metrics\n"
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing on the terminal."""

    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        raise ValueError(f"page: cannot serve at {address}: {error.strerror}") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
