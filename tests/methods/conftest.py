"""Runs of the paper's method on the embedded model, for whoever wants to look at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from orthomesh.engines.inprocess import InProcess
from orthomesh.methods import MethodSettings
from orthomesh.methods.parts import unpack
from orthomesh.methods.setup import Setup
from orthomesh.methods.sparse_orthogonal import SparseOrthogonal
from orthomesh.round import run_round
from orthomesh.types import Air, DeviceState, Method, Round, RoundInfo
from orthomesh.wireless.air import IdealAir

TASKS = ("zelk", "morv", "quib", "vask", "glim")


@dataclass(frozen=True)
class Played:
    """A method and what became of its devices, round by round."""

    method: Method
    states: list[dict[int, DeviceState]] = field(default_factory=list)
    infos: list[RoundInfo] = field(default_factory=list)

    @property
    def last(self) -> dict[int, DeviceState]:
        return self.states[-1]

    def sent(self, column: str) -> list[int]:
        """Bytes of a column by round, all devices together."""
        return [sum(s.bytes_sent.get(column, 0) for s in i.cost.by_device.values()) for i in self.infos]  # type: ignore

    def owners(self, round_: int = -1) -> list[list[int]]:
        """Whose experts each device holds."""
        return [[e.owner for e in self.method.bank(d).experts] for d in self.states[round_].values()]

    def masks(self, round_: int = -1) -> np.ndarray:
        """Masks of all devices. [M, n]"""
        return np.stack([unpack(d.own["mask"], d.own["B"].size) for d in self.states[round_].values()])


def _play(
    settings: MethodSettings,
    setup: Setup,
    rounds: int = 2,
    air: Air | None = None,
    fresh: Mapping[int, Iterable[int]] | None = None,
    absent: Iterable[int] = (),
) -> Played:
    """fresh: devices that start anew before a round, by its number from 0. absent: those that are not there before."""
    played = Played(settings.build(setup))
    engine = InProcess(setup.num_devices)
    devices = {k: played.method.init(k) for k in engine.hosted if k not in tuple(absent)}
    for index in range(rounds):
        devices = {**devices, **{k: played.method.init(k) for k in (fresh or {}).get(index, ())}}
        t = Round(setup.seed, index, rounds)
        devices, info = run_round(t, devices, played.method, air or IdealAir(), engine)
        played.states.append(devices)
        played.infos.append(info)
    return played


@pytest.fixture(scope="session")
def play() -> Callable[..., Played]:
    return _play


@pytest.fixture(scope="session")
def small(tiny_setup: Setup) -> Callable[..., Setup]:
    """The run's settings for some tasks, with few steps unless said otherwise."""

    def made(tasks: int | tuple[str, ...], **train: Any) -> Setup:
        names = TASKS[:tasks] if isinstance(tasks, int) else tasks
        steps = {"steps": 2, "batch_size": 2, **train}
        return replace(tiny_setup, assignment=names, train=replace(tiny_setup.train, **steps))

    return made


@pytest.fixture(scope="session")
def quarters(small: Callable[..., Setup]) -> Played:
    """Five devices of density 1/4: a cluster of four that just fit, and one alone."""
    return _play(SparseOrthogonal(density=0.25, max_collision=0.0), small(5), rounds=3)
