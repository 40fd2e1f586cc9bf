"""Status, page and metrics of a running device."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from orthomesh.watching import in_words, metrics, page, read_status, served

TOLD: dict[str, Any] = {
    "name": "pi-1", "device": 0, "run": 'r"<1>', "label": "ours", "round": 2, "rounds": 5, "doing": "training",
    "loss": 1.5, "cluster": [0, 2], "missing": [1], "started": 0.0, "connected": [2], "refused": {"1/stale": 3},
    "sent_bytes": {"2": 900}, "rates_bps": {"2": 8e6}, "memory_bytes": 5,
}  # fmt: skip


def test_a_line_says_what_one_wants_to_know() -> None:
    assert in_words("pi-1", TOLD) == (
        "pi-1: training, ours round 2 of 5, loss 1.500, cluster 0+2, connected to 1, missed 1, refused 3 messages"
    )
    assert in_words("pi-1", {**TOLD, "label": "", "loss": None, "cluster": [], "missing": [], "refused": {}}) == (
        "pi-1: training, connected to 1"
    )


def test_metrics_are_in_the_format_of_prometheus() -> None:
    lines = metrics(TOLD).splitlines()
    assert 'orthomesh_up{device="pi-1",run="r<1>"} 1' in lines  # a quote cannot end a label
    assert "orthomesh_loss 1.5" in lines
    assert 'orthomesh_sent_bytes_total{to="2"} 900' in lines
    assert 'orthomesh_refused_total{source="1",why="stale"} 3' in lines
    label = r'[a-z]+="[^"\\\n]*"'
    sample = re.compile(rf"orthomesh_[a-z_]+({{{label}(,{label})*}})? -?[0-9.e+-]+")  # the grammar of format 0.0.4
    for line in lines:
        assert line.startswith(("# HELP orthomesh_", "# TYPE orthomesh_")) or sample.fullmatch(line), line
    assert "orthomesh_loss " not in metrics({**TOLD, "loss": None}).replace("# HELP orthomesh_loss ", "").replace(
        "# TYPE orthomesh_loss ", ""
    )


def test_the_page_shows_text_as_text() -> None:
    assert "&lt;1&gt;" in page(TOLD)
    assert "<1>" not in page(TOLD)


def test_it_is_served_on_one_address_only_meanwhile(free_ports: Callable[[int], list[int]]) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with served(address, lambda: TOLD):
        assert "orthomesh_round" in urllib.request.urlopen(f"http://{address}/metrics").read().decode()
        assert "pi-1" in urllib.request.urlopen(f"http://{address}/").read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"http://{address}/etc/passwd")
        caught.value.close()
        with pytest.raises(ValueError, match="page: cannot serve at"), served(address, lambda: TOLD):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/")
    with served(None, lambda: TOLD):
        pass


def test_answers_that_are_none() -> None:
    assert read_status(b"{") is None
    assert read_status(b"[1]") is None
    assert read_status(b"{" + b" " * (1 << 17)) is None
    assert read_status(b'{"a": 1}') == {"a": 1}
