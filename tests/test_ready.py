"""What a device finds out before it meets the others, here and in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orthomesh import ready
from orthomesh.models.base import load_base
from orthomesh.models.weights import weights_digest
from orthomesh.node import read_node
from orthomesh.presets import plain
from orthomesh.ready import Found, find, find_apart


def test_a_device_without_data_cannot_begin(peer_files: Callable[..., list[Path]], tmp_path: Path) -> None:
    _, x = read_node(peer_files(2)[0])
    base = load_base(x.model)
    assert find(x, 1) == Found(weights_digest(base.model), len(base.slots), ())
    for name in ("train", "test"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.jsonl").write_text("")
    empty = replace(x, tasks=replace(x.tasks, names=("mine",), data=str(tmp_path)), devices=1)
    with pytest.raises(ValueError, match="task 'mine': its split 'train' is empty"):
        find(empty, 0)


def test_the_same_is_found_by_a_process_of_its_own(
    peer_files: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process itself is played here: starting one costs seconds, and every peer that a user starts does it."""
    _, x = read_node(peer_files(2)[0])
    assert find_apart(x, 1) == find(x, 1)  # torch is here already
    asked, fresh = [], SimpleNamespace(modules={}, executable=sys.executable)  # as before torch is loaded
    monkeypatch.setattr(ready, "sys", fresh)

    def run(command: list[str], *, input: str, stdout: int, text: bool) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        fresh.stdin = io.StringIO(input)
        capsys.readouterr()
        print("what a library has to say")
        ready.main()
        return subprocess.CompletedProcess(command, 0, capsys.readouterr().out)

    monkeypatch.setattr(ready, "subprocess", _Subprocess(run))
    monkeypatch.setattr("signal.signal", lambda which, what: None)
    assert find_apart(x, 1) == find(x, 1)
    assert asked == [[sys.executable, "-m", "orthomesh.ready"]]
    with pytest.raises(ValueError, match=r"model\.source: there is no directory /nowhere"):
        find_apart(replace(x, model=replace(x.model, source="/nowhere")), 1)


def test_a_process_that_is_killed_is_a_sentence(
    peer_files: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, x = read_node(peer_files(2)[0])
    killed = subprocess.CompletedProcess([], -9, "")
    monkeypatch.setattr(ready, "subprocess", _Subprocess(lambda command, **options: killed))
    monkeypatch.setattr(ready, "sys", SimpleNamespace(modules={}, executable=sys.executable))
    with pytest.raises(ValueError, match="ended with code -9; where it was killed, memory is too small"):
        find_apart(x, 0)


def test_a_question_is_plain_values(peer_files: Callable[..., list[Path]]) -> None:
    _, x = read_node(peer_files(2)[0])
    assert json.loads(json.dumps(plain(x))) == plain(x)


class _Subprocess:
    """In place of the module."""

    PIPE = subprocess.PIPE

    def __init__(self, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        self.run = run
