"""`orthomesh keys` writes what devices need, and says what is wrong in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orthomesh.cli import app
from orthomesh.engines.keys import check, credentials


def test_an_authority_and_a_pair_for_every_device(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["keys", str(tmp_path / "k"), "pi-1=127.0.0.1,pi-1.local", "pi-2=127.0.0.2"])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "k").iterdir()) == [
        "ca.crt", "ca.key", "pi-1.crt", "pi-1.key", "pi-2.crt", "pi-2.key",
    ]  # fmt: skip
    assert check(credentials(tmp_path / "k", "pi-2"), "pi-2") == []
    more = CliRunner().invoke(app, ["keys", str(tmp_path / "k"), "pi-3=127.0.0.3"])
    assert more.exit_code == 0
    assert check(credentials(tmp_path / "k", "pi-3"), "pi-3") == []  # of the same authority


@pytest.mark.parametrize(
    ("given", "said"),
    [(["pi-1"], "write a device as NAME=HOST"), (["a=1.1.1.1", "a=1.1.1.2"], "two devices have one name")],
)
def test_mistakes_end_in_a_sentence(given: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["keys", str(tmp_path / "k"), *given])
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output
