"""A run as one of its devices lives it: meets the others, goes through all methods round by round, keeps records.

The same as `experiment.run` for one device on the peer engine, with the same directory. A device that has fallen behind
goes on with the round the others are in. What a neighbour sends that no method can use is put aside, not fatal.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from . import __version__
from .checkpoint import Shelf, load_devices, save_devices, write_whole
from .closing import Ended, close, last_stage
from .engines.courier import Traffic
from .engines.inprocess import pin_threads
from .engines.links import Book
from .engines.mailbox import NOBODY, Terms
from .engines.peer import Peer
from .engines.wire import RUN_BYTES, Stage
from .evaluation.accuracy import Exam, no_bank, test_rows
from .evaluation.examine import examine, examine_oracle, examine_own
from .evaluation.record import Journal
from .exchange.framing import opening_bytes
from .experiment import BASE, ORACLE, Experiment, Progress, checkpoint_path, exam_of, oracle_of
from .forgiving import forgiving
from .methods import MethodSettings
from .methods.hard_moe import HardMoe
from .methods.setup import Setup
from .methods.sparse_orthogonal import SparseOrthogonal, unjoined
from .methods.trained import as_trained
from .node import Node, common, digest_of
from .ready import Found
from .round import exchange, train
from .types import Air, DeviceState, Round, RoundInfo
from .wireless.air import IdealAir, SimulatedAir


@dataclass
class Status:
    """What a device tells whoever asks how it is doing."""

    name: str
    device: int
    run: str
    label: str = ""
    round: int = 0
    rounds: int = 0
    doing: str = "starting"
    loss: float | None = None
    cluster: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    started: float = field(default_factory=time.time)


def terms_of(node: Node, x: Experiment, found: Found) -> tuple[Terms, bytes, bytes]:
    """What the device insists on, the digest messages carry of it, and the settings in full for whoever differs."""
    alike = common(node, x)
    terms = Terms(run=node.run, config=digest_of(alike)[:32], base=found.base[:32], version=__version__)
    told = {"run": node.run, "adapted layers": found.layers, "base model": found.base[:16], "version": __version__}
    return terms, bytes.fromhex(digest_of(vars(terms)))[:RUN_BYTES], json.dumps({**told, **alike}).encode()


def start(node: Node, x: Experiment, book: Book, directory: Path, found: Found, **options: Any) -> tuple[Peer, Status]:
    """Open the device's connections; nothing is sent yet.

    Args:
        node: its file.
        x: the run's settings.
        book: whom it talks to.
        directory: its run directory, which counts how often it was started.
        found: what is known of its model.
        options: for `Peer`.

    Returns:
        The engine, and the status it answers with.

    Raises:
        ValueError: the address is in use, or keys do not work.
    """
    terms, run, story = terms_of(node, x, found)
    status = Status(name=node.name, device=book.me, run=node.run, rounds=x.rounds)
    peer = Peer(
        book=book, life=_life(directory), terms=terms, run=run, story=story, last=last_stage(len(x.methods), x.rounds),
        patience=node.patience, **options,
    )  # fmt: skip
    peer.tell = lambda: json.dumps(told(status, peer)).encode()
    return peer, status


def told(status: Status, peer: Peer) -> dict[str, Any]:
    """The status as plain values, with what the connections know."""
    alive = peer.links.alive()
    refused = {f"{'nobody' if k == NOBODY else k}/{why}": n for (k, why), n in sorted(peer.box.refused.items())}
    return {
        **vars(status),
        "connected": [k for k in peer.met if k in alive],
        "refused": refused,
        "sent_bytes": {str(k): t.framed for k, t in sorted(peer.traffic.items())},
        "rates_bps": {str(k): rate for k, rate in peer.pace.rates_bps().items()},
        "memory_bytes": _memory_bytes(),
    }


def _memory_bytes() -> int | None:
    """What this process holds in memory; none where the system does not tell (anything but Linux)."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else None


def _life(directory: Path) -> int:
    """A number that grows with every start of this device, whatever its clock says, and that no other process has."""
    file = directory / "life"
    count = int(file.read_text()) + 1 if file.is_file() else 1
    write_whole(file, str(count).encode())
    return count << 32 | secrets.randbits(32)


def live(x: Experiment, peer: Peer, status: Status, directory: Path, air: str) -> Iterator[Progress | str]:
    """Take part in a run until it ends, or go on with it after a restart.

    Args:
        x: the run's settings.
        peer: this device's engine.
        status: kept up to date.
        directory: where checkpoints and records are kept.
        air: `simulated` or `real`.

    Yields:
        What happened, and sentences a user should know, as they come.

    Raises:
        ValueError: every neighbour refuses this device; or a checkpoint that cannot be read.
        OSError: nothing can be written, still after waiting at the end; the last checkpoint is whole.
    """
    setup, journal, shelf = x.setup(), Journal(directory), Shelf()
    status.doing = "meeting the others"
    for k, said in peer.meet().items():
        yield f"{peer.book.names[k]} {said}; going on without, until it appears"
    pin_threads(x.threads)  # loads torch: a wait does without
    yield from peer.box.news()
    exam = _at_hand(exam_of(x, setup, final=True))
    if not journal.has(BASE, 0) and exam.owners:
        status.doing = "examining the base model"
        nobody = {peer.book.me: DeviceState(id=peer.book.me, own={})}
        result = examine(nobody, no_bank, exam, peer)
        yield from _kept(shelf, "the examination of the base model", partial(journal.write_exam, BASE, 0, result))
        yield Progress(label=BASE, round=0, share=0, accuracy=_accuracy(journal, BASE, 0), final=True)
    trips = [_Trip(x, setup, *one, number, exam, shelf) for number, one in enumerate(x.methods.items())]
    ended = []
    for trip in trips:
        status.label = trip.label
        done = yield from _travel(trip, peer, status, journal, _air(x, setup, air))
        if not done.late:  # else what it will answer with is not there yet
            yield from _examine(trip, peer, journal, done)
        ended.append(done)
    status.doing = "staying for others"
    late = [done.late for done in ended]
    yield from close(ended, peer, Round(x.seed, x.rounds - 1, x.rounds), _air(x, setup, air))
    for trip, done, was_late in zip(trips, ended, late, strict=True):
        path = checkpoint_path(directory, trip.label)
        if done.changed:
            write = partial(save_devices, path, done.devices, x.rounds)
            yield from _kept(shelf, f"the state of {trip.label}", write)
        if was_late:
            yield from _examine(trip, peer, journal, done)
    yield from peer.box.news()
    yield from _cleared(shelf, peer.patience.first_s)
    status.doing = "done"
    yield from peer.box.news()


@dataclass(frozen=True)
class _Trip:
    """One method of a run."""

    x: Experiment
    setup: Setup
    label: str
    settings: MethodSettings
    number: int
    exam: Exam
    shelf: Shelf


def _air(x: Experiment, setup: Setup, kind: str) -> Air:
    if kind == "real":
        return IdealAir()
    return SimulatedAir(channel=x.channel, radio=x.radio, seed=x.seed, num_devices=setup.num_devices)


def _travel(
    trip: _Trip, peer: Peer, status: Status, journal: Journal, air: Air
) -> Generator[Progress | str, None, Ended]:
    """All rounds of one method; returns how it ended."""
    x, label, me = trip.x, trip.label, peer.book.me
    aside: list[str] = []
    method = forgiving(trip.settings.build(trip.setup), me, aside.append)
    path = checkpoint_path(journal.directory, label)
    devices, done = load_devices(path) if path.exists() else ({me: method.init(me)}, 0)
    yield Progress(label=label, round=done, share=0)
    ended = Ended(label, method, devices, late=done < x.rounds)
    while done < x.rounds:
        index = min(peer.ahead(Stage(trip.number, done)), Stage(trip.number, x.rounds)).round
        if index > done:
            yield f"{label}: rounds {done + 1} to {index} went by without this device"
        if index >= x.rounds:
            break
        started, t = time.monotonic(), Round(x.seed, index, x.rounds)
        peer.begin(Stage(trip.number, index))
        status.round, status.doing = index + 1, "training and exchanging"
        trained, learnt = train(t, devices, method, peer)
        devices, info = exchange(t, trained, learnt, method, air, peer)
        done = index + 1
        record = partial(journal.write_round, label, info, devices, time.monotonic() - started)
        aside += _kept(trip.shelf, f"the record of round {done} of {label}", record)
        aside += _kept(trip.shelf, f"the state of {label}", partial(save_devices, path, devices, done))
        absent = set(range(len(peer.book.names))) - set(peer.heard)
        ended = Ended(label, method, devices, late=done < x.rounds, absent=absent, trained=trained if t.is_last else {})
        del trained  # or it would lie beside the states of the next round
        _note(status, info, peer)
        peer.links.meter()  # now, since a connection that ends takes its counters with it
        yield from [*peer.box.news(), *aside]
        aside.clear()
        if peer.missing:
            without = ", ".join(peer.book.names[k] for k in sorted(peer.missing))
            yield f"{label}: round {done} closed without {without}"
        yield Progress(label=label, round=done, share=0, info=info)
    peer.begin(Stage(trip.number, x.rounds))  # whoever is still in a round hears that nothing comes from here
    if not path.exists():  # all of it went by without this device
        yield from _kept(trip.shelf, f"the state of {label}", partial(save_devices, path, devices, x.rounds))
    status.doing = "examining"
    return ended


def _kept(shelf: Shelf, what: str, write: Callable[[], None]) -> list[str]:
    said = shelf.put(what, write)
    return [said] if said else []


def _cleared(shelf: Shelf, patience_s: float) -> Iterator[str]:
    """Wait at the end for space to write what is kept, then try a last time and say what is wrong."""
    end, said = time.monotonic() + patience_s, shelf.clear()
    if said:
        yield f"{said}, for {patience_s:.0f} s at most"
    while said and time.monotonic() < end:
        time.sleep(1.0)
        said = shelf.clear()
    if said:
        raise OSError(said)


def _examine(trip: _Trip, peer: Peer, journal: Journal, done: Ended) -> Iterator[Progress | str]:
    """The final examination: every task whose test prompts are at hand, and the own task to the own expert.

    The own task as it was before the last exchange is on record where this device was in it, and has not died since.
    """
    x, label, me, exam = trip.x, trip.label, peer.book.me, trip.exam
    mine = tuple((task, (me,)) for task, owners in exam.owners if me in owners)
    asked = exam if not isinstance(trip.settings, HardMoe) else exam._replace(owners=mine)
    if asked.owners and not journal.has(label, x.rounds):
        put = examine if asked is exam else examine_oracle  # what an oracle asks, it asks of the task's owner
        record = partial(journal.write_exam, label, x.rounds, put(done.devices, done.method.bank, asked, peer))
        yield from _kept(trip.shelf, f"the examination of {label}", record)
    if mine and done.trained and not journal.trained(label):
        own = examine_own(
            done.trained, as_trained(trip.settings, done.method, trip.setup), exam._replace(owners=mine), peer
        )
        record = partial(journal.write_trained, label, x.rounds, own)
        yield from _kept(trip.shelf, f"the own task of {label}", record)
    done.trained = {}
    if mine and label == oracle_of(x) and isinstance(trip.settings, SparseOrthogonal) and not journal.has(ORACLE, 0):
        apart = partial(unjoined, c=trip.settings, setup=trip.setup)
        record = partial(
            journal.write_exam, ORACLE, 0, examine_oracle(done.devices, apart, exam._replace(owners=mine), peer)
        )
        yield from _kept(trip.shelf, "the examination of the oracle", record)
    yield Progress(label=label, round=x.rounds, share=0, accuracy=_accuracy(journal, label, x.rounds), final=True)


def _accuracy(journal: Journal, label: str, round_: int) -> dict[str, float] | None:
    return journal.accuracy(label, round_) if journal.has(label, round_) else None


def _at_hand(exam: Exam) -> Exam:
    """The tasks of an exam whose test prompts this device has; in the field each has only its own."""
    there = []
    for task, owners in exam.owners:
        try:
            test_rows(exam, task)
        except ValueError:
            continue
        there.append((task, owners))
    return exam._replace(owners=tuple(there))


def _note(status: Status, info: RoundInfo, peer: Peer) -> None:
    me = peer.book.me
    status.loss = info.learnt[me].last_loss
    status.cluster = next((members for members in info.plan.clusters if me in members), ())
    status.missing = tuple(sorted(peer.missing))


def begin_directory(directory: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into the run directory, or see that they are those it was begun with.

    Raises:
        ValueError: the directory is of another run.
    """
    import yaml

    from .experiment import versions
    from .presets import read_yaml

    file = directory / "config.yaml"
    if file.is_file():
        if digest_of(read_yaml(file)) != digest_of(settings):
            raise ValueError(f"{directory} was begun with other settings; give `out` another directory")
        return
    write_whole(file, yaml.safe_dump(dict(settings), sort_keys=False).encode())
    write_whole(directory / "versions.json", json.dumps(versions(), indent=1).encode())


def traffic(peer: Peer) -> dict[str, Any]:
    """Bytes exchanged with every device: as a simulator predicts, with the framing of `exchange.framing`, as framed
    here, and as the kernel counts its sockets."""
    counted, me, num = peer.links.meter(), peer.book.me, len(peer.book.names)
    found = {}
    for k in sorted({*range(num)} - {me}):
        sent = peer.traffic.get(k, Traffic())
        found[peer.book.names[k]] = {
            "predicted_sent": sent.predicted,
            "framing_sent": sent.framing + opening_bytes(num, dialled=k < me),
            "framed_sent": sent.framed,
            "kernel_sent": counted[k].sent if k in counted else None,
            "kernel_received": counted[k].received if k in counted else None,
        }
    return found


def carried_in_words(counted: Mapping[str, Mapping[str, Any]]) -> str:
    """What the sockets carried of this device against what was predicted; empty where the system does not count.

    >>> carried_in_words({"b": {"predicted_sent": 900, "framing_sent": 100, "kernel_sent": 1010}})
    'sockets carried 1,010 bytes: 900 predicted, 100 of framing, 1.00 % beyond'
    """
    links = [link for link in counted.values() if link["kernel_sent"] is not None]
    carried, predicted, framing = (
        sum(int(link[name]) for link in links) for name in ("kernel_sent", "predicted_sent", "framing_sent")
    )
    if not carried:
        return ""
    beyond = 100 * (carried / (predicted + framing) - 1)
    return f"sockets carried {carried:,} bytes: {predicted:,} predicted, {framing:,} of framing, {beyond:.2f} % beyond"
