"""What a run came to: bytes, airtime and energy of a device by hand, collisions by counting, one hash for all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthomesh.evaluation.accuracy import Score
from orthomesh.evaluation.examine import Result
from orthomesh.evaluation.record import Journal
from orthomesh.evaluation.summary import SCHEMA, joint_digest, row
from orthomesh.types import Cost, DeviceState, Learnt, Plan, RoundInfo, Spend

SUMMARY = Path(__file__).parents[2] / "docs" / "summary.md"
SIZES = (4, 8)


def info(index: int, spent: Mapping[int, Spend], clusters: tuple[tuple[int, ...], ...] = ()) -> RoundInfo:
    learnt = {k: Learnt(first_loss=2.0, last_loss=1.0, steps=24, trained=300 + index) for k in (0, 1)}
    return RoundInfo(
        index=index, plan=Plan(phases=(), clusters=clusters), learnt=learnt, cost=Cost(spent, 0.25 + index), links=()
    )


def plain(ids: Sequence[int]) -> dict[int, DeviceState]:
    return {k: DeviceState(id=k, own={}) for k in ids}


def masked(id: int, mask: str) -> DeviceState:
    """A device whose mask over layers of 4 and 8 entries is written out, a space between them or not."""
    active = np.array([c == "1" for c in mask.replace(" ", "")])
    quota = np.array([active[:4].sum(), active[4:].sum()], dtype=np.uint32)
    own = {"mask": np.packbits(active), "quota": quota, "sizes": np.array(SIZES, dtype=np.uint32)}
    return DeviceState(id=id, own=own)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Two rounds of two devices, and examinations on the way and in the end."""
    journal = Journal(tmp_path)
    first = {0: Spend(bytes_sent={"values": 100, "one_off": 8}, airtime_s=0.5, energy_j=0.1, lost=1, power_w=0.2)}
    second = {
        0: Spend(bytes_sent={"values": 50, "control": 6}, airtime_s=0.25, energy_j=0.05, lost=2, power_w=0.2),
        1: Spend(bytes_sent={"values": 30, "control": 2}, airtime_s=0.125, energy_j=0.025, power_w=0.1),
    }
    early, late = [{"a": Score(4, 1, -1, 0)}], [{"a": Score(4, 3, 2, 0), "b": Score(8, 2, 8, 0, 4)}]
    journal.write_round("ours", info(0, first), plain((0, 1)), seconds=0.0)
    journal.write_exam("ours", 1, Result(early, [1], {0: 1}))
    journal.write_round("ours", info(1, second, ((0, 1),)), plain((0, 1)), seconds=0.0)
    journal.write_exam("ours", 2, Result(late, [2], {0: 2, 1: 1}))
    return journal


def clustered(place: Path, clusters: tuple[tuple[int, ...], ...], ids: Sequence[int]) -> Journal:
    """A run of one round that ended in these clusters."""
    journal = Journal(place)
    learnt = {k: Learnt(first_loss=2.0, last_loss=1.0, steps=24, trained=3) for k in ids}
    plan = Plan(phases=(), clusters=clusters)
    told = RoundInfo(index=0, plan=plan, learnt=learnt, cost=Cost(), links=())
    journal.write_round("ours", told, plain(ids), seconds=0.0)
    journal.write_exam("ours", 1, Result([{"a": Score(1, 1, 1, 0)}], [len(ids)], dict.fromkeys(ids, 1)))
    return journal


# example


def test_a_row_on_paper(journal: Journal) -> None:
    made = row(journal, "ours", "sparse_orthogonal", plain((0, 1)))
    assert (made["label"], made["kind"]) == ("ours", "sparse_orthogonal")
    assert (made["accuracy"], made["mean"]) == ({"a": 0.75, "b": 0.25}, 0.5)
    sent = {"values": 90.0, "mask": 0.0, "codes": 0.0, "control": 4.0, "one_off": 4.0}
    assert made["bytes_per_device"] == sent
    assert made["bytes_per_device_round"] == {c: n / 2 for c, n in sent.items()}
    assert made["airtime_s"] == (0.5 + 0.25 + 0.125) / 2
    assert made["energy_j"] == pytest.approx((0.1 + 0.05 + 0.025) / 2)
    assert made["lost"] == 1.5
    assert made["unread"] == {"a": 0, "b": 0.5}
    assert (made["as_trained"], made["aggregated"]) == (None, None)
    assert made["elapsed_s"] == 0.25 + 1.25
    assert made["trained_parameters"] == 301
    assert made["experts_held"] == 1.5
    assert made["route_right"] == 10 / 12
    assert made["clusters"] == [[0, 1]]
    assert made["collision"] is None  # these devices have no masks


def test_own_tasks_before_and_after_the_last_exchange(journal: Journal) -> None:
    own = {"a": Score(4, 4, -1, 0)}
    journal.write_trained("ours", 2, Result([own], [1], {}, own))
    assert row(journal, "ours", "local", None)["aggregated"] == {}
    after = {"a": Score(4, 1, -1, 0)}
    journal.write_exam("ours", 2, Result([after], [2], {0: 1, 1: 1}, after))
    made = row(journal, "ours", "local", None)
    assert (made["as_trained"], made["aggregated"]) == ({"a": 1.0}, {"a": 0.25})


def test_the_base_costs_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write_exam("base", 0, Result([{"a": Score(4, 1, -1, 0)}], [1], {0: 0}))
    made = row(journal, "base", "base", None)
    assert set(made["bytes_per_device"].values()) == set(made["bytes_per_device_round"].values()) == {0}
    free = ("airtime_s", "energy_j", "lost", "elapsed_s", "trained_parameters", "experts_held")
    assert [made[name] for name in free] == [0] * 6
    assert (made["route_right"], made["clusters"], made["collision"], made["mean"]) == (None, [], None, 0.25)


def test_collisions_of_two_masks_on_paper(tmp_path: Path) -> None:
    devices = {
        0: masked(0, "1100 10000000"),
        1: masked(1, "0101 01110000"),
    }
    made = row(clustered(tmp_path, ((0, 1),), (0, 1)), "ours", "sparse_orthogonal", devices)
    # (19) of two is s_1 s_2: 1/2 * 1/2 and 1/8 * 3/8; one of four positions is held twice, and none of eight
    assert made["collision"] == {"expected": [0.25, 3 / 64], "empirical": [0.25, 0.0]}


def test_collisions_are_means_over_devices_and_count_inside_clusters_only(tmp_path: Path) -> None:
    full, half = "1111 11111111", "1100 11110000"
    devices = {0: masked(0, full), 3: masked(3, half), 1: masked(1, full), 2: masked(2, full), 4: masked(4, half)}
    made = row(clustered(tmp_path, ((0, 3, 4), (1,), (2,)), (0, 1, 2, 3, 4)), "ours", "sparse_orthogonal", devices)
    # of 1, 1/2 and 1/2 the first holds all and one of the others must come: 1 - 1/4; the two halves lie on each other
    assert made["collision"]["expected"] == pytest.approx([3 / 5 * 0.75] * 2)
    assert made["collision"]["empirical"] == pytest.approx([3 / 5 * 0.5] * 2)


# reference


def test_a_row_has_the_documented_fields(journal: Journal) -> None:
    text = SUMMARY.read_text(encoding="utf-8")
    assert f"schema {SCHEMA}\n" in text
    per_method = text[text.index("Per method;") :]
    cells = re.findall(r"^\| (`.*?) \|", per_method, flags=re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert documented == row(journal, "ours", "local", None).keys() - {"mean"}
    assert "`mean` over tasks" in per_method


masks = st.lists(st.text("01", min_size=12, max_size=12), min_size=1, max_size=4)


@settings(max_examples=30)
@given(masks)
def test_collisions_are_what_counting_and_all_outcomes_say(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[str]
) -> None:
    ids = tuple(range(len(drawn)))
    devices = {k: masked(k, mask) for k, mask in enumerate(drawn)}
    made = row(clustered(tmp_path_factory.mktemp("run"), (ids,), ids), "ours", "sparse_orthogonal", devices)
    for layer, cut in enumerate((slice(0, 4), slice(4, 12))):
        held = np.array([[int(c) for c in mask[cut]] for mask in drawn])
        assert made["collision"]["empirical"][layer] == pytest.approx(np.mean(held.sum(axis=0) >= 2))
        s = held.mean(axis=1)
        several = sum(
            np.prod([s[k] if k in who else 1 - s[k] for k in ids])
            for size in range(2, len(ids) + 1)
            for who in combinations(ids, size)
        )
        assert made["collision"]["expected"][layer] == pytest.approx(several, abs=1e-12)


# law

digests = st.dictionaries(st.text("ab-_1", min_size=1, max_size=3), st.sampled_from(["00", "0f", "ff"]))


@given(digests, st.randoms(use_true_random=False))
def test_the_joint_hash_knows_no_order(by_label: dict[str, str], random: object) -> None:
    labels = list(by_label)
    random.shuffle(labels)  # type: ignore[attr-defined]
    assert joint_digest({k: by_label[k] for k in labels}) == joint_digest(by_label)


@given(digests, digests)
def test_the_joint_hash_is_equal_just_where_all_are(one: dict[str, str], other: dict[str, str]) -> None:
    assert (joint_digest(one) == joint_digest(other)) == (one == other)


# edge


def test_hashes_of_two_methods_exchanged_are_another_run() -> None:
    assert joint_digest({"a": "00", "b": "ff"}) != joint_digest({"a": "ff", "b": "00"})
    assert joint_digest({"a": "00"}) != joint_digest({"b": "00"})
    assert re.fullmatch("[0-9a-f]{64}", joint_digest({}))


def test_collisions_are_told_only_where_all_have_masks_and_clusters(tmp_path: Path) -> None:
    devices = {0: masked(0, "1" * 12), 1: masked(1, "1" * 12)}
    assert row(clustered(tmp_path / "none", (), (0, 1)), "ours", "local", devices)["collision"] is None
    waiting = {**devices, 1: DeviceState(id=1, own={"B": np.zeros(12, dtype=np.float32)})}
    journal = clustered(tmp_path / "one", ((0, 1),), (0, 1))
    assert row(journal, "ours", "sparse_orthogonal", waiting)["collision"] is None
    assert row(journal, "ours", "sparse_orthogonal", devices)["collision"] is not None


def test_a_run_of_one_round_divides_by_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write_round("ours", info(0, {1: Spend(bytes_sent={"mask": 10})}), plain((0, 1)), seconds=0.0)
    journal.write_exam("ours", 1, Result([{"a": Score(1, 1, 1, 0)}], [2], {0: 1, 1: 1}))
    made = row(journal, "ours", "local", None)
    assert made["bytes_per_device"]["mask"] == made["bytes_per_device_round"]["mask"] == 5.0


def test_without_an_examination_there_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        row(Journal(tmp_path), "ours", "local", None)
