"""The files of all devices of a run, made in one place and copied out: settings, addresses, keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from .config import parse
from .engines.keys import AUTHORITY, check_name, make_authority, make_device
from .node import Node, node_file, read_node
from .presets import build, plain


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What all devices of a run are to have.

    preset, config, overrides: settings as in `presets.build`; the number of devices is that of the names. run: its
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
    x = build(wishes.preset, wishes.config, [*wishes.overrides, f"devices={len(hosts)}"])
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
    if wishes.encrypted:
        yield f"{authority / AUTHORITY}.key makes devices of this run: it stays here, keep it to yourself"


def _parsed(device: str, port: int) -> tuple[str, str]:
    name, equals, host = device.partition("=")
    if not equals or not host:
        raise ValueError(f"{device}: write a device as NAME=HOST or NAME=HOST:PORT, e.g. pi-1=192.168.1.11")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # IPv6
    return check_name(name), host if ":" in host and not host.endswith("]") else f"{host}:{port}"
