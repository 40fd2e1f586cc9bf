"""What is shown while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orthomesh.experiment import Experiment, Progress
from orthomesh.methods.local import Local
from orthomesh.show import clusters_in_words, follow, line, words
from orthomesh.types import Cost, Learnt, Link, Plan, RoundInfo, Spend


def info(clusters: tuple[tuple[int, ...], ...] = ()) -> RoundInfo:
    learnt = {k: Learnt(first_loss=2.0, last_loss=0.5 + k, steps=3, trained=7) for k in (0, 1)}
    spent = {0: Spend(bytes_sent={"values": 1000}), 1: Spend(bytes_sent={"values": 3000})}
    links = (Link("intra", 0, 1, True), Link("intra", 1, 0, False))
    return RoundInfo(index=0, plan=Plan(phases=(), clusters=clusters), learnt=learnt, cost=Cost(spent), links=links)


EVENTS = [
    Progress(label="base", round=0, share=0.1, accuracy={"a": 0.0, "b": 0.5}, final=True),
    Progress(label="local", round=0, share=0.1),
    Progress(label="local", round=1, share=0.5, info=info(((0, 1),)), accuracy={"a": 0.25}),
    Progress(label="local", round=2, share=1.0, accuracy={"a": 0.75, "b": 0.25}, final=True),
]


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min")])
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert words(seconds) == said


def test_a_round_in_one_line() -> None:
    """Two devices with losses 0.5 and 1.5 that sent 1 and 3 kB, one of two transfers lost."""
    assert line(EVENTS[2], 2) == (
        "local: round 1 of 2, loss 1.000, 2.00 kB a device, 1 of 2 transfers lost, clusters 0+1, 25.0 % right so far"
    )
    assert line(EVENTS[3], 2) == "local: answers 50.0 % of all test prompts rightly"


def test_clusters_in_words() -> None:
    assert clusters_in_words(info(((0, 2), (1,)))) == "0+2 | 1"
    assert clusters_in_words(info()) == ""


def shown(terminal: bool, quiet: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    follow(iter(EVENTS), Experiment(methods={"local": Local()}, rounds=2, devices=2), console, quiet)
    return out.getvalue()


def test_without_a_terminal_one_plain_line_per_event() -> None:
    lines = shown(terminal=False).splitlines()
    assert len(lines) == len(EVENTS)
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_the_last_picture_has_everything() -> None:
    text = shown(terminal=True)
    for part in ("2 devices, 2 rounds", "clusters of local: 0+1", "left", "50.0 %"):
        assert part in text


def test_quiet_shows_nothing() -> None:
    assert shown(terminal=True, quiet=True) == ""
