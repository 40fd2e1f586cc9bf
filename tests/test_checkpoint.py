"""What survives: a checkpoint comes back bitwise or not at all, and a write that fails leaves the old one."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orthomesh.checkpoint import Shelf, digest, load_devices, save_devices, write_whole
from orthomesh.types import DeviceState

States = Mapping[int, DeviceState]
DTYPES = ("float16", "float32", "float64", "uint8", "uint16", "uint32", "uint64", "int32", "int64")

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
names = st.text("abcB/0123456789_", min_size=1, max_size=8)
places = st.dictionaries(names, arrays, max_size=3)
devices = st.dictionaries(st.integers(0, 30), st.tuples(places, places), max_size=3).map(
    lambda d: {k: DeviceState(id=k, own=own, bank=bank) for k, (own, bank) in d.items()}
)


def example(x: float = 1.0) -> dict[int, DeviceState]:
    own = {"B": np.array([x, -2.0], dtype=np.float32), "seed": np.array(2**63 + 1, dtype=np.uint64)}
    bank = {"member/1/mask": np.array([3, 255], dtype=np.uint8)}
    return {0: DeviceState(id=0, own=own, bank=bank), 7: DeviceState(id=7, own={})}


def same(one: States, two: States) -> bool:
    """Bitwise equality, written without the digest."""

    def flat(states: States) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
        return {
            f"{k} {part} {n}": (a.dtype.str, a.shape, a.tobytes())
            for k, d in states.items()
            for part, held in (("own", d.own), ("bank", d.bank))
            for n, a in held.items()
        }

    return sorted(one) == sorted(two) and flat(one) == flat(two)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


# example


def test_states_and_rounds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "below" / "x.safetensors"
    save_devices(path, example(), 3)
    states, done = load_devices(path)
    assert done == 3
    assert same(states, example())
    assert int(states[0].own["seed"]) == 2**63 + 1
    assert os.listdir(path.parent) == ["x.safetensors"]


def twins() -> dict[int, DeviceState]:
    """Two devices with one and the same array."""
    one = example()[0]
    return {0: one, 7: replace(one, id=7)}


def shared(num: int) -> dict[int, DeviceState]:
    """Devices that have the same record of everybody, each with something of its own."""
    records = {f"cluster/{k}/values": np.full(500, k, dtype=np.float32) for k in range(num)}
    return {k: DeviceState(id=k, own={"B": np.array([k])}, bank=dict(records)) for k in range(num)}


def test_what_devices_share_is_written_once_and_shared_again(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_devices(path, shared(8), 3)
    assert path.stat().st_size < 2 * 8 * 2000  # instead of 8 times as much
    states, done = load_devices(path)
    assert done == 3
    assert same(states, shared(8))
    assert digest(states) == digest(shared(8))
    assert states[0].bank["cluster/5/values"] is states[7].bank["cluster/5/values"]


def test_a_digest_is_sha_256_of_names_types_shapes_and_bytes() -> None:
    spelt = b"0/own/B|<f4|(2,)|" + np.array([1.0, -2.0], "<f4").tobytes()
    spelt += b"0/own/seed|<u8|()|" + (2**63 + 1).to_bytes(8, "little")
    spelt += b"0/bank/member/1/mask|" + b"|u1|(2,)|" + bytes([3, 255])
    assert digest(example()) == hashlib.sha256(spelt).hexdigest()


# law


@given(devices, st.integers(0, 10**6))
def test_what_is_saved_is_what_is_loaded(scratch: Path, states: States, rounds: int) -> None:
    path = scratch / "law.safetensors"
    save_devices(path, states, rounds)
    loaded, done = load_devices(path)
    assert done == rounds
    assert same(loaded, states)
    assert digest(loaded) == digest(states)


@given(devices, devices)
def test_digests_are_equal_just_when_the_states_are(one: States, two: States) -> None:
    filled = [{k: d for k, d in s.items() if d.own or d.bank} for s in (one, two)]
    assert (digest(one) == digest(two)) == same(*filled)


@given(devices)
def test_a_digest_does_not_know_the_order_of_insertion(states: States) -> None:
    turned = {
        k: DeviceState(id=k, own=dict(reversed(d.own.items())), bank=dict(reversed(d.bank.items())))
        for k, d in reversed(states.items())
    }
    assert digest(turned) == digest(states)


# damage


def test_a_checkpoint_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_devices(path, example(), 3)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            load_devices(path)


@pytest.mark.parametrize("states", [example(), twins()])
def test_a_byte_changed_anywhere_is_refused_by_name(states: States, tmp_path: Path) -> None:
    path = tmp_path / "bent.safetensors"
    save_devices(path, states, 3)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for flip in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=r"bent\.safetensors"):
                load_devices(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    save_devices(path, example(), 3)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"long\.safetensors"):
        load_devices(path)


def test_what_was_never_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.safetensors cannot be read"):
        load_devices(tmp_path / "none.safetensors")


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(1)}, path, metadata={"schema": "99"})
    with pytest.raises(ValueError, match="version '99', this code reads '1' and '2'"):
        load_devices(path)


# no space


def fails(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_when_the_disk_is_full_the_old_file_stays(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_devices(path, example(), 1)
    monkeypatch.setattr(f"orthomesh.checkpoint.os.{step}", fails)
    with pytest.raises(OSError, match="No space left"):
        save_devices(path, example(5.0), 2)
    monkeypatch.undo()
    states, done = load_devices(path)
    assert done == 1
    assert same(states, example())
    assert os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_device_that_really_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_whole(path, b"old")
    (tmp_path / ".x.json.new").symlink_to("/dev/full")  # where the attempt is written
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new" * 100_000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_file_system_that_fills_up_the_old_file_stays(tiny_disk: Path) -> None:
    path = tiny_disk / "x.safetensors"
    save_devices(path, example(), 1)
    large = {0: DeviceState(id=0, own={"B": np.zeros(100_000, dtype=np.float32)})}
    with pytest.raises(OSError, match="No space left"):
        save_devices(path, large, 2)
    assert os.listdir(tiny_disk) == ["x.safetensors"]
    assert same(load_devices(path)[0], example())
    save_devices(path, example(5.0), 2)
    assert same(load_devices(path)[0], example(5.0))


def test_what_a_killed_write_left_behind_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    (tmp_path / ".x.json.new").write_bytes(b"half of someth")
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_whole(tmp_path / "file" / "x.json", b"new")


def test_what_cannot_be_written_is_kept_and_the_latest_is_written(tmp_path: Path) -> None:
    shelf, full = Shelf(), [True]

    def write(name: str, text: str) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(tmp_path / name, text.encode())

    said = shelf.put("the state", partial(write, "state", "old"))
    assert said == "the state cannot be written, No space left on device; kept in memory until it can"
    assert shelf.put("a record", partial(write, "record", "1")) == ""  # that has been said
    assert shelf.put("the state", partial(write, "state", "new")) == ""
    full[0] = False
    assert shelf.clear() == ""
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"state": "new", "record": "1"}
    (tmp_path / "state").unlink()
    assert shelf.clear() == ""  # nothing is written twice
    assert not (tmp_path / "state").exists()


def test_two_that_write_one_file_at_a_time_both_succeed(tmp_path: Path) -> None:
    path, data = tmp_path / "x.json", [b"first" * 100, b"second" * 100]

    def write(mine: bytes) -> set[bytes]:
        seen = set()
        for _ in range(50):
            write_whole(path, mine)
            seen.add(path.read_bytes())
        return seen

    with ThreadPoolExecutor(2) as two:
        seen = set.union(*two.map(write, data))
    assert seen <= {*data}
    assert os.listdir(tmp_path) == ["x.json"]
