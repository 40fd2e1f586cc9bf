"""The file a device is started with: what is wrong with it is said before anybody waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orthomesh.node import book, common, digest_of, node_file, read_node


def changed(file: Path, **changes: Any) -> Path:
    values = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_file_is_what_it_was_written_from(peer_files: Callable[..., list[Path]]) -> None:
    for k, file in enumerate(peer_files(3)):
        node, x = read_node(file)
        contacts, notes = book(node, file)
        assert notes == []
        assert (contacts.me, contacts.names) == (k, ("a", "b", "c"))
        assert contacts.addresses.keys() == {0, 1, 2} - {k}
        assert contacts.credentials is not None
        assert x.setup().num_devices == 3
        file.write_text(node_file(node))
        assert read_node(file) == (node, x)


def test_where_things_lie_may_differ_and_nothing_else(peer_files: Callable[..., list[Path]]) -> None:
    node, x = read_node(peer_files(2)[0])
    same = digest_of(common(node, x))
    elsewhere = replace(x, workers=3, model=replace(x.model, source="x/y"), tasks=replace(x.tasks, data="d"))
    assert digest_of(common(replace(node, name="b", out="o"), elsewhere)) == same
    others = [
        common(node, replace(x, seed=1)),
        common(node, replace(x, train=replace(x.train, steps=9))),
        common(node, replace(x, model=replace(x.model, layers=("q_proj",)))),
        common(replace(node, air="real"), x),
        common(replace(node, devices=("b", "a")), x),
    ]
    assert len({same, *map(digest_of, others)}) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "z"}, "name: 'z' is not among the devices"),
        ({"devices": ["a", "a"]}, "two devices are called 'a'"),
        ({"devices": ["a", "b/c"]}, "is no name for a device"),
        ({"addresses": {"b": "127.0.0.1:1", "zed": "127.0.0.1:2"}}, "addresses: there is no device 'zed'"),
        ({"addresses": {}}, "addresses: no address for b"),
        ({"addresses": {"b": "127.0.0.1:7447"}, "listen": "127.0.0.1:7447"}, "127.0.0.1:7447 stands for two devices"),
        ({"listen": "127.0.0.1"}, "listen: '127.0.0.1' is no address"),
        ({"listen": "127.0.0.1:70000"}, "is no address"),
        ({"keys": None, "addresses": {"b": "192.168.1.2:7447"}}, "beyond loopback devices need keys"),
        ({"keys": None, "listen": "0.0.0.0:7447"}, "beyond loopback devices need keys"),
        ({"experiment": {"seed": -1}}, r"experiment.seed: input should be greater than or equal to 0"),
        ({"patience": {"factor": 0}}, "patience.factor"),
        ({"listn": "x"}, "listn: there is no such setting. Did you mean 'listen'?"),
        ({"experiment": {"devices": 3}}, "the experiment is of 3 devices, but 2 are named"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str, peer_files: Callable[..., list[Path]]) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        read_node(changed(peer_files(2)[0], **changes))


def test_without_encryption_on_loopback_a_user_is_told(peer_files: Callable[..., list[Path]]) -> None:
    file = peer_files(2, encrypted=False)[0]
    contacts, notes = book(read_node(file)[0], file)
    assert contacts.credentials is None
    assert notes == ["connections are not encrypted: this is for loopback only"]


def test_keys_of_somebody_else(peer_files: Callable[..., list[Path]]) -> None:
    a, b = peer_files(2)
    (b.parent / "b.crt").rename(a.parent / "a.crt")
    with pytest.raises(ValueError, match="is the certificate of 'b', this device is 'a'"):
        book(read_node(a)[0], a)
