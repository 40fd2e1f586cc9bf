"""The files of all devices of a run, made in one place and copied out: settings, addresses, keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from .config import parse
from .engines.keys import AUTHORITY, check_name, make_authority, make_device
from .experiment import Experiment
from .methods.sparse_orthogonal import SparseOrthogonal
from .node import Node, node_file, read_node
from .presets import build, from_plain, overlaid, plain

TALKED = "agnes"
"""The clustering that devices find among themselves (docs/protocol.md); the others they plan from agreed facts."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What all devices of a run are to have.

    preset, config, overrides: settings as in `presets.build`, but that the preset's clusters are found by the protocol
    without a server; the number of devices is that of the names. run: its
    name; none: the settings' and the date. air, discovery: as in `Node`. port: where a device gives none. encrypted:
    false for loopback only.
    """

    preset: str = "default"
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    run: str | None = None
    air: str = "simulated"
    port: int = 7447
    encrypted: bool = True
    discovery: bool = False


def prepare(directory: Path, devices: Sequence[str], wishes: Wishes) -> Iterator[str]:
    """Write `DIR/NAME/node.yaml` for every device, with its keys beside it.

    Args:
        directory: gets a folder a device, and `authority` with the private CA.
        devices: NAME=HOST or NAME=HOST:PORT, in order of id.
        wishes: what all are to have.

    Yields:
        Sentences on what was written.

    Raises:
        ValueError: names twice, addresses that are none, settings that do not fit, files that are there.
    """
    hosts = dict(_parsed(device, wishes.port) for device in devices)
    if len(hosts) < len(devices):
        raise ValueError("two devices have one name; give each its own")
    x = _settings(wishes, len(hosts))
    name = wishes.run or f"{x.name}-{datetime.now():%Y%m%d-%H%M%S}"
    authority = directory / "authority"
    if wishes.encrypted:
        make_authority(authority)
    for k, (device, address) in enumerate(hosts.items()):
        folder = directory / device
        if (folder / "node.yaml").exists():
            raise ValueError(f"{folder / 'node.yaml'} is there already; choose another directory")
        folder.mkdir(parents=True, exist_ok=True)
        if wishes.encrypted:
            files = make_device(authority, device, [address.rpartition(":")[0].strip("[]"), "127.0.0.1"], renew=True)
            for file in (files.authority, files.certificate, files.key):
                shutil.copy(file, folder / file.name)
            files.key.unlink()
        values = {
            "run": name, "name": device, "devices": list(hosts), "listen": address, "discovery": wishes.discovery,
            "addresses": {other: a for other, a in hosts.items() if other != device},
            "keys": "." if wishes.encrypted else None, "air": wishes.air, "experiment": plain(replace(x, workers=1)),
        }  # fmt: skip
        file = folder / "node.yaml"
        file.write_text(node_file(parse(Node, values, str(file))), encoding="utf-8")
        read_node(file)
        yield f"{folder}: device {k}, {device} at {address}, learns {x.setup().assignment[k]}"
    if talking := [
        label for label, m in x.methods.items() if isinstance(m, SparseOrthogonal) and m.clustering == TALKED
    ]:
        yield f"{', '.join(talking)}: devices find their clusters by talking to each other (clustering: {TALKED})"
    if wishes.encrypted:
        yield f"{authority / AUTHORITY}.key makes devices of this run: it stays here, keep it to yourself"


def _settings(wishes: Wishes, count: int) -> Experiment:
    """The preset's, but that clusters are found by the protocol without a server; then whatever was wished for."""
    values = plain(build(wishes.preset, None, ()))
    for method in values["methods"].values():
        if method["kind"] == "sparse_orthogonal":
            method["clustering"] = TALKED
    overrides = [*wishes.overrides, f"devices={count}"]
    return from_plain(*overlaid(values, wishes.preset, wishes.config, overrides))


def _parsed(device: str, port: int) -> tuple[str, str]:
    name, equals, host = device.partition("=")
    if not equals or not host:
        raise ValueError(f"{device}: write a device as NAME=HOST or NAME=HOST:PORT, e.g. pi-1=192.168.1.11")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # IPv6
    return check_name(name), host if ":" in host and not host.endswith("]") else f"{host}:{port}"
