"""A whole run: what it yields and leaves, and that it ends the same however it was computed or interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthomesh.checkpoint import digest, load_devices
from orthomesh.evaluation.examine import examine_own
from orthomesh.evaluation.record import Journal
from orthomesh.experiment import BASE, ORACLE, Evaluate, Experiment, check, checkpoint_path, finish, run
from orthomesh.methods.fedsb import FedSb
from orthomesh.methods.gossip_lora import GossipLora
from orthomesh.methods.hard_moe import HardMoe
from orthomesh.methods.local import Local
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal, paper_reading
from orthomesh.models.settings import TrainSettings
from orthomesh.tasks.settings import TaskSettings

ALL = Experiment(
    devices=3,
    rounds=2,
    train=TrainSettings(steps=2, batch_size=4),
    tasks=TaskSettings(train_examples=12, test_examples=6),
    evaluate=Evaluate(every=1, prompts=3, devices=2),
    methods={
        "local": Local(),
        "gossip": GossipLora(),
        "two_clusters": SparseOrthogonal(density=0.5),  # the oracle's, as the first of its kind
        "ours": SparseOrthogonal(),
        "paper": paper_reading(),
    },
)
SHORT = replace(ALL, devices=2, methods={"gossip": GossipLora(), "ours": SparseOrthogonal()})
TIMED = {"wall_s"}


def fingerprints(x: Experiment, directory: Path) -> dict[str, tuple[str, int]]:
    """Digest of the final states and rounds done, by method."""
    loaded = {label: load_devices(checkpoint_path(directory, label)) for label in x.methods}
    return {label: (digest(devices), done) for label, (devices, done) in loaded.items()}


def records(directory: Path) -> dict[str, Any]:
    """All records of a run but for what a clock said."""
    found = {}
    for path in sorted((directory / "records").rglob("*.json")):
        content = json.loads(path.read_text())
        found[str(path.relative_to(directory))] = {k: v for k, v in content.items() if k not in TIMED}
    return found


def leftovers(directory: Path) -> list[Path]:
    """Files that are no record and no checkpoint, such as half-written ones."""
    return [p for p in directory.rglob("*") if p.is_file() and p.suffix not in (".json", ".safetensors")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """All methods, never interrupted, in one process."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, list(run(ALL, directory))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on two devices, never interrupted."""
    directory = tmp_path_factory.mktemp("short")
    assert list(run(SHORT, directory))[-1].share == 1.0
    return directory


# what it yields and leaves


def test_events_come_in_order_and_shares_grow_to_one(whole: tuple[Path, list[Any]]) -> None:
    _, events = whole
    assert [(e.label, e.round, e.final) for e in events] == [
        (BASE, 0, True),
        *((label, r, final) for label in ALL.methods for r, final in ((0, False), (1, False), (2, False), (2, True))),
    ]
    shares = [e.share for e in events]
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(1.0)
    assert all((e.info is not None) == (e.round > 0 and not e.final) for e in events)
    assert [e.accuracy is not None for e in events[1:5]] == [False, True, False, True]  # the last one is final


def test_every_round_and_examination_is_on_record(whole: tuple[Path, list[Any]]) -> None:
    directory, events = whole
    journal = Journal(directory)
    for label in ALL.methods:
        assert [len(r["devices"]) for r in journal.rounds(label)] == [3, 3]
        assert [(e["round"], set(e["prompts"].values())) for e in journal.exams(label)] == [(1, {3}), (2, {6})]
        assert load_devices(checkpoint_path(directory, label))[1] == 2
    assert journal.has(BASE, 0)
    assert journal.has(ORACLE, 0)
    assert {e.label: dict(e.accuracy) for e in events if e.final} == {
        BASE: journal.accuracy(BASE, 0),
        **{label: journal.accuracy(label, 2) for label in ALL.methods},
    }


def test_what_a_finished_run_leaves(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    directory, _ = whole
    for part in ("records", "state"):
        (tmp_path / part).symlink_to(directory / part)
    summary = finish(ALL, tmp_path, ["a note"], 1.5)
    assert {p.name for p in tmp_path.iterdir()} >= {"summary.json", "report.html", "rounds.parquet", "links.parquet"}
    assert [row["label"] for row in summary["rows"]] == [BASE, *ALL.methods, ORACLE]
    assert summary["notes"][0] == "a note"
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [d["task"] for d in written["devices"]] == ["zelk", "morv", "quib"]
    assert list(written["methods"]) == [BASE, *ALL.methods, ORACLE]
    hashes = [written["final_sha256"], finish(ALL, tmp_path, [], 9.0)["final_sha256"]]
    assert hashes[0] == hashes[1]


def test_own_tasks_are_examined_between_the_last_training_and_its_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run of one round gossip has then trained what `local` has; afterwards it is mixed."""
    seen: list[str] = []
    monkeypatch.setattr(
        "orthomesh.experiment.examine_own",
        lambda devices, *rest: seen.append(digest(devices)) or examine_own(devices, *rest),
    )
    x = replace(SHORT, rounds=1, methods={"local": Local(), "gossip": GossipLora()})
    list(run(x, tmp_path))
    ended = fingerprints(x, tmp_path)
    assert seen == [ended["local"][0]] * 2
    assert ended["gossip"] != ended["local"]
    (before,), (after,) = Journal(tmp_path).trained("local"), Journal(tmp_path).exams("local")
    assert before["accuracy"] == after["own"]
    assert before["prompts"] == {"zelk": 6, "morv": 6}


# the same however it is computed


def test_two_workers_end_as_one(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    both = replace(ALL, methods={label: ALL.methods[label] for label in ("gossip", "two_clusters")}, workers=2)
    list(run(both, tmp_path))
    assert fingerprints(both, tmp_path) == {label: fingerprints(ALL, whole[0])[label] for label in both.methods}
    made, alone = records(tmp_path), records(whole[0])
    assert made == {name: alone[name] for name in made}  # bytes, losses and links too
    phases = {link["phase"] for label in both.methods for r in Journal(tmp_path).rounds(label) for link in r["links"]}
    assert phases == {"gossip", "masks", "intra", "inter", "spread"}  # what was compared is not nothing


def test_what_a_method_does_does_not_depend_on_who_ran_before_it(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    alone = replace(ALL, methods={"ours": SparseOrthogonal()})
    list(run(alone, tmp_path))
    assert fingerprints(alone, tmp_path)["ours"] == fingerprints(ALL, whole[0])["ours"]


# the same however it was interrupted


def test_stopped_after_every_event_it_ends_as_if_never(short: Path, tmp_path: Path) -> None:
    seen: set[tuple[str, int, bool]] = set()
    lives = 0
    while True:
        lives += 1
        events = run(SHORT, tmp_path)
        new = next((e for e in events if (e.label, e.round, e.final) not in seen), None)
        events.close()  # type: ignore[attr-defined]
        if new is None:
            break
        seen.add((new.label, new.round, new.final))
    assert lives == 1 + len(seen) == 1 + 1 + 2 * 4
    assert fingerprints(SHORT, tmp_path) == fingerprints(SHORT, short)
    assert records(tmp_path) == records(short)


class Crash(BaseException):
    """The end of a process, as far as the code inside can tell."""


@pytest.mark.parametrize("num_writes", [3, 4])
def test_crashed_between_any_two_writes_it_ends_as_if_never(
    num_writes: int, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.replace, [0]

    def replace_or_crash(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr("orthomesh.checkpoint.os.replace", replace_or_crash)
    for _ in range(50):
        left[0] = num_writes  # a round takes three: its record, an examination, its states
        try:
            list(run(SHORT, tmp_path))
        except Crash:
            continue
        break
    monkeypatch.undo()
    list(run(SHORT, tmp_path))
    assert fingerprints(SHORT, tmp_path) == fingerprints(SHORT, short)
    assert records(tmp_path) == records(short)
    assert leftovers(tmp_path) == []


def _live(x: Experiment, directory: Path) -> None:
    for _ in run(x, directory):
        pass


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("draw", range(2))
def test_killed_at_random_moments_it_ends_as_if_never(draw: int, short: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(draw)
    fork, killed = multiprocessing.get_context("fork"), 0
    for longest_s in (0.05, 0.1, 0.1, 0.2, 0.2, 0.4):
        life = fork.Process(target=_live, args=(SHORT, tmp_path))
        life.start()
        life.join(timeout=float(rng.uniform(0.0, longest_s)))
        if life.is_alive():
            assert life.pid is not None
            os.kill(life.pid, signal.SIGKILL)
            killed += 1
        life.join()
    assert killed > 0
    list(run(SHORT, tmp_path))
    assert fingerprints(SHORT, tmp_path) == fingerprints(SHORT, short)
    assert records(tmp_path) == records(short)
    assert leftovers(tmp_path) == []


def test_a_finished_run_is_not_run_again(short: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in short.rglob("*") if p.is_file()}
    events = list(run(SHORT, short))
    assert {p: p.stat().st_mtime_ns for p in short.rglob("*") if p.is_file()} == before
    assert [e.round for e in events if e.info is not None] == []


def test_a_damaged_checkpoint_is_not_run_over(short: Path, tmp_path: Path) -> None:
    list(run(replace(SHORT, methods={"gossip": GossipLora()}), tmp_path))
    path = checkpoint_path(tmp_path, "gossip")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"gossip\.safetensors"):
        list(run(SHORT, tmp_path))


# before it starts


def test_a_check_finds_what_is_wrong_before_hours_of_work() -> None:
    assert check(replace(ALL, tasks=replace(ALL.tasks, names=("zelk", "morv", "quib")))) == []
    with pytest.raises(ValueError, match="nothing to run"):
        check(replace(ALL, methods={}))
    with pytest.raises(ValueError, match="did you mean 'zelk'"):
        check(replace(ALL, tasks=TaskSettings(names=("zelkk",))))
    with pytest.raises(ValueError, match="no directory /nowhere"):
        check(replace(ALL, tasks=TaskSettings(names=("zelk",), data="/nowhere")))


def test_a_check_finds_a_method_that_has_too_few_rounds() -> None:
    one = Experiment(rounds=1, methods={"mine": FedSb()})
    with pytest.raises(ValueError, match=r"methods\.mine: a start from gradients takes the first round"):
        check(one)
    check(replace(one, methods={"mine": FedSb(start="seed")}))  # which says nothing against it


def test_a_message_no_frame_holds_is_found_before_a_weight_is_looked_for(tmp_path: Path) -> None:
    """One block of 2**15 by 2**15 matrices: seven of 2 GiB in 16 bit, of a directory without weights."""
    sizes = {"hidden_size": 2**15, "intermediate_size": 2**15, "num_attention_heads": 8, "num_hidden_layers": 1}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, **sizes}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 8}))
    x = replace(ALL, model=replace(ALL.model, source=str(tmp_path)), methods={"mine": FedSb()})
    with pytest.raises(ValueError, match=r"methods\.mine: gradients of whole matrices in 16 bit take 14\.0 GiB"):
        check(x)


def test_a_check_reads_a_link_trace_to_the_last_round(tmp_path: Path) -> None:
    trace = tmp_path / "links.csv"
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    trace.write_text("time_s,from,to,gain\n" + "".join(f"0,{i},{j},1e-9\n" for i, j in pairs))
    channel = replace(ALL.channel, trace=str(trace), round_s=60.0)
    assert check(replace(ALL, channel=channel)) == check(ALL)
    with pytest.raises(ValueError, match=r"the trace has no sample from 0 to 1 .* 60 s, and 5 more gaps"):
        check(replace(ALL, channel=replace(channel, trace_max_age_s=30.0)))


def test_a_check_says_which_tasks_nobody_has() -> None:
    (note,) = check(replace(ALL, tasks=TaskSettings(names=("zelk", "morv", "vask", "glim"), train_examples=4)))
    assert note == "3 devices leave these tasks without one: glim"


def test_a_check_says_what_is_too_long(tmp_path: Path) -> None:
    rows = [{"instruction": "a" * 10, "output": "b"}, {"instruction": "a" * 40, "output": "b"}]
    for split in ("train", "test"):
        (tmp_path / "long").mkdir(exist_ok=True)
        (tmp_path / "long" / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tasks = TaskSettings(names=("long",), data=str(tmp_path))
    assert check(replace(ALL, devices=1, tasks=tasks, model=replace(ALL.model, max_length=20))) == [
        "1 training prompts of long (device 0) exceed the context; their beginnings are cut",
        "1 of 2 test prompts of long exceed the context; their beginnings are cut",
    ]


def test_devices_beyond_the_tasks_share_them() -> None:
    x = replace(ALL, devices=5, tasks=TaskSettings(names=("zelk", "morv")))
    assert x.setup().assignment == ("zelk", "morv", "zelk", "morv", "zelk")
    assert replace(x, devices=None).setup().assignment == ("zelk", "morv")


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"rounds": 0}, {"devices": 0}, {"workers": 0}, {"threads": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Experiment(**wrong)


def test_the_hard_routing_oracle_is_asked_by_owner(tmp_path: Path) -> None:
    """On the way too, all tasks are put to their own devices; nothing is sent and nothing is said about that."""
    alone = {"full": HardMoe(learning_rate=1e-3), "sparse": HardMoe(experts="sparse")}
    x = replace(SHORT, devices=3, methods=alone)
    assert list(run(x, tmp_path))[-1].share == 1.0
    journal = Journal(tmp_path)
    for label in alone:
        for exam in journal.exams(label):
            assert (len(exam["accuracy"]), exam["route_right"]) == (3, 1.0)
        assert len(journal.exams(label)) == 2
    summary = finish(x, tmp_path, [], 0.0)
    assert summary["notes"] == []
