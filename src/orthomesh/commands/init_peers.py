"""`orthomesh init-peers`: the files of all devices of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .speech import sentences


# A command's parameters are the options a user sees, so there are more of them than a function may have elsewhere.
def init_peers(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go; made if it is not there.")],
    devices: Annotated[
        list[str],
        typer.Argument(metavar="NAME=HOST[:PORT]...", help="Devices in order; the first gets the first task."),
    ],
    preset: Annotated[str, typer.Option(help="Settings to start from: default, smoke or paper.")] = "default",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file laid over the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting; repeat for more.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; default: the preset's and the date.")] = None,
    air: Annotated[
        str, typer.Option(help="simulated: the settings' channel decides what arrives; real: the links.")
    ] = ("simulated"),
    port: Annotated[int, typer.Option(help="Where a device gives none.")] = 7447,
    plain: Annotated[bool, typer.Option("--plain", help="No encryption; on loopback only.")] = False,
    discovery: Annotated[bool, typer.Option("--discovery", help="Also find devices by multicast.")] = False,
) -> None:
    """Write one folder a device: node.yaml and, unless --plain, its keys. Copy each to its device, nothing else.

    With --plain everything stays on this machine. The private authority stays in DIR/authority.
    """
    from ..preparing import Wishes, prepare

    with sentences():
        wishes = Wishes(
            preset=preset, config=config, overrides=tuple(set_ or ()), run=run, air=air, port=port,
            encrypted=not plain, discovery=discovery,
        )  # fmt: skip
        for sentence in prepare(directory, devices, wishes):
            print(sentence)
