"""The file one device is started with: the run's settings, who takes part and where, how it proves itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from .config import STRICT, near, parse
from .engines.deadlines import Patience
from .engines.keys import check, check_name, credentials
from .engines.links import Book, is_loopback
from .experiment import Experiment
from .presets import from_plain, plain, read_yaml

ELSEWHERE = ("workers", "model.source", "tasks.data")
"""Settings that say where things lie on one device and may differ between devices."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Node:
    """One device of a run."""

    run: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the run; devices of another one are refused."""
    name: str
    """Which of the devices this is; its certificate's common name."""
    devices: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of all devices in order of id."""
    listen: str
    """`host:port` to be reached at; 0.0.0.0 for all addresses of the machine."""
    addresses: Mapping[str, str] = Field(default_factory=dict)
    """`host:port` of the other devices, by name."""
    discovery: bool = False
    """Look for devices without an address by multicast."""
    keys: str | None = None
    """Directory of ca.crt, NAME.crt and NAME.key, from this file's; none: no encryption, on loopback only."""
    out: str = "run"
    """Run directory, from this file's."""
    air: Literal["simulated", "real"] = "simulated"
    """Whether the settings' channel decides what arrives, as in a simulation, or only the real links."""
    patience: Patience = Patience()
    """How long to wait for others."""
    max_message_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    """Longest message that is taken, MB."""
    page: str | None = None
    """`host:port` of a status page with metrics; none: no page."""
    experiment: Mapping[str, Any] = Field(default_factory=dict)
    """All settings of the run, as in a run directory's config.yaml."""


def read_node(file: Path) -> tuple[Node, Experiment]:
    """A device's file, checked.

    Args:
        file: YAML.

    Returns:
        The device, and the run's settings.

    Raises:
        ValueError: whatever is wrong first, with its place: unknown keys, names or addresses twice, addresses of
            nobody, no encryption beyond loopback.
    """
    node, where = parse(Node, read_yaml(file), str(file)), str(file)
    for name in node.devices:
        check_name(name)
    if len(set(node.devices)) < len(node.devices):
        twice = next(n for n in node.devices if node.devices.count(n) > 1)
        raise ValueError(f"{where}.devices: two devices are called {twice!r}; a name is one device's")
    if node.name not in node.devices:
        raise ValueError(f"{where}.name: {node.name!r} is not among the devices.{near(node.name, node.devices)}")
    for name in node.addresses:
        if name not in node.devices:
            raise ValueError(f"{where}.addresses: there is no device {name!r}.{near(name, node.devices)}")
    lacking = set(node.devices) - set(node.addresses) - {node.name}
    if lacking and not node.discovery:
        raise ValueError(f"{where}.addresses: no address for {', '.join(sorted(lacking))}; give it, or discovery: true")
    for place, address in {"listen": node.listen, "page": node.page, **node.addresses}.items():
        _check_address(f"{where}.{place}", address)
    taken = [node.listen, *node.addresses.values()]
    if double := [a for a in dict.fromkeys(taken) if taken.count(a) > 1]:
        raise ValueError(f"{where}.addresses: {double[0]} stands for two devices; each has an address of its own")
    if node.keys is None and (
        node.discovery or not all(is_loopback(a) for a in (node.listen, *node.addresses.values()))
    ):
        raise ValueError(f"{where}.keys: beyond loopback devices need keys; make them with orthomesh keys")
    x = from_plain(node.experiment, f"{where}.experiment")
    if x.setup().num_devices != len(node.devices):
        raise ValueError(
            f"{where}.devices: the experiment is of {x.setup().num_devices} devices, but {len(node.devices)} are named"
        )
    return node, x


def _check_address(where: str, address: str | None) -> None:
    host, colon, port = (address or "h:1").rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{where}: {address!r} is no address; write host:port, e.g. 192.168.1.11:7447")


def book(node: Node, file: Path) -> tuple[Book, list[str]]:
    """Whom a device talks to and with which keys, and what a user should know of the keys.

    Raises:
        ValueError: keys that others would refuse.
    """
    files = credentials(file.parent / node.keys, node.name) if node.keys is not None else None
    notes = check(files, node.name) if files else ["connections are not encrypted: this is for loopback only"]
    made = Book(
        me=node.devices.index(node.name),
        names=node.devices,
        listen=node.listen,
        addresses={node.devices.index(k): v for k, v in node.addresses.items() if k != node.name},
        credentials=files,
        discovery=node.discovery,
        max_body=node.max_message_mb << 20,
    )
    return made, notes


def common(node: Node, x: Experiment) -> dict[str, Any]:
    """What all devices of a run must have alike: the settings without where things lie, the devices, the air."""
    settings = plain(x)
    for place in ELSEWHERE:
        *parents, last = place.split(".")
        inner = settings
        for step in parents:
            inner = inner[step]
        inner.pop(last, None)
    return {**settings, "devices": list(node.devices), "air": node.air}


def digest_of(value: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def node_file(node: Node) -> str:
    """A device's file as YAML."""
    values = {name: getattr(node, name) for name in node.__dataclass_fields__}
    short = {k: v for k, v in values.items() if k not in ("patience",)}
    return yaml.safe_dump(
        {k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in short.items()},
        sort_keys=False,
    )
