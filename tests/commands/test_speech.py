"""What can go wrong in a command ends in a sentence and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from orthomesh.commands.speech import say, sentences


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
