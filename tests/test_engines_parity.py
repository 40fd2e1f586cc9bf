"""Every engine ends with the same states, bit for bit, and counts the same bytes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
    Link,
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
        said = letters.keys() | {(m.src, dst) for k in everybody for m in everybody[k] for dst in m.lost}
        mine = sorted((e for e in phase.edges if e.dst == self.me), key=lambda e: e.src)
        return {self.me: [Envelope(e, letters.get(e[:2]), e[:2] in said) for e in mine]}


class Played(NamedTuple):
    """Final states of the devices an engine hosts, what they spent, names of all phases, and links by round."""

    states: dict[int, DeviceState]
    cost: Cost
    seen: set[str]
    links: Counter[tuple[int, Link]]


def play(method: Method, engine: Engine, setup: Setup) -> Played:
    """All rounds on one engine."""
    air = SimulatedAir(channel=Channel(radius_m=600.0), radio=setup.radio, seed=1, num_devices=setup.num_devices)
    devices = {k: method.init(k) for k in engine.hosted}
    total, seen, links = Cost(), set(), Counter[tuple[int, Link]]()
    for index in range(ROUNDS):
        devices, info = run_round(Round(setup.seed, index, ROUNDS), devices, method, air, engine)
        total += info.cost
        seen |= {phase.name for phase in info.plan.phases}
        links.update((index, link) for link in info.links)
    return Played(devices, total, seen, links)


def as_peers(
    method: Method, setup: Setup
) -> tuple[dict[int, DeviceState], dict[int, Spend], Counter[tuple[int, Link]]]:
    """The same with a thread for each device, none of which sees another's state."""
    box = PostBox(threading.Barrier(setup.num_devices, timeout=60.0))

    def live(me: int) -> Played:
        try:
            return play(method, Peer(me, box), setup)
        except BaseException:
            box.barrier.abort()  # nobody waits for the dead
            raise

    with ThreadPoolExecutor(setup.num_devices) as threads:
        ended = list(threads.map(live, reversed(range(setup.num_devices))))
    states = {k: d for one in ended for k, d in one.states.items()}
    spent = {k: s for one in ended for k, s in one.cost.by_device.items()}
    return states, spent, sum((one.links for one in ended), Counter())


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
    states, cost, seen, links = play(method, InProcess(DEVICES), tiny_setup)
    lone, lone_spent, lone_links = as_peers(method, tiny_setup)
    assert digest(lone) == digest(states)
    assert lone_spent == dict(cost.by_device)
    assert lone_links == links
    assert seen == phases  # what was compared is not nothing
    assert any(s.lost for s in cost.by_device.values()) == losses


def test_peers_on_encrypted_sockets_end_like_one_process(peer_files: Callable[..., list[Path]], tmp_path: Path) -> None:
    files = peer_files(
        3, "methods.local=null", "methods.gossip=null", "channel.radius_m=600", "methods.orthomesh.clustering=agnes",
        "radio.packet_loss=0.05",
    )  # fmt: skip
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
    told = {label: [link for r in alone.rounds(label) for link in r["links"]] for label in x.methods}
    assert {link["arrived"] for link in told["orthomesh"]} == {True, False}
    assert {link["phase"] for link in told["orthomesh"]} == {"masks", "intra"}
    assert {link["phase"] for link in told["paper"]} == {"intra"}  # over edges for masks nothing is said, or lost
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
