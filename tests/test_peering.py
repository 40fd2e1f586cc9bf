"""A run as one device lives it: what it insists on, what it puts aside, and where it goes on."""

from __future__ import annotations

import copy
import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orthomesh import peering
from orthomesh.checkpoint import digest, load_devices
from orthomesh.engines.deadlines import Patience
from orthomesh.engines.differing import difference
from orthomesh.engines.peer import Peer
from orthomesh.engines.wire import Stage
from orthomesh.evaluation.record import Journal
from orthomesh.experiment import Experiment, Progress, checkpoint_path, finish
from orthomesh.models.base import load_base
from orthomesh.node import Node, book, read_node
from orthomesh.ready import find
from orthomesh.types import Round

T = Round(0, 0, 2)


@pytest.fixture
def lone(
    peer_files: Callable[..., list[Path]],
) -> Iterator[Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]]]:
    """Starts the first of two devices whose other never comes."""
    opened: list[Peer] = []
    made: list[Path] = []

    def start() -> tuple[Node, Experiment, Peer, peering.Status, Path]:
        made[:] = made or peer_files(2, "methods.gossip=null", "methods.orthomesh=null", "methods.paper=null")
        node, x = read_node(made[0])
        node = replace(node, patience=Patience(meet_s=0.3, least_s=0.3, gone_s=0.1, linger_s=0.0))
        directory = made[0].parent / "run"
        peer, status = peering.start(node, x, book(node, made[0])[0], directory, find(x, 0))
        opened.append(peer)
        return node, x, peer, status, directory

    yield start
    for peer in opened:
        peer.close()


def test_a_device_alone_finishes_and_says_who_was_missing(
    lone: Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]],
) -> None:
    _, x, peer, status, directory = lone()
    events = list(peering.live(x, peer, status, directory, "simulated"))
    assert [e for e in events if isinstance(e, str)] == ["b does not answer; going on without, until it appears"]
    assert [e.round for e in events if isinstance(e, Progress) and e.info] == [1, 2, 3]
    states, done = load_devices(checkpoint_path(directory, "local"))
    assert (list(states), done) == ([0], 3)
    assert (status.doing, status.round) == ("done", 3)
    journal = Journal(directory)
    assert len(journal.rounds("local")) == 3
    (before,), after = journal.trained("local"), journal.exams("local")[-1]
    assert (before["round"], before["accuracy"]) == (3, after["own"])  # nobody was there to learn from
    told = peering.told(status, peer)
    assert json.loads(peer.tell()) == json.loads(json.dumps(told))
    assert told["connected"] == []


def test_a_device_that_is_started_again_goes_on_and_is_known_as_the_later_one(
    lone: Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]],
) -> None:
    _, x, peer, status, directory = lone()
    events = peering.live(x, peer, status, directory, "simulated")
    path = checkpoint_path(directory, "local")
    while not path.exists() or load_devices(path)[1] < 2:
        next(events)
    events.close()  # the power fails
    peer.close()
    _, _, again, status, _ = lone()
    assert again.life > peer.life
    rounds = [
        e.round for e in peering.live(x, again, status, directory, "simulated") if isinstance(e, Progress) and e.info
    ]
    assert rounds == [3]
    fresh = directory.parent / "fresh"
    again.close()
    _, _, third, status, _ = lone()
    list(peering.live(x, third, status, fresh, "simulated"))
    assert digest(load_devices(checkpoint_path(fresh, "local"))[0]) == digest(load_devices(path)[0])


def test_a_device_that_is_behind_goes_to_where_the_others_are(
    lone: Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]],
) -> None:
    _, x, peer, status, directory = lone()
    peer.box.lives[1], peer.box.furthest[1] = 1, Stage(0, 2)
    events = list(peering.live(x, peer, status, directory, "simulated"))
    assert "local: rounds 1 to 2 went by without this device" in events
    assert [e.round for e in events if isinstance(e, Progress) and e.info] == [3]


def test_terms_name_the_settings_the_base_and_the_version(peer_files: Callable[..., list[Path]]) -> None:
    node, x = read_node(peer_files(2)[0])
    terms, run, story = peering.terms_of(node, x, find(x, 0))
    other, other_run, _ = peering.terms_of(node, replace(x, seed=3), find(x, 0))
    assert (terms.base, terms.version, terms.run) == (other.base, other.version, other.run)
    assert terms.config != other.config
    assert run != other_run
    assert len(run) == 8
    assert json.loads(story)["seed"] == 0


def test_a_base_with_one_other_weight_or_more_layers_is_named(
    peer_files: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, x = read_node(peer_files(2)[0])
    here = peering.terms_of(node, x, find(x, 0))
    base = load_base(x.model)
    other = copy.deepcopy(base.model)
    weight = next(other.parameters()).data.view(-1)
    weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    deeper = copy.deepcopy(base.model)
    blocks = deeper.get_submodule("model.layers")
    assert isinstance(blocks, nn.ModuleList)
    blocks.append(copy.deepcopy(blocks[0]))
    slots = {**base.slots, **{f"more {k}": slot for k, slot in enumerate(list(base.slots.values())[:7])}}
    said = []
    for changed in (replace(base, model=other), replace(base, model=deeper, slots=slots)):
        monkeypatch.setattr("orthomesh.models.base.load_base", lambda settings, changed=changed: changed)
        there = peering.terms_of(node, x, find(x, 0))
        assert there[0].base != here[0].base
        assert there[1] != here[1]  # its messages are of another run
        said.append(difference(here[2], there[2]))
    assert re.fullmatch(r"base model is \w{16} here and \w{16} there", said[0])
    assert said[1].startswith(f"adapted layers is {len(base.slots)} here and {len(slots)} there, base model is ")


WAITING = """
import sys
from pathlib import Path
from orthomesh.cli import app
from orthomesh.commands import peer
from orthomesh.engines.peer import Peer
from orthomesh import ready

def meet(peer):
    print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
    raise ValueError("that is all")

ready.find_apart = lambda x, device: ready.Found("0" * 64, 14)
Peer.meet = meet
app(["peer", sys.argv[1]])
"""


def test_a_device_that_waits_has_not_loaded_what_it_trains_with(peer_files: Callable[..., list[Path]]) -> None:
    """Nor what it writes its report with; python -m benchmarks.waiting has the megabytes."""
    done = subprocess.run([sys.executable, "-c", WAITING, str(peer_files(2)[0])], capture_output=True, text=True)
    assert (done.returncode, "that is all" in done.stderr) == (2, True), done.stderr
    said, modules = done.stdout.splitlines()[:2]  # no terminal, no live line: a line says who is waited for
    assert "waits for b; see: orthomesh status" in said
    loaded = set(modules.split())
    assert loaded >= {"orthomesh", "numpy", "zenoh", "cryptography"}
    heavy = {
        "torch",
        "transformers",
        "tokenizers",
        "datasets",
        "peft",
        "scipy",
        "sklearn",
        "sympy",
        "pandas",
        "pyarrow",
    }
    assert not loaded & {*heavy, "plotly", "networkx", "matplotlib", "ray", "huggingface_hub"}


def test_a_directory_is_one_runs(tmp_path: Path) -> None:
    peering.begin_directory(tmp_path, {"seed": 1})
    peering.begin_directory(tmp_path, {"seed": 1})
    with pytest.raises(ValueError, match="was begun with other settings"):
        peering.begin_directory(tmp_path, {"seed": 2})


def test_a_full_disk_ends_nothing_and_nothing_is_lost(
    lone: Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, x, peer, status, directory = lone()
    real, full = peering.save_devices, [True]

    def save(*args: Any) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    monkeypatch.setattr(peering, "save_devices", save)
    said = []
    for event in peering.live(x, peer, status, directory, "simulated"):
        said += [event] if isinstance(event, str) else []
        full[0] = "at most" not in said[-1] if said else True  # somebody makes room while it waits at the end
    assert [s.split(",")[0] for s in said[1:]] == ["the state of local cannot be written"] * 2
    assert load_devices(checkpoint_path(directory, "local"))[1] == 3


def test_a_device_that_comes_after_all_rounds_still_has_a_state(
    lone: Callable[..., tuple[Node, Experiment, Peer, peering.Status, Path]],
) -> None:
    _, x, peer, status, directory = lone()
    peer.box.lives[1], peer.box.furthest[1] = 1, Stage(1, 0)
    said = [e for e in peering.live(x, peer, status, directory, "simulated") if isinstance(e, str)]
    assert said[1:] == [
        "local: rounds 1 to 3 went by without this device",
        "local: the others have ended and are gone; this device ends with what it had",
    ]
    assert load_devices(checkpoint_path(directory, "local"))[1] == 3
    assert finish(x, directory, said, 0.0)["rounds"] == 3
