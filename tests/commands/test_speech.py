"""What can go wrong in a command ends in a sentence and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, cast

import pytest
import typer
from rich.console import Console

from orthomesh.commands.speech import Lasting, say, sentences


def test_a_sentence_goes_to_standard_error_and_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        say("no [such] thing", 2)
    assert ended.value.exit_code == 2
    assert capsys.readouterr() == ("", "orthomesh: no [such] thing\n")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("rank: 0 is too small"), 2, "rank: 0 is too small"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "out.csv"), 2, "cannot read or write out.csv: No space left"),
    ],
)
def test_each_kind_of_failure_has_its_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, sentences():
        raise error
    assert ended.value.exit_code == code
    assert words in capsys.readouterr().err


def test_words_that_cannot_be_written_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("a device that is always full")
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        output = Lasting()
        console = Console(file=cast(IO[str], output))
        for _ in range(2000):  # more than any buffer holds
            console.print("a line of the log")
        output.let_go()
    with open(tmp_path / "log", "w") as kept:
        monkeypatch.setattr(sys, "stdout", kept)
        console.print("there is room")
        output.let_go()
    assert (tmp_path / "log").read_text() == "there is room\n"


def test_an_interrupted_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), sentences(Path("runs/a")):
        raise KeyboardInterrupt
    assert "orthomesh resume runs/a" in capsys.readouterr().err


def test_what_goes_well_is_left_alone() -> None:
    with sentences():
        pass


def test_a_fault_of_our_own_stays_a_traceback() -> None:
    with pytest.raises(ZeroDivisionError), sentences():
        raise ZeroDivisionError
