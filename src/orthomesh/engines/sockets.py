"""What the operating system says of this process's TCP connections: bytes sent and received, counted by the kernel."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

_ESTABLISHED = 1
_ACKED, _RECEIVED = 120, 128
"""Offsets in Linux's `struct tcp_info` of what the other end has acknowledged, and of what arrived here."""


class Carried(NamedTuple):
    """Bytes of TCP payload, TLS records included; headers of TCP and IP not."""

    sent: int
    received: int


def carried() -> dict[tuple[str, str], Carried]:
    """Counters of all open TCP connections of this process, by (own address, other address), as `host:port`.

    Returns:
        Empty where the system does not tell (anything but Linux).
    """
    found: dict[tuple[str, str], Carried] = {}
    folder = "/proc/self/fd"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with suppress(OSError, struct.error):  # closed meanwhile, or not a TCP socket
            if os.readlink(f"{folder}/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as one:
                    if one.type == socket.SOCK_STREAM and one.family in (socket.AF_INET, socket.AF_INET6):
                        found |= _read(one)
    return found


def _read(one: socket.socket) -> dict[tuple[str, str], Carried]:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if info[0] != _ESTABLISHED:
        return {}
    (acked,), (received,) = struct.unpack_from("<Q", info, _ACKED), struct.unpack_from("<Q", info, _RECEIVED)
    ends = (one.getsockname(), one.getpeername())
    here, there = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port, *_ in ends)
    return {(here, there): Carried(max(0, acked - 1), received)}  # the one who dialled counts its SYN as acknowledged
