"""`orthomesh status`: the running peers of a run, asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .speech import sentences


def status(
    file: Annotated[Path, typer.Argument(metavar="NODE.yaml", help="Of any device of the run; its keys are used.")],
    wait: Annotated[float, typer.Option(min=0.25, help="Seconds to wait for an answer.")] = 3.0,
) -> None:
    """Ask all devices of a run who is alive, in which cluster, at which round and with which loss."""
    from ..node import book, read_node
    from ..watching import ask_all, in_words

    with sentences():
        node, _ = read_node(file)
        contacts, _ = book(node, file)
        own = node.listen.replace("0.0.0.0:", "127.0.0.1:")
        everybody = replace(contacts, addresses={**contacts.addresses, contacts.me: own})
        told = ask_all(everybody, wait)
        for k, name in enumerate(node.devices):
            print(in_words(name, told[k]))
        print(f"{sum(t is not None for t in told.values())} of {len(told)} devices answer")
