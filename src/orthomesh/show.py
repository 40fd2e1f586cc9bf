"""What a user sees while a run goes on: a live display on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .evaluation.wording import size
from .experiment import BASE, Experiment, Progress
from .types import RoundInfo


def words(seconds: float) -> str:
    """A duration as people say it.

    >>> words(75.2), words(3.1), words(7260)
    ('1 min 15 s', '3 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def clusters_in_words(info: RoundInfo) -> str:
    """Who is with whom, e.g. `0+1+4 | 2+3`; empty where the method has no clusters."""
    return " | ".join("+".join(str(k) for k in members) for members in info.plan.clusters)


def line(event: Progress, rounds: int) -> str:
    """One event as one line of text."""
    if event.final:
        return f"{event.label}: answers {_percent(event.accuracy)} of all test prompts rightly"
    if event.info is None:
        return f"{event.label}: {'starts' if event.round == 0 else f'goes on after round {event.round}'}"
    info = event.info
    loss = sum(info.learnt[k].last_loss for k in info.learnt) / len(info.learnt)
    sent = sum(s.total_bytes for s in info.cost.by_device.values()) / len(info.learnt)
    lost = sum(not link.arrived for link in info.links)
    parts = [f"{event.label}: round {event.round} of {rounds}", f"loss {loss:.3f}", f"{size(sent)} a device"]
    parts += [f"{lost} of {len(info.links)} transfers lost"] if lost else []
    parts += [f"clusters {clusters_in_words(info)}"] if info.plan.clusters else []
    parts += [f"{_percent(event.accuracy)} right so far"] if event.accuracy else []
    return ", ".join(parts)


def _percent(accuracy: Mapping[str, float] | None) -> str:
    return f"{100 * sum(accuracy.values()) / len(accuracy):.1f} %" if accuracy else "-"


def follow(events: Iterable[Progress], x: Experiment, console: Console, quiet: bool) -> None:
    """Show a run until it ends: live on a terminal, as lines in a file or pipe, not at all when quiet."""
    if quiet:
        for _ in events:
            pass
    elif console.is_terminal:
        _follow_live(events, x, console)
    else:
        started = time.monotonic()
        for event in events:
            console.print(
                f"[{time.monotonic() - started:7.1f} s] {line(event, x.rounds)}", markup=False, soft_wrap=True
            )


@dataclass
class _Board:
    """State of the live display."""

    x: Experiment
    devices: int
    started: float = field(default_factory=time.monotonic)
    share: float = 0.0
    rows: dict[str, Progress] = field(default_factory=dict)
    latest: Progress | None = None

    def put(self, event: Progress) -> None:
        self.share = event.share
        known = self.rows.get(event.label)
        if event.info is None and event.accuracy is None and known is not None:
            return
        self.rows[event.label] = event
        if event.info is not None:
            self.latest = event

    def __rich__(self) -> Group:
        spent = time.monotonic() - self.started
        left = spent / self.share * (1 - self.share) if self.share > 0 else 0
        head = Text(f"{self.x.name}: {self.devices} devices, {self.x.rounds} rounds", style="bold")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=1.0, completed=self.share, width=40), f"{words(spent)} gone, about {words(left)} left"
        )
        return Group(head, bar, self._methods(), *self._round())

    def _methods(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("method", "round", "loss", "sent a device", "right"):
            table.add_column(name, justify="left" if name == "method" else "right")
        for label in (BASE, *self.x.methods):
            event = self.rows.get(label)
            info = event.info if event else None
            loss = f"{sum(i.last_loss for i in info.learnt.values()) / len(info.learnt):.3f}" if info else ""
            sent = size(sum(s.total_bytes for s in info.cost.by_device.values()) / len(info.learnt)) if info else ""
            done = f"{event.round}/{self.x.rounds}" if event and label != BASE else ""
            style = "green" if event and event.final else "bold" if event else "dim"
            table.add_row(Text(label, style=style), done, loss, sent, _percent(event.accuracy) if event else "")
        return table

    def _round(self) -> Iterator[Text]:
        if self.latest is None or self.latest.info is None:
            return
        info = self.latest.info
        if info.plan.clusters:
            yield Text(f"clusters of {self.latest.label}: {clusters_in_words(info)}", style="cyan")
        losses = "  ".join(f"{k}:{info.learnt[k].last_loss:.2f}" for k in sorted(info.learnt)[:12])
        yield Text(f"loss by device: {losses}", style="dim")


def _follow_live(events: Iterable[Progress], x: Experiment, console: Console) -> None:
    board = _Board(x, x.setup().num_devices)
    with Live(board, console=console, refresh_per_second=4):
        for event in events:
            board.put(event)
