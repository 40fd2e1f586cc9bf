"""`orthomesh peer`: one device of a run without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from .speech import Lasting, sentences


def peer(
    file: Annotated[Path, typer.Argument(metavar="NODE.yaml", help="Of this device, from `orthomesh init-peers`.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Take part in a run as one device: meet the others, train, exchange; ends with the experts of all.

    Started again after whatever ended it, it goes on from its last finished round.
    """
    from .. import peering
    from ..engines.overheard import overheard
    from ..experiment import finish
    from ..node import book, read_node
    from ..presets import plain
    from ..ready import find_apart
    from ..show import line, words
    from ..watching import served

    output, begun = Lasting(), time.monotonic()
    console = Console(highlight=False, file=cast(IO[str], output))
    with sentences():
        node, x = read_node(file)
        directory = file.parent / node.out
        contacts, notes = book(node, file)
        found = find_apart(x, contacts.me)
        notes += found.notes
        engine, status = peering.start(node, x, contacts, directory, found)
        away = overheard(lambda refused: engine.box.turned_away(*refused))
        with away, closing(engine):  # what it says at its end is overheard as well
            peering.begin_directory(directory, plain(x))
            for note in notes if not quiet else ():
                console.print(f"note: {note}", markup=False, soft_wrap=True)
            if not quiet and not console.is_terminal:  # where there is no live line: who is waited for
                others = ", ".join(name for name in node.devices if name != node.name)
                console.print(f"{node.name}: waits for {others}; see: orthomesh status {file}", soft_wrap=True)
                output.flush()
            line_below = Live(_Line(lambda: peering.told(status, engine)), console=console, transient=True)
            shown = line_below if console.is_terminal and not quiet else nullcontext()
            with served(node.page, lambda: peering.told(status, engine)), shown:
                for event in peering.live(x, engine, status, directory, node.air):
                    said = f"note: {event}" if isinstance(event, str) else line(event, x.rounds)
                    if isinstance(event, str):
                        notes.append(event)
                    if not quiet:
                        console.print(f"[{time.monotonic() - begun:7.1f} s] {said}", markup=False, soft_wrap=True)
            counted = peering.traffic(engine)
            (directory / "traffic.json").write_text(json.dumps(counted, indent=1), encoding="utf-8")
        summary = finish(x, directory, notes, time.monotonic() - begun)
        console.print(f"{node.name}: final state sha256 {summary['final_sha256']}", soft_wrap=True)
        if carried := peering.carried_in_words(counted):
            console.print(f"{node.name}: {carried}", soft_wrap=True)
        console.print(f"took {words(summary['wall_s'])}, report: {directory / 'report.html'}", soft_wrap=True)
        output.let_go()


class _Line:
    """The status as one line that is always of now."""

    def __init__(self, tell: Callable[[], Mapping[str, Any]]) -> None:
        self._tell = tell

    def __rich__(self) -> Text:
        from ..watching import in_words

        told = self._tell()
        return Text(in_words(str(told["name"]), told), style="cyan")
