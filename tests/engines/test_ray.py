"""A Ray cluster computes what this process computes, bit for bit, even when a worker is killed at its work."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orthomesh.checkpoint import digest
from orthomesh.engines.inprocess import InProcess
from orthomesh.engines.ray import RayPool, ray_pool
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.round import run_round
from orthomesh.types import DeviceState, Round
from orthomesh.wireless.air import SimulatedAir
from orthomesh.wireless.channel import Channel

pytest.importorskip("ray", reason="Ray is an extra")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)
ROUNDS = 3


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # on a busy machine workers that yield to all others never start
        made = ray_pool(2, 1)
        yield made
        made.shutdown()


def die_once(device: DeviceState, flag: str) -> tuple[DeviceState, int]:
    """Kills its own process the first time it is called with a flag."""
    path = Path(flag)
    if device.id == 1 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return device, os.getpid()


def refuse(device: DeviceState) -> None:
    raise ValueError(f"device {device.id} has no rows")


def play(setup: Setup, engine: InProcess) -> dict[int, DeviceState]:
    method = SparseOrthogonal().build(setup)
    air = SimulatedAir(channel=Channel(radius_m=100.0), radio=setup.radio, seed=1, num_devices=setup.num_devices)
    devices = {k: method.init(k) for k in engine.hosted}
    for index in range(ROUNDS):
        devices, _ = run_round(Round(setup.seed, index, ROUNDS), devices, method, air, engine)
    return devices


@pytest.mark.timeout(300)
def test_three_rounds_on_a_cluster_end_with_the_same_states(pool: RayPool, tiny_setup: Setup) -> None:
    here = play(tiny_setup, InProcess(tiny_setup.num_devices))
    there = play(tiny_setup, InProcess(tiny_setup.num_devices, pool))
    assert digest(there) == digest(here)


@pytest.mark.timeout(300)
def test_a_worker_killed_at_its_work_is_replaced_and_nothing_changes(pool: RayPool, tmp_path: Path) -> None:
    devices = {k: DeviceState(id=k, own={"B": np.arange(k + 1.0)}) for k in range(4)}
    found = InProcess(4, pool).map(die_once, devices, str(tmp_path / "flag"))
    assert (tmp_path / "flag").exists()
    assert digest({k: d for k, (d, _) in found.items()}) == digest(devices)
    assert os.getpid() not in {pid for _, pid in found.values()}


@pytest.mark.timeout(300)
def test_what_a_worker_finds_wrong_arrives_as_it_was_said(pool: RayPool) -> None:
    with pytest.raises(ValueError, match=r"^device 0 has no rows$"):
        InProcess(1, pool).map(refuse, {0: DeviceState(id=0, own={})})


def test_a_cluster_with_too_few_cores_is_refused(pool: RayPool) -> None:
    with pytest.raises(ValueError, match="engine: 3 workers want 12 CPUs of the Ray cluster, it has 2"):
        ray_pool(3, 4)


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"engine: ray is not installed; pip install 'orthomesh\[ray\]'"):
        ray_pool(1, 1)


@pytest.mark.parametrize("failures", [1, 4])
def test_a_start_that_takes_too_long_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    asked: list[dict[str, object]] = []

    def init(**settings: object) -> None:
        asked.append(settings)
        if len(asked) <= failures:
            raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    wanted = "this machine, asked 4 times: The current node timed out" if failures == 4 else "2 workers want 2 CPUs"
    with pytest.warns(UserWarning, match="once more"), pytest.raises(ValueError, match=wanted):
        ray_pool(2, 1)
    assert len(asked) == min(failures + 1, 4)
    assert all(settings["num_cpus"] == 2 for settings in asked)


def test_a_cluster_that_is_not_there_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def init(**settings: object) -> None:
        raise ConnectionError(f"nobody at {settings['address']}")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 10\.0\.0\.9:1: nobody at 10\.0\.0\.9:1"):
        ray_pool(1, 1, "10.0.0.9:1")
