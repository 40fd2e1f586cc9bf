"""`orthomesh keys`: a private authority and a certificate for every device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .speech import sentences


def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where keys are kept; made if it is not there.")],
    devices: Annotated[
        list[str],
        typer.Argument(metavar="NAME=HOST[,HOST]...", help="Devices, each with the addresses it is dialled by."),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long device certificates are valid.")] = 365,
    renew: Annotated[bool, typer.Option("--renew", help="Replace certificates that are there.")] = False,
) -> None:
    """Make a private certificate authority, and a key and certificate for every device.

    A device needs ca.crt and its own NAME.crt and NAME.key. Keep ca.key to yourself: whoever has it can make devices.
    """
    from ..engines.keys import make_authority, make_device

    with sentences():
        wanted = dict(_named(device) for device in devices)
        if len(wanted) < len(devices):
            raise ValueError("two devices have one name; give each its own")
        if make_authority(directory):
            print(f"{directory / 'ca.crt'}: a new private authority; {directory / 'ca.key'} stays with you")
        for name, hosts in wanted.items():
            files = make_device(directory, name, hosts, days, renew=renew)
            print(f"{files.certificate}, {files.key}: {name} at {', '.join(hosts)}")


def _named(device: str) -> tuple[str, list[str]]:
    name, equals, hosts = device.partition("=")
    found = [host for host in hosts.split(",") if host]
    if not equals or not found:
        raise ValueError(f"{device}: write a device as NAME=HOST, e.g. pi-1=192.168.1.11,pi-1.local")
    return name, found
