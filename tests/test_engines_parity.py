"""Every engine ends with the same states, bit for bit, and counts the same bytes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orthomesh import experiment, peering
from orthomesh.checkpoint import digest, load_devices
from orthomesh.engines.deadlines import Patience
from orthomesh.engines.inprocess import InProcess
from orthomesh.exchange.framing import opening_bytes
from orthomesh.methods import METHODS
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.node import book, read_node
from orthomesh.ready import find
from orthomesh.round import run_round
from orthomesh.topology.conversation import converse
from orthomesh.types import (
    Cost,
    DeviceState,
    Engine,
    Envelope,
    Facts,
    Formed,
    Forming,
    Message,
    Method,
    Phase,
    Round,
    Spend,
)  # fmt: skip
from orthomesh.wireless.air import SimulatedAir
from orthomesh.wireless.channel import Channel

Y = TypeVar("Y")
ROUNDS, DEVICES = 2, 4
SETTINGS = {
    **{kind: made() for kind, made in METHODS.items()},
    "paper": paper_reading(),
    "two_clusters": SparseOrthogonal(density=0.5),
}


@dataclass
class PostBox:
    """What the peers share: who writes waits until all have written, who has read waits until all have read."""

    barrier: threading.Barrier
    compute: threading.Lock = field(default_factory=threading.Lock)
    content: dict[int, Any] = field(default_factory=dict)

    def swap(self, me: int, mine: Any) -> dict[int, Any]:
        """Everybody's contribution, keyed by device, in the order in which they came."""
        self.content[me] = mine
        self.barrier.wait()
        everybody = dict(self.content)
        if self.barrier.wait() == 0:
            self.content.clear()
        self.barrier.wait()
        return everybody


@dataclass(frozen=True)
class Peer:
    """An engine that hosts one device and knows of the others only what is in the post box."""

    me: int
    box: PostBox

    @property
    def hosted(self) -> tuple[int, ...]:
        return (self.me,)

    def map(self, fn: Callable[..., Y], items: Mapping[int, Any], *args: Any) -> dict[int, Y]:
        with self.box.compute:  # one base model in this process, one who trains on it
            return {k: fn(items[k], *args) for k in sorted(items)}

    def share(self, facts: Mapping[int, Facts], t: Round) -> dict[int, Facts]:
        everybody = self.box.swap(self.me, facts[self.me])
        return {k: everybody[k] for k in sorted(everybody)}

    def form(self, forming: Forming, t: Round) -> Formed:
        ended = converse(forming.leaves, forming.price, t.index)  # over sockets, see engines/test_peer.py
        return Formed(ended.clusters, {self.me: ended.told[self.me]}, {})

    def exchange(self, outbox: Sequence[Message], phase: Phase, t: Round) -> dict[int, list[Envelope]]:
        everybody = self.box.swap(self.me, outbox)
        letters = {(m.src, dst): m.payload for k in everybody for m in everybody[k] for dst in m.dsts}
        mine = sorted((e for e in phase.edges if e.dst == self.me), key=lambda e: e.src)
        return {self.me: [Envelope(e, letters.get((e.src, e.dst))) for e in mine]}


def play(method: Method, engine: Engine, setup: Setup) -> tuple[dict[int, DeviceState], Cost, set[str]]:
    """All rounds on one engine: final states of the devices it hosts, what they spent, and names of all phases."""
    air = SimulatedAir(channel=Channel(radius_m=600.0), radio=setup.radio, seed=1, num_devices=setup.num_devices)
    devices = {k: method.init(k) for k in engine.hosted}
    total, seen = Cost(), set()
    for index in range(ROUNDS):
        devices, info = run_round(Round(setup.seed, index, ROUNDS), devices, method, air, engine)
        total += info.cost
        seen |= {phase.name for phase in info.plan.phases}
    return devices, total, seen


def as_peers(method: Method, setup: Setup) -> tuple[dict[int, DeviceState], dict[int, Spend]]:
    """The same with a thread for each device, none of which sees another's state."""
    box = PostBox(threading.Barrier(setup.num_devices, timeout=60.0))

    def live(me: int) -> tuple[dict[int, DeviceState], Cost]:
        try:
            return play(method, Peer(me, box), setup)[:2]
        except BaseException:
            box.barrier.abort()  # nobody waits for the dead
            raise

    with ThreadPoolExecutor(setup.num_devices) as threads:
        ended = list(threads.map(live, reversed(range(setup.num_devices))))
    states = {k: d for devices, _ in ended for k, d in devices.items()}
    return states, {k: s for _, cost in ended for k, s in cost.by_device.items()}


@pytest.mark.parametrize(
    ("label", "phases", "losses"),
    [
        ("local", set(), False),
        ("gossip_lora", {"gossip"}, False),
        ("sparse_orthogonal", {"masks", "intra"}, True),
        ("paper", {"masks", "intra"}, True),
        ("two_clusters", {"masks", "intra", "inter", "spread"}, False),
    ],
)
def test_peers_agree_with_one_process(label: str, phases: set[str], losses: bool, tiny_setup: Setup) -> None:
    """Workers of one process are compared with it in test_experiment.py, a Ray cluster in engines/test_ray.py."""
    method = SETTINGS[label].build(tiny_setup)
    states, cost, seen = play(method, InProcess(DEVICES), tiny_setup)
    lone, lone_spent = as_peers(method, tiny_setup)
    assert digest(lone) == digest(states)
    assert lone_spent == dict(cost.by_device)
    assert seen == phases  # what was compared is not nothing
    assert any(s.lost for s in cost.by_device.values()) == losses


def test_peers_on_encrypted_sockets_end_like_one_process(peer_files: Callable[..., list[Path]], tmp_path: Path) -> None:
    files = peer_files(
        3, "methods.local=null", "methods.paper=null", "channel.radius_m=600", "methods.orthomesh.clustering=agnes"
    )
    compute = threading.Lock()  # one base model in this process, one who uses it

    patience = Patience(meet_s=60, first_s=60, least_s=60)
    nodes = [read_node(file) for file in files]
    found = find(nodes[0][1], 0)
    started = [
        peering.start(
            replace(node, patience=patience), x, book(node, file)[0], file.parent / "run", found, lock=compute
        )
        for file, (node, x) in zip(files, nodes, strict=True)
    ]

    def live(n: int) -> list[str]:
        (peer, status), directory = started[n], files[n].parent / "run"
        try:
            events = list(peering.live(nodes[n][1], peer, status, directory, "simulated"))
            (directory / "traffic.json").write_text(json.dumps(peering.traffic(peer)))
        finally:
            peer.close()
        return [event for event in events if isinstance(event, str)]

    with ThreadPoolExecutor(3) as threads:
        said = list(threads.map(live, range(3)))
    assert said == [[], [], []]
    _, x = read_node(files[0])
    list(experiment.run(x, tmp_path / "alone"))
    alone = experiment.Journal(tmp_path / "alone")
    for label in x.methods:
        whole, _ = load_devices(experiment.checkpoint_path(tmp_path / "alone", label))
        parts = [load_devices(experiment.checkpoint_path(f.parent / "run", label))[0] for f in files]
        assert digest({k: d for part in parts for k, d in part.items()}) == digest(whole), label
        for n, record in enumerate(alone.rounds(label)):
            own = [experiment.Journal(f.parent / "run").rounds(label)[n] for f in files]
            assert [r["devices"] for r in own] == [[row] for row in record["devices"]]
            assert sorted(map(str, (link for r in own for link in r["links"]))) == sorted(map(str, record["links"]))
        before = [experiment.Journal(f.parent / "run").trained(label)[0]["accuracy"] for f in files]
        assert {t: a for one in before for t, a in one.items()} == alone.trained(label)[0]["accuracy"]
    counted = [json.loads((f.parent / "run" / "traffic.json").read_text()) for f in files]
    sent = counted[0]["b"]
    assert sent["predicted_sent"] < sent["framed_sent"] < sent["kernel_sent"]
    for me, links in enumerate(counted):
        rows = [row for label in x.methods for r in alone.rounds(label) for row in r["devices"] if row["device"] == me]
        opened = sum(opening_bytes(3, dialled=k < me) for k in range(3) if k != me)
        assert sum(link["framing_sent"] for link in links.values()) == opened + sum(
            row["framing_bytes"] for row in rows
        )
        for link in links.values():  # what remains: signs of life, a greeting more or less
            assert abs(link["kernel_sent"] - link["predicted_sent"] - link["framing_sent"]) < 1500, link
    assert sent["kernel_sent"] == pytest.approx(counted[1]["a"]["kernel_received"], abs=2000)  # one was counted later
