"""Every annotation in the package, shapes included, is checked while the tests run."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: idle threads must not spin
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import checked
import pytest
from hypothesis import HealthCheck, settings

checked.install("orthomesh")

import torch

from orthomesh.methods.setup import Setup
from orthomesh.models.settings import ModelSettings, TrainSettings
from orthomesh.preparing import Wishes, prepare
from orthomesh.tasks.settings import TaskSettings
from orthomesh.wireless.link import Radio

torch.set_num_threads(1)

# the suite decides whether work lands, so it tries the same examples every time, until somebody explores
HOUSE = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("house", HOUSE)
settings.register_profile("explore", HOUSE, derandomize=False, max_examples=400)
settings.load_profile(PROFILE := os.environ.get("HYPOTHESIS_PROFILE", "house"))
if PROFILE == "house":  # it also draws constants of all modules imported so far: one test alone would get others
    with suppress(ImportError):  # inner parts of hypothesis: where they have moved, only that remains
        from hypothesis.internal.constants_ast import Constants

        place = "hypothesis.internal.conjecture.providers._get_local_constants"
        pytest.MonkeyPatch().setattr(place, Constants, raising=False)


def pytest_collection_finish() -> None:
    """What was imported stays; a collector that walks over it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_setup() -> Setup:
    """Four devices with an embedded task each, and training that takes milliseconds."""
    return Setup(
        seed=0,
        assignment=("zelk", "morv", "vask", "glim"),
        model=ModelSettings(),
        train=TrainSettings(steps=4, batch_size=4),
        tasks=TaskSettings(train_examples=20, test_examples=10),
        radio=Radio(),
    )


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Finds ports of loopback that nobody listens on just now."""
    return _free_ports


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture
def peer_files(tmp_path: Path) -> Callable[..., list[Path]]:
    """Makes the files of peers `a`, `b`, ... on loopback that learn next to nothing in next to no time."""

    def make(
        count: int, *overrides: str, encrypted: bool = True, place: str = "peers", air: str = "simulated"
    ) -> list[Path]:
        names = "abcdefgh"[:count]
        quick = ("rounds=3", "train.steps=4", "train.batch_size=4", "tasks.train_examples=20", "tasks.test_examples=3")
        devices = [f"{name}=127.0.0.1:{port}" for name, port in zip(names, _free_ports(count), strict=True)]
        wishes = Wishes(
            preset="smoke", overrides=(*quick, *overrides), run="test", air=air, encrypted=encrypted
        )  # fmt: skip
        list(prepare(tmp_path / place, devices, wishes))
        return [tmp_path / place / name / "node.yaml" for name in names]

    return make
