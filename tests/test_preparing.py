"""The folders of a run's devices hold what each needs and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orthomesh.engines.keys import check, credentials
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.node import read_node
from orthomesh.preparing import Wishes, prepare
from orthomesh.presets import build, plain


def prepared(directory: Path, devices: list[str], **changes: Any) -> list[str]:
    return list(prepare(directory, devices, Wishes(**{"preset": "smoke", "run": "r", "air": "real", **changes})))


def test_each_gets_its_own_key_and_nobody_the_authoritys(tmp_path: Path) -> None:
    said = prepared(tmp_path, ["pi=192.168.1.5", "six=[fe80::1]", "lap=box.local:9"])
    assert said[3] == "orthomesh, paper: devices find their clusters by talking to each other (clustering: agnes)"
    assert len(said) == 5
    assert sorted(p.name for p in (tmp_path / "six").iterdir()) == ["ca.crt", "node.yaml", "six.crt", "six.key"]
    assert sorted(p.name for p in (tmp_path / "authority").glob("*.key")) == ["ca.key"]
    node, x = read_node(tmp_path / "six" / "node.yaml")
    assert node.listen == "[fe80::1]:7447"
    assert node.addresses == {"pi": "192.168.1.5:7447", "lap": "box.local:9"}
    assert x.setup().num_devices == 3
    assert node.air == "real"
    assert check(credentials(tmp_path / "six", "six"), "six") == []


def test_all_files_but_the_devices_own_lines_agree(tmp_path: Path) -> None:
    prepared(tmp_path, ["a=127.0.0.1:1", "b=127.0.0.1:2"], encrypted=False)
    a, b = ((tmp_path / name / "node.yaml").read_text().splitlines() for name in "ab")
    assert [(x, y) for x, y in zip(a, b, strict=True) if x != y] == [
        ("name: a", "name: b"),
        ("listen: 127.0.0.1:1", "listen: 127.0.0.1:2"),
        ("  b: 127.0.0.1:2", "  a: 127.0.0.1:1"),
    ]


def test_clusters_are_talked_about_unless_one_wishes_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: {paper: null, orthomesh: {clustering: best-fit}}")
    wished = {"default": {}, "set": {"overrides": ("methods.orthomesh.clustering=exact",)}, "file": {"config": file}}
    found = {}
    for name, changes in wished.items():
        prepared(tmp_path / name, ["a=127.0.0.1"], encrypted=False, **changes)
        _, x = read_node(tmp_path / name / "a" / "node.yaml")
        found[name] = {k: m.clustering for k, m in x.methods.items() if isinstance(m, SparseOrthogonal)}
        rest = {k: m for k, m in plain(build("smoke", file if name == "file" else None, ()))["methods"].items()}
        assert {k: {**m, **({"clustering": found[name][k]} if k in found[name] else {})} for k, m in rest.items()} == (
            plain(x)["methods"]
        )
    assert found == {
        "default": {"orthomesh": "agnes", "paper": "agnes"},
        "set": {"orthomesh": "exact", "paper": "agnes"},
        "file": {"orthomesh": "best-fit"},
    }


@pytest.mark.parametrize(
    ("devices", "changes", "said"),
    [
        (["a"], {}, "write a device as NAME=HOST"),
        (["a=1.1.1.1", "a=1.1.1.2"], {}, "two devices have one name"),
        (["a b=1.1.1.1"], {}, "is no name for a device"),
        (["a=192.168.1.1", "b=127.0.0.1"], {"encrypted": False}, "beyond loopback devices need keys"),
        (["a=127.0.0.1", "b=127.0.0.1:99999"], {}, "is no address"),
        (["a=127.0.0.1"], {"air": "thin"}, "air: input should be 'simulated' or 'real'"),
        (["a=127.0.0.1"], {"overrides": ("train.step=1",)}, "Did you mean 'steps'"),
    ],
)
def test_mistakes(devices: list[str], changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        prepared(tmp_path, devices, **changes)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    prepared(tmp_path, ["a=127.0.0.1"])
    with pytest.raises(ValueError, match="is there already"):
        prepared(tmp_path, ["a=127.0.0.1"])
