"""The kernel's counters are those of the bytes that were sent."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from orthomesh.engines.sockets import carried


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_both_ends_count_what_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            one.sendall(b"x" * 12345)
            other.sendall(b"y" * 7)
            left = 12345
            while left:
                left -= len(other.recv(left))
            one.recv(7)
            time.sleep(0.05)  # acknowledgements
            ends = [f"{host}:{port}" for host, port in (one.getsockname(), one.getpeername())]
            found = carried()
            assert found[ends[0], ends[1]] == (12345, 7)
            assert found[ends[1], ends[0]].received == 12345
            assert found[ends[1], ends[0]].sent in (6, 7)  # the end that was dialled has no SYN to take off
    assert (ends[0], ends[1]) not in carried()
